//! Noting: what an appended message changes in an inbox, inside of the transaction of its append.

use rusqlite::{Connection, params};

use crate::broker::append::Append;
use crate::inbox::MAX_PER_USER;
use crate::inbox::news::News;
use crate::model::{MessageId, Position, UserId};

/// Notes a message that was just appended at `position`, if it is one that inboxes are about.
pub(crate) fn note(conn: &Connection, append: &Append, position: &Position) -> rusqlite::Result<()> {
    match News::of(append) {
        Some(News::Entry { user, sender }) => insert(conn, append, position, user, sender.as_ref()),
        Some(News::Recall(id)) => recall(conn, append, &id),
        None => Ok(()),
    }
}

fn insert(
    conn: &Connection,
    append: &Append,
    position: &Position,
    user: &str,
    sender: Option<&UserId>,
) -> rusqlite::Result<()> {
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
            sender.map(UserId::as_str),
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

fn recall(conn: &Connection, append: &Append, id: &MessageId) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE inbox SET status = 'recalled' WHERE channel = ?1 AND id = ?2")?
        .execute(params![append.channel.as_str(), id.as_str()])?;
    Ok(())
}
