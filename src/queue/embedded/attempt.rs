//! Attempts: claimed, kept alive, reported on, ended or given back.

use rusqlite::params;

use super::rows::{self, JobRow};
use super::{Inner, lanes, past};
use crate::metrics;
use crate::model::event::{JobEvent, TestEvent};
use crate::model::test::TestError;
use crate::model::{Job, JobState, WorkerId, now_ms};
use crate::queue::events::Teller;
use crate::queue::{
    CancelWish, Claim, Ending, Lease, LeaseStatus, QueueError, Report, TESTS_FAILED, WORKER_LOST,
};
use crate::store::WriteTx;
use serde_json::{Map, Value, json, value::to_raw_value};

pub(super) fn claim(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    worker: &WorkerId,
    types: &[String],
    max: usize,
) -> rusqlite::Result<Vec<Claim>> {
    let ready = lanes::next(tx.conn(), types, &inner.limits(), max)?;
    let now = now_ms();
    let mut claims = Vec::with_capacity(ready.len());
    for mut row in ready {
        begin(inner, tx, &mut row, worker, now, now)?;
        let waited = now - row.job.run_at.unwrap_or(row.job.created_at);
        tx.after_commit(move || metrics::job_wait(waited));
        let lease = Lease {
            job_id: row.job.job_id.clone(),
            attempt: row.job.attempt,
            fence: row.fence,
            holder: None,
        };
        claims.push(Claim { job: row.job, lease });
    }
    Ok(claims)
}

/// Begins the next attempt of `row`, which `by` runs.
pub(super) fn begin(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    row: &mut JobRow,
    by: &WorkerId,
    began: i64,
    now: i64,
) -> rusqlite::Result<()> {
    row.job.state = JobState::Running;
    row.job.attempt += 1;
    row.job.started_at = Some(began);
    row.job.worker_id = Some(by.clone());
    row.job.error = None;
    row.fence += 1;
    row.event_seq += 1;
    rows::update(tx.conn(), row, Some(inner.lease_until(&row.job, now)))?;
    let depth = rows::depth(tx.conn())?;
    let teller = inner.teller(row, now);
    inner.tell(tx, [teller.test_started(), teller.job(JobEvent::Started, None, Some(depth))])
}

pub(super) fn renew(inner: &Inner, tx: &WriteTx<'_>, leases: &[Lease]) -> rusqlite::Result<Vec<LeaseStatus>> {
    let now = now_ms();
    let mut statuses = Vec::with_capacity(leases.len());
    for lease in leases {
        let Some(row) = rows::find_leased(tx.conn(), lease)? else {
            statuses.push(LeaseStatus::Lost);
            continue;
        };
        tx.conn()
            .prepare_cached("UPDATE job SET lease_until = ?2 WHERE seq = ?1")?
            .execute(params![row.seq, inner.lease_until(&row.job, now)])?;
        let cancelled = row.job.cancel_requested;
        statuses.push(if cancelled { LeaseStatus::CancelRequested } else { LeaseStatus::Held });
    }
    Ok(statuses)
}

pub(super) fn report(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    lease: &Lease,
    reports: &[Report],
) -> rusqlite::Result<Result<Option<CancelWish>, QueueError>> {
    let Some(mut row) = rows::find_leased(tx.conn(), lease)? else { return Ok(Err(lost(lease))) };
    let now = now_ms();
    tell_reports(inner, tx, &mut row, reports, now)?;
    // Who reports is alive.
    rows::update(tx.conn(), &row, Some(inner.lease_until(&row.job, now)))?;
    let wanted = row.job.cancel_requested;
    Ok(Ok(wanted.then_some(CancelWish { reason: row.cancel_reason, by: row.cancelled_by })))
}

/// Tells the reports; the row is to be updated.
fn tell_reports(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    row: &mut JobRow,
    reports: &[Report],
    now: i64,
) -> rusqlite::Result<()> {
    for report in reports {
        row.event_seq += 1;
        let (named, report) = match report {
            Report::Named { name, report } => (Some(name.as_str()), &**report),
            report => (None, report),
        };
        let teller = Teller { named, ..inner.teller(row, now) };
        match report {
            Report::Progress { percent, data } => {
                let job = teller.job(JobEvent::Progress, Some(*percent), None);
                inner.tell(tx, [teller.test(TestEvent::Progress, data), job])?;
            }
            Report::Log { first_line, lines } => {
                let data = to_raw_value(&json!({ "firstLine": first_line, "lines": lines })).ok();
                let log = data.and_then(|data| teller.test(TestEvent::Log, &data));
                inner.tell(tx, [log])?;
            }
            Report::Custom { event, data } => inner.tell(tx, [teller.custom(event, data)])?,
            Report::Named { .. } => {
                tracing::warn!(job = %row.job.job_id, "a report with two names is not told")
            }
        }
    }
    Ok(())
}

pub(super) fn finish(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    lease: &Lease,
    last: &[Report],
    ending: &Ending,
) -> rusqlite::Result<Result<Job, QueueError>> {
    let Some(mut row) = rows::find_held(tx.conn(), lease)? else { return Ok(Err(lost(lease))) };
    if row.job.state != JobState::Running {
        // Whoever holds it outside asks again where the answer was lost.
        let told = row.job.state.is_terminal() && lease.holder.is_some() && !was_lost(&row.job);
        return Ok(if told { Ok(row.job) } else { Err(lost(lease)) });
    }
    tell_reports(inner, tx, &mut row, last, now_ms())?;
    let job = end_attempt(inner, tx, row, ending)?;
    past::note(tx.conn(), &job, ending, now_ms())?;
    Ok(Ok(job))
}

/// Whether it ended because nobody gave a sign of life.
pub(super) fn was_lost(job: &Job) -> bool {
    job.error.as_ref().is_some_and(|error| error.code == WORKER_LOST)
}

pub(super) fn lost(lease: &Lease) -> QueueError {
    QueueError::LeaseLost { job: lease.job_id.clone(), attempt: lease.attempt }
}

/// Ends the running attempt of `row`: the job ends, or waits for its next attempt.
pub(super) fn end_attempt(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    row: JobRow,
    ending: &Ending,
) -> rusqlite::Result<Job> {
    match ending {
        // Asked for while the attempt was ending by itself: the end that it came to is the truth.
        Ending::Passed { results } => end(inner, tx, row, JobEvent::Completed, None, results),
        Ending::Failed { error, results } => {
            let left = row.job.attempt.saturating_sub(row.attempt_base) < row.job.max_attempts;
            if row.job.cancel_requested && error.code != TESTS_FAILED {
                end_cancelled(inner, tx, row)
            } else if left && error.code != TESTS_FAILED {
                let delay = backoff(inner, row.job.attempt - row.attempt_base);
                retry_later(inner, tx, row, error, results, delay)
            } else {
                end(inner, tx, row, JobEvent::Failed, Some(error), results)
            }
        }
        Ending::Cancelled => end_cancelled(inner, tx, row),
    }
}

fn end(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    mut row: JobRow,
    event: JobEvent,
    error: Option<&TestError>,
    results: &Map<String, Value>,
) -> rusqlite::Result<Job> {
    let now = now_ms();
    row.job.state = if error.is_none() { JobState::Completed } else { JobState::Failed };
    row.job.error = error.cloned();
    row.job.ended_at = Some(now);
    row.event_seq += 1;
    rows::update(tx.conn(), &row, None)?;
    let teller = inner.teller(&row, now);
    inner.tell(tx, [teller.test_ended(error, results, false), teller.job(event, None, None)])?;
    inner.free_slot(tx, &row.job);
    count_attempt(tx, &row.job, now);
    Ok(row.job)
}

/// Lets the job begin its next attempt after `delay_ms`.
fn retry_later(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    mut row: JobRow,
    error: &TestError,
    results: &Map<String, Value>,
    delay_ms: i64,
) -> rusqlite::Result<Job> {
    let now = now_ms();
    row.job.state = JobState::Retrying;
    row.job.error = Some(error.clone());
    row.job.run_at = Some(now + delay_ms);
    row.event_seq += 1;
    rows::update(tx.conn(), &row, None)?;
    let teller = inner.teller(&row, now);
    inner.tell(
        tx,
        [teller.test_ended(Some(error), results, true), teller.job(JobEvent::Retrying, None, None)],
    )?;
    inner.wake_after_commit(tx, JobState::Retrying);
    inner.free_slot(tx, &row.job);
    count_attempt(tx, &row.job, now);
    Ok(row.job)
}

/// Ends a job, in whichever state, as cancelled.
pub(super) fn end_cancelled(inner: &Inner, tx: &mut WriteTx<'_>, mut row: JobRow) -> rusqlite::Result<Job> {
    let now = now_ms();
    let ran = row.job.state == JobState::Running;
    row.job.state = JobState::Cancelled;
    // That of an earlier attempt is not why this ended.
    row.job.error = None;
    row.job.ended_at = Some(now);
    row.event_seq += 1;
    rows::update(tx.conn(), &row, None)?;
    let reason = row.cancel_reason.as_deref().unwrap_or("cancelled");
    let by = row.cancelled_by.as_ref().map(crate::model::UserId::as_str);
    let teller = inner.teller(&row, now);
    inner.tell(tx, [teller.test_cancelled(reason, by), teller.job(JobEvent::Cancelled, None, None)])?;
    if ran {
        inner.free_slot(tx, &row.job);
        count_attempt(tx, &row.job, now);
    }
    Ok(row.job)
}

/// Gives back what a worker holds that stops in good order.
pub(super) fn hand_back(inner: &Inner, tx: &mut WriteTx<'_>, worker: &WorkerId) -> rusqlite::Result<usize> {
    let held = rows::select(tx.conn(), "WHERE state = 'running' AND worker_id = ?1", [worker.as_str()])?;
    let n = held.len();
    for mut row in held {
        if row.job.cancel_requested {
            end_cancelled(inner, tx, row)?;
            continue;
        }
        // The attempt was cut short by us: it does not count.
        row.attempt_base += 1;
        let error = TestError {
            code: "worker_stopped".to_owned(),
            message: "the worker was stopped; the test begins anew".to_owned(),
        };
        retry_later(inner, tx, row, &error, &Map::new(), 0)?;
    }
    Ok(n)
}

/// The delay before the attempt after `attempts`: doubling, with a jitter of one half, so that jobs which
/// failed together do not come back together.
fn backoff(inner: &Inner, attempts: u32) -> i64 {
    let base = inner.options.backoff_base.as_millis();
    let doubled = base.saturating_mul(1 << attempts.saturating_sub(1).min(30));
    let capped = doubled.min(inner.options.backoff_max.as_millis());
    let capped = i64::try_from(capped).unwrap_or(i64::MAX);
    capped - fastrand::i64(0..=capped / 2)
}

/// Counted once it is committed: an operation may run more than once.
fn count_attempt(tx: &mut WriteTx<'_>, job: &Job, now: i64) {
    let outcome = match job.state {
        JobState::Completed => "passed",
        JobState::Cancelled => "cancelled",
        JobState::Retrying => "retried",
        _ => "failed",
    };
    let ran = now - job.started_at.unwrap_or(now);
    tx.after_commit(move || metrics::attempt(outcome, ran));
}

impl Inner {
    /// An attempt ended: where its suite has a limit, another may begin.
    fn free_slot(&self, tx: &mut WriteTx<'_>, job: &Job) {
        if job.suite().is_some_and(|suite| self.limits().contains_key(suite)) {
            self.wake_after_commit(tx, JobState::Queued);
        }
    }

    pub(super) fn lease_until(&self, job: &Job, now: i64) -> i64 {
        let lease = job.lease_ms.map_or(self.options.lease.as_millis(), u128::from);
        now + i64::try_from(lease).unwrap_or(i64::MAX / 2)
    }

    pub(super) fn teller<'a>(&'a self, row: &'a JobRow, now_ms: i64) -> Teller<'a> {
        Teller { rules: &self.rules, job: &row.job, event_seq: row.event_seq, now_ms, named: None }
    }
}
