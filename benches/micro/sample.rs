//! The messages that everything here is measured with: of a fixed text, about 240 bytes long.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tidings::model::message::{EnvelopeRest, OpenEnvelope};
use tidings::model::{ChannelName, Epoch, EventName, MessageId, Position, Priority, Published, UserId};

/// Channels with particular batch windows: none at all, and one that ends by its `max` long before its
/// [`INTERVAL`], so that nothing that is measured depends on the time.
pub(crate) const CHANNELS: &str = r#"
[channel.quiet]
pattern = "quiet-{id}"
events = ["custom:*"]
batch = { max = 10, interval = "0s" }

[channel.window]
pattern = "window-{id}"
events = ["custom:*"]
batch = { max = 10, interval = "10s" }
"#;

/// The longest interval of [`CHANNELS`].
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// The time at which every message was accepted.
pub(crate) const ACCEPTED_MS: i64 = 1_732_112_345_678;

/// A message as a sender offers it: what a stress test tells while it runs.
pub(crate) fn offered(channel: &str) -> String {
    format!(r#"{{"event":"test:progress","channel":"{channel}","userId":"user_7","data":{DATA}}}"#)
}

/// The payload of every message.
const DATA: &str =
    r#"{"testId":"stress_123","attempt":1,"progress":50,"completed":1500,"total":3000,"message":"warm"}"#;

/// The payload of every message.
pub(crate) fn data() -> Box<RawValue> {
    RawValue::from_string(DATA.to_owned()).expect("the payload is JSON")
}

/// The name of a channel, in memory of its own: that of a message is never that of a subscription.
pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel name")
}

/// What the envelope of a message is written from.
pub(crate) struct Parts {
    pub(crate) id: MessageId,
    pub(crate) event: EventName,
    pub(crate) channel: ChannelName,
    pub(crate) epoch: Epoch,
    user: UserId,
    data: Box<RawValue>,
}

impl Parts {
    pub(crate) fn of(channel_name: &str, event: &str) -> Self {
        Self {
            id: MessageId::parse("msg_01JD8QG7W3Z5X9V2T4R6P8N0MA").expect("an id"),
            event: EventName::parse(event).expect("an event"),
            channel: channel(channel_name),
            epoch: Epoch::new("h3k9q2m7c4x1"),
            user: UserId::parse("user_7").expect("a user"),
            data: data(),
        }
    }

    /// The same in another epoch.
    pub(crate) fn in_epoch(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }

    /// The envelope as it is stored.
    pub(crate) fn open(&self, priority: Priority) -> OpenEnvelope {
        let rest = EnvelopeRest { user_id: Some(&self.user), data: &self.data, extra: &[] };
        OpenEnvelope::write(&self.id, &self.event, &self.channel, priority, ACCEPTED_MS, rest)
    }

    /// The message at `offset`, not encoded yet.
    pub(crate) fn place(&self, open: OpenEnvelope, priority: Priority, offset: u64) -> Published {
        let position = Position { epoch: self.epoch.clone(), offset };
        let (channel, event) = (self.channel.clone(), self.event.clone());
        Published::new(channel, position, event, priority, ACCEPTED_MS, None, open)
    }
}

/// A message of `channel_name` at `offset`, encoded; `key` is its conflation key.
pub(crate) fn message(
    channel_name: &str,
    priority: Priority,
    offset: u64,
    key: Option<&str>,
) -> Arc<Published> {
    let parts = Parts::of(channel_name, "custom:sample");
    let mut message = parts.place(parts.open(priority), priority, offset);
    message.conflation_key = key.map(Arc::from);
    let _ = message.json();
    Arc::new(message)
}
