//! A connection as the fan-out sees it: an outbox, and a transport that takes frames without waiting.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::outbox::{Flush, Limits, Outbox, Outgoing};
use super::ticker::Ticker;
use crate::config::channels::Batch;
use crate::model::{EventName, Published};
use crate::{metrics, model};

/// Names a connection within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is handed to a transport.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// One message under its event's name.
    Message {
        /// The event.
        event: &'a EventName,
        /// The encoded message.
        json: &'a Arc<RawValue>,
    },
    /// `message:batch`: several messages, oldest of each channel first.
    Batch(&'a [Arc<RawValue>]),
    /// `room:reset`: what follows does not continue what the receiver had.
    Reset(&'a RawValue),
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The transport's queue is full: offer the frame again later.
    Full,
    /// The transport is gone.
    Closed,
}

/// Takes frames in order, without waiting.
pub trait Transport: Send + Sync + 'static {
    /// Queues the frame for writing, whole or not at all.
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError>;
    /// Ends the transport: its peer is beyond help.
    fn kill(&self);
}

/// An open connection.
pub struct Connection {
    id: ConnectionId,
    transport: Box<dyn Transport>,
    ticker: Arc<Ticker>,
    outbox: Mutex<Outbox>,
    closed: AtomicBool,
    drained: Notify,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that writes to `transport`, and whose waiting messages are flushed by `ticker`.
    pub(super) fn new(transport: Box<dyn Transport>, ticker: Arc<Ticker>, limits: Limits) -> Arc<Self> {
        metrics::connections(1.0);
        Arc::new(Self {
            id: ConnectionId::next(),
            transport,
            ticker,
            outbox: Mutex::new(Outbox::new(limits)),
            closed: AtomicBool::new(false),
            drained: Notify::new(),
        })
    }

    /// Its name within this process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends it: what waits in its outbox is dropped, and nothing is taken any more.
    pub fn close(&self) {
        if self.retire() {
            self.lock().clear();
        }
    }

    /// Marks it as ended, once; leaves the outbox alone, so that its holder may call this.
    fn retire(&self) -> bool {
        let is_first = !self.closed.swap(true, Ordering::AcqRel);
        if is_first {
            metrics::connections(-1.0);
            self.drained.notify_waiters();
        }
        is_first
    }

    /// Hands over a message. It leaves now or later, as its urgency and the batch window say.
    pub(super) fn push(self: &Arc<Self>, message: &Arc<Published>, batch: bool, window: Batch) {
        if self.is_closed() {
            return;
        }
        let mut outbox = self.lock();
        let flush = outbox.push(message.clone(), batch, window, Instant::now());
        self.act(&mut outbox, flush);
    }

    /// Tells the receiver that what follows does not continue what it had.
    pub(super) fn reset(&self, channel: &model::ChannelName, notice: &RawValue) {
        if self.is_closed() {
            return;
        }
        // Whatever still waits there belongs to a past that is not vouched for any more.
        self.lock().forget(channel);
        if self.transport.send(Frame::Reset(notice)) == Err(SendError::Full) {
            // Without the notice the receiver would see a gap; on its return it is told in the acknowledgement.
            self.give_up(&mut self.lock());
        }
    }

    /// Drops what waits of `channel`, which was left.
    pub(super) fn forget(&self, channel: &model::ChannelName) {
        self.lock().forget(channel);
        // A join of another channel may wait for the room that this made.
        self.drained.notify_waiters();
    }

    /// Waits until the outbox has room again for a page of history.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.is_closed() || self.lock().has_room() {
                return;
            }
            drained.await;
        }
    }

    /// Flushes what is due; called by the ticker.
    pub(super) fn tick(self: &Arc<Self>) {
        if self.is_closed() {
            return;
        }
        let mut outbox = self.lock();
        let flush = outbox.due(Instant::now());
        self.act(&mut outbox, flush);
    }

    fn act(self: &Arc<Self>, outbox: &mut Outbox, flush: Flush) {
        let next = match flush {
            Flush::Now(scope) => self.write(outbox, &scope),
            Flush::At(due) => Some(due),
            Flush::Nothing => None,
            Flush::Overflow => {
                self.give_up(outbox);
                None
            }
        };
        if let Some(due) = next {
            self.ticker.schedule(self, due);
        }
    }

    /// Writes what `scope` says; when to look again, if something is left.
    fn write(self: &Arc<Self>, outbox: &mut Outbox, scope: &super::outbox::Scope) -> Option<Instant> {
        let now_ms = model::now_ms();
        let mut written = 0;
        let result = outbox.drain(scope, |outgoing| {
            let sent = match outgoing {
                Outgoing::One(message, conflated) => {
                    let json = message.json_conflated(*conflated);
                    self.transport.send(Frame::Message { event: &message.event, json: &json })
                }
                Outgoing::Batch(messages) => {
                    let encoded: Vec<_> =
                        messages.iter().map(|(m, conflated)| m.json_conflated(*conflated)).collect();
                    self.transport.send(Frame::Batch(&encoded))
                }
            };
            if sent.is_ok() {
                for (message, _) in outgoing.messages() {
                    metrics::delivered(message.priority, now_ms - message.timestamp_ms);
                    written += 1;
                }
            }
            sent
        });
        if written > 0 {
            metrics::flushed(written);
            self.drained.notify_waiters();
        }
        if result == Err(SendError::Closed) {
            outbox.clear();
            return None;
        }
        outbox.next_due(Instant::now(), result.is_err())
    }

    /// Ends a connection that cannot be helped. Takes the outbox, which its caller holds: [`close`](Self::close)
    /// would wait for it for ever.
    fn give_up(&self, outbox: &mut Outbox) {
        metrics::slow_consumer();
        tracing::warn!(
            connection = self.id.0,
            "a connection fell behind its bound and was ended; it resumes on return"
        );
        self.transport.kill();
        self.retire();
        outbox.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::message::{EnvelopeRest, OpenEnvelope};
    use crate::model::{ChannelName, Epoch, MessageId, Position, Priority};

    /// A peer that never reads.
    struct Stuck(Arc<AtomicBool>);

    impl Transport for Stuck {
        fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
            Err(SendError::Full)
        }

        fn kill(&self) {
            self.0.store(true, Ordering::Release);
        }
    }

    fn message(offset: u64) -> Arc<Published> {
        let channel = ChannelName::parse("test-progress-x").unwrap();
        let event = EventName::parse("custom:x").unwrap();
        let data = RawValue::from_string(format!("\"{}\"", "x".repeat(1000))).unwrap();
        let rest = EnvelopeRest { user_id: None, data: &data, extra: &[] };
        let open = OpenEnvelope::write(&MessageId::generate(), &event, &channel, Priority::Normal, 0, rest);
        let position = Position { epoch: Epoch::new("e"), offset };
        Arc::new(Published::new(channel, position, event, Priority::Normal, 0, None, open))
    }

    #[test]
    fn a_peer_that_never_reads_is_ended_and_holds_up_nobody() {
        let killed = Arc::new(AtomicBool::new(false));
        let limits = Limits { bytes: 10_000, room: 1_000 };
        let connection = Connection::new(Box::new(Stuck(killed.clone())), Ticker::new(), limits);
        let window = Batch { max: 10, interval: Duration::from_millis(100) };
        let (peer, (done, ended)) = (connection.clone(), std::sync::mpsc::channel());
        // A thread of its own: if it is held up, the test fails instead of hanging.
        std::thread::spawn(move || {
            (1..=20).for_each(|offset| peer.push(&message(offset), false, window));
            let _ = done.send(());
        });
        ended.recv_timeout(Duration::from_secs(10)).expect("whoever pushes goes on");
        assert!(connection.is_closed() && killed.load(Ordering::Acquire));
    }
}
