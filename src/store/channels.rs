//! The rows of channels. What they say of a channel's end is as of the stored mark: those who ask go by
//! [`ReadTx::channel`](super::ReadTx::channel) and [`WriteTx::channel`](super::WriteTx::channel), which add what is recent.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{ChannelName, Epoch};

/// A channel's row.
#[derive(Debug, Clone)]
pub(crate) struct ChannelRow {
    pub(crate) id: i64,
    pub(crate) epoch: Epoch,
    /// The offset of the newest message, 0 before the first.
    pub(crate) top: u64,
    /// That of the oldest one that is still stored; `top + 1` where none is.
    pub(crate) oldest: u64,
}

/// The row of `name`.
pub(super) fn find(conn: &Connection, name: &ChannelName) -> rusqlite::Result<Option<ChannelRow>> {
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

/// Makes the row of `name`, with a new epoch.
pub(super) fn make(conn: &Connection, name: &ChannelName, now_ms: i64) -> rusqlite::Result<ChannelRow> {
    let epoch = Epoch::generate();
    conn.prepare_cached(
        "INSERT INTO channel (name, epoch, top, oldest, touched_at) VALUES (?1, ?2, 0, 1, ?3)",
    )?
    .execute(params![name.as_str(), epoch.as_str(), now_ms])?;
    Ok(ChannelRow { id: conn.last_insert_rowid(), epoch, top: 0, oldest: 1 })
}
