//! A connection as the fan-out sees it: an outbox, and the transport that it leaves by.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Fanout;
use super::outbox::{Exit, Flush, Limits, Membership, Outbox, Passed, Scope};
use super::tally::Tally;
use super::ticker::Ticker;
use super::transport::{Frame, SendError, Transport};
use crate::config::channels::Batch;
use crate::limits::{Reason, met};
use crate::metrics;
use crate::model::{ChannelName, Position, Published};

/// Names a connection within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An open connection.
pub struct Connection {
    id: ConnectionId,
    transport: Box<dyn Transport>,
    ticker: Arc<Ticker>,
    fanout: Weak<Fanout>,
    outbox: Mutex<Outbox>,
    closed: AtomicBool,
    drained: Notify,
    // Held by the replay whose page comes next.
    replay: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        ticker: Arc<Ticker>,
        fanout: Weak<Fanout>,
        limits: Limits,
    ) -> Arc<Self> {
        metrics::connections(1.0);
        let outbox = Mutex::new(Outbox::new(limits, transport.acknowledges()));
        Arc::new(Self {
            id: ConnectionId::next(),
            transport,
            ticker,
            fanout,
            outbox,
            closed: AtomicBool::new(false),
            drained: Notify::new(),
            replay: tokio::sync::Mutex::new(()),
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

    /// Ends it: what waits in its outbox is dropped, and nothing is taken any more. What was
    /// [`written`](Self::written) can still be asked.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            metrics::connections(-1.0);
            self.lock().clear();
            self.drained.notify_waiters();
        }
    }

    /// Up to where each joined channel was handed to the transport.
    #[must_use]
    pub fn written(&self) -> Vec<(ChannelName, Position)> {
        self.lock().written()
    }

    /// Up to where one joined channel was handed to the transport.
    #[must_use]
    pub fn written_of(&self, channel: &ChannelName) -> Option<Position> {
        self.lock().written_of(channel).cloned()
    }

    /// Up to where a receiver that fell behind knows the channel once all that waits has left.
    pub(super) fn known_of(&self, channel: &ChannelName, membership: Membership) -> Option<Position> {
        self.lock().known_of(channel, membership)
    }

    /// Begins a membership; an earlier one of the same channel ends.
    pub(super) fn enter(&self, channel: &ChannelName, batch: bool) -> Membership {
        let membership = self.lock().enter(channel, batch);
        self.drained.notify_waiters();
        membership
    }

    /// Ends the membership and drops what waits of the channel.
    pub(super) fn leave(&self, channel: &ChannelName) {
        self.lock().leave(channel);
        // A replay of it may wait for room, and has to see that it is over.
        self.drained.notify_waiters();
    }

    /// The receiver knows everything up to `position`.
    pub(super) fn set_written(&self, channel: &ChannelName, membership: Membership, position: Position) {
        self.lock().set_written(channel, membership, position);
    }

    /// Live messages of the channel are taken from now on; whether the membership still exists.
    pub(super) fn go_live(&self, channel: &ChannelName, membership: Membership) -> bool {
        self.lock().go_live(channel, membership)
    }

    /// Hands over live messages of one membership, oldest first. They leave now or later, as their urgency and the
    /// batch window say.
    pub(super) fn push(
        self: &Arc<Self>,
        membership: Membership,
        mut messages: &[Arc<Published>],
        window: Batch,
        tally: &mut Tally,
    ) {
        if self.is_closed() {
            return;
        }
        let mut outbox = self.lock();
        if let [message] = messages
            && self.pass(&mut outbox, membership, message, window, tally)
        {
            return;
        }
        while !messages.is_empty() {
            let (taken, flush) = outbox.push(membership, messages, window, tally.now());
            self.act(&mut outbox, flush, tally);
            messages = &messages[taken..];
        }
    }

    /// Hands a message past the outbox, if nothing waits in it and the message would leave at once; else false.
    fn pass(
        self: &Arc<Self>,
        outbox: &mut Outbox,
        membership: Membership,
        message: &Arc<Published>,
        window: Batch,
        tally: &mut Tally,
    ) -> bool {
        let now = tally.now();
        let mut exit = Counted { transport: &*self.transport, tally, written: 0 };
        let passed = outbox.pass(membership, message, window, now, &mut exit);
        let written = exit.written;
        if written > 0 {
            tally.flushed(written);
        }
        if passed == Some(Passed::Waits)
            && let Some(due) = outbox.next_due(now, true)
        {
            self.ticker.schedule(self, due);
        }
        passed.is_some()
    }

    /// Hands over a message from history; whether the membership still exists.
    pub(super) fn resume(
        self: &Arc<Self>,
        membership: Membership,
        message: &Arc<Published>,
        conflated: u64,
        window: Batch,
    ) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut outbox = self.lock();
        let Some(flush) = outbox.resume(membership, message, conflated, window, Instant::now()) else {
            return false;
        };
        self.act(&mut outbox, flush, &mut Tally::new());
        true
    }

    /// Tells the receiver that what follows does not continue what it had before `position`.
    pub(super) fn reset(
        self: &Arc<Self>,
        channel: &ChannelName,
        membership: Membership,
        notice: Box<RawValue>,
        position: Position,
    ) {
        let mut outbox = self.lock();
        let flush = outbox.reset(channel, membership, notice, position);
        self.act(&mut outbox, flush, &mut Tally::new());
    }

    /// The same for one that listens. One that reads history finds out by itself, and may be further already.
    pub(super) fn reset_live(
        self: &Arc<Self>,
        channel: &ChannelName,
        membership: Membership,
        notice: Box<RawValue>,
        position: Position,
    ) {
        let mut outbox = self.lock();
        if outbox.is_live(channel, membership) {
            let flush = outbox.reset(channel, membership, notice, position);
            self.act(&mut outbox, flush, &mut Tally::new());
        }
    }

    /// Whether the membership still exists.
    pub(super) fn is_member(&self, channel: &ChannelName, membership: Membership) -> bool {
        !self.is_closed() && self.lock().is_member(channel, membership)
    }

    /// Waits until the outbox has room again for a page of history, and keeps that room for the caller until
    /// the answer is dropped: several replays that find the same room would fill it several times. `None` once
    /// the membership has ended.
    pub(super) async fn room_for_page(
        self: &Arc<Self>,
        channel: &ChannelName,
        membership: Membership,
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let turn = self.replay.lock().await;
        loop {
            let drained = self.drained.notified();
            if !self.is_member(channel, membership) {
                return None;
            }
            if self.make_room() {
                return Some(turn);
            }
            drained.await;
        }
    }

    /// Whether there is room, if need be after what waits only for its window has left: the transport decides
    /// the pace of a replay, not the window.
    fn make_room(self: &Arc<Self>) -> bool {
        let mut outbox = self.lock();
        if !outbox.has_room() {
            let flush = outbox.hurry();
            self.act(&mut outbox, flush, &mut Tally::new());
        }
        outbox.has_room()
    }

    /// Lets what waits only for its window leave now.
    pub(super) fn hurry(self: &Arc<Self>) {
        let mut outbox = self.lock();
        let flush = outbox.hurry();
        self.act(&mut outbox, flush, &mut Tally::new());
    }

    /// Lets what waits leave now; whether all of it has, and the peer took it. What is still to be read from history of
    /// a channel that fell behind does not count: its receiver resumes there.
    pub fn settle(self: &Arc<Self>) -> bool {
        self.hurry();
        self.is_closed() || self.lock().is_settled()
    }

    /// Flushes what is due; called by the ticker.
    pub(super) fn tick(self: &Arc<Self>, tally: &mut Tally) {
        if self.is_closed() {
            return;
        }
        let mut outbox = self.lock();
        let now = tally.now();
        let flush = outbox.due(now);
        self.act(&mut outbox, flush, tally);
        if outbox.has_room() {
            // Also where nothing was left to write: whoever fell behind waits for just that.
            self.drained.notify_waiters();
        }
        if outbox.is_stuck(now) {
            drop(outbox);
            met(Reason::WriteDeadline);
            self.give_up("its transport took nothing for longer than it may");
        }
    }

    fn act(self: &Arc<Self>, outbox: &mut Outbox, flush: Flush, tally: &mut Tally) {
        let next = match flush {
            Flush::Now(scope) => self.write(outbox, scope, tally),
            Flush::At(due) => Some(due),
            Flush::Nothing => None,
        };
        if let Some(due) = next {
            self.ticker.schedule(self, due);
        }
        for (channel, membership) in outbox.take_fallen() {
            metrics::slow_consumer();
            if let Some(fanout) = self.fanout.upgrade() {
                fanout.catch_up(self.clone(), channel, membership);
            }
        }
    }

    /// Writes what `scope` says; when to look again, if something is left.
    fn write(&self, outbox: &mut Outbox, scope: Scope, tally: &mut Tally) -> Option<Instant> {
        let (now, had_room) = (tally.now(), outbox.has_room());
        let mut exit = Counted { transport: &*self.transport, tally, written: 0 };
        let result = outbox.drain(scope, now, &mut exit);
        let written = exit.written;
        if written > 0 {
            tally.flushed(written);
        }
        if result == Err(SendError::Closed) {
            outbox.clear();
            return None;
        }
        // Whoever waits for room saw under this lock that there was none.
        if !had_room && outbox.has_room() {
            self.drained.notify_waiters();
        }
        outbox.next_due(now, result.is_err())
    }

    /// Ends a connection that is beyond help; its client resumes on return.
    pub(super) fn give_up(&self, why: &'static str) {
        tracing::warn!(connection = self.id.0, why, "a connection was ended; it resumes on return");
        self.transport.kill();
        self.close();
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport whose deliveries are counted.
struct Counted<'a> {
    transport: &'a dyn Transport,
    tally: &'a mut Tally,
    written: usize,
}

impl Exit for Counted<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Result<(), SendError> {
        self.transport.send(frame)
    }

    fn pass(&mut self, frame: Frame<'_>) -> Result<bool, SendError> {
        self.transport.pass(frame)
    }

    fn left(&mut self, message: &Published, conflated: u64, from_history: bool) {
        self.tally.delivered(message, conflated, from_history);
        self.written += 1;
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.transport.flush()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}
