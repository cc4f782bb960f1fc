//! Control by people: cancel and retry.

use super::Inner;
use super::attempt::end_cancelled;
use super::rows::{self, JobRow};
use super::submit::{announce, restart_test};
use crate::model::{Job, JobId, JobState, UserId, now_ms};
use crate::queue::QueueError;
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
