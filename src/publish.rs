//! The publish door: the only way for messages from outside into a channel.
//!
//! It checks the channel, the event and the size against the rules, fills in id, time and priority, and gives
//! the news of tests to every channel that tells of tests. What the queue itself tells goes the same way from
//! `Append` on, inside of the queue's transactions.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Identity, access};
use crate::broker::append::{Append, AppendGroup, Draft, Fold};
use crate::broker::{AppendError, Appended, Broker, BrokerError};
use crate::config::channels::{Namespace, Role, Rules};
use crate::fault::Cause;
use crate::inbox::{self, READ};
use crate::metrics;
use crate::model::event::TestEvent;
use crate::model::test::{Refused, TestData};
use crate::model::{Incoming, MessageId, TestId, now_ms, readable};

/// Why a message was not published.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// No rule knows the channel.
    #[error("no channel of this server is called `{0}`")]
    UnknownChannel(String),
    /// Only the server itself tells anything there.
    #[error("only the server itself publishes to `{0}` (publish = [] in channels.toml)")]
    ServerOnly(String),
    /// The sender has none of the roles that may.
    #[error("publishing to `{channel}` needs the role {roles} (publish in channels.toml)")]
    Forbidden {
        /// The channel.
        channel: String,
        /// Who may.
        roles: String,
    },
    /// The channel does not carry the event.
    #[error("the channel `{channel}` does not carry `{event}`, only {allowed}")]
    UnknownEvent {
        /// The channel.
        channel: String,
        /// The event.
        event: String,
        /// What it carries.
        allowed: String,
    },
    /// The server tells this by itself, and what it tells is true.
    #[error("only the server itself tells `{0}`: mark messages as read over HTTP, and it does")]
    ServerEvent(&'static str),
    /// The message is too large.
    #[error(
        "the message has {bytes} bytes of data, more than the {max} that are allowed (limits.message_bytes)"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The data is not what the event promises.
    #[error("{0}")]
    Invalid(String),
    /// A newer attempt owns the test, or it has ended.
    #[error("{0}")]
    Stale(Refused),
    /// The broker could not store it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl PublishError {
    /// The stable code that clients see.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel(_) => "unknown_channel",
            Self::ServerOnly(_) | Self::ServerEvent(_) | Self::Forbidden { .. } => "forbidden",
            Self::UnknownEvent { .. } => "unknown_event",
            Self::TooLarge { .. } => "too_large",
            Self::Invalid(_) => "invalid",
            Self::Stale(Refused::StaleAttempt { .. }) => "stale_attempt",
            Self::Stale(Refused::Ended { .. }) => "test_ended",
            Self::Stale(_) => "test_owned",
            Self::Broker(BrokerError::Full(_)) => "storage_full",
            Self::Broker(BrokerError::Unavailable(_)) => "unavailable",
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Stale(_) => "stale_attempt",
            Self::Broker(_) => "unavailable",
            _ => self.code(),
        }
    }
}

impl From<AppendError> for PublishError {
    fn from(AppendError::Refused(refused): AppendError) -> Self {
        match refused {
            Refused::Data(message) => Self::Invalid(message),
            refused => Self::Stale(refused),
        }
    }
}

/// The publish door.
#[derive(Clone)]
pub struct Publisher {
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
    message_bytes: usize,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("message_bytes", &self.message_bytes).finish_non_exhaustive()
    }
}

impl Publisher {
    /// A door to `broker` that keeps to `rules` and lets in at most `message_bytes` of data a message.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, rules: Arc<Rules>, message_bytes: usize) -> Self {
        Self { broker, rules, message_bytes }
    }

    /// Publishes the messages in order, in the name of `by`. The answer has one entry per message, in the same order,
    /// once those that were accepted are durable.
    pub async fn publish(
        &self,
        by: &Identity,
        messages: Vec<Incoming>,
    ) -> Vec<Result<Appended, PublishError>> {
        let now = now_ms();
        let mut groups = Vec::with_capacity(messages.len());
        // Per message: its refusal, or that it is the next of `groups`.
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            match self.admit(by, message, now) {
                Ok(group) => {
                    groups.push(group);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(error)),
            }
        }
        let answers = if groups.is_empty() { Ok(Vec::new()) } else { self.broker.append(groups).await };
        let mut answers = answers.map(Vec::into_iter);
        let results: Vec<_> = outcomes
            .into_iter()
            .map(|refused| match (refused, &mut answers) {
                (Some(error), _) => Err(error),
                (None, Ok(answers)) => match answers.next() {
                    Some(answer) => answer.map_err(PublishError::from),
                    None => Err(unanswered()),
                },
                (None, Err(error)) => Err(PublishError::Broker(error.clone())),
            })
            .collect();
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            metrics::rejected(error.reason());
        }
        results
    }

    /// Publishes one message; answered once it is durable.
    pub async fn publish_one(&self, by: &Identity, message: Incoming) -> Result<Appended, PublishError> {
        let answer = self.publish(by, vec![message]).await.pop();
        // There is an answer for every message.
        answer.unwrap_or_else(|| Err(unanswered()))
    }

    /// Checks one message and makes it ready.
    fn admit(&self, by: &Identity, mut message: Incoming, now: i64) -> Result<AppendGroup, PublishError> {
        // Who speaks is known; only workers report on what others do.
        if message.user_id.is_none() || !by.speaks_for_others() {
            message.user_id = by.user().cloned();
        }
        let message = &message;
        let channel = message.channel.as_str();
        let resolved =
            self.rules.resolve(channel).ok_or_else(|| PublishError::UnknownChannel(channel.to_owned()))?;
        let namespace = resolved.namespace.clone();
        // No role opens such a channel: what comes through this door comes from outside.
        if namespace.publish.is_empty() {
            return Err(PublishError::ServerOnly(channel.to_owned()));
        }
        if !access::may_publish(by, &namespace, channel) {
            let roles = namespace.publish.iter().map(Role::as_str).collect::<Vec<_>>().join(" or ");
            return Err(PublishError::Forbidden { channel: channel.to_owned(), roles });
        }
        if !namespace.allows(message.event.as_str()) {
            return Err(unknown_event(&namespace, message));
        }
        if message.event.as_str() == READ && inbox::is_inbox(&namespace) {
            return Err(PublishError::ServerEvent(READ));
        }
        let extra: usize = message.extra.iter().map(|(key, value)| key.len() + value.get().len()).sum();
        let bytes = message.data.get().len() + extra;
        if bytes > self.message_bytes {
            return Err(PublishError::TooLarge { bytes, max: self.message_bytes });
        }
        let extra = message.extra.iter().map(|(key, value)| (key.as_str(), value));
        for (field, json) in [("data", &message.data)].into_iter().chain(extra) {
            readable::check(json).map_err(|e| PublishError::Invalid(format!("{field}: {e}")))?;
        }
        let id = message.id.clone().unwrap_or_else(MessageId::generate);
        let test = resolved.value(channel).filter(|_| namespace.snapshot);
        let told = test.zip(TestEvent::from_name(message.event.as_str()));
        let (fold, mirrors) = match told {
            Some((test, event)) => self.test_news(message, test, event, &id, now)?,
            None => (None, Vec::new()),
        };
        let draft = draft(message, id, &message.data, now);
        let first = Append::new(message.channel.clone(), namespace, draft, fold);
        Ok(AppendGroup { first, mirrors })
    }

    /// What a `test:*` message changes in its test, and the same news for those who watch all tests.
    fn test_news(
        &self,
        message: &Incoming,
        test: &str,
        event: TestEvent,
        id: &MessageId,
        now: i64,
    ) -> Result<(Option<Fold>, Vec<Append>), PublishError> {
        let mut data =
            TestData::parse(event, &message.data).map_err(|e| PublishError::Invalid(e.to_string()))?;
        // What somebody outside calls their job is none of the queue's, whose worker alone could then end the test.
        data.job_id = None;
        let test_id = TestId::parse(test).map_err(|e| PublishError::Invalid(e.to_string()))?;
        let told_data = match &data.test_id {
            Some(named) if *named != test_id => {
                let text = format!("data.testId is `{named}`, but the channel is that of test `{test_id}`");
                return Err(PublishError::Invalid(text));
            }
            Some(_) => message.data.clone(),
            None => with_test_id(&test_id, &message.data),
        };
        let will_retry = data.will_retry == Some(true);
        let mirrors = event.mirrors(will_retry).iter();
        let mirrors = mirrors.filter_map(|channel| {
            Append::own(&self.rules, channel, draft(message, mirror_id(&test_id, id), &told_data, now), None)
        });
        let mirrors = mirrors.collect();
        Ok((Some(Fold { test_id, job_id: None, event, data }), mirrors))
    }
}

fn draft<'a>(message: &'a Incoming, id: MessageId, data: &'a RawValue, now: i64) -> Draft<'a> {
    Draft {
        id,
        fresh: message.id.is_none(),
        event: message.event.clone(),
        priority: message.priority,
        timestamp_ms: now,
        user_id: message.user_id.as_ref(),
        data,
        extra: &message.extra,
    }
}

/// An id that is unique where all tests are told: a sender's own is so only in the channel of its test.
fn mirror_id(test: &TestId, id: &MessageId) -> MessageId {
    // Two that are too long together get a new one; what is sent again is recognised by the first id anyway.
    MessageId::parse(&format!("{test}:{id}")).unwrap_or_else(|_| MessageId::generate())
}

/// Those who watch all tests have only the data to tell which test it is.
fn with_test_id(test: &TestId, data: &RawValue) -> Box<RawValue> {
    let rest = data.get().trim_start().strip_prefix('{').unwrap_or("}");
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    RawValue::from_string(format!(r#"{{"testId":"{test}"{comma}{rest}"#)).unwrap_or_else(|_| data.to_owned())
}

/// The broker broke its promise of one answer per message.
fn unanswered() -> PublishError {
    PublishError::Broker(BrokerError::Unavailable(Cause::new(
        "the message store gave no answer for this message",
    )))
}

fn unknown_event(namespace: &Namespace, message: &Incoming) -> PublishError {
    let allowed = namespace.events.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ");
    PublishError::UnknownEvent {
        channel: message.channel.to_string(),
        event: message.event.to_string(),
        allowed,
    }
}
