//! From schema 5 to 6: rows of messages become packs, rows of places become runs. Each row is read once, and none of
//! them is held for longer than until its pack or run is full.

use rusqlite::{Connection, Row};

use super::pack::{self, Builder, Stored};
use super::places::Place;
use super::{packs, run, runs};
use crate::model::MessageId;

/// An id that bears a time as far from its message's was not made by the server, which makes both at once.
const OWN_MS: i64 = 60_000;

/// What schema 5 does when it is opened after a hard end.
const MERGE: &str = "
    DELETE FROM message WHERE seq > (SELECT seq FROM place_mark)
      AND offset < (SELECT oldest FROM channel WHERE id = message.channel);
    INSERT INTO place (channel, offset, seq, conflation_key)
      SELECT channel, offset, seq, conflation_key FROM message WHERE seq > (SELECT seq FROM place_mark);
    UPDATE place_mark SET seq = max(seq, (SELECT coalesce(max(seq), 0) FROM message));
";

/// Fills the tables of schema 6, and removes those that they are for.
pub(super) fn convert(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(MERGE)?;
    pack_messages(conn)?;
    index_places(conn)?;
    conn.execute_batch("DROP TABLE place; DROP TABLE message")
}

fn pack_messages(conn: &Connection) -> rusqlite::Result<()> {
    let mut messages = conn.prepare(
        "SELECT seq, channel, offset, id, event, priority, timestamp, conflation_key, body
         FROM message ORDER BY seq",
    )?;
    let mut messages = messages.query([])?;
    let mut open: Option<Builder> = None;
    while let Some(row) = messages.next()? {
        let (seq, channel, message) = (row.get(0)?, row.get(1)?, stored(row)?);
        let time = message.made_at_ms.map(pack::time_of);
        if let Some(full) = open.take_if(|pack| !pack.takes(time)) {
            packs::insert(conn, &full)?;
        }
        if message.made_at_ms.is_none() {
            packs::insert_given(conn, channel, message.id, message.offset)?;
        }
        open.get_or_insert_with(|| Builder::new(seq, message.timestamp_ms)).push(seq, channel, &message);
    }
    open.map_or(Ok(()), |pack| packs::insert(conn, &pack))
}

fn stored<'r>(row: &'r Row<'_>) -> rusqlite::Result<Stored<'r>> {
    let (id, timestamp_ms): (_, i64) = (row.get_ref(3)?.as_str()?, row.get(6)?);
    let made_at_ms = MessageId::time_in(id).filter(|made_at| (made_at - timestamp_ms).abs() < OWN_MS);
    Ok(Stored {
        offset: row.get(2)?,
        timestamp_ms,
        event: row.get_ref(4)?.as_str()?,
        priority: row.get(5)?,
        id,
        made_at_ms,
        conflation_key: row.get_ref(7)?.as_str_or_null()?,
        body: row.get_ref(8)?.as_str()?,
    })
}

fn index_places(conn: &Connection) -> rusqlite::Result<()> {
    let mut places = conn.prepare(
        "SELECT place.channel, place.offset, place.seq, timestamp, octet_length(id) + octet_length(body) + 16,
           place.conflation_key
         FROM place JOIN message ON message.seq = place.seq ORDER BY place.channel, place.offset",
    )?;
    let mut places = places.query([])?;
    let (mut of, mut held) = (0, Vec::new());
    while let Some(row) = places.next()? {
        let channel = row.get(0)?;
        if channel != of || held.len() == run::FULL {
            runs::append(conn, of, &held)?;
            held.clear();
            of = channel;
        }
        let key: Option<String> = row.get(5)?;
        held.push(Place {
            offset: row.get(1)?,
            seq: row.get(2)?,
            timestamp_ms: row.get(3)?,
            size: row.get(4)?,
            kept: true,
            conflation_key: key.map(Into::into),
        });
    }
    runs::append(conn, of, &held)
}
