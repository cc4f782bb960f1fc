//! Reading: tops, stretches of history, and tests, each from one committed state.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::append::{ChannelRow, find_channel, load_snapshot, parse_snapshot, place};
use crate::broker::{Page, PageLimit, Survey, TestPage, Top};
use crate::config::channels::{History, Rules};
use crate::model::message::OpenEnvelope;
use crate::model::{ChannelName, EventName, Position, Priority, Published, TestId, TestState, now_ms};

/// The test whose snapshot `channel` has, if its namespace has snapshots.
pub(super) fn test_of(rules: &Rules, channel: &ChannelName) -> Option<TestId> {
    let resolved = rules.resolve(channel.as_str())?;
    if !resolved.namespace.snapshot {
        return None;
    }
    TestId::parse(resolved.value(channel.as_str())?).ok()
}

pub(super) fn top(
    conn: &Connection,
    channel: &ChannelName,
    test: Option<&TestId>,
) -> rusqlite::Result<Option<Top>> {
    let Some(row) = find_channel(conn, channel)? else { return Ok(None) };
    let snapshot = match test {
        Some(test) => load_snapshot(conn, test)?,
        None => None,
    };
    Ok(Some(Top { position: Position { epoch: row.epoch, offset: row.top }, snapshot }))
}

pub(super) fn history(
    conn: &Connection,
    channel: &ChannelName,
    history: Option<History>,
    after: u64,
    limit: PageLimit,
) -> rusqlite::Result<Option<Page>> {
    let Some(row) = find_channel(conn, channel)? else { return Ok(None) };
    let oldest = oldest_readable(conn, &row, history)?;
    let mut statement = conn.prepare_cached(
        "SELECT offset, event, priority, timestamp, conflation_key, body FROM message
         WHERE channel = ?1 AND offset > ?2 ORDER BY offset LIMIT ?3",
    )?;
    let from = after.max(oldest.saturating_sub(1)).min(i64::MAX as u64);
    let most = i64::try_from(limit.messages.max(1)).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![row.id, from, most])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(stored) = rows.next()? {
        let published = published(channel, &row, stored)?;
        bytes += published.size();
        if bytes > limit.bytes && !messages.is_empty() {
            break;
        }
        messages.push(Arc::new(published));
    }
    drop(rows);
    Ok(Some(Page { messages, epoch: row.epoch, top: row.top, oldest }))
}

pub(super) fn survey(
    conn: &Connection,
    channel: &ChannelName,
    after: u64,
    upto: u64,
) -> rusqlite::Result<Survey> {
    let Some(row) = find_channel(conn, channel)? else { return Ok(Survey::default()) };
    let mut statement = conn.prepare_cached(
        "SELECT conflation_key, max(offset), count(*) FROM message
         WHERE channel = ?1 AND offset > ?2 AND offset <= ?3 GROUP BY conflation_key",
    )?;
    let mut rows = statement.query(params![row.id, after.min(i64::MAX as u64), upto.min(i64::MAX as u64)])?;
    let mut survey = Survey::default();
    while let Some(group) = rows.next()? {
        match group.get::<_, Option<String>>(0)? {
            Some(key) => {
                survey.newest.insert(Arc::from(key), group.get(1)?);
            }
            None => survey.plain = group.get(2)?,
        }
    }
    Ok(survey)
}

/// The oldest offset that the channel's bounds still promise; rows before it may linger until they are removed.
fn oldest_readable(conn: &Connection, row: &ChannelRow, history: Option<History>) -> rusqlite::Result<u64> {
    let Some(history) = history else { return Ok(row.oldest) };
    let by_size = (row.top + 1).saturating_sub(history.size).max(row.oldest);
    let ttl_ms = i64::try_from(history.ttl.as_millis()).unwrap_or(i64::MAX);
    let by_age = first_since(conn, row.id, by_size, now_ms().saturating_sub(ttl_ms))?;
    Ok(by_age.unwrap_or(row.top + 1))
}

/// The first offset, from `from` on, of a message that was accepted at or after `cutoff_ms`.
pub(super) fn first_since(
    conn: &Connection,
    channel: i64,
    from: u64,
    cutoff_ms: i64,
) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached(
        "SELECT offset FROM message WHERE channel = ?1 AND offset >= ?2 AND timestamp >= ?3
         ORDER BY offset LIMIT 1",
    )?
    .query_row(params![channel, from, cutoff_ms], |row| row.get(0))
    .optional()
}

fn published(
    channel: &ChannelName,
    row: &ChannelRow,
    stored: &rusqlite::Row<'_>,
) -> rusqlite::Result<Published> {
    let event: String = stored.get(1)?;
    let event = EventName::parse(&event).map_err(|e| unreadable(1, Box::new(e)))?;
    let priority = Priority::from_number(stored.get(2)?).map_err(|e| unreadable(2, Box::new(e)))?;
    let key: Option<String> = stored.get(4)?;
    Ok(Published::new(
        channel.clone(),
        Position { epoch: row.epoch.clone(), offset: stored.get(0)? },
        event,
        priority,
        stored.get(3)?,
        key.map(Arc::from),
        OpenEnvelope::from_stored(stored.get(5)?),
    ))
}

fn unreadable(column: usize, error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
}

pub(super) fn tests(
    conn: &Connection,
    state: Option<TestState>,
    cursor: Option<i64>,
    limit: usize,
) -> rusqlite::Result<TestPage> {
    let sql = match state {
        Some(_) => "SELECT seq, snapshot FROM test WHERE state = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
        None => "SELECT seq, snapshot FROM test WHERE ?1 IS NULL AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
    };
    let mut statement = conn.prepare_cached(sql)?;
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
        place(conn, &mut snapshot)?;
        tests.push(snapshot);
    }
    Ok(TestPage { tests, next })
}
