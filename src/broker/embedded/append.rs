//! Appending: what one message changes in the store, inside of a transaction that somebody else commits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Told;
use super::snapshot::{save_snapshot, stored_snapshot};
use crate::broker::append::{Append, AppendGroup, Fold};
use crate::broker::{AppendError, Appended};
use crate::inbox;
use crate::model::test::Refused;
use crate::model::{ChannelName, Epoch, MessageId, Position, Snapshot, TestState};
use crate::store::{ChannelRow, Stored, Version, WriteTx};

/// How many rows of channels are known from one append to the next; with more, all are forgotten.
const KNOWN_MAX: usize = 16_384;

/// The rows of channels that the last append knew. They are right for as long as nobody changes anything else in the
/// store, which its version says.
#[derive(Debug, Default)]
pub(super) struct KnownRows {
    rows: HashMap<ChannelName, ChannelRow>,
    version: Option<Version>,
}

/// Appends to channels, for one operation. A channel's row is read once, however many of its messages come.
#[must_use]
pub(crate) struct Appender<'t, 'a> {
    tx: &'t mut WriteTx<'a>,
    rows: HashMap<ChannelName, ChannelRow>,
}

impl<'t, 'a> Appender<'t, 'a> {
    pub(crate) fn new(tx: &'t mut WriteTx<'a>) -> Self {
        Self::knowing(tx, KnownRows::default())
    }

    /// The same with what an earlier one knew at its end.
    pub(super) fn knowing(tx: &'t mut WriteTx<'a>, known: KnownRows) -> Self {
        let current = known.version.is_some_and(|version| version == tx.version());
        let rows = if current { known.rows } else { HashMap::new() };
        Self { tx, rows }
    }

    /// Appends the group and adds its messages to `told`. A refusal leaves no message: it is decided before the
    /// first change but for the channel's row.
    pub(crate) fn append(
        &mut self,
        group: &AppendGroup,
        told: &mut Told,
    ) -> rusqlite::Result<Result<Appended, AppendError>> {
        let first = &group.first;
        let epoch = self.channel(first)?.epoch.clone();
        if let Some(offset) = self.known_offset(first)? {
            let position = Position { epoch, offset };
            return Ok(Ok(Appended { id: first.id.clone(), position, duplicate: true }));
        }
        if let Some(fold) = &first.fold
            && let Err(refused) = self.fold(fold, epoch, first.timestamp_ms)?
        {
            return Ok(Err(refused.into()));
        }
        let position = self.store(first, told)?;
        for mirror in &group.mirrors {
            if self.known_offset(mirror)?.is_none() {
                self.store(mirror, told)?;
            }
        }
        Ok(Ok(Appended { id: first.id.clone(), position, duplicate: false }))
    }

    /// Ends it; what the next one may know.
    pub(super) fn finish(mut self) -> KnownRows {
        if self.rows.len() > KNOWN_MAX {
            self.rows.clear();
        }
        KnownRows { version: Some(self.tx.version()), rows: self.rows }
    }

    /// The row of the message's channel.
    fn channel(&mut self, append: &Append) -> rusqlite::Result<&mut ChannelRow> {
        match self.rows.entry(append.channel.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                Ok(new.insert(self.tx.ensure_channel(&append.channel, append.timestamp_ms)?))
            }
        }
    }

    /// Where a message with this id stands already.
    fn known_offset(&mut self, append: &Append) -> rusqlite::Result<Option<u64>> {
        if append.fresh || append.namespace.history.size == 0 {
            return Ok(None);
        }
        let ChannelRow { id, oldest, top, .. } = *self.channel(append)?;
        if oldest > top {
            return Ok(None);
        }
        let found = self.tx.find_id(id, append.id.as_str(), MessageId::time_in(append.id.as_str()))?;
        // An id lives for as long as the message.
        Ok(found.filter(|offset| (oldest..=top).contains(offset)))
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

    /// Gives the message the next place of its channel.
    fn store(&mut self, message: &Append, told: &mut Told) -> rusqlite::Result<Position> {
        let size = message.namespace.history.size;
        let row = self.channel(message)?;
        row.top += 1;
        if size == 0 {
            row.oldest = row.top + 1;
        }
        let (channel, position) = (row.id, Position { epoch: row.epoch.clone(), offset: row.top });
        let id = message.id.as_str();
        let stored = Stored {
            offset: position.offset,
            timestamp_ms: message.timestamp_ms,
            event: message.event.as_str(),
            priority: message.priority.number(),
            id,
            made_at_ms: if message.fresh { MessageId::time_in(id) } else { None },
            conflation_key: message.conflation_key.as_deref(),
            body: if size == 0 { "" } else { message.open.as_str() },
        };
        self.tx.append(channel, size, &stored, message.conflation_key.clone())?;
        inbox::embedded::note(self.tx.conn(), message, &position)?;
        told.push(message, position.clone());
        Ok(position)
    }
}

/// A test that reports from outside begins with its first message.
fn unknown_test(fold: &Fold, epoch: Epoch) -> Snapshot {
    let test_type = fold.data.test_type.as_deref().unwrap_or("external");
    Snapshot::new(fold.test_id.clone(), test_type, TestState::Running, epoch)
}
