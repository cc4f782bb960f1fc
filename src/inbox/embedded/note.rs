//! Noting: what an appended message changes in an inbox, inside of the transaction of its append.

use rusqlite::{Connection, params};
use serde::Deserialize;

use crate::broker::append::Append;
use crate::inbox::{MAX_PER_USER, NOTIFICATION, PLACEHOLDER, RECALLED};
use crate::model::{MessageId, Position, UserId};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    user_id: Option<UserId>,
}

#[derive(Deserialize)]
struct Recall {
    data: RecallData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecallData {
    message_id: MessageId,
}

/// Notes a message that was just appended at `position`, if it is one that inboxes are about.
pub(crate) fn note(conn: &Connection, append: &Append, position: &Position) -> rusqlite::Result<()> {
    match append.event.as_str() {
        NOTIFICATION => match user_of(append) {
            Some(user) => insert(conn, append, position, user),
            None => Ok(()),
        },
        RECALLED if user_of(append).is_some() => recall(conn, append),
        _ => Ok(()),
    }
}

/// The user whose inbox the message's channel is.
fn user_of(append: &Append) -> Option<&str> {
    let pattern = &append.namespace.pattern;
    if pattern.placeholder() != Some(PLACEHOLDER) {
        return None;
    }
    let channel = append.channel.as_str();
    channel.get(pattern.matches(channel)??)
}

fn insert(conn: &Connection, append: &Append, position: &Position, user: &str) -> rusqlite::Result<()> {
    // A fault in the sender's part of the envelope was refused at the door; without a sender only an
    // administrator can take it back.
    let sent: Option<Sent> = envelope(append);
    let sender = sent.and_then(|sent| sent.user_id);
    let inserted = conn
        .prepare_cached(
            "INSERT INTO inbox (user, channel, id, epoch, offset, timestamp, sender, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (channel, id) DO NOTHING",
        )?
        .execute(params![
            user,
            append.channel.as_str(),
            append.id.as_str(),
            position.epoch.as_str(),
            position.offset,
            append.timestamp_ms,
            sender.as_ref().map(UserId::as_str),
            append.open.as_str(),
        ])?;
    if inserted > 0 { trim(conn, user) } else { Ok(()) }
}

/// Keeps the user's inbox within its bound.
fn trim(conn: &Connection, user: &str) -> rusqlite::Result<()> {
    let n: usize = conn
        .prepare_cached("SELECT n FROM inbox_count WHERE user = ?1")?
        .query_row([user], |row| row.get(0))?;
    if n > MAX_PER_USER {
        conn.prepare_cached(
            "DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE user = ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![user, n - MAX_PER_USER])?;
    }
    Ok(())
}

fn recall(conn: &Connection, append: &Append) -> rusqlite::Result<()> {
    let Some(Recall { data }) = envelope(append) else { return Ok(()) };
    conn.prepare_cached("UPDATE inbox SET status = 'recalled' WHERE channel = ?1 AND id = ?2")?
        .execute(params![append.channel.as_str(), data.message_id.as_str()])?;
    Ok(())
}

/// Reads a part of the message's envelope, which lacks only its position and its end.
fn envelope<T: for<'de> Deserialize<'de>>(append: &Append) -> Option<T> {
    serde_json::from_str(&format!("{}}}", append.open.as_str())).ok()
}
