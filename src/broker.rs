//! The broker: appends messages to channels, keeps their history, and tells of each one live.
//!
//! This file holds the promises; [`embedded`] keeps them on one machine, [`mod@redis`] on many. The live side is turned round: the
//! broker calls a [`LiveSink`] that a higher layer hands in, so that the dependency still points downwards.

pub mod append;
pub mod embedded;
pub mod redis;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use append::{Append, AppendGroup};

use crate::fault::{Cause, Fault};
use crate::model::test::Refused;
use crate::model::{ChannelName, Epoch, MessageId, Position, Published, Snapshot, TestId, TestState};

/// Where an accepted message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its id: the sender's, or the one that the server gave it.
    pub id: MessageId,
    /// Its place.
    pub position: Position,
    /// The id was known: this is the place that the message has had since it was first sent.
    pub duplicate: bool,
}

/// Why one message was not appended, while others of the same call may have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The message has no place in the story of its test.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Why the broker could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// There is no room for more. Reading goes on.
    #[error("no room for new messages: {0}")]
    Full(Cause),
    /// The store cannot be reached or is damaged. After an append the messages may be stored: send them again
    /// with the same ids.
    #[error("the message store is unavailable: {0}")]
    Unavailable(Cause),
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(cause) => Self::Full(cause),
            Fault::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

/// The end of a channel, with the state of its test where the channel has one; both of the same moment.
#[derive(Debug, Clone)]
pub struct Top {
    /// The position of the newest message; offset 0 before the first.
    pub position: Position,
    /// The fold of all messages up to `position`.
    pub snapshot: Option<Snapshot>,
}

/// How much history to read at once: whichever bound is reached first, but at least one message.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Messages.
    pub messages: usize,
    /// Bytes of encoded messages.
    pub bytes: usize,
}

/// A stretch of history.
#[derive(Debug, Clone)]
pub struct Page {
    /// Oldest first, without a hole.
    pub messages: Vec<Arc<Published>>,
    /// The epoch of the channel and of all offsets here.
    pub epoch: Epoch,
    /// The offset of the channel's newest message.
    pub top: u64,
    /// The offset of its oldest message that can still be read; `top + 1` if there is none.
    pub oldest: u64,
}

/// What counts in a stretch of history: a message with a conflation key is superseded by a later one with the
/// same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many messages have no conflation key.
    pub plain: u64,
    /// For each key the offset of its newest message.
    pub newest: HashMap<Arc<str>, u64>,
}

impl Survey {
    /// How many messages have to be sent.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.plain + self.newest.len() as u64
    }

    /// Whether this message of the stretch has to be sent.
    #[must_use]
    pub fn keeps(&self, message: &Published) -> bool {
        let newest = message.conflation_key.as_ref().and_then(|key| self.newest.get(key));
        newest.is_none_or(|newest| *newest == message.position.offset)
    }
}

/// A page of tests.
#[derive(Debug, Clone)]
pub struct TestPage {
    /// Newest first.
    pub tests: Vec<Snapshot>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

/// The store of channels.
///
/// - Offsets of a channel start at 1 and rise by exactly one per message within an epoch; a channel's epoch
///   exists, and is stored, before its first message.
/// - An append is answered after it is durable, and, where its channel is followed here, after it was handed to the
///   [`LiveSink`]; while the live side of a store on other machines is away, without waiting for that.
/// - The sink hears every message of a channel that is followed ([`Broker::follow`]) once and in offset order, whoever
///   appended it; where that cannot be done it hears a [`LiveSink::reset`]. It may hear of other channels, too.
/// - A message id that the channel's history knows is not appended again.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Appends each group as a whole or not at all, in the order given. Where channels lie on different servers, the
    /// first message of a group comes before its mirrors, and an error or the end of this process may leave some of them
    /// out: who sends the group again has them made. Nothing orders the messages of different channels there.
    ///
    /// The answer holds one entry per group, in the same order, about the group's first message. After
    /// [`BrokerError`] it is unknown what was stored.
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError>;

    /// Begins tests anew: each snapshot, at the top of its channel, takes the place of what is stored of its test,
    /// where it is newer ([`Snapshot::replaces`]). So a repetition, however late, changes nothing.
    async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError>;

    /// Whether messages can be appended, and are heard, now; asks the store.
    async fn ready(&self) -> Result<(), BrokerError>;

    /// Has the [`LiveSink`] hear what is appended to `channel` from now on: of everything that [`Broker::top`] does
    /// not show when it is asked afterwards. Following twice is following once.
    async fn follow(&self, channel: &ChannelName) -> Result<(), BrokerError>;

    /// Nobody listens to `channel` here any more; the sink may go on hearing of it for a while.
    fn unfollow(&self, channel: &ChannelName);

    /// The end of `channel`, which gets its epoch now if it never had one.
    async fn top(&self, channel: &ChannelName) -> Result<Top, BrokerError>;

    /// The messages of `channel` after offset `after`, as far as `limit` allows and as history reaches:
    /// where `after + 1 < oldest` there is a hole before the first one.
    async fn history(&self, channel: &ChannelName, after: u64, limit: PageLimit)
    -> Result<Page, BrokerError>;

    /// What a receiver has to be sent who knows `channel` up to offset `after` and is to know it up to `upto`.
    async fn survey(&self, channel: &ChannelName, after: u64, upto: u64) -> Result<Survey, BrokerError>;

    /// The state of a test.
    async fn snapshot(&self, test: &TestId) -> Result<Option<Snapshot>, BrokerError>;

    /// Tests, newest first, in `state` if one is given, before `cursor` if one is given.
    async fn tests(
        &self,
        state: Option<TestState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<TestPage, BrokerError>;

    /// Removes what history no longer promises, a bounded amount per call; whether there is more to remove.
    async fn retain(&self) -> Result<bool, BrokerError>;
}

/// Hears of every message that was appended.
pub trait LiveSink: Send + Sync + 'static {
    /// Called in commit order, and in offset order within a channel. It may wait for a short while, which
    /// holds publishers back, but not for the broker itself.
    fn published(&self, messages: Vec<Arc<Published>>);

    /// What comes next in `channel` does not continue what was told of it: it starts after `top`. Called in order with
    /// [`LiveSink::published`], and may wait like it.
    fn reset(&self, channel: &ChannelName, top: Top);
}
