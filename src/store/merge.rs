//! Merging: brings recent places into the stored index and moves its mark, both in the writer's transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::places::{Place, Recent};

/// What one transaction adds to the recent places, or merges of them.
#[derive(Debug)]
pub(super) struct Added {
    next_seq: i64,
    places: Vec<(i64, Place)>,
    merged: Option<i64>,
}

impl Added {
    /// Nothing yet; the next message is `next_seq`.
    pub(super) fn from(next_seq: i64) -> Self {
        Self { next_seq, places: Vec::new(), merged: None }
    }

    /// Notes a message of `channel` and gives it its `seq`.
    pub(super) fn add(&mut self, channel: i64, place: impl FnOnce(i64) -> Place) -> i64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.places.push((channel, place(seq)));
        seq
    }

    /// Merges all recent places, those included that this transaction added so far.
    pub(super) fn merge(&mut self, conn: &Connection, recent: &Recent) -> rusqlite::Result<()> {
        let mark = self.next_seq - 1;
        if mark == stored_mark(conn)? {
            return Ok(());
        }
        let mut added: BTreeMap<i64, Vec<Place>> = BTreeMap::new();
        for (channel, place) in self.places.drain(..) {
            added.entry(channel).or_default().push(place);
        }
        // What is in memory was merged before, if this is not the transaction's first merge.
        if self.merged.is_none() {
            let tail = recent.tail();
            let mut channels = tail.channels();
            channels.sort_unstable();
            for channel in channels {
                // A channel at a time, so that readers never wait for longer than a look at one takes.
                merge_channel(conn, channel, &tail.of(channel, &(0..=u64::MAX), mark))?;
            }
        }
        for (channel, places) in added {
            merge_channel(conn, channel, &places)?;
        }
        set_mark(conn, mark)?;
        self.merged = Some(mark);
        Ok(())
    }

    /// The transaction is committed: tells memory of it. Returns the next message's `seq`.
    pub(super) fn committed(self, recent: &Recent) -> i64 {
        recent.committed(self.merged, self.places);
        self.next_seq
    }
}

/// Merges what the last run left behind the mark; the mark of then.
pub(super) fn merge_left(conn: &mut Connection) -> rusqlite::Result<i64> {
    let tx = conn.transaction()?;
    let mut mark = stored_mark(&tx)?;
    let left = places_after(&tx, mark)?;
    if let Some((_, last)) = left.last() {
        mark = last.seq;
        let mut channels: BTreeMap<i64, Vec<Place>> = BTreeMap::new();
        for (channel, place) in left {
            channels.entry(channel).or_default().push(place);
        }
        for (channel, places) in channels {
            merge_channel(&tx, channel, &places)?;
        }
        set_mark(&tx, mark)?;
    }
    tx.commit()?;
    Ok(mark)
}

/// A place before the oldest message of its channel is not merged but removed with its message: whoever moved that
/// bound removed only what the index had.
fn merge_channel(conn: &Connection, channel: i64, places: &[Place]) -> rusqlite::Result<()> {
    let oldest: Option<u64> = conn
        .prepare_cached("SELECT oldest FROM channel WHERE id = ?1")?
        .query_row([channel], |row| row.get(0))
        .optional()?;
    let kept_from = oldest.map_or(places.len(), |oldest| places.partition_point(|p| p.offset < oldest));
    let mut remove = conn.prepare_cached("DELETE FROM message WHERE seq = ?1")?;
    for place in &places[..kept_from] {
        remove.execute([place.seq])?;
    }
    let mut insert = conn
        .prepare_cached("INSERT INTO place (channel, offset, seq, conflation_key) VALUES (?1, ?2, ?3, ?4)")?;
    for Place { offset, seq, conflation_key } in &places[kept_from..] {
        insert.execute(params![channel, offset, seq, conflation_key])?;
    }
    Ok(())
}

/// The `seq` of the last message whose place is in the index.
pub(super) fn stored_mark(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT seq FROM place_mark")?.query_row([], |row| row.get(0))
}

fn set_mark(conn: &Connection, mark: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE place_mark SET seq = ?1")?.execute([mark])?;
    Ok(())
}

/// The channels and places of the messages after `seq`, in the order of their appends.
pub(super) fn places_after(conn: &Connection, seq: i64) -> rusqlite::Result<Vec<(i64, Place)>> {
    let mut statement = conn.prepare_cached(
        "SELECT channel, offset, seq, conflation_key FROM message WHERE seq > ?1 ORDER BY seq",
    )?;
    let places = statement.query_map([seq], |row| {
        let key: Option<String> = row.get(3)?;
        Ok((
            row.get(0)?,
            Place { offset: row.get(1)?, seq: row.get(2)?, conflation_key: key.map(Into::into) },
        ))
    })?;
    places.collect()
}
