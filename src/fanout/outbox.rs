//! The outbox: what waits for one connection, and when it leaves. No I/O, no clock of its own.
//!
//! - After a quiet interval a message leaves at once. From then on pending ones leave once per `interval`, or
//!   as soon as `max` are pending.
//! - High and critical messages leave at once and take their own channel's earlier messages with them.
//! - Priority orders channels; within a channel the order is never changed.
//! - While the transport is full, a newer message takes the place of a pending one with the same conflation
//!   key; the receiver learns how many it was spared.
//! - Bounded in bytes: beyond the bound the connection cannot be helped here (`Flush::Overflow`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::SendError;
use crate::config::channels::Batch;
use crate::metrics;
use crate::model::{ChannelName, Priority, Published};

/// When a full transport is offered its frames again.
const RETRY_FULL: Duration = Duration::from_millis(10);

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// More bytes than this never wait.
    pub bytes: usize,
    /// Below this there is room for a page of history.
    pub room: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, room: 64 * 1024 }
    }
}

/// What has to be done after a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Nothing, or what was arranged before.
    Nothing,
    /// Drain this much now.
    Now(Scope),
    /// Look again then.
    At(Instant),
    /// More waits than may.
    Overflow,
}

/// How much leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything that waits.
    All,
    /// What waits of one channel.
    Channel(ChannelName),
}

/// What leaves as one frame.
#[derive(Debug)]
pub(super) enum Outgoing<'a> {
    /// A message, and how many the receiver was spared right before it.
    One(&'a Arc<Published>, u64),
    /// Several of them.
    Batch(&'a [(Arc<Published>, u64)]),
}

impl Outgoing<'_> {
    pub(super) fn messages(&self) -> impl Iterator<Item = (&Arc<Published>, u64)> {
        let (one, many) = match self {
            Self::One(message, conflated) => (Some((*message, *conflated)), [].as_slice()),
            Self::Batch(messages) => (None, *messages),
        };
        one.into_iter().chain(many.iter().map(|(message, conflated)| (message, *conflated)))
    }
}

#[derive(Debug)]
struct Pending {
    message: Arc<Published>,
    conflated: u64,
    batch: bool,
}

/// What waits of one channel.
#[derive(Debug)]
struct Lane {
    channel: ChannelName,
    pending: VecDeque<Pending>,
}

impl Lane {
    fn urgency(&self) -> Priority {
        self.pending.iter().map(|p| p.message.priority).max().unwrap_or(Priority::Low)
    }
}

/// What waits for one connection.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    // In the order in which they began to wait; few, so that looking through them is cheap.
    lanes: Vec<Lane>,
    count: usize,
    bytes: usize,
    batch_max: usize,
    last_flush: Option<Instant>,
    due: Option<Instant>,
    full: bool,
}

impl Outbox {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: Vec::new(),
            count: 0,
            bytes: 0,
            batch_max: usize::MAX,
            last_flush: None,
            due: None,
            full: false,
        }
    }

    /// Takes a message; what to do about it.
    pub(super) fn push(
        &mut self,
        message: Arc<Published>,
        batch: bool,
        window: Batch,
        now: Instant,
    ) -> Flush {
        let urgent = message.priority.is_urgent();
        let channel = message.channel.clone();
        let size = message.size();
        let pending = Pending { message, conflated: 0, batch };
        let full = self.full;
        let lane = self.lane(&channel);
        let spared = if full {
            conflate(&mut lane.pending, pending)
        } else {
            lane.pending.push_back(pending);
            None
        };
        self.batch_max = self.batch_max.min(window.max.max(1));
        self.count += 1;
        self.bytes += size;
        if let Some(spared) = spared {
            self.count -= 1;
            self.bytes -= spared;
        }
        if self.bytes > self.limits.bytes {
            return Flush::Overflow;
        }
        if self.full {
            return Flush::Nothing;
        }
        if urgent {
            return Flush::Now(Scope::Channel(channel));
        }
        let quiet_from = self.last_flush.map(|last| last + window.interval);
        match quiet_from {
            Some(quiet_from) if now < quiet_from && self.count < self.batch_max => {
                // One look is enough: a second message of the same window waits for the same moment.
                if self.due.is_some_and(|due| due <= quiet_from) {
                    return Flush::Nothing;
                }
                self.due = Some(quiet_from);
                Flush::At(quiet_from)
            }
            _ => Flush::Now(Scope::All),
        }
    }

    /// What to do at `now`, when somebody looks.
    pub(super) fn due(&mut self, now: Instant) -> Flush {
        match self.due {
            Some(due) if due <= now => {
                self.due = None;
                self.full = false;
                if self.count > 0 { Flush::Now(Scope::All) } else { Flush::Nothing }
            }
            Some(due) => Flush::At(due),
            None => Flush::Nothing,
        }
    }

    /// Offers what `scope` says, most urgent channel first, frame by frame, until all has left or one is not
    /// taken.
    pub(super) fn drain(
        &mut self,
        scope: &Scope,
        mut send: impl FnMut(&Outgoing<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let max = self.batch_max;
        let result = match scope {
            Scope::Channel(channel) => self
                .lanes
                .iter_mut()
                .filter(|lane| lane.channel == *channel)
                .try_for_each(|lane| drain_lanes(std::slice::from_mut(lane), max, &mut send)),
            Scope::All => {
                self.last_flush = Some(Instant::now());
                // Stable: channels of one urgency keep the order in which they began to wait.
                self.lanes.sort_by_key(|lane| std::cmp::Reverse(lane.urgency()));
                drain_lanes(&mut self.lanes, max, &mut send)
            }
        };
        self.full = result == Err(SendError::Full);
        self.lanes.retain(|lane| !lane.pending.is_empty());
        self.recount();
        result
    }

    /// When to look again after a drain, if something is left.
    pub(super) fn next_due(&mut self, now: Instant, full: bool) -> Option<Instant> {
        if full {
            self.due = Some(now + RETRY_FULL);
            return self.due;
        }
        if self.count == 0 {
            self.batch_max = usize::MAX;
        }
        None
    }

    /// Drops what waits of one channel.
    pub(super) fn forget(&mut self, channel: &ChannelName) {
        self.lanes.retain(|lane| lane.channel != *channel);
        self.recount();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.lanes = Vec::new();
        self.recount();
    }

    /// Whether a page of history may be added.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.limits.room
    }

    fn lane(&mut self, channel: &ChannelName) -> &mut Lane {
        let found = self.lanes.iter().position(|lane| lane.channel == *channel);
        let index = found.unwrap_or_else(|| {
            self.lanes.push(Lane { channel: channel.clone(), pending: VecDeque::new() });
            self.lanes.len() - 1
        });
        &mut self.lanes[index]
    }

    fn recount(&mut self) {
        let pending = self.lanes.iter().flat_map(|lane| &lane.pending);
        (self.count, self.bytes) =
            pending.fold((0, 0), |(count, bytes), p| (count + 1, bytes + p.message.size()));
    }
}

/// Appends to a lane; an earlier message with the same key is left out, and its successor says so. The bytes
/// of the message that was left out, if one was.
fn conflate(lane: &mut VecDeque<Pending>, mut newest: Pending) -> Option<usize> {
    let key = newest.message.conflation_key.clone();
    let position = newest.message.position.epoch.clone();
    let superseded = key.and_then(|key| {
        lane.iter().rposition(|p| {
            p.message.conflation_key.as_ref() == Some(&key) && p.message.position.epoch == position
        })
    });
    let spared = superseded.and_then(|index| {
        let old = lane.remove(index)?;
        let missing = old.conflated + 1;
        match lane.get_mut(index) {
            Some(successor) => successor.conflated += missing,
            None => newest.conflated += missing,
        }
        metrics::conflated(1);
        Some(old.message.size())
    });
    lane.push_back(newest);
    spared
}

/// Sends the lanes one after the other. Messages for batches are gathered over channels, up to `max` a frame.
fn drain_lanes(
    lanes: &mut [Lane],
    max: usize,
    send: &mut impl FnMut(&Outgoing<'_>) -> Result<(), SendError>,
) -> Result<(), SendError> {
    for index in 0..lanes.len() {
        while let Some(front) = lanes[index].pending.front() {
            if front.batch {
                send_batch(&mut lanes[index..], max, send)?;
            } else {
                send(&Outgoing::One(&front.message, front.conflated))?;
                lanes[index].pending.pop_front();
            }
        }
    }
    Ok(())
}

/// Sends one array from the front of the lanes.
fn send_batch(
    lanes: &mut [Lane],
    max: usize,
    send: &mut impl FnMut(&Outgoing<'_>) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let mut batch = Vec::new();
    let mut taken = Vec::with_capacity(lanes.len());
    for lane in lanes.iter() {
        let before = batch.len();
        let room = max.saturating_sub(before);
        let front = lane.pending.iter().take_while(|p| p.batch).take(room);
        batch.extend(front.map(|p| (p.message.clone(), p.conflated)));
        taken.push(batch.len() - before);
        // What does not ride in the batch has to leave before anything of a later channel does.
        if batch.len() == max || lane.pending.len() > batch.len() - before {
            break;
        }
    }
    send(&Outgoing::Batch(&batch))?;
    for (lane, n) in lanes.iter_mut().zip(taken) {
        lane.pending.drain(..n);
    }
    Ok(())
}
