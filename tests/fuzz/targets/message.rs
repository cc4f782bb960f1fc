//! A message as a sender offers it: whatever is taken reads the same again, and nothing else is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidings::model::message::{EnvelopeRest, OpenEnvelope};
use tidings::model::{Incoming, MessageId, Priority, readable};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = serde_json::from_slice::<Incoming>(bytes) else { return };
    // What a member says passes through, so the publish door looks at it once more.
    let extra = message.extra.iter().map(|(_, json)| json);
    if std::iter::once(&message.data).chain(extra).any(|json| readable::check(json).is_err()) {
        return;
    }
    let id = message.id.clone().unwrap_or_else(|| MessageId::parse("m").expect("an id"));
    let rest = EnvelopeRest { user_id: message.user_id.as_ref(), data: &message.data, extra: &message.extra };
    let open = OpenEnvelope::write(&id, &message.event, &message.channel, Priority::Normal, 0, rest);
    let whole = format!("{},\"epoch\":\"e\",\"offset\":1}}", open.as_str());
    let read: Value = serde_json::from_str(&whole).expect("an envelope is JSON");
    assert_eq!(read["event"], message.event.as_str());
    assert_eq!(read["channel"], message.channel.as_str());
    assert_eq!(read["offset"], 1);
    let again: Incoming = serde_json::from_str(&whole).expect("an envelope is a message");
    assert_eq!((again.data.get(), again.extra.len()), (message.data.get(), message.extra.len()));
});
