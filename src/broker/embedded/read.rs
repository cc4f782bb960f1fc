//! Reading: tops, stretches of history, and tests, each from one committed state.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::params;

use super::snapshot::{load_snapshot, parse_snapshot, place};
use crate::broker::{Page, PageLimit, Survey, TestPage, Top};
use crate::config::channels::{History, Rules};
use crate::model::message::OpenEnvelope;
use crate::model::{ChannelName, EventName, Position, Priority, Published, TestId, TestState, now_ms};
use crate::store::{ChannelRow, Place, ReadTx, StoredMessage};

/// The test whose snapshot `channel` has, if its namespace has snapshots.
pub(super) fn test_of(rules: &Rules, channel: &ChannelName) -> Option<TestId> {
    let resolved = rules.resolve(channel.as_str())?;
    if !resolved.namespace.snapshot {
        return None;
    }
    TestId::parse(resolved.value(channel.as_str())?).ok()
}

pub(super) fn top(
    tx: &ReadTx<'_>,
    channel: &ChannelName,
    test: Option<&TestId>,
) -> rusqlite::Result<Option<Top>> {
    let Some(row) = tx.channel(channel)? else { return Ok(None) };
    let snapshot = match test {
        Some(test) => load_snapshot(tx, test)?,
        None => None,
    };
    Ok(Some(Top { position: Position { epoch: row.epoch, offset: row.top }, snapshot }))
}

pub(super) fn history(
    tx: &ReadTx<'_>,
    channel: &ChannelName,
    history: Option<History>,
    after: u64,
    limit: PageLimit,
) -> rusqlite::Result<Option<Page>> {
    let Some(row) = tx.channel(channel)? else { return Ok(None) };
    let oldest = oldest_readable(tx, &row, history)?;
    let from = next(after).max(oldest);
    // Offsets have no holes, so this is no more than what is asked for.
    let upto = row.top.min(from.saturating_add(limit.messages.max(1) as u64 - 1));
    let mut messages: Vec<Arc<Published>> = Vec::new();
    let mut room = limit.bytes;
    tx.messages(row.id, &tx.places(row.id, &(from..=upto))?, |place, stored| {
        let message = published(channel, &row, place, stored)?;
        let fits = message.size() <= room || messages.is_empty();
        if fits {
            room = room.saturating_sub(message.size());
            messages.push(Arc::new(message));
        }
        Ok(fits)
    })?;
    Ok(Some(Page { messages, epoch: row.epoch, top: row.top, oldest }))
}

pub(super) fn survey(
    tx: &ReadTx<'_>,
    channel: &ChannelName,
    after: u64,
    upto: u64,
) -> rusqlite::Result<Survey> {
    let Some(row) = tx.channel(channel)? else { return Ok(Survey::default()) };
    let (from, upto) = (next(after).max(row.oldest), upto.min(row.top));
    let mut survey = Survey::default();
    for place in tx.places(row.id, &(from..=upto))? {
        match place.conflation_key {
            Some(key) => {
                survey.newest.insert(key, place.offset);
            }
            None => survey.plain += 1,
        }
    }
    Ok(survey)
}

/// The offset after `offset`, which a receiver may have made up; the store knows no larger ones than this.
fn next(offset: u64) -> u64 {
    offset.min(i64::MAX as u64 - 1) + 1
}

/// The oldest offset that the channel's bounds still promise; rows before it may linger until they are removed.
fn oldest_readable(tx: &ReadTx<'_>, row: &ChannelRow, history: Option<History>) -> rusqlite::Result<u64> {
    let Some(history) = history else { return Ok(row.oldest) };
    let by_size = (row.top + 1).saturating_sub(history.size).max(row.oldest);
    let ttl_ms = i64::try_from(history.ttl.as_millis()).unwrap_or(i64::MAX);
    let by_age = first_since(tx, row.id, by_size..=row.top, now_ms().saturating_sub(ttl_ms))?;
    Ok(by_age.unwrap_or(row.top + 1))
}

/// The first of `offsets` whose message was accepted at or after `cutoff_ms`.
pub(super) fn first_since(
    tx: &ReadTx<'_>,
    channel: i64,
    offsets: RangeInclusive<u64>,
    cutoff_ms: i64,
) -> rusqlite::Result<Option<u64>> {
    let (mut from, upto) = offsets.into_inner();
    // Mostly it is the very first one.
    let mut stretch = 1;
    while from <= upto {
        let last = upto.min(from.saturating_add(stretch - 1));
        let places = tx.places(channel, &(from..=last))?;
        if let Some(place) = places.iter().find(|place| place.timestamp_ms >= cutoff_ms) {
            return Ok(Some(place.offset));
        }
        (from, stretch) = (last + 1, stretch * 8);
    }
    Ok(None)
}

fn published(
    channel: &ChannelName,
    row: &ChannelRow,
    place: &Place,
    stored: StoredMessage<'_>,
) -> rusqlite::Result<Published> {
    let event = EventName::parse(stored.event).map_err(|e| unreadable(Box::new(e)))?;
    let priority = Priority::from_number(stored.priority.into()).map_err(|e| unreadable(Box::new(e)))?;
    Ok(Published::new(
        channel.clone(),
        Position { epoch: row.epoch.clone(), offset: place.offset },
        event,
        priority,
        place.timestamp_ms,
        place.conflation_key.clone(),
        OpenEnvelope::from_stored(stored.body.into()),
    ))
}

fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error)
}

pub(super) fn tests(
    tx: &ReadTx<'_>,
    state: Option<TestState>,
    cursor: Option<i64>,
    limit: usize,
) -> rusqlite::Result<TestPage> {
    let sql = match state {
        Some(_) => "SELECT seq, snapshot FROM test WHERE state = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
        None => "SELECT seq, snapshot FROM test WHERE ?1 IS NULL AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
    };
    let mut statement = tx.conn().prepare_cached(sql)?;
    let before = cursor.unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![state.map(TestState::name), before, limit + 1], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let next = (rows.len() > limit).then(|| rows.get(limit.saturating_sub(1)).map(|r| r.0)).flatten();
    let mut tests = Vec::with_capacity(rows.len().min(limit));
    for (_, text) in rows.into_iter().take(limit) {
        let mut snapshot = parse_snapshot(&text)?;
        place(tx, &mut snapshot)?;
        tests.push(snapshot);
    }
    Ok(TestPage { tests, next })
}
