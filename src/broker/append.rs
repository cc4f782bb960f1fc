//! What is handed to the broker: messages that passed the checks of the channel rules.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::config::channels::{Namespace, Rules};
use crate::model::event::TestEvent;
use crate::model::message::{EnvelopeRest, OpenEnvelope};
use crate::model::test::TestData;
use crate::model::{ChannelName, EventName, JobId, MessageId, Priority, TestId, UserId};

/// What a message changes in the snapshot of its channel's test.
#[derive(Debug, Clone)]
pub struct Fold {
    /// Whose snapshot.
    pub test_id: TestId,
    /// The job whose worker speaks; none for a message from outside.
    pub job_id: Option<JobId>,
    /// How.
    pub event: TestEvent,
    /// With what.
    pub data: TestData,
}

/// A message that is ready to be appended.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where.
    pub channel: ChannelName,
    /// By which rules.
    pub namespace: Arc<Namespace>,
    /// Its id.
    pub id: MessageId,
    /// The id was made for this message just now: no other has it.
    pub fresh: bool,
    /// Its id is one of a row.
    pub count: Option<Count>,
    /// What happened.
    pub event: EventName,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was accepted.
    pub timestamp_ms: i64,
    /// What a newer message with the same key makes superfluous.
    pub conflation_key: Option<Arc<str>>,
    /// What it changes in a snapshot, where its channel has one.
    pub fold: Option<Fold>,
    /// Its envelope, which lacks only the position.
    pub open: OpenEnvelope,
}

/// No number of a row is as small.
const SMALL: i64 = 1_000_000_000_000_000;

/// The place of an id in a row: from message to message of the row the number rises, in every channel. So whoever knows
/// the newest number knows that it has seen all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The row; an id of its messages is `OF.ANYTHING.NUMBER`.
    pub of: Arc<str>,
    /// The number. It rises with the clock, in µs, so that no row begins with small ones.
    pub number: i64,
}

impl Count {
    /// What `id` would be in a row; anybody may choose one that looks so.
    #[must_use]
    pub fn read(id: &str) -> Option<Self> {
        let mut parts = id.rsplitn(3, '.');
        let (number, _, of) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { of: of.into(), number: number.parse().ok().filter(|number| *number > SMALL)? })
    }
}

/// Messages that belong together: all are appended in one transaction, or none. If the first one's id is
/// known, nothing is.
#[derive(Debug, Clone)]
pub struct AppendGroup {
    /// The message that was sent.
    pub first: Append,
    /// The same news for other channels.
    pub mirrors: Vec<Append>,
}

/// What goes into an [`Append`] beside its rules.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Its id.
    pub id: MessageId,
    /// Whether the id was made for this message just now.
    pub fresh: bool,
    /// What happened.
    pub event: EventName,
    /// Its priority, if not the namespace's own for this event.
    pub priority: Option<Priority>,
    /// When it was accepted, in ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whom it concerns.
    pub user_id: Option<&'a UserId>,
    /// The payload.
    pub data: &'a RawValue,
    /// Unknown fields that pass through.
    pub extra: &'a [(String, Box<RawValue>)],
}

impl Append {
    /// Makes a draft ready for `channel` by the rules of `namespace`.
    #[must_use]
    pub fn new(
        channel: ChannelName,
        namespace: Arc<Namespace>,
        draft: Draft<'_>,
        fold: Option<Fold>,
    ) -> Self {
        let Draft { id, fresh, event, priority, timestamp_ms, user_id, data, extra } = draft;
        let priority = priority.unwrap_or_else(|| namespace.priority(event.as_str()));
        let conflation_key =
            namespace.conflation_path(event.as_str()).and_then(|path| path.key(event.as_str(), data));
        let rest = EnvelopeRest { user_id, data, extra };
        let open = OpenEnvelope::write(&id, &event, &channel, priority, timestamp_ms, rest);
        let count = None;
        Self {
            channel,
            namespace,
            id,
            fresh,
            count,
            event,
            priority,
            timestamp_ms,
            conflation_key,
            fold,
            open,
        }
    }

    /// The same, with an id that is one of a row.
    #[must_use]
    pub fn counted(self) -> Self {
        Self { count: Count::read(self.id.as_str()), ..self }
    }

    /// The same for a channel that the program itself publishes to; `None` where the rules in force have no
    /// such channel or do not list the event, which `tidings check` warns about.
    #[must_use]
    pub fn own(rules: &Rules, channel: &str, draft: Draft<'_>, fold: Option<Fold>) -> Option<Self> {
        let namespace = rules.resolve(channel)?.namespace;
        if !namespace.allows(draft.event.as_str()) {
            return None;
        }
        let channel = ChannelName::parse(channel).ok()?;
        Some(Self::new(channel, namespace, draft, fold))
    }
}
