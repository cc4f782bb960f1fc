//! Presence over many nodes: each has its own connections in memory, and writes them to Redis under a lease.
//!
//! Changes take effect in the table of this node at once. The `journal` knows what of it is not written, and the
//! `writer` writes it, in batches; Redis sums up over all nodes and notes who came and went, and a `teller` of any node
//! makes messages of that. A node whose lease has run out is taken out by any other (`leases`). Questions are answered
//! from Redis, after what this node has to say has been written (`read`); what another node has to do goes to its
//! `mailbox`.

mod journal;
mod leases;
mod mailbox;
mod read;
mod scripts;
mod teller;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use self::journal::Journal;
use self::scripts::{KEPT, Names, RENEW, ms, own};
use self::teller::Teller;
use self::writer::Writer;
use super::{Arrival, Counts, InRoom, Line, NodeCounts, Online, Page, Presence, Present};
use crate::broker::Broker;
use crate::config::channels::Rules;
use crate::fault::{Cause, Fault};
use crate::metrics::Totals;
use crate::model::{ChannelName, UserId};
use crate::redis::{Redis, RedisFault, Status};
use crate::tasks::Tasks;

/// How long a node may be silent, unless it is said otherwise.
const LEASE: Duration = Duration::from_secs(10);
/// How long a question waits for what this node has to say.
const SAYING: Duration = Duration::from_secs(3);
/// How long a node that ends may take to say so.
const LEAVING: Duration = Duration::from_secs(3);

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct PresenceOptions {
    /// Names it; no other node has the same name at the same time. It is made of the characters of identifiers.
    pub node: String,
    /// A node that has not been heard of for so long is given half as much again, and is then taken for dead.
    pub lease: Duration,
}

/// The key that is there for as long as `node` lives.
#[must_use]
pub fn lease_key(redis: &Redis, node: &str) -> String {
    format!("{}l", own(redis, node))
}

impl PresenceOptions {
    /// The usual lease.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), lease: LEASE }
    }
}

/// Who is connected to any node that shares a Redis.
#[derive(Debug)]
pub struct RedisPresence {
    shared: Arc<Shared>,
    written: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    journal: Mutex<Journal>,
    changed: Notify,
    untold: Notify,
    users: Names,
    rooms: Names,
    node: String,
    // What the keys of this node begin with.
    own: String,
    lease: Duration,
    leaving: AtomicBool,
}

impl RedisPresence {
    /// Nobody is connected to this node yet. Tasks of `tasks` tell `redis` of it, and by `broker` who comes and goes.
    #[must_use]
    pub fn start(
        redis: Redis,
        broker: Arc<dyn Broker>,
        rules: Arc<Rules>,
        options: PresenceOptions,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let PresenceOptions { node, lease } = options;
        let shared = Arc::new(Shared {
            journal: Mutex::default(),
            changed: Notify::new(),
            untold: Notify::new(),
            own: own(&redis, &node),
            users: Names::users(redis.clone()),
            rooms: Names::rooms(redis),
            node,
            lease,
            leaving: AtomicBool::new(false),
        });
        let (written_to, written) = watch::channel(0);
        let teller = Arc::new(Teller { shared: shared.clone(), broker, rules });
        let writer = Writer::new(shared.clone(), written_to);
        tasks.spawn_draining("presence", live(writer, teller.clone(), tasks.stopping().clone()));
        tasks.spawn("presence-leases", leases::run(shared.clone()));
        tasks.spawn("presence-teller", async move { teller.run().await });
        let presence = Arc::new(Self { shared, written });
        tasks.spawn("presence-mailbox", mailbox::run(Arc::downgrade(&presence)));
        presence
    }

    fn changed(&self) {
        self.shared.changed.notify_one();
    }

    /// Waits until Redis knows what holds here now.
    async fn said(&self) -> Result<(), Fault> {
        let generation = self.shared.journal().generation();
        if let Status::Down(fault) = &*self.shared.users.redis().status().borrow() {
            return Err(fault.clone().into());
        }
        let mut written = self.written.clone();
        let saying = written.wait_for(|written| *written >= generation);
        match tokio::time::timeout(SAYING, saying).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Fault::Unavailable(Cause::new("Redis does not know yet who is connected here"))),
        }
    }

    /// Ends a connection of this node; whether there was one.
    fn end_here(&self, connection_id: &str) -> bool {
        let line = self.shared.journal().table.line(connection_id);
        let Some(line) = line else { return false };
        line.end();
        self.depart(connection_id);
        true
    }

    /// Ends those connections of this node that are dead; how many.
    fn end_dead_here(&self) -> usize {
        let lines = self.shared.journal().table.lines();
        let dead = lines.into_iter().filter(|(_, line)| !line.is_alive());
        dead.filter(|(connection_id, _)| self.end_here(connection_id)).count()
    }

    fn line(&self, connection_id: &str) -> Option<Arc<dyn Line>> {
        self.shared.journal().table.line(connection_id)
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node lives; what its own keys say of the last batch.
    async fn renew(&self) -> Result<String, RedisFault> {
        if self.leaving.load(Ordering::Relaxed) {
            return Ok(String::new());
        }
        let did = serde_json::to_string(&Totals::read()).unwrap_or_default();
        let mut call = RENEW.call(&[&self.own]);
        call.arg(ms(self.lease)).arg(ms(KEPT)).arg(did);
        self.users.redis().call(&call).await
    }
}

/// Writes until the tasks are to end, then leaves in good order.
async fn live(mut writer: Writer, teller: Arc<Teller>, stopping: tokio_util::sync::CancellationToken) {
    tokio::select! {
        () = writer.run() => {}
        () = stopping.cancelled() => {}
    }
    let shared = &teller.shared;
    shared.leaving.store(true, Ordering::Relaxed);
    let leaving = async {
        leases::leave(shared, writer.incarnation()).await?;
        teller.tell_all().await
    };
    match tokio::time::timeout(LEAVING, leaving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the other nodes will notice only later that this one has gone")
        }
        Err(_) => tracing::warn!("the other nodes will notice only later that this one has gone"),
    }
}

#[async_trait]
impl Presence for RedisPresence {
    fn arrive(&self, arrival: Arrival) {
        self.shared.journal().arrive(arrival);
        self.changed();
    }

    fn depart(&self, connection_id: &str) {
        // The line may be the last to know of the connection: it is let go outside of the lock.
        let gone = self.shared.journal().depart(connection_id);
        drop(gone);
        self.changed();
    }

    fn enter(&self, connection_id: &str, room: &ChannelName) {
        self.shared.journal().enter(connection_id, room);
        self.changed();
    }

    fn leave(&self, connection_id: &str, room: &ChannelName) {
        self.shared.journal().leave(connection_id, room);
        self.changed();
    }

    async fn user(&self, user: &UserId) -> Result<Option<Online>, Fault> {
        self.said().await?;
        Ok(read::user(&self.shared, user).await?)
    }

    async fn users(&self, after: Option<&str>, limit: usize) -> Result<Page<Online>, Fault> {
        self.said().await?;
        Ok(read::users(&self.shared, after, limit).await?)
    }

    async fn room(&self, room: &ChannelName) -> Result<InRoom, Fault> {
        self.said().await?;
        Ok(read::room(&self.shared, room).await?)
    }

    async fn connections(&self, after: Option<&str>, limit: usize) -> Result<Page<Present>, Fault> {
        self.said().await?;
        let mut page = read::connections(&self.shared, after, limit).await?;
        // Of its own this node knows more exactly what carries them.
        for present in &mut page.items {
            if let Some(line) = self.line(&present.connection_id) {
                present.transport = line.transport();
            }
        }
        Ok(page)
    }

    async fn counts(&self) -> Result<Counts, Fault> {
        self.said().await?;
        Ok(read::counts(&self.shared).await?)
    }

    async fn nodes(&self) -> Result<Vec<NodeCounts>, Fault> {
        self.said().await?;
        Ok(read::nodes(&self.shared).await?)
    }

    async fn end(&self, connection_id: &str) -> Result<bool, Fault> {
        if self.end_here(connection_id) {
            self.said().await?;
            return Ok(true);
        }
        match read::owner(&self.shared, connection_id).await? {
            Some(node) => Ok(mailbox::ask(&self.shared, &node, Some(connection_id)).await? > 0),
            None => Ok(false),
        }
    }

    async fn end_dead(&self) -> Result<usize, Fault> {
        let here = self.end_dead_here();
        self.said().await?;
        Ok(here + mailbox::ask_all(&self.shared).await?)
    }
}
