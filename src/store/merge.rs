//! Merging: brings recent places into the tables and moves the mark, both in the writer's transaction.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::pack::{self, Builder, Stored};
use super::places::{End, Line, New, Place, Recent, Tails};
use super::waste::Gone;
use super::{packs, runs};

/// How many messages more than came to a full channel a merge removes of it at most: bounds may have become smaller.
const TRIM_MORE: u64 = 256;
/// What a channel costs beside its places, in places.
const CHANNEL_WORK: usize = 8;

/// What one transaction adds to the recent places, or merges of them.
#[derive(Debug)]
pub(super) struct Added {
    next_seq: i64,
    places: Vec<New>,
    /// How far the channels of `places` are.
    ends: HashMap<i64, End>,
    /// Messages that are not in the tables yet.
    pack: Option<Builder>,
    /// All that came up to there is merged.
    merged: Option<i64>,
    /// So many channels of the sealed tail are merged.
    channels: usize,
    /// How many changes of rows were made here since the store was opened: whoever knows how far channels are need not
    /// look again for them.
    changes: u64,
}

impl Added {
    /// Nothing yet; the next message is `next_seq`, and there were `changes` before.
    pub(super) fn from(next_seq: i64, changes: u64) -> Self {
        let (places, ends) = (Vec::new(), HashMap::new());
        Self { next_seq, places, ends, pack: None, merged: None, channels: 0, changes }
    }

    /// The number of the next message.
    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// How many changes of rows appends made.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds a message to the channel with this number, which keeps `keep` of them.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        channel: i64,
        keep: u64,
        message: &Stored<'_>,
        conflation_key: Option<std::sync::Arc<str>>,
    ) -> rusqlite::Result<()> {
        let time = message.made_at_ms.map(pack::time_of);
        if self.pack.as_ref().is_some_and(|pack| !pack.takes(time)) {
            self.store(conn)?;
        }
        let kept = !message.body.is_empty();
        if kept && time.is_none() {
            let before = conn.total_changes();
            packs::insert_given(conn, channel, message.id, message.offset)?;
            self.changes += conn.total_changes() - before;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let pack = self.pack.get_or_insert_with(|| Builder::new(seq, message.timestamp_ms));
        let size = pack.push(seq, channel, message);
        let Stored { offset, timestamp_ms, .. } = *message;
        let place = Place { offset, seq, timestamp_ms, size, kept, conflation_key };
        self.ends.entry(channel).or_insert(End { top: 0, begins: 0 }).go_on(&place);
        self.places.push(New { channel, keep, place });
        Ok(())
    }

    /// Puts the messages into the tables that are not there yet.
    pub(super) fn store(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if let Some(pack) = self.pack.take() {
            let before = conn.total_changes();
            packs::insert(conn, &pack)?;
            self.changes += conn.total_changes() - before;
        }
        Ok(())
    }

    /// Where the channel's message with this id stands, or stood.
    pub(super) fn find(
        &mut self,
        conn: &Connection,
        channel: i64,
        id: &str,
        made_at_ms: Option<i64>,
    ) -> rusqlite::Result<Option<u64>> {
        if let Some(offset) = packs::find_given(conn, channel, id)? {
            return Ok(Some(offset));
        }
        let Some(made_at_ms) = made_at_ms else { return Ok(None) };
        if self.pack.as_ref().is_some_and(|pack| pack.time == Some(pack::time_of(made_at_ms))) {
            self.store(conn)?;
        }
        packs::find_made(conn, channel, id, made_at_ms)
    }

    /// How far the channel is, beyond what its row says.
    pub(super) fn end(&self, channel: i64, recent: &Recent) -> Option<End> {
        let added = self.ends.get(&channel).copied();
        // What was recent is in the row, if it was merged.
        let told = if self.merged.is_none() { recent.tails().end(channel, i64::MAX) } else { None };
        match (told, added) {
            (Some(told), Some(added)) => Some(End { top: added.top, begins: added.begins.max(told.begins) }),
            (told, added) => added.or(told),
        }
    }

    /// Merges some of the channels that have recent places, `work` places or so; whether there are more that had some when
    /// the first of these steps was made.
    pub(super) fn merge_some(
        &mut self,
        conn: &Connection,
        recent: &Recent,
        work: usize,
    ) -> rusqlite::Result<bool> {
        if self.merged.is_some() {
            return Ok(false);
        }
        let Some((tails, channels, merged)) = recent.seal() else { return Ok(false) };
        let Some(sealed) = &tails.sealed else { return Ok(false) };
        let rest = channels.get(merged + self.channels..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(false);
        }
        let before = conn.total_changes();
        let (mut gone, mut done, mut n) = (Gone::default(), 0, 0);
        for channel in rest {
            let line = sealed.line(*channel);
            merge_channel(conn, *channel, &line, &mut gone)?;
            (done, n) = (done + CHANNEL_WORK + line.places.len(), n + 1);
            if done >= work {
                break;
            }
        }
        gone.count(conn)?;
        let more = n < rest.len();
        if !more {
            set_mark(conn, tails.open.mark)?;
        }
        self.channels += n;
        self.changes += conn.total_changes() - before;
        Ok(more)
    }

    /// Merges all recent places, those included that this transaction added so far.
    pub(super) fn merge_all(&mut self, conn: &Connection, recent: &Recent) -> rusqlite::Result<()> {
        self.store(conn)?;
        let mark = self.next_seq - 1;
        if mark == stored_mark(conn)? {
            return Ok(());
        }
        let mut lines: BTreeMap<i64, Line> = BTreeMap::new();
        // What is in memory was merged before, if this is not the first time in this transaction.
        let tails = self.merged.is_none().then(|| recent.tails());
        for tail in tails.iter().flat_map(Tails::each) {
            for channel in tail.channels() {
                // A channel at a time, so that readers never wait for longer than a look at one takes.
                lines.entry(channel).or_default().go_on(tail.line(channel));
            }
        }
        for New { channel, keep, place } in self.places.drain(..) {
            lines.entry(channel).or_default().push(keep, place);
        }
        let before = conn.total_changes();
        let mut gone = Gone::default();
        for (channel, line) in lines {
            merge_channel(conn, channel, &line, &mut gone)?;
        }
        gone.count(conn)?;
        set_mark(conn, mark)?;
        self.changes += conn.total_changes() - before;
        self.ends.clear();
        self.merged = Some(mark);
        Ok(())
    }

    /// The transaction is committed: tells memory of it. Returns the next message's `seq`.
    pub(super) fn committed(self, recent: &Recent) -> i64 {
        recent.committed(self.merged, self.channels, self.places);
        self.next_seq
    }
}

/// Merges what the last run left behind the mark; the mark of then.
pub(super) fn merge_left(conn: &mut Connection) -> rusqlite::Result<i64> {
    let tx = conn.transaction()?;
    let mut mark = stored_mark(&tx)?;
    let left = packs::places_after(&tx, mark)?;
    if let Some((_, last)) = left.last() {
        mark = last.seq;
        let mut channels: BTreeMap<i64, Line> = BTreeMap::new();
        for (channel, place) in left {
            // What is too much is for the next merge, or for retention: they know how much that is.
            channels.entry(channel).or_default().push(u64::MAX, place);
        }
        let mut gone = Gone::default();
        for (channel, line) in channels {
            merge_channel(&tx, channel, &line, &mut gone)?;
        }
        gone.count(&tx)?;
        set_mark(&tx, mark)?;
    }
    tx.commit()?;
    Ok(mark)
}

/// Brings the places of a channel into its runs, and its row to its top. Those that are there already, because the
/// channel is merged and the mark is not there yet, are left aside.
fn merge_channel(conn: &Connection, channel: i64, line: &Line, gone: &mut Gone) -> rusqlite::Result<()> {
    let row: Option<(u64, u64)> = conn
        .prepare_cached("SELECT top, oldest FROM channel WHERE id = ?1")?
        .query_row([channel], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // A channel that is forgotten has nothing recent; if it had, it would be found when its packs are written anew.
    let Some((top, oldest)) = row else { return Ok(()) };
    let places = &line.places[line.places.partition_point(|place| place.offset <= top)..];
    let Some(last) = places.last() else { return Ok(()) };
    let from = bound(oldest, line.keep, places);
    runs::remove_before(conn, channel, oldest, from, gone)?;
    let (before, kept) = places.split_at(places.partition_point(|place| place.offset < from));
    before.iter().for_each(|place| gone.add(place.seq, place.size));
    runs::append(conn, channel, kept)?;
    conn.prepare_cached("UPDATE channel SET top = ?2, oldest = ?3, touched_at = ?4 WHERE id = ?1")?
        .execute(params![channel, last.offset, from, last.timestamp_ms])?;
    Ok(())
}

/// From which offset on a channel has its messages, after `places` have come to it.
fn bound(oldest: u64, keep: u64, places: &[Place]) -> u64 {
    let begins = places.iter().rev().find(|place| !place.kept).map_or(oldest, |place| place.offset + 1);
    let top = places.last().map_or(0, |place| place.offset);
    let by_size = (top + 1).saturating_sub(keep).min(oldest + 2 * places.len() as u64 + TRIM_MORE);
    oldest.max(begins).max(by_size)
}

/// The `seq` of the last message whose place is in the index.
pub(super) fn stored_mark(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT seq FROM place_mark")?.query_row([], |row| row.get(0))
}

fn set_mark(conn: &Connection, mark: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE place_mark SET seq = ?1")?.execute([mark])?;
    Ok(())
}
