//! Stored snapshots of tests.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::event::test_progress_channel;
use crate::model::{ChannelName, Snapshot, TestId};
use crate::store::{ReadTx, WriteTx};

/// Begins a test anew, unless what is stored of it is as new.
pub(super) fn begin(tx: &WriteTx<'_>, test: &Snapshot, now_ms: i64) -> rusqlite::Result<()> {
    let conn = tx.conn();
    let Ok(channel) = ChannelName::parse(&test_progress_channel(&test.test_id)) else { return Ok(()) };
    if stored_snapshot(conn, &test.test_id)?.is_some_and(|stored| !test.replaces(&stored)) {
        return Ok(());
    }
    let epoch = tx.ensure_channel(&channel, now_ms)?.epoch;
    // Newest first is how tests are listed, and this one is new again.
    conn.prepare_cached("DELETE FROM test WHERE id = ?1")?.execute([test.test_id.as_str()])?;
    save_snapshot(conn, &Snapshot { epoch, ..test.clone() }, now_ms)
}

/// The state of a test, at the top of its channel: both are written by the same transactions.
pub(super) fn load_snapshot(tx: &ReadTx<'_>, test: &TestId) -> rusqlite::Result<Option<Snapshot>> {
    let Some(mut snapshot) = stored_snapshot(tx.conn(), test)? else { return Ok(None) };
    place(tx, &mut snapshot)?;
    Ok(Some(snapshot))
}

/// The state of a test, without a place.
pub(super) fn stored_snapshot(conn: &Connection, test: &TestId) -> rusqlite::Result<Option<Snapshot>> {
    let stored: Option<String> = conn
        .prepare_cached("SELECT snapshot FROM test WHERE id = ?1")?
        .query_row([test.as_str()], |row| row.get(0))
        .optional()?;
    stored.map(|text| parse_snapshot(&text)).transpose()
}

/// Reads a stored snapshot.
pub(super) fn parse_snapshot(text: &str) -> rusqlite::Result<Snapshot> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

/// Gives a stored snapshot the position of its channel's top.
pub(super) fn place(tx: &ReadTx<'_>, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
    let channel = test_progress_channel(&snapshot.test_id);
    if let Ok(name) = ChannelName::parse(&channel)
        && let Some(row) = tx.channel(&name)?
    {
        snapshot.epoch = row.epoch;
        snapshot.offset = row.top;
    }
    Ok(())
}

/// Stores the state of a test.
pub(crate) fn save_snapshot(conn: &Connection, snapshot: &Snapshot, now_ms: i64) -> rusqlite::Result<()> {
    let text =
        serde_json::to_string(snapshot).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    conn.prepare_cached(
        "INSERT INTO test (id, state, updated_at, snapshot) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET state = ?2, updated_at = ?3, snapshot = ?4",
    )?
    .execute(params![snapshot.test_id.as_str(), snapshot.state.name(), now_ms, text])?;
    Ok(())
}
