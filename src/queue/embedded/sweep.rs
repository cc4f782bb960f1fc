//! Sweeping: due jobs, dead leases, old jobs.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Map;

use super::attempt::end_attempt;
use super::{Inner, rows};
use crate::model::test::TestError;
use crate::model::{JobState, now_ms};
use crate::queue::{Ending, QueueError, QueueOptions, Sweep, WORKER_LOST};
use crate::store::{Store, WriteTx};

/// How many jobs one sweep promotes, and how many leases it ends, at most.
const SWEEP_MAX: usize = 500;
/// How many ended jobs one call removes at most.
const RETAIN_MAX: usize = 500;

/// What a sweep would find.
pub(super) struct Pending {
    pub(super) anything_now: bool,
    pub(super) next_due: Option<i64>,
}

pub(super) fn pending(conn: &Connection, now: i64) -> rusqlite::Result<Pending> {
    let next_due = next_due(conn)?;
    let dead: bool = conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND lease_until < ?1)")?
        .query_row([now], |row| row.get(0))?;
    Ok(Pending { anything_now: dead || next_due.is_some_and(|due| due <= now), next_due })
}

fn next_due(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT run_at FROM job INDEXED BY job_due WHERE state IN ('scheduled', 'retrying')
         ORDER BY run_at LIMIT 1",
    )?
    .query_row([], |row| row.get(0))
    .optional()
}

pub(super) fn sweep(inner: &Inner, tx: &mut WriteTx<'_>) -> rusqlite::Result<Sweep> {
    let now = now_ms();
    let dead = rows::select(
        tx.conn(),
        "INDEXED BY job_lease WHERE state = 'running' AND lease_until < ?1 ORDER BY lease_until LIMIT ?2",
        params![now, SWEEP_MAX],
    )?;
    let reaped = dead.len();
    for row in dead {
        let worker = row.job.worker_id.as_ref().map_or_else(|| "its worker".to_owned(), ToString::to_string);
        let error = TestError {
            code: WORKER_LOST.to_owned(),
            message: format!("{worker} was lost: no sign of life before the lease ended"),
        };
        tracing::warn!(job = %row.job.job_id, test = %row.job.test_id, attempt = row.job.attempt, "an attempt lost its worker");
        end_attempt(inner, tx, row, &Ending::Failed { error, results: Map::new() })?;
    }
    // Their tests wait for a worker now, not for the clock.
    tx.conn()
        .prepare_cached(
            "UPDATE test SET state = 'queued', snapshot = json_set(snapshot, '$.state', 'queued')
             WHERE state = 'scheduled' AND id IN
             (SELECT test_id FROM job INDEXED BY job_due WHERE state IN ('scheduled', 'retrying') AND run_at <= ?1
              ORDER BY run_at LIMIT ?2)",
        )?
        .execute(params![now, SWEEP_MAX])?;
    let promoted = tx
        .conn()
        .prepare_cached(
            "UPDATE job SET state = 'queued' WHERE seq IN
             (SELECT seq FROM job INDEXED BY job_due WHERE state IN ('scheduled', 'retrying') AND run_at <= ?1
              ORDER BY run_at LIMIT ?2)",
        )?
        .execute(params![now, SWEEP_MAX])?;
    if promoted > 0 {
        inner.wake_after_commit(tx, JobState::Queued);
    }
    let next_due = next_due(tx.conn())?;
    Ok(Sweep { promoted, reaped, more: promoted == SWEEP_MAX || reaped == SWEEP_MAX, next_due })
}

pub(super) async fn retain(store: &Store, options: &QueueOptions) -> Result<bool, QueueError> {
    let retention_ms = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
    let cutoff = now_ms().saturating_sub(retention_ms);
    let keep = options.max_jobs_kept;
    let more = store.write(move |tx| {
        let conn = tx.conn();
        let ended: u64 = conn
            .prepare_cached(
                "SELECT sum(n) FROM job_count WHERE state IN ('completed', 'failed', 'cancelled')",
            )?
            .query_row([], |row| row.get(0))?;
        let surplus = usize::try_from(ended.saturating_sub(keep)).unwrap_or(usize::MAX).min(RETAIN_MAX);
        let by_age = conn
            .prepare_cached(
                "DELETE FROM job WHERE seq IN (SELECT seq FROM job INDEXED BY job_ended
                 WHERE ended_at IS NOT NULL AND ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
            )?
            .execute(params![cutoff, RETAIN_MAX])?;
        let by_number = conn
            .prepare_cached(
                "DELETE FROM job WHERE seq IN (SELECT seq FROM job INDEXED BY job_ended
                 WHERE ended_at IS NOT NULL ORDER BY ended_at LIMIT ?1)",
            )?
            .execute([surplus.saturating_sub(by_age)])?;
        let tests = conn
            .prepare_cached(
                "DELETE FROM test WHERE seq IN (SELECT seq FROM test
                 WHERE state IN ('completed', 'failed', 'cancelled') AND updated_at < ?1 LIMIT ?2)",
            )?
            .execute(params![cutoff, RETAIN_MAX])?;
        super::past::retain(conn)?;
        // `surplus` was cut to one call's share, and the old ones counted towards it.
        Ok(by_age + by_number >= RETAIN_MAX || tests == RETAIN_MAX)
    });
    Ok(more.await?)
}

impl Inner {
    /// Wakes whoever has to act on a job that got into `state`.
    pub(super) fn wake_after_commit(&self, tx: &mut WriteTx<'_>, state: JobState) {
        let signals = self.signals.clone();
        tx.after_commit(move || match state {
            JobState::Queued => signals.wake_all(),
            JobState::Scheduled | JobState::Retrying => signals.due.notify_one(),
            _ => {}
        });
    }
}
