//! Lanes: where jobs wait that are held back together. A lane that may not be claimed from is not looked into.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, JobRow};
use crate::model::job::{SUITE_TYPE, lane};
use crate::model::{Pause, Scope, UserId};
use crate::queue::Waits;

/// Suites, and how many attempts of each may run at once.
pub(super) type Limits = HashMap<String, u32>;

/// A lane from which so many may be claimed.
struct Open {
    lane: String,
    room: usize,
}

/// The lanes of `types` in which somebody waits who may run.
fn open_lanes(
    conn: &Connection,
    types: &[String],
    limits: &Limits,
    max: usize,
) -> rusqlite::Result<Vec<Open>> {
    let paused: HashSet<String> = conn
        .prepare_cached("SELECT scope FROM pause")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if paused.contains(&Scope::All.key()) {
        return Ok(Vec::new());
    }
    let mut open = Vec::new();
    for test_type in types.iter().filter(|test_type| !paused.contains(*test_type)) {
        open.push(Open { lane: test_type.clone(), room: max });
        if test_type != SUITE_TYPE {
            continue;
        }
        for lane in suite_lanes(conn)? {
            if paused.contains(&lane) {
                continue;
            }
            let limit = lane.split_once('/').and_then(|(_, suite)| limits.get(suite));
            let room = match limit {
                Some(limit) => usize::try_from(u64::from(*limit).saturating_sub(running(conn, &lane)?)),
                None => Ok(max),
            };
            let room = room.unwrap_or(max).min(max);
            if room > 0 {
                open.push(Open { lane, room });
            }
        }
    }
    Ok(open)
}

/// The lanes of suites in which somebody waits: one step of the index for each.
fn suite_lanes(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut lanes = Vec::new();
    let mut last = lane("");
    // The character after the slash: all lanes of suites stand before it.
    let end = format!("{SUITE_TYPE}0");
    let mut next = conn.prepare_cached(
        "SELECT lane FROM job INDEXED BY job_ready WHERE state = 'queued' AND lane > ?1 AND lane < ?2
         ORDER BY lane LIMIT 1",
    )?;
    while let Some(found) = next.query_row([&last, &end], |row| row.get::<_, String>(0)).optional()? {
        last.clone_from(&found);
        lanes.push(found);
    }
    Ok(lanes)
}

fn running(conn: &Connection, lane: &str) -> rusqlite::Result<u64> {
    conn.prepare_cached(
        "SELECT count(*) FROM job INDEXED BY job_lane_running WHERE state = 'running' AND lane = ?1",
    )?
    .query_row([lane], |row| row.get(0))
}

/// Whether a job of `types` may be claimed.
pub(super) fn any_ready(conn: &Connection, types: &[String], limits: &Limits) -> rusqlite::Result<bool> {
    let mut waits = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'queued' AND lane = ?1)",
    )?;
    for open in open_lanes(conn, types, limits, 1)? {
        if waits.query_row([&open.lane], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The jobs of `types` that are to be claimed next, at most `max`, in their order.
pub(super) fn next(
    conn: &Connection,
    types: &[String],
    limits: &Limits,
    max: usize,
) -> rusqlite::Result<Vec<JobRow>> {
    let mut ready: Vec<(std::cmp::Reverse<u8>, i64)> = Vec::new();
    for open in open_lanes(conn, types, limits, max)? {
        // `+ 0`: SQLite prepares a statement anew whenever a limit that is bound as such has another value.
        let mut first = conn.prepare_cached(
            "SELECT priority, seq FROM job INDEXED BY job_ready WHERE state = 'queued' AND lane = ?1
             ORDER BY priority DESC, seq LIMIT ?2 + 0",
        )?;
        let found = first.query_map(params![open.lane, open.room], |row| {
            Ok((std::cmp::Reverse(row.get(0)?), row.get(1)?))
        })?;
        for place in found {
            ready.push(place?);
        }
    }
    ready.sort_unstable();
    ready.truncate(max);
    let seqs = serde_json::Value::from(ready.iter().map(|(_, seq)| *seq).collect::<Vec<_>>()).to_string();
    let mut found = rows::select(conn, "WHERE seq IN (SELECT value FROM json_each(?1))", [seqs])?;
    found.sort_by_key(|row| (std::cmp::Reverse(row.job.priority), row.seq));
    Ok(found)
}

/// What is held back, by its scope.
pub(super) fn pauses(conn: &Connection) -> rusqlite::Result<Vec<Pause>> {
    conn.prepare_cached("SELECT scope, since, by, reason FROM pause ORDER BY scope")?
        .query_map([], |row| {
            let scope = Scope::from_key(&row.get::<_, String>(0)?);
            let by: Option<String> = row.get(2)?;
            let by = by.and_then(|by| UserId::parse(&by).ok());
            Ok(Pause::new(&scope, row.get(1)?, by, row.get(3)?))
        })?
        .collect()
}

/// Why jobs wait that some worker could run.
pub(super) fn waits(conn: &Connection, limits: &Limits) -> rusqlite::Result<Waits> {
    let mut suites = BTreeMap::new();
    for (suite, limit) in limits {
        suites.insert(suite.clone(), (running(conn, &lane(suite))?, u64::from(*limit)));
    }
    Ok(Waits { pauses: pauses(conn)?, suites })
}
