//! Control by people: cancel, retry, pause, another priority.

use super::Inner;
use super::attempt::end_cancelled;
use super::lanes::pauses;
use super::rows::{self, JobRow};
use super::submit::{announce, restart_test};
use crate::model::event::JobEvent;
use crate::model::{Job, JobId, JobState, MessageId, Pause, Priority, Scope, UserId, now_ms};
use crate::queue::events::pause_changed;
use crate::queue::{MAX_PAUSES, QueueError, Resumed};
use crate::store::WriteTx;

pub(super) fn cancel(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    job: &JobId,
    reason: Option<&str>,
    by: Option<&UserId>,
) -> rusqlite::Result<Result<Job, QueueError>> {
    let Some(mut row) = rows::find(tx.conn(), job)? else {
        return Ok(Err(QueueError::NotFound(job.clone())));
    };
    if row.job.state.is_terminal() {
        return Ok(Err(QueueError::Ended { job: job.clone(), state: row.job.state }));
    }
    if !row.job.cancel_requested {
        row.cancel_reason = reason.map(str::to_owned);
        row.cancelled_by = by.cloned();
    }
    row.job.cancel_requested = true;
    if row.job.state != JobState::Running {
        return end_cancelled(inner, tx, row).map(Ok);
    }
    tx.conn()
        .prepare_cached(
            "UPDATE job SET cancel_requested = 1, cancel_reason = ?2, cancelled_by = ?3 WHERE seq = ?1",
        )?
        .execute((row.seq, &row.cancel_reason, row.cancelled_by.as_ref().map(UserId::as_str)))?;
    let (sender, id) = (inner.cancellations.clone(), job.clone());
    tx.after_commit(move || {
        // Nobody listens where no worker runs; the lease's end then finds the wish in the row.
        let _ = sender.send(id);
    });
    Ok(Ok(row.job))
}

pub(super) fn retry(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    job: &JobId,
) -> rusqlite::Result<Result<Job, QueueError>> {
    let Some(mut row) = rows::find(tx.conn(), job)? else {
        return Ok(Err(QueueError::NotFound(job.clone())));
    };
    if row.job.lease_ms.is_some() {
        return Ok(Err(QueueError::Outside(job.clone())));
    }
    if !row.job.state.is_terminal() {
        return Ok(Err(QueueError::NotEnded { job: job.clone(), state: row.job.state }));
    }
    if let Some(active) = rows::find_active(tx.conn(), &row.job.test_id)? {
        return Ok(Err(QueueError::TestActive { test: row.job.test_id, job: active.job.job_id }));
    }
    let now = now_ms();
    begin_again(inner, tx, &mut row, now)?;
    inner.wake_after_commit(tx, row.job.state);
    Ok(Ok(row.job))
}

/// Makes an ended job one that waits again, with all of its attempts.
pub(super) fn begin_again(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    row: &mut JobRow,
    now: i64,
) -> rusqlite::Result<()> {
    row.job.state = JobState::Queued;
    row.job.run_at = None;
    row.job.started_at = None;
    row.job.ended_at = None;
    row.job.worker_id = None;
    row.job.cancel_requested = false;
    row.job.error = None;
    row.attempt_base = row.job.attempt;
    row.cancel_reason = None;
    row.cancelled_by = None;
    row.event_seq += 1;
    rows::update(tx.conn(), row, None)?;
    restart_test(tx, &row.job, now)?;
    announce(inner, tx, row, now)
}

pub(super) fn pause(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    scope: &Scope,
    reason: Option<String>,
    by: Option<UserId>,
) -> rusqlite::Result<Result<(Pause, bool), QueueError>> {
    let known = pauses(tx.conn())?;
    let count = known.len();
    if let Some(pause) = known.into_iter().find(|pause| pause.scope() == *scope) {
        return Ok(Ok((pause, false)));
    }
    if count >= MAX_PAUSES {
        return Ok(Err(QueueError::TooManyPauses));
    }
    let now = now_ms();
    let pause = Pause::new(scope, now, by, reason);
    tx.conn()
        .prepare_cached("INSERT INTO pause (scope, since, by, reason) VALUES (?1, ?2, ?3, ?4)")?
        .execute((scope.key(), now, pause.by.as_ref().map(UserId::as_str), &pause.reason))?;
    inner.tell(tx, [pause_changed(&inner.rules, &pause, None, MessageId::generate(), now)])?;
    Ok(Ok((pause, true)))
}

pub(super) fn unpause(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    scope: &Scope,
    by: Option<UserId>,
) -> rusqlite::Result<Option<Resumed>> {
    let Some(pause) = pauses(tx.conn())?.into_iter().find(|pause| pause.scope() == *scope) else {
        return Ok(None);
    };
    tx.conn().prepare_cached("DELETE FROM pause WHERE scope = ?1")?.execute([scope.key()])?;
    let told = pause_changed(&inner.rules, &pause, Some(by.as_ref()), MessageId::generate(), now_ms());
    inner.tell(tx, [told])?;
    inner.wake_after_commit(tx, JobState::Queued);
    Ok(Some(Resumed { pause, by }))
}

pub(super) fn prioritise(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    job: &JobId,
    priority: Priority,
) -> rusqlite::Result<Result<Job, QueueError>> {
    let Some(mut row) = rows::find(tx.conn(), job)? else {
        return Ok(Err(QueueError::NotFound(job.clone())));
    };
    if !row.job.state.is_waiting() {
        return Ok(Err(QueueError::NotWaiting { job: job.clone(), state: row.job.state }));
    }
    if row.job.priority == priority {
        return Ok(Ok(row.job));
    }
    row.job.priority = priority;
    row.event_seq += 1;
    rows::update(tx.conn(), &row, None)?;
    let teller = inner.teller(&row, now_ms());
    inner.tell(tx, [teller.job(JobEvent::Updated, None, None)])?;
    Ok(Ok(row.job))
}
