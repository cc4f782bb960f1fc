//! Quotas: what one user may have, over all nodes: connections, and rooms that any of them is in.
//!
//! This process counts its own in memory. Where several share a store, what one of them counts is written to a
//! [`Ledger`], which alone sees the sum; a user's first connection or room too many is refused there, in one step with
//! being counted. While the ledger is away each node keeps to the limit by itself, and writes what it has afterwards.

pub mod redis;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::fault::Fault;
use crate::model::{ChannelName, UserId};
use crate::tasks::Tasks;
use table::Table;

/// What one node has of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Whose.
    pub user: UserId,
    /// Rises with each change of this node; an older count never replaces a newer one.
    pub number: u64,
    /// Connections.
    pub connections: u32,
    /// Rooms that any of them is in, each once.
    pub rooms: Vec<ChannelName>,
}

/// What must hold over all nodes for a count to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// So many connections.
    Connections(u32),
    /// So many different rooms.
    Rooms(u32),
}

/// What all nodes count.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug + 'static {
    /// Takes the count of this node, if with it no more than `most` are there over all nodes; whether it did. In
    /// one step: of two nodes that claim the last place one gets it. What a dead node had does not count.
    ///
    /// After an error it may have been taken.
    async fn claim(&self, count: &Count, most: Most) -> Result<bool, Fault>;

    /// Takes the count of this node, whatever it is.
    async fn write(&self, count: &Count) -> Result<(), Fault>;

    /// Returns when what was written may have been lost.
    async fn lost(&self);
}

/// How long the ledger may take to decide.
const DECIDING: Duration = Duration::from_secs(2);
/// How often all counts are written again, which keeps the ledger's entries alive.
const AGAIN: Duration = Duration::from_secs(60);
/// The pause before what could not be written is offered again.
const RETRY: Duration = Duration::from_millis(500);
/// How many counts are written at once.
const AT_ONCE: usize = 64;

/// What users have.
#[derive(Debug)]
pub struct Quota {
    table: Mutex<Table>,
    ledger: Option<Arc<dyn Ledger>>,
    changed: Notify,
}

/// A user's connection, counted for as long as it lives.
#[derive(Debug)]
pub struct Seat {
    quota: Arc<Quota>,
    user: UserId,
}

impl Quota {
    /// Of this process alone.
    #[must_use]
    pub fn alone() -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), ledger: None, changed: Notify::new() })
    }

    /// Shared with others through `ledger`. A task of `tasks` writes what changed.
    #[must_use]
    pub fn shared(ledger: Arc<dyn Ledger>, tasks: &Tasks) -> Arc<Self> {
        let quota =
            Arc::new(Self { table: Mutex::default(), ledger: Some(ledger.clone()), changed: Notify::new() });
        tasks.spawn("quota", quota.clone().keep(ledger));
        quota
    }

    /// A connection of `user`, if it has fewer than `most`.
    pub async fn connect(self: &Arc<Self>, user: &UserId, most: Option<u32>) -> Option<Seat> {
        let count = self.table().connect(user, most)?;
        // From here on it is given back, whatever comes.
        let seat = Seat { quota: self.clone(), user: user.clone() };
        let most = most.map(Most::Connections);
        self.agreed(&count, most).await.then_some(seat)
    }

    /// Whether all nodes together agree to `count`.
    async fn agreed(&self, count: &Count, most: Option<Most>) -> bool {
        let Some(ledger) = &self.ledger else { return true };
        let Some(most) = most else {
            self.touch(&count.user);
            return true;
        };
        match tokio::time::timeout(DECIDING, ledger.claim(count, most)).await {
            Ok(Ok(taken)) => taken,
            // Nobody is to be shut out because the ledger is away.
            Ok(Err(_)) | Err(_) => {
                self.touch(&count.user);
                true
            }
        }
    }

    fn touch(&self, user: &UserId) {
        if self.ledger.is_some() {
            self.table().touch(user);
            self.changed.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what changed, and everything now and then, for ever.
    async fn keep(self: Arc<Self>, ledger: Arc<dyn Ledger>) {
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                _ = again.tick() => self.table().touch_all(),
                () = ledger.lost() => self.table().touch_all(),
            }
            loop {
                let counts = self.table().take_touched(AT_ONCE);
                if counts.is_empty() {
                    break;
                }
                let written = join_all(counts.iter().map(|count| ledger.write(count))).await;
                let failed = counts.iter().zip(&written).filter(|(_, written)| written.is_err());
                let failed: Vec<_> = failed.map(|(count, _)| count.user.clone()).collect();
                if !failed.is_empty() {
                    failed.iter().for_each(|user| self.table().touch(user));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Seat {
    /// Whether the user may be in `room`, too, with this connection: until [`Seat::leave`] is called.
    pub async fn enter(&self, room: &ChannelName, most: Option<u32>) -> bool {
        let Some((count, is_new)) = self.quota.table().enter(&self.user, room, most) else { return false };
        // Another connection of the user is there already.
        if !is_new || self.quota.agreed(&count, most.map(Most::Rooms)).await {
            return true;
        }
        self.leave(room);
        false
    }

    /// This connection is not in `room` any more.
    pub fn leave(&self, room: &ChannelName) {
        self.quota.table().leave(&self.user, room);
        self.quota.touch(&self.user);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.quota.table().disconnect(&self.user);
        self.quota.touch(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn room(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn a_user_has_so_many_connections_and_each_that_ends_makes_room() {
        let quota = Quota::alone();
        let mut seats = Vec::new();
        for _ in 0..2 {
            seats.push(quota.connect(&user("ann"), Some(2)).await.unwrap());
        }
        assert!(quota.connect(&user("ann"), Some(2)).await.is_none());
        assert!(quota.connect(&user("bob"), Some(2)).await.is_some());
        assert!(quota.connect(&user("ann"), None).await.is_some());
        seats.pop();
        assert!(quota.connect(&user("ann"), Some(2)).await.is_some());
        seats.clear();
        assert!(quota.table().is_empty());
    }

    #[tokio::test]
    async fn a_user_is_in_so_many_different_rooms_whatever_the_connection() {
        let quota = Quota::alone();
        let first = quota.connect(&user("ann"), None).await.unwrap();
        let second = quota.connect(&user("ann"), None).await.unwrap();
        assert!(first.enter(&room("a"), Some(2)).await);
        assert!(second.enter(&room("b"), Some(2)).await);
        assert!(first.enter(&room("b"), Some(2)).await);
        assert!(!first.enter(&room("c"), Some(2)).await);
        second.leave(&room("b"));
        assert!(!first.enter(&room("c"), Some(2)).await);
        first.leave(&room("b"));
        assert!(first.enter(&room("c"), Some(2)).await);
    }

    /// A ledger that is away.
    #[derive(Debug)]
    struct Away;

    #[async_trait]
    impl Ledger for Away {
        async fn claim(&self, _: &Count, _: Most) -> Result<bool, Fault> {
            Err(Fault::Unavailable(crate::fault::Cause::new("away")))
        }
        async fn write(&self, _: &Count) -> Result<(), Fault> {
            Err(Fault::Unavailable(crate::fault::Cause::new("away")))
        }
        async fn lost(&self) {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn while_the_ledger_is_away_a_node_keeps_to_the_limit_by_itself() {
        let quota = Quota::shared(Arc::new(Away), &Tasks::new());
        let _seat = quota.connect(&user("ann"), Some(1)).await.unwrap();
        assert!(quota.connect(&user("ann"), Some(1)).await.is_none());
    }
}
