//! Flushes: what leaves an outbox, when, and where to.

use tokio::time::Instant;

use super::Membership;
use crate::fanout::{Frame, SendError};
use crate::model::Published;

/// What has to be done after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Nothing, or what was arranged before.
    Nothing,
    /// Drain this much now.
    Now(Scope),
    /// Look again then.
    At(Instant),
}

impl Flush {
    /// Both of them.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, flush) | (flush, Self::Nothing) => flush,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::Now(scope), Self::At(_)) | (Self::At(_), Self::Now(scope)) => Self::Now(scope),
            (Self::Now(one), Self::Now(other)) if one == other => Self::Now(one),
            (Self::Now(_), Self::Now(_)) => Self::Now(Scope::All),
        }
    }
}

/// What became of a message that did not have to wait for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It was written, or the transport is gone.
    Left,
    /// The transport has taken it, and is full now: see [`super::Outbox::next_due`].
    Waits,
}

/// How much leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that waits.
    All,
    /// What waits of one membership.
    Lane(Membership),
}

/// Where frames leave.
pub trait Exit {
    /// As [`crate::fanout::Transport::send`].
    fn send(&mut self, frame: Frame<'_>) -> Result<(), SendError>;
    /// As [`crate::fanout::Transport::pass`].
    fn pass(&mut self, frame: Frame<'_>) -> Result<bool, SendError> {
        self.send(frame)?;
        SendError::is_written(self.flush())
    }
    /// A message was taken by one of the above, with `conflated` ones right before it that its receiver is spared;
    /// whether it came from history.
    fn left(&mut self, _message: &Published, _conflated: u64, _from_history: bool) {}
    /// As [`crate::fanout::Transport::flush`].
    fn flush(&mut self) -> Result<(), SendError>;
}
