//! The store's files as they lie on the disk: a second reader of their formats, which shares nothing with the first.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

/// A directory with the files of the store in `dir` as they are at this moment, at which nobody writes to them: what a
/// process leaves that is killed then.
pub(crate) fn image(dir: &Path) -> TempDir {
    let image = TempDir::new().expect("a directory");
    for name in ["tidings.db", "tidings.db-wal"] {
        fs::copy(dir.join(name), image.path().join(name)).expect("the file can be copied");
    }
    image
}

/// What a pack says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) seq: i64,
    pub(crate) channel: i64,
    pub(crate) offset: u64,
    pub(crate) key: Option<String>,
    pub(crate) body: usize,
}

/// What a run says of a message: the channel, its offset, its number, when it was accepted, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) channel: i64,
    pub(crate) offset: u64,
    pub(crate) seq: i64,
    timestamp_ms: i64,
    size: u64,
    pub(crate) key: Option<String>,
}

struct Cursor<'b>(&'b [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().expect("a byte");
        self.0 = rest;
        *byte
    }

    fn number(&mut self) -> u64 {
        let byte = u64::from(self.byte());
        if byte < 128 { byte } else { (byte & 127) + (self.number() << 7) }
    }

    fn signed(&mut self) -> i64 {
        let n = self.number();
        if n.is_multiple_of(2) { (n / 2) as i64 } else { -((n / 2) as i64) - 1 }
    }

    fn text(&mut self) -> String {
        let len = self.number() as usize;
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8(text.to_vec()).expect("UTF-8")
    }
}

/// All messages of all packs, in their order.
pub(crate) fn packs(conn: &Connection) -> rusqlite::Result<Vec<Packed>> {
    let mut packs =
        conn.prepare("SELECT seq, last, messages, directory, length(bodies) FROM pack ORDER BY seq")?;
    let mut packs = packs.query([])?;
    let mut all: Vec<Packed> = Vec::new();
    while let Some(row) = packs.next()? {
        let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (directory, bodies): (Vec<u8>, usize) = (row.get(3)?, row.get(4)?);
        let mut cursor = Cursor(&directory[..directory.len() - 4]);
        cursor.signed();
        (0..cursor.number()).for_each(|_| drop(cursor.text()));
        let n = cursor.number();
        assert_eq!(n, row.get::<_, u64>(2)?, "the number of messages in pack {first}");
        let mut seq = first;
        let begin = all.len();
        for _ in 0..n {
            seq += cursor.number() as i64;
            let (channel, offset) = (cursor.number() as i64, cursor.number());
            cursor.signed();
            cursor.number();
            let flags = cursor.byte();
            cursor.text();
            let key = (flags & 8 != 0).then(|| cursor.text());
            let body = cursor.number() as usize;
            (0..4).for_each(|_| _ = cursor.byte());
            assert!(seq <= last && all.last().is_none_or(|before| before.seq < seq), "{seq} in pack {first}");
            all.push(Packed { seq, channel, offset, key, body });
            seq += 1;
        }
        assert!(cursor.0.is_empty(), "pack {first} is longer than its messages");
        assert_eq!(all[begin..].iter().map(|packed| packed.body).sum::<usize>(), bodies, "pack {first}");
    }
    Ok(all)
}

/// All places of all runs, by channel and offset.
pub(crate) fn runs(conn: &Connection) -> rusqlite::Result<Vec<Indexed>> {
    let mut runs = conn.prepare("SELECT channel, first, n, places FROM place_run ORDER BY channel, first")?;
    let mut runs = runs.query([])?;
    let mut all: Vec<Indexed> = Vec::new();
    while let Some(row) = runs.next()? {
        let (channel, first, n): (i64, u64, usize) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let run: Vec<u8> = row.get(3)?;
        let mut cursor = Cursor(&run);
        let keys: Vec<_> = (0..cursor.number()).map(|_| cursor.text()).collect();
        let (mut seq, mut timestamp_ms) = (0, 0);
        for offset in first..first + n as u64 {
            seq += cursor.signed();
            timestamp_ms += cursor.signed();
            let size = cursor.number();
            let key = cursor.number().checked_sub(1).map(|key| keys[key as usize].clone());
            let before = all.last().filter(|before| before.channel == channel);
            assert!(before.is_none_or(|before| before.offset < offset), "{offset} of {channel} stands twice");
            all.push(Indexed { channel, offset, seq, timestamp_ms, size, key });
        }
    }
    Ok(all)
}

/// Has the channel's messages up to `upto` be as old as can be; all of them have to be merged.
pub(crate) fn age(conn: &Connection, channel: &str, upto: u64) -> rusqlite::Result<()> {
    let id: i64 = conn.query_row("SELECT id FROM channel WHERE name = ?1", [channel], |row| row.get(0))?;
    let mut places = runs(conn)?;
    places.retain(|place| place.channel == id);
    conn.execute("DELETE FROM place_run WHERE channel = ?1", [id])?;
    // A run for each message will do.
    for place in places {
        let timestamp_ms = if place.offset <= upto { 0 } else { place.timestamp_ms };
        let mut run = Vec::new();
        match &place.key {
            Some(key) => {
                run.extend([1, u8::try_from(key.len()).expect("a short key")]);
                run.extend(key.as_bytes());
            }
            None => run.push(0),
        }
        for signed in [place.seq, timestamp_ms] {
            number(&mut run, signed as u64 * 2);
        }
        number(&mut run, place.size);
        run.push(u8::from(place.key.is_some()));
        let insert = "INSERT INTO place_run (channel, first, n, places) VALUES (?1, ?2, 1, ?3)";
        conn.execute(insert, (id, place.offset, run))?;
    }
    Ok(())
}

fn number(out: &mut Vec<u8>, n: u64) {
    if n < 128 {
        out.push(n as u8);
    } else {
        out.push((n % 128) as u8 | 128);
        number(out, n / 128);
    }
}

/// The bounds of all channels, by their numbers: the oldest message and the newest, as far as the tables know.
pub(crate) fn bounds(conn: &Connection) -> rusqlite::Result<BTreeMap<i64, (u64, u64)>> {
    let mut channels = conn.prepare("SELECT id, oldest, top FROM channel")?;
    channels.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
}

/// Sets channels back by `lost` messages each, as a host does that goes down; all of them have to be merged.
pub(crate) fn lose(conn: &Connection, channel: &str, lost: u64) -> rusqlite::Result<()> {
    let lose = "UPDATE channel SET oldest = min(oldest, max(top - ?2, 0) + 1), top = max(top - ?2, 0) WHERE name = ?1";
    conn.execute(lose, (channel, lost))?;
    let (id, top): (i64, u64) =
        conn.query_row("SELECT id, top FROM channel WHERE name = ?1", [channel], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    conn.execute("DELETE FROM place_run WHERE channel = ?1 AND first > ?2", (id, top))?;
    let cut = "UPDATE place_run SET n = ?2 + 1 - first WHERE channel = ?1 AND first + n > ?2 + 1";
    conn.execute(cut, (id, top))?;
    conn.execute("DELETE FROM given_id WHERE channel = ?1 AND offset > ?2", (id, top)).map(drop)
}
