//! The table of runs, which is the stored index of places: added to, read, and shortened.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, params};

use super::places::Place;
use super::waste::Gone;
use super::{packs, run};

/// The places of `channel` that are stored, oldest first.
pub(super) fn read(
    conn: &Connection,
    channel: i64,
    offsets: &RangeInclusive<u64>,
) -> rusqlite::Result<Vec<Place>> {
    let mut places = Vec::new();
    let Some(first) = first_with(conn, channel, *offsets.start())? else { return Ok(places) };
    let mut runs = conn.prepare_cached(
        "SELECT first, n, places FROM place_run WHERE channel = ?1 AND first BETWEEN ?2 AND ?3 ORDER BY first",
    )?;
    let mut runs = runs.query(params![channel, first, offsets.end()])?;
    while let Some(row) = runs.next()? {
        let run = decode(channel, row.get(0)?, row.get(1)?, row.get_ref(2)?.as_blob()?)?;
        places.extend(run.into_iter().filter(|place| offsets.contains(&place.offset)));
    }
    Ok(places)
}

/// Where the run begins that has `offset`, or else the first one behind it.
fn first_with(conn: &Connection, channel: i64, offset: u64) -> rusqlite::Result<Option<u64>> {
    let before = conn
        .prepare_cached("SELECT max(first) FROM place_run WHERE channel = ?1 AND first <= ?2")?
        .query_row(params![channel, offset], |row| row.get::<_, Option<u64>>(0))?;
    match before {
        Some(first) => Ok(Some(first)),
        None => conn
            .prepare_cached("SELECT min(first) FROM place_run WHERE channel = ?1")?
            .query_row([channel], |row| row.get(0)),
    }
}

fn decode(channel: i64, first: u64, n: usize, places: &[u8]) -> rusqlite::Result<Vec<Place>> {
    let damaged =
        || packs::damaged(format!("the places of channel {channel} from {first} on cannot be read"));
    run::read(first, n, places).ok_or_else(damaged)
}

/// Adds places behind those of `channel`, in the order of their offsets.
pub(super) fn append(conn: &Connection, channel: i64, mut places: &[Place]) -> rusqlite::Result<()> {
    let Some(next) = places.first().map(|place| place.offset) else { return Ok(()) };
    // The last run, if it is not full and nothing is missing in between.
    let open: Option<(u64, usize, Vec<u8>)> = conn
        .prepare_cached(
            "SELECT first, n, places FROM place_run WHERE channel = ?1 AND first < ?2 AND first + n = ?2 AND n < ?3
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![channel, next, run::FULL], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if let Some((first, n, stored)) = open {
        let mut run = decode(channel, first, n, &stored)?;
        let (taken, rest) = places.split_at(unbroken(places).min(run::FULL.saturating_sub(run.len())));
        run.extend_from_slice(taken);
        write(conn, channel, &run)?;
        places = rest;
    }
    while !places.is_empty() {
        let (run, rest) = places.split_at(unbroken(places).min(run::FULL));
        write(conn, channel, run)?;
        places = rest;
    }
    Ok(())
}

/// How many of the places follow each other.
fn unbroken(places: &[Place]) -> usize {
    let first = places.first().map_or(0, |place| place.offset);
    places.iter().zip(first..).take_while(|(place, offset)| place.offset == *offset).count()
}

fn write(conn: &Connection, channel: i64, run: &[Place]) -> rusqlite::Result<()> {
    let Some(first) = run.first() else { return Ok(()) };
    conn.prepare_cached(
        "INSERT INTO place_run (channel, first, n, places) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (channel, first) DO UPDATE SET n = excluded.n, places = excluded.places",
    )?
    .execute(params![channel, first.offset, run.len(), run::write(run)])?;
    Ok(())
}

/// Removes the runs of `channel` of which nothing comes at or after `offset`; the messages from `oldest` on that are
/// before it are `gone`.
pub(super) fn remove_before(
    conn: &Connection,
    channel: i64,
    oldest: u64,
    offset: u64,
    gone: &mut Gone,
) -> rusqlite::Result<()> {
    let Some(last) = offset.checked_sub(1).filter(|last| *last >= oldest) else { return Ok(()) };
    for place in read(conn, channel, &(oldest..=last))? {
        gone.add(place.seq, place.size);
    }
    conn.prepare_cached("DELETE FROM place_run WHERE channel = ?1 AND first < ?2 AND first + n <= ?2")?
        .execute(params![channel, offset])?;
    Ok(())
}
