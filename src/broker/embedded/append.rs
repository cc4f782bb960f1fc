//! Appending: what one message changes in the tables, inside of a transaction that somebody else commits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{OptionalExtension, params};

use super::Told;
use super::rows::{ChannelRow, ROWS, Unstored, ensure_channel, insert_messages, remove_before};
use super::snapshot::{save_snapshot, stored_snapshot};
use crate::broker::append::{Append, AppendGroup, Fold};
use crate::broker::{AppendError, Appended};
use crate::inbox;
use crate::model::test::Refused;
use crate::model::{ChannelName, Epoch, Position, Snapshot, TestState};
use crate::store::{Version, WriteTx};

/// How many messages an append removes at most when its channel has grown past its bound.
const TRIM_STEP: u64 = 256;
/// How many rows of channels are known from one append to the next; with more, all are forgotten.
const KNOWN_MAX: usize = 16_384;

/// The rows of channels that the last append knew. They are right for as long as nobody changes anything else in the
/// store, which its version says.
#[derive(Debug, Default)]
pub(super) struct KnownRows {
    rows: HashMap<ChannelName, Row>,
    version: Option<Version>,
}

/// Appends to channels, for one operation. A channel's row is read once and written back at the end, however many
/// of its messages come, and messages are stored several at once: [`Appender::finish`] has to be called before
/// anybody else looks at the tables.
#[must_use]
pub(crate) struct Appender<'t, 'a, 'g> {
    tx: &'t mut WriteTx<'a>,
    rows: HashMap<ChannelName, Row>,
    /// The channels whose rows have to be written back.
    changed: Vec<ChannelName>,
    unstored: Vec<Unstored<'g>>,
}

#[derive(Debug)]
struct Row {
    channel: ChannelRow,
    /// When it was changed, if it has to be written back.
    touched_at: Option<i64>,
}

impl<'t, 'a, 'g> Appender<'t, 'a, 'g> {
    pub(crate) fn new(tx: &'t mut WriteTx<'a>) -> Self {
        Self::knowing(tx, KnownRows::default())
    }

    /// The same with what an earlier one knew at its end.
    pub(super) fn knowing(tx: &'t mut WriteTx<'a>, known: KnownRows) -> Self {
        let current = known.version.is_some_and(|version| version == tx.version());
        let rows = if current { known.rows } else { HashMap::new() };
        Self { tx, rows, changed: Vec::new(), unstored: Vec::new() }
    }

    /// Appends the group and adds its messages to `told`. A refusal leaves no message: it is decided before the
    /// first change but for the channel's row.
    pub(crate) fn append(
        &mut self,
        group: &'g AppendGroup,
        told: &mut Told,
    ) -> rusqlite::Result<Result<Appended, AppendError>> {
        let first = &group.first;
        let channel = self.channel(first)?.clone();
        if let Some(offset) = self.known_offset(&channel, first)? {
            let position = Position { epoch: channel.epoch, offset };
            return Ok(Ok(Appended { id: first.id.clone(), position, duplicate: true }));
        }
        if let Some(fold) = &first.fold
            && let Err(refused) = self.fold(fold, channel.epoch, first.timestamp_ms)?
        {
            return Ok(Err(refused.into()));
        }
        let position = self.store(first, told)?;
        for mirror in &group.mirrors {
            let channel = self.channel(mirror)?.clone();
            if self.known_offset(&channel, mirror)?.is_none() {
                self.store(mirror, told)?;
            }
        }
        Ok(Ok(Appended { id: first.id.clone(), position, duplicate: false }))
    }

    /// Writes back how far the channels are.
    pub(crate) fn finish(mut self) -> rusqlite::Result<()> {
        self.write_back()
    }

    /// The same, and what the next one may know.
    pub(super) fn finish_knowing(mut self) -> rusqlite::Result<KnownRows> {
        self.write_back()?;
        if self.rows.len() > KNOWN_MAX {
            self.rows.clear();
        }
        Ok(KnownRows { version: Some(self.tx.version()), rows: self.rows })
    }

    fn write_back(&mut self) -> rusqlite::Result<()> {
        self.store_rest()?;
        let update = "UPDATE channel SET top = ?2, oldest = ?3, touched_at = ?4 WHERE id = ?1";
        let mut update = self.tx.conn().prepare_cached(update)?;
        for name in self.changed.drain(..) {
            if let Some(Row { channel, touched_at }) = self.rows.get_mut(&name)
                && let Some(touched_at) = touched_at.take()
            {
                update.execute(params![channel.id, channel.top, channel.oldest, touched_at])?;
            }
        }
        Ok(())
    }

    /// The row of the message's channel.
    fn channel(&mut self, append: &Append) -> rusqlite::Result<&ChannelRow> {
        match self.rows.entry(append.channel.clone()) {
            Entry::Occupied(known) => Ok(&known.into_mut().channel),
            Entry::Vacant(new) => {
                let channel = ensure_channel(self.tx.conn(), &append.channel, append.timestamp_ms)?;
                Ok(&new.insert(Row { channel, touched_at: None }).channel)
            }
        }
    }

    /// Where a message with this id stands already.
    fn known_offset(&mut self, row: &ChannelRow, append: &Append) -> rusqlite::Result<Option<u64>> {
        if append.fresh || row.top == 0 || append.namespace.history.size == 0 {
            return Ok(None);
        }
        self.store_rest()?;
        self.tx
            .conn()
            .prepare_cached("SELECT offset FROM message WHERE channel = ?1 AND id = ?2")?
            .query_row(params![row.id, append.id.as_str()], |row| row.get(0))
            .optional()
    }

    /// Changes the test's snapshot, if its story allows for what is told.
    fn fold(&self, fold: &Fold, epoch: Epoch, now_ms: i64) -> rusqlite::Result<Result<(), Refused>> {
        let conn = self.tx.conn();
        let stored = stored_snapshot(conn, &fold.test_id)?;
        let mut snapshot = stored.unwrap_or_else(|| unknown_test(fold, epoch));
        let admitted = snapshot.admits(fold.event, fold.data.attempt, fold.job_id.as_ref());
        let folded = admitted.and_then(|()| snapshot.fold(fold.event, fold.data.clone(), now_ms));
        if folded.is_ok() {
            save_snapshot(conn, &snapshot, now_ms)?;
        }
        Ok(folded)
    }

    /// Gives the message the next place of its channel, whose row is known.
    fn store(&mut self, message: &'g Append, told: &mut Told) -> rusqlite::Result<Position> {
        let conn = self.tx.conn();
        let Some(Row { channel: row, touched_at }) = self.rows.get_mut(&message.channel) else {
            unreachable!("the row was read for the look at the id")
        };
        let offset = row.top + 1;
        let size = message.namespace.history.size;
        if size == 0 {
            if row.oldest <= row.top {
                // History was switched off since the last message: its rows would be in nobody's reach any more.
                remove_before(conn, row.id, offset)?;
            }
            row.oldest = offset + 1;
        } else {
            let seq = self.tx.place(row.id, offset, message.conflation_key.clone());
            self.unstored.push(Unstored { seq, channel: row.id, offset, message });
            // Readers hold to the bound exactly (`read::oldest_readable`); the rows may lag a little behind, so
            // that not every append pays for a delete.
            if offset - row.oldest >= size + size / 8 + 32 {
                row.oldest = (offset + 1 - size).min(row.oldest + TRIM_STEP);
                remove_before(conn, row.id, row.oldest)?;
            }
        }
        row.top = offset;
        if touched_at.replace(message.timestamp_ms).is_none() {
            self.changed.push(message.channel.clone());
        }
        let position = Position { epoch: row.epoch.clone(), offset };
        inbox::embedded::note(conn, message, &position)?;
        told.push(message, position.clone());
        if self.unstored.len() == ROWS {
            self.store_rest()?;
        }
        Ok(position)
    }

    /// Inserts the messages that have a place but no row.
    fn store_rest(&mut self) -> rusqlite::Result<()> {
        insert_messages(self.tx.conn(), &self.unstored)?;
        self.unstored.clear();
        Ok(())
    }
}

/// A test that reports from outside begins with its first message.
fn unknown_test(fold: &Fold, epoch: Epoch) -> Snapshot {
    let test_type = fold.data.test_type.as_deref().unwrap_or("external");
    Snapshot::new(fold.test_id.clone(), test_type, TestState::Running, epoch)
}
