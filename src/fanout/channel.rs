//! A channel as its owner sees it: how far it is, its recent messages, and who listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::to_raw_value;

use super::catch_up::Reset;
use super::connection::{Connection, ConnectionId};
use super::outbox::Membership;
use super::tally::Tally;
use crate::broker::Top;
use crate::config::channels::Batch;
use crate::metrics;
use crate::model::trace::TraceContext;
use crate::model::{ChannelName, Position, Published, Snapshot};
use crate::traces::{self, Kind, Span};

/// How many recent messages an owner keeps, so that a join which ends while messages arrive need not read
/// them from the store.
const RING_MESSAGES: usize = 256;
/// How many bytes of them.
const RING_BYTES: usize = 256 * 1024;
/// How old they may be, compared with the newest: a join takes much less from its last look at history to its end,
/// and there may be many thousands of channels.
const RING_MS: i64 = 5_000;

/// Whether a subscriber listens from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GoLive {
    /// It gets everything after the position that it named.
    Live,
    /// More has happened since than the owner remembers: read on in history and ask again.
    Behind,
    /// It is no subscriber.
    Gone,
}

#[derive(Debug)]
struct Subscriber {
    connection: Arc<Connection>,
    membership: Membership,
    // The offset after which it listens; none while it reads history.
    live_after: Option<u64>,
}

/// A channel that somebody listens to.
#[derive(Debug)]
pub(super) struct Channel {
    name: ChannelName,
    window: Batch,
    // It keeps no history: its gaps show in the offsets, and mean nothing else.
    lossy: bool,
    last: Option<Position>,
    ring: VecDeque<Arc<Published>>,
    ring_bytes: usize,
    subscribers: Vec<Subscriber>,
    // The newest round of its owner in which it has messages, and which of the channels it is there.
    turn: (u64, usize),
}

impl Channel {
    pub(super) fn new(name: ChannelName, window: Batch, lossy: bool) -> Self {
        metrics::channels(1.0);
        let (ring, subscribers) = (VecDeque::new(), Vec::new());
        Self { name, window, lossy, last: None, ring, ring_bytes: 0, subscribers, turn: (0, 0) }
    }

    /// Which of the channels of `round` this is; the next one of `turns` if it was not asked before.
    pub(super) fn turn(&mut self, round: u64, turns: &mut usize) -> usize {
        if self.turn.0 != round {
            self.turn = (round, *turns);
            *turns += 1;
        }
        self.turn.1
    }

    /// Adds a subscriber that does not listen yet; one that was there before begins anew.
    pub(super) fn subscribe(&mut self, connection: Arc<Connection>, membership: Membership) {
        self.remove(connection.id());
        metrics::subscriptions(1.0);
        self.subscribers.push(Subscriber { connection, membership, live_after: None });
    }

    /// Removes a subscriber and what waits for it.
    pub(super) fn unsubscribe(&mut self, connection: ConnectionId) {
        if let Some(subscriber) = self.remove(connection) {
            subscriber.connection.leave(&self.name);
        }
    }

    /// Removes those whose connection ended before anybody said that they leave.
    fn remove_closed(&mut self) {
        let before = self.subscribers.len();
        self.subscribers.retain(|subscriber| !subscriber.connection.is_closed());
        #[expect(clippy::cast_precision_loss, reason = "no channel has 2^52 subscribers")]
        metrics::subscriptions(-((before - self.subscribers.len()) as f64));
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Subscriber> {
        let index = self.subscribers.iter().position(|s| s.connection.id() == connection)?;
        metrics::subscriptions(-1.0);
        Some(self.subscribers.swap_remove(index))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Lets a subscriber, who knows everything up to `from`, listen. `confirmed` says that the store was asked
    /// again after an answer [`GoLive::Behind`]: if the epochs still differ, it is the owner who has not heard.
    pub(super) fn go_live(
        &mut self,
        connection: ConnectionId,
        membership: Membership,
        from: &Position,
        confirmed: bool,
    ) -> GoLive {
        if confirmed && self.last.as_ref().is_some_and(|last| last.epoch != from.epoch) {
            self.reset("epoch_changed", from, None);
            self.last = Some(from.clone());
        }
        let mut subscribers = self.subscribers.iter_mut();
        let found = subscribers.find(|s| s.connection.id() == connection && s.membership == membership);
        let Some(subscriber) = found else { return GoLive::Gone };
        match &self.last {
            None => self.last = Some(from.clone()),
            Some(last) if last.epoch != from.epoch => return GoLive::Behind,
            Some(last) if last.offset > from.offset => {
                let remembered = self.ring.front().is_some_and(|m| m.position.offset <= from.offset + 1);
                if !remembered {
                    return GoLive::Behind;
                }
            }
            Some(_) => {}
        }
        if !subscriber.connection.go_live(&self.name, membership) {
            return GoLive::Gone;
        }
        subscriber.live_after = Some(from.offset);
        let missed: Vec<_> = self.ring.iter().filter(|m| m.position.offset > from.offset).cloned().collect();
        subscriber.connection.push(membership, &missed, self.window, &mut Tally::new());
        GoLive::Live
    }

    /// Hands the channel's next messages to everybody who listens.
    pub(super) fn publish(&mut self, messages: &[Arc<Published>], tally: &mut Tally) {
        let mut run = 0;
        for (n, message) in messages.iter().enumerate() {
            let position = &message.position;
            let reason = match &self.last {
                Some(last) if last.epoch != position.epoch => Some("epoch_changed"),
                Some(last) if position.offset <= last.offset => {
                    // Known to everybody who listens: each of them began at or after it.
                    self.hand_out(&messages[run..n], tally);
                    run = n + 1;
                    continue;
                }
                Some(last) if position.offset > last.offset + 1 && !self.lossy => Some("gap"),
                _ => None,
            };
            if let Some(reason) = reason {
                self.hand_out(&messages[run..n], tally);
                run = n;
                let before = Position { epoch: position.epoch.clone(), offset: position.offset - 1 };
                self.reset(reason, &before, None);
            }
            self.remember(message);
        }
        self.hand_out(&messages[run..], tally);
    }

    /// One subscriber after the other gets all of `messages`, whose offsets rise by one.
    fn hand_out(&mut self, messages: &[Arc<Published>], tally: &mut Tally) {
        let Some(first) = messages.first().map(|message| message.position.offset) else { return };
        let (mut any_closed, mut receivers) = (false, 0);
        for subscriber in &self.subscribers {
            if let Some(after) = subscriber.live_after {
                receivers += 1;
                let known = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
                let news = messages.get(known..).unwrap_or_default();
                subscriber.connection.push(subscriber.membership, news, self.window, tally);
            }
            any_closed |= subscriber.connection.is_closed();
        }
        if receivers > 0 && traces::wanted() {
            messages.iter().for_each(|message| trace(message, receivers));
        }
        if any_closed {
            self.remove_closed();
        }
    }

    fn remember(&mut self, message: &Arc<Published>) {
        self.last = Some(message.position.clone());
        self.ring_bytes += message.size();
        self.ring.push_back(message.clone());
        let old = message.timestamp_ms - RING_MS;
        while let Some(oldest) = self.ring.front()
            && (self.ring.len() > RING_MESSAGES || self.ring_bytes > RING_BYTES || oldest.timestamp_ms < old)
        {
            self.ring_bytes -= oldest.size();
            self.ring.pop_front();
        }
    }

    /// The same, when the broker says it.
    pub(super) fn start_over(&mut self, top: &Top) {
        match &self.last {
            // A join that read it first has told everybody.
            Some(last) if last.epoch == top.position.epoch && last.offset >= top.position.offset => return,
            Some(last) if last.epoch != top.position.epoch => {
                self.reset("epoch_changed", &top.position, top.snapshot.as_ref());
            }
            Some(_) => self.reset("gap", &top.position, top.snapshot.as_ref()),
            // Nobody listens yet.
            None => {}
        }
        self.last = Some(top.position.clone());
    }

    /// Tells everybody that what comes next, after `from`, does not continue what they had.
    fn reset(&mut self, reason: &'static str, from: &Position, snapshot: Option<&Snapshot>) {
        tracing::warn!(channel = %self.name, reason, "the channel's past is not vouched for any more");
        self.ring.clear();
        self.ring_bytes = 0;
        let Position { epoch, offset } = from.clone();
        let (room, snapshot) = (self.name.clone(), snapshot.cloned());
        let Ok(notice) = to_raw_value(&Reset { room, reason, epoch, offset, snapshot }) else { return };
        for subscriber in &mut self.subscribers {
            if subscriber.live_after.is_some() {
                let Subscriber { connection, membership, .. } = subscriber;
                connection.reset_live(&self.name, *membership, notice.clone(), from.clone());
                subscriber.live_after = Some(from.offset);
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        metrics::channels(-1.0);
        #[expect(clippy::cast_precision_loss, reason = "no channel has 2^52 subscribers")]
        metrics::subscriptions(-(self.subscribers.len() as f64));
    }
}

/// The span of a message's hand-over to all of its receivers here, from its acceptance on.
fn trace(message: &Published, receivers: usize) {
    let Some(published) = TraceContext::of_message(message.json().get()).filter(|context| context.sampled)
    else {
        return;
    };
    traces::record(Span {
        name: format!("deliver {}", message.event),
        kind: Kind::Consumer,
        context: published.child(),
        parent: published.span_id,
        began: traces::moment(message.timestamp_ms),
        ended: SystemTime::now(),
        failure: None,
        attributes: vec![
            ("messaging.destination.name", message.channel.to_string()),
            ("tidings.offset", message.position.offset.to_string()),
            ("tidings.receivers", receivers.to_string()),
        ],
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::time::Duration;

    use super::*;
    use crate::fanout::outbox::Limits;
    use crate::fanout::ticker::Ticker;
    use crate::fanout::{Frame, SendError, Transport};
    use crate::model::message::sample;
    use crate::model::{Epoch, Priority};

    struct Nowhere;

    impl Transport for Nowhere {
        fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
            Ok(())
        }

        fn kill(&self) {}
    }

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch::new("e"), offset }
    }

    #[test]
    fn a_join_that_needs_what_is_long_past_reads_history() {
        let name = ChannelName::parse("room").unwrap();
        let mut channel = Channel::new(name.clone(), Batch { max: 1, interval: Duration::ZERO }, false);
        for (offset, timestamp_ms) in [(1, 0), (2, RING_MS), (3, RING_MS + 1)] {
            let mut message = sample("room", "custom:x", Priority::Normal, offset, None, "1");
            Arc::get_mut(&mut message).unwrap().timestamp_ms = timestamp_ms;
            channel.publish(&[message], &mut Tally::new());
        }
        let connection = Connection::new(Box::new(Nowhere), Ticker::new(), Weak::new(), Limits::default());
        let membership = connection.enter(&name, false);
        channel.subscribe(connection.clone(), membership);
        let mut join = |from| channel.go_live(connection.id(), membership, &at(from), false);
        assert_eq!(join(0), GoLive::Behind, "the first message is too old to be remembered");
        assert_eq!(join(1), GoLive::Live, "the others are not");
        assert_eq!(connection.written_of(&name), Some(at(3)));
    }
}
