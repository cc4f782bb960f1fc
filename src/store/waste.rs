//! Waste: what packs hold of messages that are gone, and how its room is had back.
//!
//! A message is gone when its channel's `oldest` is beyond it. Its pack stays for the sake of the others; but a pack of
//! which nothing is left is removed, and one of which at most half is left is written anew with what is left. So
//! packs take at most twice the room of the messages that they are kept for, and what is behind with its waste.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::pack::{Builder, Entry, Stored};
use super::packs;

/// Messages that are gone: the numbers and sizes of them.
#[derive(Debug, Default)]
pub(super) struct Gone(Vec<(i64, u32)>);

/// A pack, as far as its waste goes.
struct Pack {
    seq: i64,
    last: i64,
    messages: u64,
    bytes: u64,
}

/// The tops and the oldest messages of channels, as far as they were looked up; `None` for one that is forgotten.
#[derive(Default)]
struct Bounds(HashMap<i64, Option<(u64, u64)>>);

impl Bounds {
    /// Whether the message can still be read, or is yet to be merged: until then a channel's top is only in its packs,
    /// and a message that is not kept says where it is, too.
    fn has(&mut self, conn: &Connection, entry: &Entry<'_>) -> rusqlite::Result<bool> {
        let bounds = match self.0.get(&entry.channel) {
            Some(known) => *known,
            None => {
                let found = conn
                    .prepare_cached("SELECT top, oldest FROM channel WHERE id = ?1")?
                    .query_row([entry.channel], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                *self.0.entry(entry.channel).or_insert(found)
            }
        };
        Ok(bounds
            .is_some_and(|(top, oldest)| entry.offset > top || (entry.is_kept() && entry.offset >= oldest)))
    }
}

impl Gone {
    pub(super) fn add(&mut self, seq: i64, size: u32) {
        self.0.push((seq, size));
    }

    /// Counts them as waste of their packs, and removes packs of which nothing else is left. Their channels' rows have
    /// to say already that they are gone.
    pub(super) fn count(mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.0.sort_unstable();
        let (mut rest, mut bounds) = (&self.0[..], Bounds::default());
        while let Some((first, _)) = rest.first() {
            let Some(pack) = find(conn, *first)?.filter(|pack| *first <= pack.last) else {
                // Its pack is gone already.
                rest = &rest[1..];
                continue;
            };
            let (of_it, others) = rest.split_at(rest.partition_point(|(seq, _)| *seq <= pack.last));
            rest = others;
            let wasted = of_it.iter().map(|(_, size)| u64::from(*size)).sum();
            if note(conn, &pack, of_it.len() as u64, wasted)? {
                rewrite(conn, pack.seq, &mut bounds)?;
            }
        }
        Ok(())
    }
}

fn find(conn: &Connection, seq: i64) -> rusqlite::Result<Option<Pack>> {
    conn.prepare_cached(
        "SELECT seq, last, messages, length(directory) + length(bodies) FROM pack
         WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
    )?
    .query_row([seq], |row| {
        Ok(Pack { seq: row.get(0)?, last: row.get(1)?, messages: row.get(2)?, bytes: row.get(3)? })
    })
    .optional()
}

/// Adds to the waste of a pack; whether it seems to be all of it.
fn note(conn: &Connection, pack: &Pack, messages: u64, wasted: u64) -> rusqlite::Result<bool> {
    let before: u64 = conn
        .prepare_cached("SELECT messages FROM pack_waste WHERE pack = ?1")?
        .query_row([pack.seq], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    if before + messages >= pack.messages {
        return Ok(true);
    }
    conn.prepare_cached(
        "INSERT INTO pack_waste (pack, messages, wasted, bytes) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (pack) DO UPDATE SET messages = messages + ?2, wasted = wasted + ?3",
    )?
    .execute(params![pack.seq, messages, wasted, pack.bytes])?;
    Ok(false)
}

/// Writes packs anew of which at most half is left, `max` of them; how many there were.
pub(super) fn tidy(conn: &Connection, max: usize) -> rusqlite::Result<usize> {
    let mut half =
        conn.prepare_cached("SELECT pack FROM pack_waste WHERE wasted * 2 >= bytes ORDER BY pack LIMIT ?1")?;
    let packs = half.query_map([max], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut bounds = Bounds::default();
    for seq in &packs {
        rewrite(conn, *seq, &mut bounds)?;
    }
    Ok(packs.len())
}

/// Writes a pack anew without what is gone, or removes it if nothing is left. What is gone is looked up: counts are only
/// the reason to do so.
fn rewrite(conn: &Connection, seq: i64, bounds: &mut Bounds) -> rusqlite::Result<()> {
    // Whatever comes of it: it is not tried for ever.
    conn.prepare_cached("DELETE FROM pack_waste WHERE pack = ?1")?.execute([seq])?;
    let directory: Option<Vec<u8>> = conn
        .prepare_cached("SELECT directory FROM pack WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    let Some(directory) = directory else {
        tracing::warn!(pack = seq, "a pack of messages of which waste was counted is not there");
        return Ok(());
    };
    let Ok(entries) = packs::read(seq, &directory) else {
        tracing::warn!(pack = seq, "a pack of messages is damaged and stays as it is");
        return Ok(());
    };
    let mut left = Vec::with_capacity(entries.len());
    for entry in &entries {
        if bounds.has(conn, entry)? {
            left.push(entry);
        } else if entry.given {
            conn.prepare_cached("DELETE FROM given_id WHERE id = ?1 AND channel = ?2 AND offset = ?3")?
                .execute(params![entry.id, entry.channel, entry.offset])?;
        }
    }
    if left.is_empty() {
        conn.prepare_cached("DELETE FROM pack WHERE seq = ?1")?.execute([seq])?;
        return Ok(());
    }
    let bodies: Vec<u8> =
        conn.prepare_cached("SELECT bodies FROM pack WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
    let mut anew = Builder::new(seq, left[0].timestamp_ms);
    for entry in left {
        let Some(message) = stored(entry, &bodies) else {
            tracing::warn!(
                pack = seq,
                message = entry.seq,
                "a message is damaged, and its pack stays as it is"
            );
            return Ok(());
        };
        anew.push(entry.seq, entry.channel, &message);
    }
    let (directory, bodies) = anew.finish();
    conn.prepare_cached("UPDATE pack SET messages = ?2, directory = ?3, bodies = ?4 WHERE seq = ?1")?
        .execute(params![seq, anew.messages, directory, bodies])?;
    Ok(())
}

/// The message as it was handed in; `None` if it is damaged.
fn stored<'m>(entry: &Entry<'m>, bodies: &'m [u8]) -> Option<Stored<'m>> {
    Some(Stored {
        offset: entry.offset,
        timestamp_ms: entry.timestamp_ms,
        event: entry.event,
        priority: entry.priority,
        id: entry.id,
        // Its time stands in the pack's row.
        made_at_ms: (!entry.given).then_some(0),
        conflation_key: entry.conflation_key,
        body: entry.body(bodies)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::merge::Added;
    use super::super::places::Recent;
    use super::super::{Synchronous, channels, open};
    use super::*;
    use crate::model::ChannelName;

    #[test]
    fn waste_of_a_pack_that_is_not_there_is_forgotten_and_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open::open(dir.path(), Synchronous::Normal).unwrap().conn;
        conn.execute("INSERT INTO pack_waste (pack, messages, wasted, bytes) VALUES (7, 1, 9, 10)", [])
            .unwrap();
        assert_eq!(tidy(&conn, 9).unwrap(), 1);
        assert_eq!(tidy(&conn, 9).unwrap(), 0);
    }

    #[test]
    fn what_is_not_merged_yet_is_kept_in_its_pack() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open::open(dir.path(), Synchronous::Normal).unwrap().conn;
        let make = |name| channels::make(&conn, &ChannelName::parse(name).unwrap(), 0).unwrap().id;
        let (short, lossy) = (make("short"), make("lossy"));
        let message = |offset, body| Stored {
            offset,
            timestamp_ms: 0,
            event: "custom:x",
            priority: 2,
            id: "m",
            made_at_ms: Some(0),
            conflation_key: None,
            body,
        };
        let recent = Recent::none_after(0);
        let mut added = Added::from(1, 0);
        for offset in 1..=20 {
            added.append(&conn, short, 1, &message(offset, "{\"n\":1"), None).unwrap();
        }
        added.append(&conn, lossy, 0, &message(1, ""), None).unwrap();
        added.store(&conn).unwrap();
        let next = added.committed(&recent);
        // One of the two channels, of which the newest message is left.
        let mut merging = Added::from(next, 0);
        assert!(merging.merge_some(&conn, &recent, 1).unwrap());
        merging.committed(&recent);
        assert_eq!(tidy(&conn, 9).unwrap(), 1);
        let left: Vec<_> = packs::places_after(&conn, 0).unwrap();
        let left: Vec<_> = left.iter().map(|(channel, place)| (*channel, place.offset, place.kept)).collect();
        assert_eq!(left, [(short, 20, true), (lossy, 1, false)], "where the other is, is said nowhere else");
        let mut merging = Added::from(next, 0);
        assert!(!merging.merge_some(&conn, &recent, 1).unwrap());
        merging.committed(&recent);
        let (top, oldest) =
            ("SELECT top FROM channel WHERE id = ?1", "SELECT oldest FROM channel WHERE id = ?1");
        let of = |sql: &str, channel| conn.query_row(sql, [channel], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!((of(top, lossy), of(oldest, lossy), of(top, short), of(oldest, short)), (1, 2, 20, 20));
    }
}
