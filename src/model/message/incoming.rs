//! The message as a sender offers it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::{ChannelName, EventName, MessageId, Priority, UserId};

/// A message as a sender offers it: nothing of it is trusted yet.
///
/// `timestamp`, `epoch`, `offset` and `conflated` are the server's to set and are ignored here; every other
/// field that is not known passes through untouched.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The sender's own id for it; a repeated one returns the first position.
    pub id: Option<MessageId>,
    /// What happened.
    pub event: EventName,
    /// Where it is to stand.
    pub channel: ChannelName,
    /// Its priority, if not the channel's own for this event.
    pub priority: Option<Priority>,
    /// Whom it concerns or who sent it.
    pub user_id: Option<UserId>,
    /// Any JSON.
    pub data: Box<RawValue>,
    /// Unknown fields, in the order they came.
    pub extra: Vec<(String, Box<RawValue>)>,
}

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(IncomingVisitor)
    }
}

struct IncomingVisitor;

impl<'de> Visitor<'de> for IncomingVisitor {
    type Value = Incoming;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message: {\"event\": …, \"channel\": …, \"data\": …}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Incoming, A::Error> {
        let (mut id, mut event, mut channel, mut priority, mut user_id, mut data) =
            (None, None, None, None, None, None);
        let mut extra: Vec<(String, Box<RawValue>)> = Vec::new();
        // Few messages have any; whoever sends a hundred thousand must not make us compare each with each.
        let mut names: HashSet<String> = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            // A repeated key would make the message ambiguous for its readers.
            let fresh = match &*key {
                "id" => id.replace(map.next_value()?).is_none(),
                "event" => event.replace(map.next_value()?).is_none(),
                "channel" => channel.replace(map.next_value()?).is_none(),
                "priority" => priority.replace(map.next_value()?).is_none(),
                "userId" => user_id.replace(map.next_value()?).is_none(),
                "data" => data.replace(map.next_value()?).is_none(),
                "timestamp" | "epoch" | "offset" | "conflated" => {
                    map.next_value::<de::IgnoredAny>()?;
                    true
                }
                _ => {
                    let value = map.next_value()?;
                    extra.push((key.as_ref().to_owned(), value));
                    names.insert(key.as_ref().to_owned())
                }
            };
            if !fresh {
                return Err(de::Error::custom(format!("the field `{key}` stands twice")));
            }
        }
        Ok(Incoming {
            id: id.flatten(),
            event: event.ok_or_else(|| de::Error::missing_field("event"))?,
            channel: channel.ok_or_else(|| de::Error::missing_field("channel"))?,
            priority: priority.flatten(),
            user_id: user_id.flatten(),
            data: data.ok_or_else(|| de::Error::missing_field("data"))?,
            extra,
        })
    }
}

/// The name of a field, copied only if it is escaped.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }

        // By this very call those who name the wrong field follow the way to it.
        d.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_its_parts_is_refused_by_name() {
        for (text, part) in [
            (r#"{"channel":"a","data":1}"#, "event"),
            (r#"{"event":"e","data":1}"#, "channel"),
            (r#"{"event":"e","channel":"a"}"#, "data"),
            (r#"{"event":"e","channel":"a","data":1,"x":1,"x":2}"#, "`x` stands twice"),
            (r#"{"event":"e","event":"f","channel":"a","data":1}"#, "`event` stands twice"),
            (r#"{"id":null,"event":"e","channel":"a","data":1,"i\u0064":"x"}"#, "`id` stands twice"),
            (r#"{"event":"e","channel":"a b","data":1}"#, "channel name"),
            (r#"[1]"#, "a message"),
        ] {
            let err = serde_json::from_str::<Incoming>(text).expect_err(part).to_string();
            assert!(err.contains(part), "{err} should name {part}");
        }
    }

    #[test]
    fn a_message_of_a_hundred_thousand_fields_costs_no_more_than_its_length() {
        let fields: String = (0..100_000).map(|n| format!(",\"{n}\":0")).collect();
        let text = format!(r#"{{"event":"e","channel":"a","data":1{fields}}}"#);
        let started = std::time::Instant::now();
        let message: Incoming = serde_json::from_str(&text).expect("a message");
        assert_eq!(message.extra.len(), 100_000);
        // When each was compared with each, this took half a minute.
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}
