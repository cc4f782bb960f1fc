//! The table of packs: put in, looked into for places and ids, and read from.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::pack::{self, Builder, Entry};
use super::places::Place;

/// Stores a pack.
pub(super) fn insert(conn: &Connection, pack: &Builder) -> rusqlite::Result<()> {
    let (directory, bodies) = pack.finish();
    conn.prepare_cached(
        "INSERT INTO pack (seq, last, time, messages, directory, bodies) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![pack.first, pack.last, pack.time, pack.messages, directory, bodies])?;
    Ok(())
}

/// Notes where a message stands whose id the server did not make.
pub(super) fn insert_given(conn: &Connection, channel: i64, id: &str, offset: u64) -> rusqlite::Result<()> {
    // What had the id before is not there any more.
    conn.prepare_cached(
        "INSERT INTO given_id (id, channel, offset) VALUES (?1, ?2, ?3)
         ON CONFLICT (id, channel) DO UPDATE SET offset = excluded.offset",
    )?
    .execute(params![id, channel, offset])?;
    Ok(())
}

/// Where the channel's message with this id stands, or stood, if the server did not make the id.
pub(super) fn find_given(conn: &Connection, channel: i64, id: &str) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached("SELECT offset FROM given_id WHERE id = ?1 AND channel = ?2")?
        .query_row(params![id, channel], |row| row.get(0))
        .optional()
}

/// The same if the server made it, at `made_at_ms`.
pub(super) fn find_made(
    conn: &Connection,
    channel: i64,
    id: &str,
    made_at_ms: i64,
) -> rusqlite::Result<Option<u64>> {
    let mut packs = conn.prepare_cached("SELECT seq, directory FROM pack WHERE time = ?1")?;
    let mut packs = packs.query([pack::time_of(made_at_ms)])?;
    while let Some(row) = packs.next()? {
        let seq = row.get(0)?;
        let entries = read(seq, row.get_ref(1)?.as_blob()?)?;
        let found = entries.iter().find(|entry| entry.channel == channel && entry.id == id);
        if let Some(entry) = found {
            return Ok(Some(entry.offset));
        }
    }
    Ok(None)
}

/// The channels and places of the messages after `seq`, in the order of their appends.
pub(super) fn places_after(conn: &Connection, seq: i64) -> rusqlite::Result<Vec<(i64, Place)>> {
    let mut packs = conn.prepare_cached("SELECT seq, directory FROM pack WHERE seq > ?1 ORDER BY seq")?;
    let mut packs = packs.query([seq])?;
    let mut places = Vec::new();
    while let Some(row) = packs.next()? {
        let entries = read(row.get(0)?, row.get_ref(1)?.as_blob()?)?;
        places.extend(entries.iter().map(|entry| (entry.channel, place(entry))));
    }
    Ok(places)
}

fn place(entry: &Entry<'_>) -> Place {
    Place {
        offset: entry.offset,
        seq: entry.seq,
        timestamp_ms: entry.timestamp_ms,
        size: entry.size,
        kept: entry.is_kept(),
        conflation_key: entry.conflation_key.map(Arc::from),
    }
}

/// What is wrong with the messages in packs, as far as checksums tell: SQLite itself sees only its own pages. At most `most`
/// of it.
pub(super) fn examine(conn: &Connection, most: usize) -> rusqlite::Result<Vec<String>> {
    let has_packs = conn.table_exists(None, "pack")?;
    if !has_packs {
        return Ok(Vec::new());
    }
    let mut packs = conn.prepare("SELECT seq, directory, bodies FROM pack ORDER BY seq")?;
    let mut packs = packs.query([])?;
    let mut damage = Vec::new();
    while let Some(row) = packs.next()?
        && damage.len() < most
    {
        let seq: i64 = row.get(0)?;
        let Some(entries) = pack::read(seq, row.get_ref(1)?.as_blob()?) else {
            damage.push(format!("the pack of messages {seq} cannot be read"));
            continue;
        };
        let bodies = row.get_ref(2)?.as_blob()?;
        let torn = entries.iter().filter(|entry| entry.is_kept() && entry.body(bodies).is_none()).count();
        if torn > 0 {
            damage.push(format!("{torn} messages of the pack {seq} are damaged"));
        }
    }
    Ok(damage)
}

/// Reads the directory of a pack.
pub(super) fn read(seq: i64, directory: &[u8]) -> rusqlite::Result<Vec<Entry<'_>>> {
    pack::read(seq, directory).ok_or_else(|| damaged(format!("the pack of messages {seq} cannot be read")))
}

/// What SQLite says of what it finds damaged itself.
pub(super) fn damaged(what: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what))
}

/// A message as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct StoredMessage<'p> {
    /// What happened.
    pub event: &'p str,
    /// How urgent it is, as a number.
    pub priority: u8,
    /// Its envelope.
    pub body: &'p str,
}

/// A pack that was read.
struct Pack {
    seq: i64,
    last: i64,
    directory: Vec<u8>,
    bodies: Vec<u8>,
}

/// Hands the messages of `channel` at `places` to `take`, one after the other, until it says that it is enough.
pub(super) fn messages(
    conn: &Connection,
    channel: i64,
    mut places: &[Place],
    mut take: impl FnMut(&Place, StoredMessage<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    while let Some(first) = places.first() {
        let pack = load(conn, first.seq)?;
        let entries = read(pack.seq, &pack.directory)?;
        while let Some(place) = places.first().filter(|place| (pack.seq..=pack.last).contains(&place.seq)) {
            let entry = entries.binary_search_by_key(&place.seq, |entry| entry.seq).ok().map(|n| &entries[n]);
            let entry = entry.filter(|entry| entry.channel == channel && entry.offset == place.offset);
            let message = entry.and_then(|entry| {
                let Entry { event, priority, .. } = *entry;
                Some(StoredMessage { event, priority, body: entry.body(&pack.bodies)? })
            });
            let Some(message) = message else {
                return Err(damaged(format!("message {} in pack {} cannot be read", place.seq, pack.seq)));
            };
            if !take(place, message)? {
                return Ok(());
            }
            places = &places[1..];
        }
    }
    Ok(())
}

/// The pack that has message `seq`.
fn load(conn: &Connection, seq: i64) -> rusqlite::Result<Pack> {
    let found = conn
        .prepare_cached(
            "SELECT seq, last, directory, bodies FROM pack WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([seq], |row| {
            Ok(Pack { seq: row.get(0)?, last: row.get(1)?, directory: row.get(2)?, bodies: row.get(3)? })
        })
        .optional()?;
    found.filter(|pack| seq <= pack.last).ok_or_else(|| damaged(format!("message {seq} is in no pack")))
}
