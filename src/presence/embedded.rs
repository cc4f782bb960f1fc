//! Presence within one process: everything in memory.
//!
//! It is bounded by what the edge admits: connections, and rooms of each. What is still to be told is bounded
//! by the `table`, which counts; this file tells.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::Notify;

use super::news::{self, USER_PRESENCE};
use super::table::{Change, Table};
use super::{Arrival, Counts, InRoom, NodeCounts, Online, Page, Presence, Present};
use crate::broker::{Broker, BrokerError, PageLimit};
use crate::config::channels::Rules;
use crate::fault::Fault;
use crate::metrics::Totals;
use crate::model::{ChannelName, MessageId, UserId, now_ms};
use crate::tasks::Tasks;

/// How many changes are told at once.
const TOLD_AT_ONCE: usize = 256;
/// The pause before a change that could not be stored is offered again.
const RETRY: Duration = Duration::from_millis(500);
/// How much history is read at once to learn who was online.
const HISTORY_PAGE: PageLimit = PageLimit { messages: 1000, bytes: 1024 * 1024 };

/// Who is connected to this process.
#[derive(Debug)]
pub struct EmbeddedPresence {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

impl EmbeddedPresence {
    /// Nobody is there yet. A task of `tasks` tells by `broker` who comes and goes.
    #[must_use]
    pub fn start(broker: Arc<dyn Broker>, rules: Arc<Rules>, tasks: &Tasks) -> Arc<Self> {
        let shared = Arc::new(Shared::default());
        tasks.spawn("presence", Teller { shared: shared.clone(), broker, rules }.run());
        Arc::new(Self { shared })
    }

    fn changed(&self) {
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Presence for EmbeddedPresence {
    fn arrive(&self, arrival: Arrival) {
        self.shared.table().arrive(arrival, now_ms());
        self.changed();
    }

    fn depart(&self, connection_id: &str) {
        // The line may be the last to know of the connection: it is let go outside of the lock.
        let gone = self.shared.table().depart(connection_id);
        drop(gone);
        self.changed();
    }

    fn enter(&self, connection_id: &str, room: &ChannelName) {
        self.shared.table().enter(connection_id, room);
    }

    fn leave(&self, connection_id: &str, room: &ChannelName) {
        self.shared.table().leave(connection_id, room);
    }

    async fn user(&self, user: &UserId) -> Result<Option<Online>, Fault> {
        Ok(self.shared.table().user(user))
    }

    async fn users(&self, after: Option<&str>, limit: usize) -> Result<Page<Online>, Fault> {
        Ok(self.shared.table().users(after, limit))
    }

    async fn room(&self, room: &ChannelName) -> Result<InRoom, Fault> {
        Ok(self.shared.table().room(room))
    }

    async fn connections(&self, after: Option<&str>, limit: usize) -> Result<Page<Present>, Fault> {
        let (page, lines) = self.shared.table().connections(after, limit);
        // Asked outside of the lock: a line may have locks of its own.
        let items = page.items.into_iter().zip(lines);
        let items = items.map(|(present, line)| Present { transport: line.transport(), ..present }).collect();
        Ok(Page { items, ..page })
    }

    async fn counts(&self) -> Result<Counts, Fault> {
        Ok(self.shared.table().counts())
    }

    async fn nodes(&self) -> Result<Vec<NodeCounts>, Fault> {
        let connections = self.shared.table().counts().connections;
        Ok(vec![NodeCounts { node: None, connections, totals: Totals::read() }])
    }

    async fn end(&self, connection_id: &str) -> Result<bool, Fault> {
        let Some(line) = self.shared.table().line(connection_id) else { return Ok(false) };
        line.end();
        self.depart(connection_id);
        Ok(true)
    }

    async fn end_dead(&self) -> Result<usize, Fault> {
        let lines = self.shared.table().lines();
        let mut ended = 0;
        for (connection_id, line) in lines.into_iter().filter(|(_, line)| !line.is_alive()) {
            line.end();
            self.depart(&connection_id);
            ended += 1;
        }
        Ok(ended)
    }
}

/// Tells who comes and goes.
struct Teller {
    shared: Arc<Shared>,
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
}

impl Teller {
    async fn run(self) {
        // Whoever comes meanwhile waits in the table, so that the past is told of first.
        let left: Vec<Change> = self.left_behind().await;
        for part in left.chunks(TOLD_AT_ONCE) {
            self.tell(part).await;
        }
        loop {
            let changes = self.shared.table().take_changes(TOLD_AT_ONCE);
            if changes.is_empty() {
                self.shared.changed.notified().await;
            } else {
                self.tell(&changes).await;
            }
        }
    }

    /// Those of whom the channel says that they are online, from before this process.
    async fn left_behind(&self) -> Vec<Change> {
        loop {
            match self.told_online().await {
                Ok(users) => return users.into_iter().map(Change::offline).collect(),
                Err(error) => {
                    tracing::warn!(%error, "it is not known yet who was online; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn told_online(&self) -> Result<Vec<UserId>, BrokerError> {
        #[derive(Deserialize)]
        struct Told {
            data: ToldData,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ToldData {
            user_id: UserId,
        }
        let mut online = BTreeMap::new();
        let Ok(channel) = ChannelName::parse(USER_PRESENCE) else { return Ok(Vec::new()) };
        let mut after = 0;
        while self.rules.resolve(USER_PRESENCE).is_some() {
            let page = self.broker.history(&channel, after, HISTORY_PAGE).await?;
            let Some(last) = page.messages.last() else { break };
            after = last.position.offset;
            for message in &page.messages {
                if let Ok(Told { data }) = serde_json::from_str::<Told>(message.json().get()) {
                    online.insert(data.user_id, message.event.as_str() == "user:online");
                }
            }
        }
        Ok(online.into_iter().filter(|(_, online)| *online).map(|(user, _)| user).collect())
    }

    /// Tells all of `changes`, however long that takes.
    async fn tell(&self, changes: &[Change]) {
        // With ids that stay the same, so that what was stored without an answer is not told twice.
        let groups =
            changes.iter().filter_map(|change| news::group(&self.rules, change, MessageId::generate(), true));
        let groups: Vec<_> = groups.collect();
        while !groups.is_empty() {
            match self.broker.append(groups.clone()).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "who came and went could not be told; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
