//! Which ticks of schedules were fired.

use rusqlite::Connection;

use crate::model::now_ms;
use crate::queue::{FIRED_KEPT, FIRED_KEPT_MS};

pub(super) fn read(conn: &Connection, schedule: &str) -> rusqlite::Result<Vec<i64>> {
    conn.prepare_cached(
        "SELECT tick FROM (SELECT tick FROM fired WHERE schedule = ?1 ORDER BY tick DESC LIMIT ?2) ORDER BY tick",
    )?
    .query_map((schedule, FIRED_KEPT), |row| row.get(0))?
    .collect()
}

pub(super) fn note(conn: &Connection, schedule: &str, tick_ms: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO fired (schedule, tick) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((schedule, tick_ms))?;
    // The newest one of each is never too old: it says up to when a schedule was looked after.
    conn.prepare_cached(
        "DELETE FROM fired WHERE tick < ?1 AND tick <
           (SELECT max(newer.tick) FROM fired AS newer WHERE newer.schedule = fired.schedule)",
    )?
    .execute([now_ms() - FIRED_KEPT_MS])?;
    conn.prepare_cached(
        "DELETE FROM fired WHERE schedule = ?1 AND tick <
           (SELECT tick FROM fired WHERE schedule = ?1 ORDER BY tick DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((schedule, FIRED_KEPT - 1))?;
    Ok(())
}
