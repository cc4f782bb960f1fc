//! An owner: the one task that sees the messages of its channels, and their subscribers, in one order.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::channel::Channel;
pub(super) use super::channel::GoLive;
use super::connection::{Connection, ConnectionId};
use super::outbox::Membership;
use crate::broker::{Broker, Top};
use crate::config::channels::{Batch, Rules};
use crate::model::{ChannelName, Position, Published};

/// How many commands an owner takes at once.
const TAKE: usize = 64;
/// No more messages are added to so many: others wait for their turn.
const TOGETHER: usize = 256;

/// What an owner is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Messages were appended.
    Publish(Vec<Arc<Published>>),
    /// What comes in a channel does not continue what was there.
    Reset { channel: ChannelName, top: Box<Top> },
    /// Add a subscriber that does not listen yet.
    Subscribe {
        channel: ChannelName,
        connection: Arc<Connection>,
        membership: Membership,
        done: oneshot::Sender<()>,
    },
    /// Let it listen from a position on.
    GoLive {
        channel: ChannelName,
        connection: ConnectionId,
        membership: Membership,
        from: Position,
        confirmed: bool,
        reply: oneshot::Sender<GoLive>,
    },
    /// Remove it.
    Unsubscribe { channel: ChannelName, connection: ConnectionId, done: oneshot::Sender<()> },
}

/// The owner of some channels.
pub(super) struct Owner {
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
    channels: HashMap<ChannelName, Channel>,
}

impl Owner {
    pub(super) fn new(broker: Arc<dyn Broker>, rules: Arc<Rules>) -> Self {
        Self { broker, rules, channels: HashMap::new() }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut taken = Vec::with_capacity(TAKE);
        while queue.recv_many(&mut taken, TAKE).await > 0 {
            let mut commands = taken.drain(..).peekable();
            while let Some(mut command) = commands.next() {
                // What waits together is handed out together.
                while let (Command::Publish(messages), Some(Command::Publish(_))) =
                    (&mut command, commands.peek())
                    && messages.len() < TOGETHER
                {
                    if let Some(Command::Publish(more)) = commands.next() {
                        messages.extend(more);
                    }
                }
                self.handle(command);
                // A wide channel takes milliseconds; other tasks of this thread get their turn.
                tokio::task::consume_budget().await;
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Publish(messages) => self.publish(messages),
            Command::Reset { channel, top } => {
                if let Some(found) = self.channels.get_mut(&channel) {
                    found.start_over(&top);
                }
            }
            Command::Subscribe { channel, connection, membership, done } => {
                let (window, lossy) = (self.window(&channel), self.is_lossy(&channel));
                let name = channel.clone();
                let entry = self.channels.entry(channel).or_insert_with(|| Channel::new(name, window, lossy));
                entry.subscribe(connection, membership);
                // Whoever asked may be gone; its disconnect removes the subscriber.
                let _ = done.send(());
            }
            Command::GoLive { channel, connection, membership, from, confirmed, reply } => {
                let found = self.channels.get_mut(&channel);
                let answer = found.map_or(GoLive::Gone, |channel| {
                    channel.go_live(connection, membership, &from, confirmed)
                });
                let _ = reply.send(answer);
            }
            Command::Unsubscribe { channel, connection, done } => {
                if let Some(found) = self.channels.get_mut(&channel) {
                    found.unsubscribe(connection);
                    if found.is_empty() {
                        self.channels.remove(&channel);
                        // A join subscribes here before it has the channel followed, so none is forgotten.
                        self.broker.unfollow(&channel);
                    }
                }
                let _ = done.send(());
            }
        }
    }

    /// Gives each channel its messages at once: a subscriber is looked at once for all of them.
    fn publish(&mut self, mut messages: Vec<Arc<Published>>) {
        // A channel without subscribers is nobody's concern here: history has the message.
        messages.retain(|message| self.channels.contains_key(&message.channel));
        // Channels come in the order of their first messages, and the sort is stable.
        let mut turns = HashMap::new();
        for message in &messages {
            let turn = turns.len();
            turns.entry(message.channel.clone()).or_insert(turn);
        }
        messages.sort_by_key(|message| turns.get(&message.channel).copied());
        for run in messages.chunk_by(|one, other| one.channel == other.channel) {
            if let Some(channel) = self.channels.get_mut(&run[0].channel) {
                channel.publish(run);
            }
        }
    }

    /// Whether the channel keeps no history, and so is lossy by declaration.
    fn is_lossy(&self, channel: &ChannelName) -> bool {
        self.rules.resolve(channel.as_str()).is_some_and(|resolved| resolved.namespace.history.size == 0)
    }

    fn window(&self, channel: &ChannelName) -> Batch {
        match self.rules.resolve(channel.as_str()) {
            Some(resolved) => resolved.namespace.batch,
            // Joins are checked against the rules before; without rules nothing waits.
            None => Batch { max: 1, interval: std::time::Duration::ZERO },
        }
    }
}
