//! Reading: rows of the inbox as entries.

use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;

use crate::inbox::{Entry, InboxPage, PageOf, Status};
use crate::model::{ChannelName, Epoch, MessageId, Position, UserId};

/// How many unread entries a user has.
pub(super) const COUNT_UNREAD: &str = "SELECT count(*) FROM inbox WHERE user = ?1 AND status = 'unread'";
/// How many offline entries a user has.
pub(super) const COUNT_OFFLINE: &str =
    "SELECT count(*) FROM inbox WHERE user = ?1 AND takers <= 0 AND confirmed = 0";

const COLUMNS: &str = "seq, user, channel, id, epoch, offset, sender, body, status, delivered_at, read_at";

pub(super) fn unread(conn: &Connection, user: &UserId, page: PageOf) -> rusqlite::Result<InboxPage> {
    let total = conn.prepare_cached(COUNT_UNREAD)?.query_row([user.as_str()], |row| row.get(0))?;
    list(conn, user, "status = 'unread'", i64::MAX, page, total)
}

pub(super) fn offline(
    conn: &Connection,
    user: &UserId,
    on_the_way_ms: Option<i64>,
    page: PageOf,
) -> rusqlite::Result<InboxPage> {
    let until = on_the_way_ms.unwrap_or(i64::MAX);
    let total = conn
        .prepare_cached(&format!("{COUNT_OFFLINE} AND timestamp <= ?2"))?
        .query_row(params![user.as_str(), until], |row| row.get(0))?;
    list(conn, user, "takers <= 0 AND confirmed = 0", until, page, total)
}

fn list(
    conn: &Connection,
    user: &UserId,
    which: &str,
    until_ms: i64,
    page: PageOf,
    total: u64,
) -> rusqlite::Result<InboxPage> {
    let limit = page.limit.max(1);
    let sql = format!(
        "SELECT {COLUMNS} FROM inbox WHERE user = ?1 AND {which} AND seq > ?2 AND timestamp <= ?3
         ORDER BY seq LIMIT ?4"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let after = page.after.unwrap_or(0);
    let (mut entries, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in statement.query_map(params![user.as_str(), after, until_ms, limit + 1], entry)? {
        let (seq, entry) = row?;
        bytes += entry.json.get().len();
        if entries.len() == limit || (bytes > page.bytes && last.is_some()) {
            return Ok(InboxPage { entries, total, next: last });
        }
        last = Some(seq);
        entries.push(entry);
    }
    Ok(InboxPage { entries, total, next: None })
}

pub(super) fn find(conn: &Connection, id: &MessageId, limit: usize) -> rusqlite::Result<Vec<Entry>> {
    let sql = format!("SELECT {COLUMNS} FROM inbox WHERE id = ?1 ORDER BY seq LIMIT ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![id.as_str(), limit], entry)?;
    rows.map(|row| row.map(|(_, entry)| entry)).collect()
}

pub(super) fn waiting(
    conn: &Connection,
    user: &UserId,
    channel: &ChannelName,
) -> rusqlite::Result<Option<Position>> {
    conn.prepare_cached(
        "SELECT c.epoch, i.offset FROM inbox i JOIN channel c ON c.name = i.channel AND c.epoch = i.epoch
         WHERE i.user = ?1 AND i.channel = ?2 AND i.offset >= c.oldest
           AND (i.status = 'unread' OR (i.takers <= 0 AND i.confirmed = 0 AND i.status <> 'recalled'))
         ORDER BY i.offset LIMIT 1",
    )?
    .query_row(params![user.as_str(), channel.as_str()], |row| {
        let epoch: String = row.get(0)?;
        Ok(Position { epoch: Epoch::new(&epoch), offset: row.get(1)? })
    })
    .optional()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(i64, Entry)> {
    let text = |column: usize| row.get::<_, String>(column);
    let (epoch, status, body) = (text(4)?, text(8)?, text(7)?);
    let offset: u64 = row.get(5)?;
    let sender: Option<String> = row.get(6)?;
    let status = Status::from_name(&status).ok_or_else(|| unreadable(8, format!("status {status:?}")))?;
    let (delivered_at, read_at): (Option<i64>, Option<i64>) = (row.get(9)?, row.get(10)?);
    let mut json = body;
    // Writing to memory cannot fail.
    let _ = write!(json, r#","epoch":"{epoch}","offset":{offset},"status":"{}""#, status.name());
    for (name, at) in [("deliveredAt", delivered_at), ("readAt", read_at)] {
        if let Some(at) = at {
            let _ = write!(json, r#","{name}":{at}"#);
        }
    }
    json.push('}');
    let entry = Entry {
        user_id: UserId::parse(&text(1)?).map_err(|e| unreadable(1, e))?,
        channel: ChannelName::parse(&text(2)?).map_err(|e| unreadable(2, e))?,
        id: MessageId::parse(&text(3)?).map_err(|e| unreadable(3, e))?,
        position: Position { epoch: Epoch::new(&epoch), offset },
        sender_id: sender.map(|s| UserId::parse(&s)).transpose().map_err(|e| unreadable(6, e))?,
        status,
        json: RawValue::from_string(json).map_err(|e| unreadable(7, e))?,
    };
    Ok((row.get(0)?, entry))
}

fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
