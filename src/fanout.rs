//! Fan-out: brings every message to the connections that joined its channel.
//!
//! Each channel has one owner, a task that sees its messages in order and hands them to the outboxes of its
//! subscribers. Channels are spread over a few owners by their name: a task per channel would cost a wake-up
//! per message, while an owner that many channels share takes all that waits for it at once. A message is
//! encoded once; an outbox decides when it leaves ([`outbox`]).

mod catch_up;
mod channel;
pub mod connection;
mod history;
mod join;
pub mod outbox;
mod owner;
mod tally;
mod ticker;
mod transport;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

pub use catch_up::Reset;
pub use connection::{Connection, ConnectionId};
pub use join::{JoinAck, JoinError, JoinRequest, Joined, Since};
pub use transport::{Frame, SendError, Transport};

use crate::broker::{Broker, LiveSink, Top};
use crate::config::channels::Rules;
use crate::model::{ChannelName, Position, Published};
use crate::tasks::Tasks;
use history::History;
use outbox::{Limits, Membership};
use owner::{Command, GoLive, Owner};
use ticker::Ticker;

/// How many commands may wait for an owner. Beyond it publishers and joins wait (back-pressure).
const OWNER_QUEUE: usize = 1024;

/// The fan-out of this node.
pub struct Fanout {
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
    history: History,
    tasks: Tasks,
    owners: Vec<mpsc::Sender<Command>>,
    tickers: Vec<Arc<Ticker>>,
    next_ticker: AtomicUsize,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").field("owners", &self.owners.len()).finish_non_exhaustive()
    }
}

impl Fanout {
    /// Starts `width` owners and as many tickers: one of each per core is enough.
    #[must_use]
    pub fn start(broker: Arc<dyn Broker>, rules: Arc<Rules>, width: usize, tasks: &Tasks) -> Arc<Self> {
        let owners = (0..width.max(1))
            .map(|n| {
                let (commands, queue) = mpsc::channel(OWNER_QUEUE);
                tasks.spawn(
                    format!("channel-owner-{n}"),
                    Owner::new(broker.clone(), rules.clone()).run(queue),
                );
                commands
            })
            .collect();
        let tickers = (0..width.max(1))
            .map(|n| {
                let ticker = Ticker::new();
                tasks.spawn(format!("ticker-{n}"), ticker.clone().run());
                ticker
            })
            .collect();
        let history = History::new(broker.clone());
        let (tasks, next_ticker) = (tasks.clone(), AtomicUsize::new(0));
        Arc::new(Self { broker, rules, history, tasks, owners, tickers, next_ticker })
    }

    /// A new connection that writes to `transport`.
    #[must_use]
    pub fn connect(self: &Arc<Self>, transport: Box<dyn Transport>, limits: Limits) -> Arc<Connection> {
        let next = self.next_ticker.fetch_add(1, Ordering::Relaxed);
        let ticker = self.tickers[next % self.tickers.len()].clone();
        Connection::new(transport, ticker, Arc::downgrade(self), limits)
    }

    /// Ends the membership of `connection` in `channel`: nothing of it is handed to its outbox afterwards.
    pub async fn leave(&self, channel: &ChannelName, connection: ConnectionId) {
        let (done, ended) = oneshot::channel();
        let command = Command::Unsubscribe { channel: channel.clone(), connection, done };
        if self.owner(channel).send(command).await.is_ok() {
            // The owner answers as soon as it gets there; it ends only with the process.
            let _ = ended.await;
        }
    }

    async fn subscribe(
        &self,
        channel: &ChannelName,
        connection: &Arc<Connection>,
        batch: bool,
    ) -> Membership {
        let membership = connection.enter(channel, batch);
        let (done, ready) = oneshot::channel();
        let (channel_name, connection) = (channel.clone(), connection.clone());
        let command = Command::Subscribe { channel: channel_name, connection, membership, done };
        if self.owner(channel).send(command).await.is_ok() {
            let _ = ready.await;
        }
        membership
    }

    async fn go_live(
        &self,
        channel: &ChannelName,
        connection: ConnectionId,
        membership: Membership,
        from: Position,
        confirmed: bool,
    ) -> GoLive {
        let (reply, answer) = oneshot::channel();
        let command =
            Command::GoLive { channel: channel.clone(), connection, membership, from, confirmed, reply };
        if self.owner(channel).send(command).await.is_err() {
            return GoLive::Gone;
        }
        answer.await.unwrap_or(GoLive::Gone)
    }

    fn owner(&self, channel: &ChannelName) -> &mpsc::Sender<Command> {
        &self.owners[self.owner_index(channel)]
    }

    fn owner_index(&self, channel: &ChannelName) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(channel);
        usize::try_from(hash % self.owners.len() as u64).unwrap_or(0)
    }
}

impl LiveSink for Fanout {
    fn published(&self, messages: Vec<Arc<Published>>) {
        let mut parts: Vec<Vec<Arc<Published>>> = vec![Vec::new(); self.owners.len()];
        for message in messages {
            parts[self.owner_index(&message.channel)].push(message);
        }
        for (owner, part) in self.owners.iter().zip(parts) {
            if !part.is_empty() {
                // Called on the store's own thread, which may wait. A closed owner means that the process ends.
                let _ = owner.blocking_send(Command::Publish(part));
            }
        }
    }

    fn reset(&self, channel: &ChannelName, top: Top) {
        let _ = self
            .owner(channel)
            .blocking_send(Command::Reset { channel: channel.clone(), top: Box::new(top) });
    }
}
