//! The inbox of one machine: entries as a table of the embedded store.
//!
//! Entries are made by the broker's own transactions (`note`); what becomes of them is changed here.

mod note;
mod rows;

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};

pub(crate) use note::note;

use super::{Entry, Inbox, InboxError, InboxPage, Marked, PageOf, Receipt};
use crate::fault::Fault;
use crate::model::{ChannelName, MessageId, Position, UserId, now_ms};
use crate::store::{Store, StoreError, WriteTx};

/// How many entries one operation removes at most; other writers wait no longer than that takes.
const STEP: usize = 500;

/// Inboxes in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedInbox {
    store: Store,
    retention: Duration,
}

impl EmbeddedInbox {
    /// The inboxes in `store`, whose entries are kept for `retention`.
    #[must_use]
    pub fn new(store: Store, retention: Duration) -> Self {
        Self { store, retention }
    }

    /// Changes the entries that `ids` name by `statement`, or none if one is not there; then counts by `count`.
    async fn mark(
        &self,
        user: &UserId,
        ids: Vec<MessageId>,
        statement: &'static str,
        count: &'static str,
    ) -> Result<Marked, InboxError> {
        let user = user.clone();
        let marked = self.store.write(move |tx| {
            let conn = tx.conn();
            if let Some(missing) = first_missing(conn, &user, &ids)? {
                return Ok(Err(InboxError::NotFound(missing)));
            }
            let (mut changed, now) = (0, now_ms());
            for id in &ids {
                let n = conn.prepare_cached(statement)?.execute(params![user.as_str(), id.as_str(), now])?;
                changed += n as u64;
            }
            let left = conn.prepare_cached(count)?.query_row([user.as_str()], |row| row.get(0))?;
            Ok(Ok(Marked { changed, left }))
        });
        marked.await?
    }

    async fn receipts(
        &self,
        receipts: Vec<Receipt>,
        apply: fn(&Connection, &Receipt) -> rusqlite::Result<()>,
    ) -> Result<(), InboxError> {
        let applied = self.store.write(move |tx: &mut WriteTx<'_>| {
            receipts.iter().try_for_each(|receipt| apply(tx.conn(), receipt))
        });
        Ok(applied.await?)
    }
}

fn first_missing(conn: &Connection, user: &UserId, ids: &[MessageId]) -> rusqlite::Result<Option<MessageId>> {
    let mut known = conn.prepare_cached("SELECT 1 FROM inbox WHERE user = ?1 AND id = ?2")?;
    for id in ids {
        if !known.exists(params![user.as_str(), id.as_str()])? {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

impl From<StoreError> for InboxError {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

#[async_trait]
impl Inbox for EmbeddedInbox {
    async fn unread(&self, user: &UserId, page: PageOf) -> Result<InboxPage, InboxError> {
        let user = user.clone();
        Ok(self.store.read(move |conn| rows::unread(conn, &user, page)).await?)
    }

    async fn offline(
        &self,
        user: &UserId,
        on_the_way_ms: Option<i64>,
        page: PageOf,
    ) -> Result<InboxPage, InboxError> {
        let user = user.clone();
        Ok(self.store.read(move |conn| rows::offline(conn, &user, on_the_way_ms, page)).await?)
    }

    async fn find(&self, id: &MessageId, limit: usize) -> Result<Vec<Entry>, InboxError> {
        let id = id.clone();
        Ok(self.store.read(move |conn| rows::find(conn, &id, limit)).await?)
    }

    async fn mark_read(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError> {
        let statement = "UPDATE inbox SET status = 'read', read_at = ?3
                         WHERE user = ?1 AND id = ?2 AND status = 'unread'";
        self.mark(user, ids, statement, rows::COUNT_UNREAD).await
    }

    async fn confirm(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError> {
        let statement = "UPDATE inbox SET confirmed = 1, delivered_at = coalesce(delivered_at, ?3)
                         WHERE user = ?1 AND id = ?2 AND confirmed = 0";
        self.mark(user, ids, statement, rows::COUNT_OFFLINE).await
    }

    async fn acknowledge(&self, user: &UserId, position: &Position) -> Result<u64, InboxError> {
        let (user, position) = (user.clone(), position.clone());
        let confirmed = self.store.write(move |tx| {
            let offset = position.offset.min(i64::MAX as u64);
            let n = tx
                .conn()
                .prepare_cached(
                    "UPDATE inbox SET confirmed = 1, delivered_at = coalesce(delivered_at, ?4)
                     WHERE user = ?1 AND epoch = ?2 AND offset <= ?3 AND confirmed = 0",
                )?
                .execute(params![user.as_str(), position.epoch.as_str(), offset, now_ms()])?;
            Ok(n as u64)
        });
        Ok(confirmed.await?)
    }

    async fn delivered(&self, receipts: Vec<Receipt>) -> Result<(), InboxError> {
        self.receipts(receipts, |conn, receipt| {
            let statement = "UPDATE inbox SET takers = takers + ?4, delivered_at = coalesce(delivered_at, ?5)
                             WHERE user = ?1 AND epoch = ?2 AND offset = ?3";
            let Receipt { user_id, position: Position { epoch, offset }, live, .. } = receipt;
            conn.prepare_cached(statement)?
                .execute(params![user_id.as_str(), epoch.as_str(), offset, live, now_ms()])
                .map(drop)
        })
        .await
    }

    async fn failed(&self, receipts: Vec<Receipt>) -> Result<(), InboxError> {
        self.receipts(receipts, |conn, receipt| {
            let statement = "UPDATE inbox SET takers = takers - ?4,
                               delivered_at = CASE WHEN takers > ?4 OR confirmed THEN delivered_at END
                             WHERE user = ?1 AND epoch = ?2 AND offset = ?3 AND takers >= ?4";
            let Receipt { user_id, position: Position { epoch, offset }, live, .. } = receipt;
            conn.prepare_cached(statement)?
                .execute(params![user_id.as_str(), epoch.as_str(), offset, live])
                .map(drop)
        })
        .await
    }

    async fn waiting(&self, user: &UserId, channel: &ChannelName) -> Result<Option<Position>, InboxError> {
        let (user, channel) = (user.clone(), channel.clone());
        Ok(self.store.read(move |conn| rows::waiting(conn, &user, &channel)).await?)
    }

    async fn unread_in_all(&self) -> Result<u64, InboxError> {
        let count = |conn: &Connection| {
            conn.prepare_cached("SELECT unread FROM inbox_total")?.query_row([], |row| row.get(0))
        };
        Ok(self.store.read(count).await?)
    }

    async fn retain(&self) -> Result<bool, InboxError> {
        let retention_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(retention_ms);
        let due = self.store.read(move |conn| {
            conn.prepare_cached("SELECT 1 FROM inbox WHERE timestamp < ?1 LIMIT 1")?.exists([before])
        });
        if !due.await? {
            return Ok(false);
        }
        let removed = self.store.write(move |tx| {
            tx.conn()
                .prepare_cached(
                    "DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE timestamp < ?1 LIMIT ?2)",
                )?
                .execute(params![before, STEP])
        });
        Ok(removed.await? == STEP)
    }
}
