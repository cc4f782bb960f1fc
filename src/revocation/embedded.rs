//! Revocations of one machine: a table of the embedded store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{Change, MOST, RevocationError, Revocations, Revoked, Version};
use crate::fault::Fault;
use crate::model::{UserId, now_ms};
use crate::store::Store;

/// What is shut out, as the table says it.
const USER: i64 = 0;
const TOKEN: i64 = 1;

/// Revocations in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedRevocations {
    store: Store,
    version: Arc<AtomicU64>,
}

impl EmbeddedRevocations {
    /// Those of `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, version: Arc::default() }
    }
}

#[async_trait]
impl Revocations for EmbeddedRevocations {
    async fn apply(&self, change: Change, _: Version) -> Result<bool, RevocationError> {
        let applying = self.store.write(move |tx| apply(tx.conn(), &change));
        let changed = applying.await.map_err(Fault::from)?;
        self.version.fetch_add(1, Ordering::Release);
        changed.ok_or(RevocationError::TooMany)
    }

    async fn put_back(&self, change: Change, known: Version) -> Result<bool, RevocationError> {
        // Nothing is lost here that a program which runs knows of.
        self.apply(change, known).await
    }

    async fn load(&self) -> Result<Revoked, Fault> {
        Ok(self.store.read(load).await?)
    }

    async fn version(&self) -> Result<Version, Fault> {
        // Nobody else has the file.
        Ok(Version { history: 0, number: self.version.load(Ordering::Acquire) })
    }
}

/// Whether that changed something; `None` if there is no room for it.
fn apply(conn: &Connection, change: &Change) -> rusqlite::Result<Option<bool>> {
    let now = now_ms();
    conn.prepare_cached("DELETE FROM revocation WHERE until_ms <= ?1")?.execute([now])?;
    let (kind, name, until) = match change {
        Change::Unblock(user) => {
            let remove = "DELETE FROM revocation WHERE kind = ?1 AND name = ?2";
            return Ok(Some(conn.prepare_cached(remove)?.execute(params![USER, user.as_str()])? > 0));
        }
        Change::Block(user) => (USER, user.as_str(), None),
        Change::Revoke(_, until) if *until <= now => return Ok(Some(false)),
        Change::Revoke(token, until) => (TOKEN, token.as_str(), Some(*until)),
    };
    let known = "SELECT EXISTS (SELECT 1 FROM revocation WHERE kind = ?1 AND name = ?2)";
    let known: bool = conn.prepare_cached(known)?.query_row(params![kind, name], |row| row.get(0))?;
    let count = "SELECT count(*) FROM revocation WHERE kind = ?1";
    let count: usize = conn.prepare_cached(count)?.query_row([kind], |row| row.get(0))?;
    if !known && count >= MOST {
        return Ok(None);
    }
    let put = "INSERT INTO revocation (kind, name, until_ms) VALUES (?1, ?2, ?3)
               ON CONFLICT (kind, name) DO UPDATE SET until_ms = excluded.until_ms
               WHERE excluded.until_ms > until_ms";
    Ok(Some(conn.prepare_cached(put)?.execute(params![kind, name, until])? > 0))
}

fn load(conn: &Connection) -> rusqlite::Result<Revoked> {
    let mut revoked = Revoked::default();
    let select = "SELECT kind, name, until_ms FROM revocation WHERE until_ms IS NULL OR until_ms > ?1";
    let mut select = conn.prepare_cached(select)?;
    let mut rows = select.query([now_ms()])?;
    while let Some(row) = rows.next()? {
        let (kind, name): (i64, String) = (row.get(0)?, row.get(1)?);
        if kind == TOKEN {
            revoked.tokens.insert(name, row.get(2)?);
        } else if let Ok(user) = UserId::parse(&name) {
            revoked.users.insert(user);
        }
    }
    Ok(revoked)
}
