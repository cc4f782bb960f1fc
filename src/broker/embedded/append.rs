//! Appending: what one message changes in the tables, inside of a transaction that somebody else commits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::Told;
use crate::broker::append::{Append, AppendGroup, Fold};
use crate::broker::{AppendError, Appended};
use crate::inbox;
use crate::model::event::test_progress_channel;
use crate::model::{ChannelName, Epoch, Position, Published, Snapshot, TestId, TestState};

/// How many messages an append removes at most when its channel has grown past its bound.
const TRIM_STEP: u64 = 256;

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

/// Appends to channels, for one operation. A channel's row is read once and written back at the end, however many
/// of its messages come: [`Appender::finish`] has to be called before anybody else looks at the tables.
#[must_use]
pub(crate) struct Appender<'a> {
    conn: &'a Connection,
    rows: HashMap<ChannelName, Row>,
}

struct Row {
    channel: ChannelRow,
    touched_at: Option<i64>,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(conn: &'a Connection) -> Self {
        Self { conn, rows: HashMap::new() }
    }

    /// Appends the group and adds its messages to `told`. A refusal leaves no message: it is decided before the
    /// first change but for the channel's row.
    pub(crate) fn append(
        &mut self,
        group: &AppendGroup,
        told: &mut Told,
    ) -> rusqlite::Result<Result<Appended, AppendError>> {
        let (conn, first) = (self.conn, &group.first);
        let row = self.row(first)?;
        if let Some(offset) = known_offset(conn, &row.channel, first)? {
            let position = Position { epoch: row.channel.epoch.clone(), offset };
            return Ok(Ok(Appended { id: first.id.clone(), position, duplicate: true }));
        }
        if let Some(fold) = &first.fold {
            let mut snapshot = match stored_snapshot(conn, &fold.test_id)? {
                Some(snapshot) => snapshot,
                None => unknown_test(fold, row.channel.epoch.clone()),
            };
            let admitted = snapshot.admits(fold.event, fold.data.attempt, fold.job_id.as_ref());
            if let Err(refused) =
                admitted.and_then(|()| snapshot.fold(fold.event, fold.data.clone(), first.timestamp_ms))
            {
                return Ok(Err(refused.into()));
            }
            save_snapshot(conn, &snapshot, first.timestamp_ms)?;
        }
        let published = row.append(conn, first)?;
        let position = published.position.clone();
        told.push(&first.namespace, published);
        for mirror in &group.mirrors {
            let row = self.row(mirror)?;
            if known_offset(conn, &row.channel, mirror)?.is_none() {
                told.push(&mirror.namespace, row.append(conn, mirror)?);
            }
        }
        Ok(Ok(Appended { id: first.id.clone(), position, duplicate: false }))
    }

    /// Writes back how far the channels are.
    pub(crate) fn finish(self) -> rusqlite::Result<()> {
        let mut update = self
            .conn
            .prepare_cached("UPDATE channel SET top = ?2, oldest = ?3, touched_at = ?4 WHERE id = ?1")?;
        for Row { channel, touched_at } in self.rows.into_values() {
            if let Some(touched_at) = touched_at {
                update.execute(params![channel.id, channel.top, channel.oldest, touched_at])?;
            }
        }
        Ok(())
    }

    fn row(&mut self, append: &Append) -> rusqlite::Result<&mut Row> {
        match self.rows.entry(append.channel.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let channel = ensure_channel(self.conn, &append.channel, append.timestamp_ms)?;
                Ok(new.insert(Row { channel, touched_at: None }))
            }
        }
    }
}

/// Begins a test anew, unless what is stored of it is as new.
pub(super) fn begin(conn: &Connection, test: &Snapshot, now_ms: i64) -> rusqlite::Result<()> {
    let Ok(channel) = ChannelName::parse(&test_progress_channel(&test.test_id)) else { return Ok(()) };
    if stored_snapshot(conn, &test.test_id)?.is_some_and(|stored| !test.replaces(&stored)) {
        return Ok(());
    }
    let epoch = ensure_channel(conn, &channel, now_ms)?.epoch;
    // Newest first is how tests are listed, and this one is new again.
    conn.prepare_cached("DELETE FROM test WHERE id = ?1")?.execute([test.test_id.as_str()])?;
    save_snapshot(conn, &Snapshot { epoch, ..test.clone() }, now_ms)
}

/// A test that reports from outside begins with its first message.
fn unknown_test(fold: &Fold, epoch: Epoch) -> Snapshot {
    let test_type = fold.data.test_type.as_deref().unwrap_or("external");
    Snapshot::new(fold.test_id.clone(), test_type, TestState::Running, epoch)
}

/// Where a message with this id stands already.
fn known_offset(conn: &Connection, row: &ChannelRow, append: &Append) -> rusqlite::Result<Option<u64>> {
    if append.fresh || row.top == 0 || append.namespace.history.size == 0 {
        return Ok(None);
    }
    conn.prepare_cached("SELECT offset FROM message WHERE channel = ?1 AND id = ?2")?
        .query_row(params![row.id, append.id.as_str()], |row| row.get(0))
        .optional()
}

impl Row {
    fn append(&mut self, conn: &Connection, append: &Append) -> rusqlite::Result<Arc<Published>> {
        let row = &mut self.channel;
        let offset = row.top + 1;
        let size = append.namespace.history.size;
        if size == 0 {
            if row.oldest <= row.top {
                // History was switched off since the last message: its rows would be in nobody's reach any more.
                conn.prepare_cached("DELETE FROM message WHERE channel = ?1")?.execute([row.id])?;
            }
            row.oldest = offset + 1;
        } else {
            insert_message(conn, row.id, offset, append)?;
            // Readers hold to the bound exactly (`read::oldest_readable`); the rows may lag a little behind, so
            // that not every append pays for a delete.
            if offset - row.oldest >= size + size / 8 + 32 {
                row.oldest = (offset + 1 - size).min(row.oldest + TRIM_STEP);
                conn.prepare_cached("DELETE FROM message WHERE channel = ?1 AND offset < ?2")?
                    .execute(params![row.id, row.oldest])?;
            }
        }
        row.top = offset;
        self.touched_at = Some(append.timestamp_ms);
        let position = Position { epoch: row.epoch.clone(), offset };
        inbox::embedded::note(conn, append, &position)?;
        Ok(Arc::new(Published::new(
            append.channel.clone(),
            position,
            append.event.clone(),
            append.priority,
            append.timestamp_ms,
            append.conflation_key.clone(),
            append.open.clone(),
        )))
    }
}

fn insert_message(conn: &Connection, channel: i64, offset: u64, append: &Append) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO message (channel, offset, id, event, priority, timestamp, conflation_key, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        channel,
        offset,
        append.id.as_str(),
        append.event.as_str(),
        append.priority.number(),
        append.timestamp_ms,
        append.conflation_key,
        append.open.as_str(),
    ])?;
    Ok(())
}

/// The state of a test, at the top of its channel: both are written by the same transactions.
pub(crate) fn load_snapshot(conn: &Connection, test: &TestId) -> rusqlite::Result<Option<Snapshot>> {
    let Some(mut snapshot) = stored_snapshot(conn, test)? else { return Ok(None) };
    place(conn, &mut snapshot)?;
    Ok(Some(snapshot))
}

/// The state of a test, without a place.
fn stored_snapshot(conn: &Connection, test: &TestId) -> rusqlite::Result<Option<Snapshot>> {
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
pub(super) fn place(conn: &Connection, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
    let channel = test_progress_channel(&snapshot.test_id);
    if let Ok(name) = ChannelName::parse(&channel)
        && let Some(row) = find_channel(conn, &name)?
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
