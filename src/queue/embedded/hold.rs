//! Attempts that somebody outside of all workers holds.

use super::Inner;
use super::attempt::{begin, lost, was_lost};
use super::control::begin_again;
use super::rows::{self, JobRow};
use super::submit::{Outside, add};
use crate::model::{JobState, WorkerId, now_ms};
use crate::queue::{Claim, Held, Holder, Lease, NewHold, QueueError};
use crate::store::WriteTx;

pub(super) fn hold(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    new: &NewHold,
    secret: &str,
) -> rusqlite::Result<Result<Held, QueueError>> {
    let lease_ms = u64::try_from(new.lease.as_millis()).unwrap_or(u64::MAX);
    let outside = Outside { lease_ms, secret: secret.to_owned() };
    let added = match add(inner, tx, &new.job, Some(outside))? {
        Ok(added) => added,
        Err(refused) => return Ok(Err(refused)),
    };
    let (mut row, existing) = (added.row, added.existing);
    if !existing {
        let now = now_ms();
        begin(inner, tx, &mut row, &new.holder, new.started_at.unwrap_or(now), now)?;
    }
    Ok(held(row, existing))
}

pub(super) fn resume(
    inner: &Inner,
    tx: &mut WriteTx<'_>,
    lease: &Lease,
    secret: &str,
) -> rusqlite::Result<Result<Held, QueueError>> {
    let found = match rows::find_held(tx.conn(), lease)? {
        None => begun_with(tx, lease, secret)?,
        found => found,
    };
    let Some(mut row) = found.filter(|row| row.secret.is_some()) else { return Ok(Err(lost(lease))) };
    let now = now_ms();
    if row.job.state == JobState::Running {
        rows::update(tx.conn(), &row, Some(inner.lease_until(&row.job, now)))?;
        return Ok(held(row, true));
    }
    if !was_lost(&row.job) {
        return Ok(Err(lost(lease)));
    }
    if let Some(active) = rows::find_active(tx.conn(), &row.job.test_id)? {
        return Ok(Err(QueueError::TestActive { test: row.job.test_id, job: active.job.job_id }));
    }
    let by = row.job.worker_id.clone().unwrap_or_else(WorkerId::generate);
    begin_again(inner, tx, &mut row, now)?;
    row.secret = Some(secret.to_owned());
    begin(inner, tx, &mut row, &by, now, now)?;
    Ok(held(row, false))
}

/// The job of `lease`, if what runs is the attempt that a resumption with it began: its answer was lost.
fn begun_with(tx: &WriteTx<'_>, lease: &Lease, secret: &str) -> rusqlite::Result<Option<JobRow>> {
    let test = lease.holder.as_ref().map(|holder| &holder.test_id);
    Ok(rows::find(tx.conn(), &lease.job_id)?.filter(|row| {
        row.job.state == JobState::Running
            && row.secret.as_deref() == Some(secret)
            && Some(&row.job.test_id) == test
    }))
}

/// The attempt as its holder gets it.
fn held(row: JobRow, existing: bool) -> Result<Held, QueueError> {
    let JobRow { job, fence, secret, .. } = row;
    let Some(secret) = secret else {
        return Err(QueueError::TestActive { test: job.test_id, job: job.job_id });
    };
    let holder = Some(Holder { test_id: job.test_id.clone(), secret });
    let lease = Lease { job_id: job.job_id.clone(), attempt: job.attempt, fence, holder };
    Ok(Held { claim: Claim { job, lease }, existing })
}
