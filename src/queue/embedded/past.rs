//! The past of series: what ended jobs leave for the next ones.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::model::past::{Past, Run};
use crate::model::{Job, JobState};
use crate::queue::{Ending, MAX_SERIES, measured_ms, run_of};

pub(super) fn read(conn: &Connection, series: &str) -> rusqlite::Result<Past> {
    let runs: Option<String> = conn
        .prepare_cached("SELECT runs FROM past WHERE series = ?1")?
        .query_row([series], |row| row.get(0))
        .optional()?;
    Ok(Past::new(runs.unwrap_or_default().lines().filter_map(Run::read).collect()))
}

/// Notes how `job` ended, if its worker or holder ended it for good.
pub(super) fn note(conn: &Connection, job: &Job, ending: &Ending, now: i64) -> rusqlite::Result<()> {
    if !matches!(job.state, JobState::Completed | JobState::Failed) {
        return Ok(());
    }
    let took = u64::try_from(now - job.started_at.unwrap_or(now)).unwrap_or(0);
    let measured = measured_ms(ending).filter(|_| job.lease_ms.is_some());
    let Some(run) = run_of(ending, measured.unwrap_or(took)) else { return Ok(()) };
    let series = job.series();
    let mut past = read(conn, &series)?;
    past.push(run);
    let runs: Vec<String> = past.runs().iter().map(Run::write).collect();
    conn.prepare_cached("INSERT OR REPLACE INTO past (series, updated_at, runs) VALUES (?1, ?2, ?3)")?
        .execute(params![series, now, runs.join("\n")])?;
    Ok(())
}

/// Forgets the series that are too many.
pub(super) fn retain(conn: &Connection) -> rusqlite::Result<usize> {
    let surplus = "DELETE FROM past WHERE series IN
        (SELECT series FROM past ORDER BY updated_at DESC, series LIMIT -1 OFFSET ?1)";
    conn.prepare_cached(surplus)?.execute([MAX_SERIES])
}
