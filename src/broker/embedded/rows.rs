//! The rows of channels and messages, as appends read and write them.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::broker::append::Append;
use crate::model::{ChannelName, Epoch};

/// How many messages are inserted by one statement: most of what a statement costs it costs once.
pub(super) const ROWS: usize = 16;
const COLUMNS: usize = 9;

/// A channel's row.
#[derive(Debug, Clone)]
pub(crate) struct ChannelRow {
    pub(crate) id: i64,
    pub(crate) epoch: Epoch,
    pub(crate) top: u64,
    pub(crate) oldest: u64,
}

/// The row of `name`, made with a new epoch if there is none.
pub(crate) fn ensure_channel(
    conn: &Connection,
    name: &ChannelName,
    now_ms: i64,
) -> rusqlite::Result<ChannelRow> {
    if let Some(row) = find_channel(conn, name)? {
        return Ok(row);
    }
    let epoch = Epoch::generate();
    conn.prepare_cached(
        "INSERT INTO channel (name, epoch, top, oldest, touched_at) VALUES (?1, ?2, 0, 1, ?3)",
    )?
    .execute(params![name.as_str(), epoch.as_str(), now_ms])?;
    Ok(ChannelRow { id: conn.last_insert_rowid(), epoch, top: 0, oldest: 1 })
}

/// The row of `name`.
pub(super) fn find_channel(conn: &Connection, name: &ChannelName) -> rusqlite::Result<Option<ChannelRow>> {
    conn.prepare_cached("SELECT id, epoch, top, oldest FROM channel WHERE name = ?1")?
        .query_row([name.as_str()], |row| {
            let epoch: String = row.get(1)?;
            Ok(ChannelRow {
                id: row.get(0)?,
                epoch: Epoch::new(&epoch),
                top: row.get(2)?,
                oldest: row.get(3)?,
            })
        })
        .optional()
}

/// A message that has its place, but is not in its table yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unstored<'g> {
    pub(super) seq: i64,
    pub(super) channel: i64,
    pub(super) offset: u64,
    pub(super) message: &'g Append,
}

/// Inserts the messages.
pub(super) fn insert_messages(conn: &Connection, messages: &[Unstored<'_>]) -> rusqlite::Result<()> {
    static ONE: LazyLock<String> = LazyLock::new(|| insert_rows(1));
    static MANY: LazyLock<String> = LazyLock::new(|| insert_rows(ROWS));
    let (many, rest) = messages.as_chunks::<ROWS>();
    for (sql, rows) in many.iter().map(|rows| (&MANY, &rows[..])).chain(rest.chunks(1).map(|row| (&ONE, row)))
    {
        let mut statement = conn.prepare_cached(sql)?;
        for (n, row) in rows.iter().enumerate() {
            bind(&mut statement, n * COLUMNS, row)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}

fn insert_rows(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows].join(", ");
    format!(
        "INSERT INTO message (seq, channel, offset, id, event, priority, timestamp, conflation_key, body)
         VALUES {values}"
    )
}

fn bind(statement: &mut Statement<'_>, before: usize, row: &Unstored<'_>) -> rusqlite::Result<()> {
    let Unstored { seq, channel, offset, message } = row;
    statement.raw_bind_parameter(before + 1, seq)?;
    statement.raw_bind_parameter(before + 2, channel)?;
    statement.raw_bind_parameter(before + 3, offset)?;
    statement.raw_bind_parameter(before + 4, message.id.as_str())?;
    statement.raw_bind_parameter(before + 5, message.event.as_str())?;
    statement.raw_bind_parameter(before + 6, message.priority.number())?;
    statement.raw_bind_parameter(before + 7, message.timestamp_ms)?;
    statement.raw_bind_parameter(before + 8, message.conflation_key.as_deref())?;
    statement.raw_bind_parameter(before + COLUMNS, message.open.as_str())
}

/// Removes the channel's messages before `offset` as far as the stored index has them; the next merge finds the
/// others, for their channel's `oldest` is beyond them.
pub(super) fn remove_before(conn: &Connection, channel: i64, offset: u64) -> rusqlite::Result<()> {
    let before = params![channel, offset];
    conn.prepare_cached(
        "DELETE FROM message WHERE seq IN (SELECT seq FROM place WHERE channel = ?1 AND offset < ?2)",
    )?
    .execute(before)?;
    conn.prepare_cached("DELETE FROM place WHERE channel = ?1 AND offset < ?2")?.execute(before)?;
    Ok(())
}
