//! A lane: what waits of one channel, in the channel's order.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Exit, Membership};
use crate::fanout::{Frame, SendError};
use crate::model::{ChannelName, Position, Priority, Published};

/// An empty lane keeps room for so many messages, so that a busy one need not ask for it all the time.
const KEPT: usize = 64;

/// What waits.
#[derive(Debug)]
pub(super) enum Pending {
    /// A message, and how many right before it the receiver is spared. What was promised as part of a replay
    /// is never superseded: its receiver was told how many would come.
    Message { message: Arc<Published>, conflated: u64, promised: bool },
    /// `room:reset`: what follows begins after `position`.
    Reset { notice: Box<RawValue>, position: Position },
}

impl Pending {
    fn bytes(&self) -> usize {
        match self {
            Self::Message { message, .. } => message.size(),
            Self::Reset { notice, .. } => notice.get().len(),
        }
    }

    fn priority(&self) -> Priority {
        match self {
            Self::Message { message, .. } => message.priority,
            Self::Reset { .. } => Priority::High,
        }
    }

    /// Whether its receiver was told that it comes, or has to be told of it: it is not left to history.
    fn is_owed(&self) -> bool {
        !matches!(self, Self::Message { promised: false, .. })
    }

    fn position(&self) -> &Position {
        match self {
            Self::Message { message, .. } => &message.position,
            Self::Reset { position, .. } => position,
        }
    }
}

/// A joined channel.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) channel: ChannelName,
    pub(super) membership: Membership,
    /// Whether live messages are taken; else somebody reads history.
    pub(super) live: bool,
    /// Up to where the channel was handed to the transport.
    pub(super) written: Option<Position>,
    /// When it began to wait, compared with others.
    pub(super) turn: u64,
    batch: bool,
    pending: VecDeque<Pending>,
    bytes: usize,
}

impl Lane {
    pub(super) fn new(channel: ChannelName, membership: Membership, batch: bool) -> Self {
        let pending = VecDeque::new();
        Self { channel, membership, live: false, written: None, turn: 0, batch, pending, bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The highest priority that waits.
    pub(super) fn urgency(&self) -> Priority {
        self.pending.iter().map(Pending::priority).max().unwrap_or(Priority::Low)
    }

    /// Up to where the receiver knows the channel once all that waits has left.
    pub(super) fn known(&self) -> Option<&Position> {
        self.pending.back().map(Pending::position).or(self.written.as_ref())
    }

    /// Whether anything waits that history has as well.
    pub(super) fn can_fall_behind(&self) -> bool {
        self.live && self.known().is_some() && self.pending.back().is_some_and(|last| !last.is_owed())
    }

    /// Drops the live messages that wait: history goes on after what is left, at [`Lane::known`]. What is owed
    /// came before them; it is no more than was read from history at once.
    pub(super) fn fall_behind(&mut self) {
        self.live = false;
        while let Some(dropped) = self.pending.pop_back_if(|last| !last.is_owed()) {
            self.bytes -= dropped.bytes();
        }
        self.pending.shrink_to_fit();
    }

    /// Adds at the end. If `conflate`, an earlier message with the same key is left out, and its successor
    /// says so.
    pub(super) fn add(&mut self, mut newest: Pending, turn: u64, conflate: bool) {
        if self.pending.is_empty() {
            self.turn = turn;
        }
        if conflate {
            self.supersede(&mut newest);
        }
        self.bytes += newest.bytes();
        if self.pending.capacity() == 0 {
            // Mostly one waits, and a queue begins with room for four.
            self.pending.reserve_exact(1);
        }
        self.pending.push_back(newest);
    }

    fn supersede(&mut self, newest: &mut Pending) {
        let Pending::Message { message, conflated, promised: false } = newest else { return };
        let Some(key) = message.conflation_key.clone() else { return };
        let same = |pending: &Pending| {
            matches!(pending, Pending::Message { message: old, promised: false, .. }
                if old.conflation_key.as_ref() == Some(&key) && old.position.epoch == message.position.epoch)
        };
        let Some(index) = self.pending.iter().rposition(same) else { return };
        // A reset in between separates what may be counted together.
        if self.pending.range(index..).any(|p| matches!(p, Pending::Reset { .. })) {
            return;
        }
        let Some(Pending::Message { message: old, conflated: spared, .. }) = self.pending.remove(index)
        else {
            return;
        };
        self.bytes -= old.size();
        match self.pending.get_mut(index) {
            Some(Pending::Message { conflated, .. }) => *conflated += spared + 1,
            _ => *conflated += spared + 1,
        }
    }

    /// Hands a message on that nothing waits before: whether it was written, as [`Exit::pass`]. `None` if it was not
    /// taken, or is not for this way.
    pub(super) fn pass(
        &mut self,
        message: &Arc<Published>,
        exit: &mut impl Exit,
    ) -> Option<Result<bool, SendError>> {
        if !self.live || self.batch {
            return None;
        }
        let result = exit.pass(Frame::Message(message, 0));
        match result {
            Err(SendError::Full) => return None,
            Err(SendError::Closed) => {}
            Ok(_) => {
                exit.left(message, 0, false);
                self.written = Some(message.position.clone());
            }
        }
        Some(result)
    }

    /// Drops what waits.
    pub(super) fn clear(&mut self) {
        self.pending = VecDeque::new();
        self.bytes = 0;
    }

    /// The first `n` have left.
    fn left(&mut self, n: usize, exit: &mut impl Exit) {
        for gone in self.pending.drain(..n) {
            if let Pending::Message { message, conflated, promised } = &gone {
                exit.left(message, *conflated, *promised);
            }
            self.bytes -= gone.bytes();
            self.written = Some(gone.position().clone());
        }
        if self.pending.is_empty() && self.pending.capacity() > KEPT {
            // What a burst needed is not kept by each connection for the rest of its life.
            self.pending = VecDeque::new();
        }
    }
}

/// What may ride together.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchRules {
    /// The most messages of one array.
    pub(super) max: usize,
    /// Critical messages never ride with others.
    pub(super) critical_alone: bool,
}

impl BatchRules {
    /// The message, if it may ride in an array of `lane`'s.
    fn rider<'a>(self, lane: &Lane, pending: &'a Pending) -> Option<(&'a Arc<Published>, u64)> {
        match pending {
            Pending::Message { message, .. }
                if self.critical_alone && message.priority == Priority::Critical =>
            {
                None
            }
            Pending::Message { message, conflated, .. } if lane.batch => Some((message, *conflated)),
            Pending::Message { .. } | Pending::Reset { .. } => None,
        }
    }
}

/// Sends the lanes one after the other. Messages for batches are gathered over channels.
pub(super) fn drain_lanes(
    lanes: &mut [Lane],
    rules: BatchRules,
    exit: &mut impl Exit,
) -> Result<(), SendError> {
    for index in 0..lanes.len() {
        while let Some(front) = lanes[index].pending.front() {
            if rules.rider(&lanes[index], front).is_some() {
                send_batch(&mut lanes[index..], rules, exit)?;
                continue;
            }
            match front {
                Pending::Message { message, conflated, .. } => {
                    exit.send(Frame::Message(message, *conflated))?
                }
                Pending::Reset { notice, .. } => exit.send(Frame::Reset(notice))?,
            }
            lanes[index].left(1, exit);
        }
    }
    Ok(())
}

/// Sends one array from the front of the lanes.
fn send_batch(lanes: &mut [Lane], rules: BatchRules, exit: &mut impl Exit) -> Result<(), SendError> {
    let mut batch = Vec::new();
    let mut taken = Vec::with_capacity(lanes.len());
    for lane in lanes.iter() {
        let before = batch.len();
        let riders = lane.pending.iter().map_while(|pending| rules.rider(lane, pending));
        let riders = riders.take(rules.max.saturating_sub(before));
        batch.extend(riders.map(|(message, conflated)| (message.clone(), conflated)));
        taken.push(batch.len() - before);
        // What does not ride in this batch has to leave before anything of a later channel does.
        if batch.len() == rules.max || lane.pending.len() > batch.len() - before {
            break;
        }
    }
    exit.send(Frame::Batch(&batch))?;
    for (lane, n) in lanes.iter_mut().zip(taken) {
        lane.left(n, exit);
    }
    Ok(())
}
