//! Submitting: a new job, its test, and the news of it.

use super::Inner;
use super::rows::{self, JobRow};
use crate::broker::embedded::save_snapshot;
use crate::model::event::{JobEvent, test_progress_channel};
use crate::model::{ChannelName, Job, JobId, JobState, Snapshot, TestId, now_ms};
use crate::queue::events::Teller;
use crate::queue::{NewJob, QueueError, Submitted};
use crate::store::WriteTx;

pub(super) fn submit(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    new: &NewJob,
) -> rusqlite::Result<Result<Submitted, QueueError>> {
    let added = add(inner, tx, new, None)?;
    Ok(added.map(|added| {
        if !added.existing {
            inner.wake_after_commit(tx, added.row.job.state);
        }
        Submitted { job: added.row.job, existing: added.existing }
    }))
}

/// A job that was added, or found.
pub(super) struct Added {
    pub(super) row: JobRow,
    pub(super) existing: bool,
}

/// How a job is held outside.
pub(super) struct Outside {
    pub(super) lease_ms: u64,
    pub(super) secret: String,
}

/// Adds a job, its test, and the news of it; or finds the one that has its dedupe key.
pub(super) fn add(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    new: &NewJob,
    outside: Option<Outside>,
) -> rusqlite::Result<Result<Added, QueueError>> {
    if let Some(key) = &new.dedupe_key
        && let Some(row) = rows::find_by_dedupe_key(tx.conn(), key)?
    {
        return Ok(Ok(Added { row, existing: true }));
    }
    let test_id = new.test_id.clone().unwrap_or_else(|| TestId::generate(&new.test_type));
    if let Some(active) = rows::find_active(tx.conn(), &test_id)? {
        return Ok(Err(QueueError::TestActive { test: test_id, job: active.job.job_id }));
    }
    let now = now_ms();
    let mut job = job_of(new, test_id, inner.options.max_attempts, now);
    if let Some(outside) = &outside {
        job.lease_ms = Some(outside.lease_ms);
        (job.max_attempts, job.state, job.run_at) = (1, JobState::Queued, None);
    }
    let mut row = JobRow {
        job,
        seq: 0,
        attempt_base: 0,
        fence: 0,
        event_seq: 1,
        cancel_reason: None,
        cancelled_by: None,
        secret: outside.map(|outside| outside.secret),
    };
    row.seq = rows::insert(tx.conn(), &row)?;
    restart_test(tx, &row.job, now)?;
    announce(inner, tx, &row, now)?;
    Ok(Ok(Added { row, existing: false }))
}

fn job_of(new: &NewJob, test_id: TestId, max_attempts: u32, now: i64) -> Job {
    let run_at = new.run_at.filter(|at| *at > now);
    Job {
        job_id: JobId::generate(),
        test_id,
        test_type: new.test_type.clone(),
        name: new.name.clone(),
        lease_ms: None,
        config: new.config.clone(),
        state: if run_at.is_some() { JobState::Scheduled } else { JobState::Queued },
        priority: new.priority,
        attempt: 0,
        max_attempts: new.max_attempts.unwrap_or(max_attempts).max(1),
        timeout_ms: new.timeout_ms,
        dedupe_key: new.dedupe_key.clone(),
        team_id: new.team_id.clone(),
        user_id: new.user_id.clone(),
        traceparent: new.traceparent,
        created_at: now,
        run_at,
        started_at: None,
        ended_at: None,
        worker_id: None,
        cancel_requested: false,
        error: None,
        waiting: None,
    }
}

/// The test begins anew: what it was before stays in its channel, but not in its state.
pub(super) fn restart_test(tx: &WriteTx<'_>, job: &Job, now: i64) -> rusqlite::Result<()> {
    let Ok(channel) = ChannelName::parse(&test_progress_channel(&job.test_id)) else { return Ok(()) };
    let epoch = tx.ensure_channel(&channel, now)?.epoch;
    let mut snapshot = Snapshot::new(job.test_id.clone(), &job.test_type, job.state, epoch);
    snapshot.job_id = Some(job.job_id.clone());
    snapshot.attempt = job.attempt;
    snapshot.queued_at = Some(now);
    // Newest first is how tests are listed, and this one is new again.
    tx.conn().prepare_cached("DELETE FROM test WHERE id = ?1")?.execute([job.test_id.as_str()])?;
    save_snapshot(tx.conn(), &snapshot, now)
}

/// Tells of a job that was added.
pub(super) fn announce(inner: &Inner, tx: &mut WriteTx<'_>, row: &JobRow, now: i64) -> rusqlite::Result<()> {
    let depth = rows::depth(tx.conn())?;
    let teller =
        Teller { rules: &inner.rules, job: &row.job, event_seq: row.event_seq, now_ms: now, named: None };
    inner.tell(tx, [teller.job(JobEvent::Added, None, Some(depth))])
}
