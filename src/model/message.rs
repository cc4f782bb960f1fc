//! The standard message: as a sender offers it, as a channel holds it, as a receiver reads it.

mod incoming;

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ChannelName, Epoch, EventName, MessageId, Position, Priority, UserId};

pub use incoming::Incoming;

/// The envelope of a message without its position: a JSON object that still lacks its end.
///
/// It is written once, when the message is accepted, and stored like this; [`Published`] closes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEnvelope {
    text: Arc<str>,
    /// Written by this process from parts that are JSON; what a store gave back may be damaged.
    sound: bool,
}

impl OpenEnvelope {
    /// Writes the envelope's fields in their order.
    #[must_use]
    pub fn write(
        id: &MessageId,
        event: &EventName,
        channel: &ChannelName,
        priority: Priority,
        timestamp_ms: i64,
        rest: EnvelopeRest<'_>,
    ) -> Self {
        let mut out = String::with_capacity(rest.data.get().len() + 192);
        // Ids, events and channels are of an alphabet that needs no escaping (`is_id_char`).
        let _ = write!(
            out,
            r#"{{"id":"{id}","event":"{event}","channel":"{channel}","priority":{},"timestamp":{timestamp_ms}"#,
            priority.number()
        );
        if let Some(user) = rest.user_id {
            let _ = write!(out, r#","userId":"{user}""#);
        }
        out.push_str(",\"data\":");
        out.push_str(rest.data.get());
        for (key, value) in rest.extra {
            out.push(',');
            // Writing a string as JSON to memory cannot fail.
            out.push_str(&serde_json::to_string(key).unwrap_or_default());
            out.push(':');
            out.push_str(value.get());
        }
        Self { text: out.into(), sound: true }
    }

    /// Takes back what [`Self::as_str`] gave to a store.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self { text: text.into(), sound: false }
    }

    /// What a store keeps.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The parts of an envelope that not every message has.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeRest<'a> {
    /// Whom it concerns.
    pub user_id: Option<&'a UserId>,
    /// The payload.
    pub data: &'a RawValue,
    /// Unknown fields that pass through.
    pub extra: &'a [(String, Box<RawValue>)],
}

/// A message that has its position. It is encoded once and then shared by all who receive it.
#[derive(Debug)]
pub struct Published {
    /// Where it stands.
    pub channel: ChannelName,
    /// Its epoch and offset in the channel.
    pub position: Position,
    /// What happened.
    pub event: EventName,
    /// How urgent it is.
    pub priority: Priority,
    /// When the server accepted it, in ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// What a newer message with the same key makes superfluous.
    pub conflation_key: Option<Arc<str>>,
    open: OpenEnvelope,
    encoded: OnceLock<Arc<RawValue>>,
    frame: OnceLock<Bytes>,
}

impl Published {
    /// Gives the accepted envelope its place.
    #[must_use]
    pub fn new(
        channel: ChannelName,
        position: Position,
        event: EventName,
        priority: Priority,
        timestamp_ms: i64,
        conflation_key: Option<Arc<str>>,
        open: OpenEnvelope,
    ) -> Self {
        Self {
            channel,
            position,
            event,
            priority,
            timestamp_ms,
            conflation_key,
            open,
            encoded: OnceLock::new(),
            frame: OnceLock::new(),
        }
    }

    /// The message as JSON, without `conflated`: encoded at the first call, shared afterwards.
    #[must_use]
    pub fn json(&self) -> &Arc<RawValue> {
        self.encoded.get_or_init(|| Arc::from(self.close(0)))
    }

    /// What `encode` makes of the message for those who write it: made at the first call, shared afterwards.
    pub fn frame(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.frame.get_or_init(|| encode(self))
    }

    /// The message as JSON for a receiver who was spared `conflated` messages right before this one.
    #[must_use]
    pub fn json_conflated(&self, conflated: u64) -> Arc<RawValue> {
        if conflated == 0 { self.json().clone() } else { Arc::from(self.close(conflated)) }
    }

    /// The length of its JSON in bytes, near enough for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.open.text.len() + 48
    }

    /// Its text as JSON between `before` and `after`, for those who write it.
    #[must_use]
    pub fn text_between(&self, before: &str, conflated: u64, after: &str) -> String {
        let mut text = String::with_capacity(self.size() + before.len() + after.len() + 24);
        text.push_str(before);
        if self.open.sound {
            self.write_to(&mut text, conflated);
        } else {
            text.push_str(self.json_conflated(conflated).get());
        }
        text.push_str(after);
        text
    }

    fn write_to(&self, text: &mut String, conflated: u64) {
        let Position { epoch, offset } = &self.position;
        text.push_str(&self.open.text);
        let _ = write!(text, r#","epoch":"{epoch}","offset":{offset}"#);
        if conflated > 0 {
            let _ = write!(text, r#","conflated":{conflated}"#);
        }
        text.push('}');
    }

    fn close(&self, conflated: u64) -> Box<RawValue> {
        let mut text = String::with_capacity(self.size() + 24);
        self.write_to(&mut text, conflated);
        // The envelope was written by `OpenEnvelope::write` from parts that are JSON, so this holds unless a
        // stored row was damaged; then the receiver gets a message that says so instead of a broken frame.
        RawValue::from_string(text).unwrap_or_else(|_| {
            let Position { epoch, offset } = &self.position;
            let text = format!(
                r#"{{"event":"{}","channel":"{}","data":null,"damaged":true,"epoch":"{epoch}","offset":{offset}}}"#,
                self.event, self.channel
            );
            RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
        })
    }
}

/// A message as a receiver reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Unique in its channel for as long as the channel's history lives.
    pub id: MessageId,
    /// What happened.
    pub event: EventName,
    /// Where it stands.
    pub channel: ChannelName,
    /// 1 low, 2 normal, 3 high, 4 critical.
    pub priority: Priority,
    /// When the server accepted it, in ms since the Unix epoch.
    pub timestamp: i64,
    /// Whom it concerns or who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The payload.
    pub data: serde_json::Value,
    /// The unbroken past that `offset` counts in.
    pub epoch: Epoch,
    /// Its number in the channel, from 1.
    pub offset: u64,
    /// How many messages right before this one the receiver was spared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub conflated: u64,
    /// Fields that the sender added.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A message at `offset` of epoch `e`, for the tests of those who pass messages on.
#[cfg(test)]
pub(crate) fn sample(
    channel: &str,
    event: &str,
    priority: Priority,
    offset: u64,
    key: Option<&str>,
    data: &str,
) -> Arc<Published> {
    let channel = ChannelName::parse(channel).expect("a channel name");
    let event = EventName::parse(event).expect("an event");
    let data = RawValue::from_string(data.to_owned()).expect("JSON");
    let rest = EnvelopeRest { user_id: None, data: &data, extra: &[] };
    let open = OpenEnvelope::write(&MessageId::generate(), &event, &channel, priority, 0, rest);
    let position = Position { epoch: Epoch::new("e"), offset };
    Arc::new(Published::new(channel, position, event, priority, 0, key.map(Arc::from), open))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(incoming: &str) -> Published {
        let m: Incoming = serde_json::from_str(incoming).expect("a message");
        let id = m.id.clone().unwrap_or_else(MessageId::generate);
        let rest = EnvelopeRest { user_id: m.user_id.as_ref(), data: &m.data, extra: &m.extra };
        let open = OpenEnvelope::write(&id, &m.event, &m.channel, Priority::Normal, 7, rest);
        let position = Position { epoch: Epoch::new("h3k9"), offset: 42 };
        Published::new(m.channel, position, m.event, Priority::Normal, 7, None, open)
    }

    #[test]
    fn unknown_fields_pass_through_and_the_servers_own_are_ignored() {
        let sent =
            r#"{"event":"custom:x","channel":"a","data":{"n":1.50},"offset":9,"tr\"ace":"ab","timestamp":1}"#;
        let text = publish(sent).json().get().to_owned();
        let read: Message = serde_json::from_str(&text).expect("a message");
        assert_eq!((read.offset, read.timestamp), (42, 7));
        assert_eq!(read.extra["tr\"ace"], "ab");
        assert!(text.contains(r#""data":{"n":1.50}"#), "data must not be rewritten: {text}");
    }

    #[test]
    fn conflated_is_absent_when_nothing_was_spared() {
        let message = publish(r#"{"event":"custom:x","channel":"a","data":null}"#);
        assert!(!message.json().get().contains("conflated"));
        assert!(message.json_conflated(3).get().ends_with(r#""offset":42,"conflated":3}"#));
    }
}
