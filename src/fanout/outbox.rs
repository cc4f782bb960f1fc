//! The outbox: what waits for one connection, and when it leaves. No I/O, no clock of its own.
//!
//! - After a quiet interval a message leaves at once. From then on pending ones leave once per `interval`, or
//!   as soon as `max` are pending.
//! - High and critical messages leave at once and take their own channel's earlier messages with them.
//! - Priority orders channels; within a channel the order is never changed.
//! - While the transport is full, a newer message takes the place of a pending one with the same conflation
//!   key; the receiver learns how many it was spared.
//! - Bounded in bytes: at the bound the least urgent and largest channels *fall behind*. The live messages that
//!   wait of them are dropped, only the place after which they are missing is kept, and somebody has to read on
//!   from history (`Outbox::resume`) until they are live again.

mod flush;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::SendError;
use crate::config::channels::Batch;
use crate::model::{ChannelName, Position, Published};
pub use flush::{Exit, Flush, Passed, Scope};
use lane::{BatchRules, Lane, Pending, drain_lanes};

/// When a full transport is offered its frames again.
const RETRY_FULL: Duration = Duration::from_millis(10);

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// About so many bytes wait at most.
    pub bytes: usize,
    /// Below this there is room for a page of history.
    pub room: usize,
    /// A transport that takes nothing for so long is beyond help.
    pub stuck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 512 * 1024, room: 64 * 1024, stuck: Duration::from_secs(30) }
    }
}

/// Tells one membership of a channel from the next: what was begun for an earlier one counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membership(u64);

/// What waits for one connection.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    // Critical messages are acknowledged one by one.
    critical_alone: bool,
    // One per joined channel; few, so that looking through them is cheap.
    lanes: Vec<Lane>,
    count: usize,
    bytes: usize,
    batch_max: usize,
    last_flush: Option<Instant>,
    due: Option<Instant>,
    full: bool,
    stuck_since: Option<Instant>,
    memberships: u64,
    // Rises with every lane that begins to wait, so that lanes of one urgency keep that order.
    turns: u64,
    fallen: Vec<(ChannelName, Membership)>,
}

impl Outbox {
    /// An outbox of no channel. With `critical_alone` a critical message never rides in a batch.
    #[must_use]
    pub fn new(limits: Limits, critical_alone: bool) -> Self {
        Self {
            limits,
            critical_alone,
            lanes: Vec::new(),
            count: 0,
            bytes: 0,
            batch_max: usize::MAX,
            last_flush: None,
            due: None,
            full: false,
            stuck_since: None,
            memberships: 0,
            turns: 0,
            fallen: Vec::new(),
        }
    }

    /// Begins a membership, which replaces an earlier one of the same channel. Nothing live is taken for it
    /// before [`Outbox::go_live`].
    pub fn enter(&mut self, channel: &ChannelName, batch: bool) -> Membership {
        self.leave(channel);
        self.memberships += 1;
        let membership = Membership(self.memberships);
        if self.lanes.is_empty() {
            // Most connections join one channel, and a vector begins with room for four.
            self.lanes.reserve_exact(1);
        }
        self.lanes.push(Lane::new(channel.clone(), membership, batch));
        membership
    }

    /// Ends the membership and drops what waits of it.
    pub(super) fn leave(&mut self, channel: &ChannelName) {
        self.lanes.retain(|lane| lane.channel != *channel);
        self.recount();
    }

    /// The receiver knows everything up to `position`.
    pub fn set_written(&mut self, channel: &ChannelName, membership: Membership, position: Position) {
        if let Some(lane) = self.member(channel, membership) {
            lane.written = Some(position);
        }
    }

    /// Up to where each channel was handed to the transport.
    pub(super) fn written(&self) -> Vec<(ChannelName, Position)> {
        let known = self.lanes.iter().filter_map(|lane| Some((lane.channel.clone(), lane.written.clone()?)));
        known.collect()
    }

    /// Up to where one channel was.
    pub(super) fn written_of(&self, channel: &ChannelName) -> Option<&Position> {
        self.lanes.iter().find(|lane| lane.channel == *channel)?.written.as_ref()
    }

    /// Up to where the receiver knows the channel once all that waits has left.
    pub(super) fn known_of(&mut self, channel: &ChannelName, membership: Membership) -> Option<Position> {
        self.member(channel, membership)?.known().cloned()
    }

    /// From now on live messages of the channel are taken; whether the membership still exists.
    pub fn go_live(&mut self, channel: &ChannelName, membership: Membership) -> bool {
        let Some(lane) = self.member(channel, membership) else { return false };
        lane.live = true;
        true
    }

    /// Whether the membership takes live messages.
    pub(super) fn is_live(&self, channel: &ChannelName, membership: Membership) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.live && lane.membership == membership && lane.channel == *channel)
    }

    /// Takes live messages of one membership, oldest first; how many of them, and what to do about it before the
    /// rest. One that is not live takes none: history has them.
    pub fn push(
        &mut self,
        membership: Membership,
        messages: &[Arc<Published>],
        window: Batch,
        now: Instant,
    ) -> (usize, Flush) {
        // By its number: a name would have to be fetched from memory for each receiver.
        let lane = self.lanes.iter().position(|lane| lane.membership == membership);
        let Some(lane) = lane else { return (messages.len(), Flush::Nothing) };
        let (mut taken, mut flush, due) = (0, Flush::Nothing, self.due);
        for message in messages {
            taken += 1;
            if !self.lanes[lane].live {
                taken = messages.len();
                break;
            }
            flush = flush.and(self.add(lane, message, 0, false, window, now));
            if self.bytes > self.limits.bytes && !self.full {
                break;
            }
        }
        if matches!(flush, Flush::Now(_)) {
            // What was to wait for its window leaves with the rest, and nobody need look again for it.
            self.due = due;
        }
        (taken, flush)
    }

    /// Hands a live message straight to `exit`, if nothing waits before it and it would leave at once; `None` if it
    /// is to be [pushed](Outbox::push) instead. Most messages for most receivers go this way.
    pub fn pass(
        &mut self,
        membership: Membership,
        message: &Arc<Published>,
        window: Batch,
        now: Instant,
        exit: &mut impl Exit,
    ) -> Option<Passed> {
        if self.full || self.count > 0 {
            return None;
        }
        let urgent = message.priority.is_urgent();
        if !urgent && self.last_flush.is_some_and(|last| now < last + window.interval) {
            return None;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.membership == membership)?;
        let result = lane.pass(message, exit)?;
        if !urgent {
            self.last_flush = Some(now);
        }
        match result {
            Ok(true) | Err(_) => Some(Passed::Left),
            Ok(false) => {
                (self.full, self.stuck_since) = (true, Some(now));
                Some(Passed::Waits)
            }
        }
    }

    /// Takes a message from history, right before which the receiver was spared `conflated`; `None` if the
    /// membership has ended.
    pub(super) fn resume(
        &mut self,
        membership: Membership,
        message: &Arc<Published>,
        conflated: u64,
        window: Batch,
        now: Instant,
    ) -> Option<Flush> {
        let lane = self.lanes.iter().position(|lane| lane.membership == membership)?;
        Some(self.add(lane, message, conflated, true, window, now))
    }

    /// Takes a notice that what follows in the channel does not continue what came before `position`. Of a
    /// membership that has ended it is nobody's concern: what waits belongs to the next one.
    pub(super) fn reset(
        &mut self,
        channel: &ChannelName,
        membership: Membership,
        notice: Box<RawValue>,
        position: Position,
    ) -> Flush {
        let turn = self.next_turn();
        let Some(lane) = self.member(channel, membership) else { return Flush::Nothing };
        // Whatever still waits belongs to a past that is not vouched for any more.
        lane.clear();
        lane.add(Pending::Reset { notice, position }, turn, false);
        self.recount();
        if self.full { Flush::Nothing } else { Flush::Now(Scope::Lane(membership)) }
    }

    /// The channels that have fallen behind since the last call.
    pub(super) fn take_fallen(&mut self) -> Vec<(ChannelName, Membership)> {
        std::mem::take(&mut self.fallen)
    }

    fn add(
        &mut self,
        lane: usize,
        message: &Arc<Published>,
        conflated: u64,
        promised: bool,
        window: Batch,
        now: Instant,
    ) -> Flush {
        let (urgent, full, turn) = (message.priority.is_urgent(), self.full, self.next_turn());
        self.batch_max = self.batch_max.min(window.max.max(1));
        let lane = &mut self.lanes[lane];
        let (before, membership) = ((lane.len(), lane.bytes()), lane.membership);
        lane.add(Pending::Message { message: message.clone(), conflated, promised }, turn, full);
        self.count = self.count + lane.len() - before.0;
        self.bytes = self.bytes + lane.bytes() - before.1;
        let too_much = self.bytes > self.limits.bytes;
        if self.full {
            if too_much {
                self.fall_behind();
            }
            return Flush::Nothing;
        }
        if too_much {
            // The transport may well take it: only what it refuses can be too much.
            return Flush::Now(Scope::All);
        }
        if urgent {
            return Flush::Now(Scope::Lane(membership));
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

    /// Makes room: the least urgent channels go first, the largest of them before the others, until half of
    /// the bound is free.
    fn fall_behind(&mut self) {
        while self.bytes > self.limits.bytes / 2 {
            let victim = self.lanes.iter_mut().filter(|lane| lane.can_fall_behind());
            let victim = victim.min_by_key(|lane| (lane.urgency(), std::cmp::Reverse(lane.bytes())));
            let Some(lane) = victim else { return };
            lane.fall_behind();
            self.fallen.push((lane.channel.clone(), lane.membership));
            self.recount();
        }
    }

    /// Lets what waits only for its window leave.
    pub(super) fn hurry(&self) -> Flush {
        if self.full || self.count == 0 { Flush::Nothing } else { Flush::Now(Scope::All) }
    }

    /// Whether all that was taken has left.
    pub(super) fn is_settled(&self) -> bool {
        self.count == 0 && !self.full
    }

    /// What to do at `now`, when somebody looks.
    pub fn due(&mut self, now: Instant) -> Flush {
        match self.due {
            Some(due) if due <= now => {
                self.due = None;
                // A full transport may itself have kept something that waits to be written.
                let was_full = std::mem::replace(&mut self.full, false);
                if self.count > 0 || was_full { Flush::Now(Scope::All) } else { Flush::Nothing }
            }
            Some(due) => Flush::At(due),
            None => Flush::Nothing,
        }
    }

    /// Offers what `scope` says to `exit`, most urgent channel first, frame by frame, until all has left or one is
    /// not taken.
    pub fn drain(&mut self, scope: Scope, now: Instant, exit: &mut impl Exit) -> Result<(), SendError> {
        let rules = BatchRules { max: self.batch_max, critical_alone: self.critical_alone };
        let before = self.count;
        let result = match scope {
            Scope::Lane(membership) => self
                .lanes
                .iter_mut()
                .filter(|lane| lane.membership == membership)
                .try_for_each(|lane| drain_lanes(std::slice::from_mut(lane), rules, exit)),
            Scope::All => {
                self.last_flush = Some(now);
                self.lanes.sort_by_key(|lane| (std::cmp::Reverse(lane.urgency()), lane.turn));
                drain_lanes(&mut self.lanes, rules, exit)
            }
        };
        // Also after a refusal: what was taken before it leaves.
        let flushed = exit.flush();
        let result = result.and(flushed);
        self.recount();
        self.full = result == Err(SendError::Full);
        self.stuck_since = match self.stuck_since {
            Some(since) if self.full && self.count == before => Some(since),
            _ if self.full => Some(now),
            _ => None,
        };
        result
    }

    /// When to look again after a drain that left something.
    pub fn next_due(&mut self, now: Instant, full: bool) -> Option<Instant> {
        if full {
            self.due = Some(now + RETRY_FULL);
            return self.due;
        }
        if self.count == 0 {
            self.batch_max = usize::MAX;
        }
        None
    }

    /// Whether the transport has taken nothing for longer than it may.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_since.is_some_and(|since| now.duration_since(since) >= self.limits.stuck)
    }

    /// Drops everything that waits; what was written is still known.
    pub(super) fn clear(&mut self) {
        self.lanes.iter_mut().for_each(Lane::clear);
        self.recount();
    }

    /// Whether a page of history may be added.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.limits.room
    }

    /// Whether the membership still exists.
    pub(super) fn is_member(&self, channel: &ChannelName, membership: Membership) -> bool {
        self.lanes.iter().any(|lane| lane.membership == membership && lane.channel == *channel)
    }

    fn member(&mut self, channel: &ChannelName, membership: Membership) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.membership == membership && lane.channel == *channel)
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn recount(&mut self) {
        let sizes = self.lanes.iter().map(|lane| (lane.len(), lane.bytes()));
        (self.count, self.bytes) = sizes.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1));
    }
}

#[cfg(test)]
mod tests;
