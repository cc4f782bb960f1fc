//! What clients send, read strictly and without I/O: a request, or the refusal that they get for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::{AuthError, Denied};
use crate::config::secret::Secret;
use crate::fanout::{JoinError, Since};
use crate::inbox::InboxError;
use crate::model::{ChannelName, Epoch, Incoming, Position, UserId};
use crate::publish::PublishError;

/// The longest `clientId`, in bytes.
const MAX_CLIENT_ID: usize = 128;

/// Why something was refused: a stable code, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }
}

impl fmt::Display for Refusal {
    /// As JSON: a `connect_error` has nothing but this text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        crate::metrics::rejected(denied.code());
        Self::new(denied.code(), denied.to_string())
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        Self::new("unavailable", error.to_string())
    }
}

impl From<InboxError> for Refusal {
    fn from(error: InboxError) -> Self {
        Self::new("unavailable", error.to_string())
    }
}

/// What a client says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Handshake {
    /// What says who it is.
    pub(super) token: Option<Secret>,
    /// The client's own name for its device.
    pub(super) client_id: Option<String>,
    /// Who it is; believed only while authentication is off.
    pub(super) user_id: Option<UserId>,
    /// It takes `message:batch`.
    pub(super) batch: bool,
    /// It acknowledges critical messages.
    pub(super) acks: bool,
    /// It wants its user's notifications without asking.
    pub(super) inbox: bool,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { token: None, client_id: None, user_id: None, batch: false, acks: false, inbox: true }
    }
}

impl Handshake {
    /// Reads the `auth` of a connect packet. Fields of later versions are passed over.
    pub(super) fn parse(auth: Option<Value>) -> Result<Self, Refusal> {
        let handshake: Self = match auth {
            None | Some(Value::Null) => Self::default(),
            // serde also takes an array of a struct's fields in their order.
            Some(auth) if !auth.is_object() => {
                return Err(Refusal::new("invalid_handshake", "auth: expected an object"));
            }
            Some(auth) => serde_json::from_value(auth)
                .map_err(|e| Refusal::new("invalid_handshake", format!("auth: {e}")))?,
        };
        let named = handshake.client_id.as_deref();
        if named.is_some_and(|id| id.is_empty() || id.len() > MAX_CLIENT_ID) {
            let text = format!("auth: clientId has 1 to {MAX_CLIENT_ID} bytes");
            return Err(Refusal::new("invalid_handshake", text));
        }
        Ok(handshake)
    }
}

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Request {
    Join(Join),
    Leave(ChannelName),
    Ping(Option<Value>),
    Publish(Box<Incoming>),
    Acknowledge(Acknowledge),
    Refresh(Secret),
}

/// Everything of a room up to a position was processed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Acknowledge {
    pub(super) room: ChannelName,
    #[serde(flatten)]
    pub(super) position: Position,
}

/// A wish to join a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) room: ChannelName,
    /// What the receiver knows; none leaves it to what is stored of its device.
    pub(super) since: Option<Since>,
    pub(super) batch: Option<bool>,
    pub(super) snapshot: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JoinObject {
    room: String,
    #[serde(default)]
    since: Option<Value>,
    #[serde(default)]
    batch: Option<bool>,
    #[serde(default)]
    snapshot: Option<bool>,
}

impl Request {
    /// The events that clients may send.
    pub(super) const EVENTS: [&'static str; 6] =
        ["room:join", "room:leave", "message:ack", "heartbeat:ping", "event:publish", "auth:refresh"];

    /// Reads the first argument of `event`; `None` where there was none, or none that is JSON.
    pub(super) fn parse(event: &str, data: Option<Value>) -> Result<Self, Refusal> {
        match event {
            "room:join" => parse_join(data).map(Self::Join),
            "room:leave" => match data {
                Some(Value::String(room)) => Ok(Self::Leave(room_name(&room)?)),
                Some(Value::Object(object)) => match object.get("room") {
                    Some(Value::String(room)) => Ok(Self::Leave(room_name(room)?)),
                    _ => Err(Refusal::invalid("room:leave takes a room's name")),
                },
                _ => Err(Refusal::invalid("room:leave takes a room's name")),
            },
            "message:ack" => {
                let data = data.unwrap_or_default();
                let acknowledge = serde_json::from_value(data).map_err(|e| {
                    Refusal::invalid(format!("message:ack takes {{room, epoch, offset}}: {e}"))
                })?;
                Ok(Self::Acknowledge(acknowledge))
            }
            "heartbeat:ping" => Ok(Self::Ping(data.and_then(|data| data.get("t").cloned()))),
            "event:publish" => {
                let data = data.ok_or_else(|| Refusal::invalid("event:publish takes a message"))?;
                let message = serde_json::from_value(data)
                    .map_err(|e| Refusal::invalid(format!("event:publish takes a message: {e}")))?;
                Ok(Self::Publish(Box::new(message)))
            }
            "auth:refresh" => {
                let token = data.as_ref().and_then(|data| data.get("token")).and_then(Value::as_str);
                let token = token.ok_or_else(|| Refusal::invalid("auth:refresh takes {token}"))?;
                Ok(Self::Refresh(Secret::new(token)))
            }
            _ => Err(Refusal::new("unknown_event", format!("clients do not send `{event}`"))),
        }
    }
}

fn parse_join(data: Option<Value>) -> Result<Join, Refusal> {
    let object = match data {
        Some(Value::String(room)) => JoinObject { room, since: None, batch: None, snapshot: None },
        Some(data @ Value::Object(_)) => serde_json::from_value(data).map_err(|e| {
            Refusal::invalid(format!("room:join takes {{room, since?, batch?, snapshot?}}: {e}"))
        })?,
        _ => return Err(Refusal::invalid("room:join takes a room's name or an object with `room`")),
    };
    let since = object.since.map(parse_since).transpose()?;
    Ok(Join {
        room: room_name(&object.room)?,
        since,
        batch: object.batch,
        snapshot: object.snapshot.unwrap_or(false),
    })
}

fn parse_since(since: Value) -> Result<Since, Refusal> {
    match since.as_str() {
        Some("now") => return Ok(Since::Now),
        Some("start") => return Ok(Since::Start),
        _ => {}
    }
    let position = Some(since).filter(Value::is_object);
    let position: Option<Position> = position.and_then(|since| serde_json::from_value(since).ok());
    let position = position.filter(|position| position.epoch.as_str().len() <= Epoch::MAX_LEN);
    let text = "`since` is {epoch, offset} with a whole offset from 0, \"start\" or \"now\"";
    position.map(Since::At).ok_or_else(|| Refusal::invalid(text))
}

fn room_name(room: &str) -> Result<ChannelName, Refusal> {
    ChannelName::parse(room).map_err(|e| Refusal::invalid(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn join(data: Value) -> Result<Join, Refusal> {
        match Request::parse("room:join", Some(data))? {
            Request::Join(join) => Ok(join),
            other => panic!("{other:?} is no join"),
        }
    }

    #[test]
    fn a_join_names_its_room_in_two_ways() {
        let expected = Join {
            room: ChannelName::parse("queue-updates").unwrap(),
            since: None,
            batch: None,
            snapshot: false,
        };
        assert_eq!(join(json!("queue-updates")), Ok(expected.clone()));
        assert_eq!(join(json!({ "room": "queue-updates" })), Ok(expected));
    }

    #[test]
    fn a_join_says_what_the_receiver_knows() {
        let at = join(json!({ "room": "a", "since": { "epoch": "e", "offset": 7 } })).unwrap();
        assert_eq!(at.since, Some(Since::At(Position { epoch: Epoch::new("e"), offset: 7 })));
        assert_eq!(join(json!({ "room": "a", "since": "start" })).unwrap().since, Some(Since::Start));
        assert_eq!(join(json!({ "room": "a", "since": "now" })).unwrap().since, Some(Since::Now));
    }

    #[test]
    fn malformed_requests_are_refused_with_their_fault() {
        for (event, data) in [
            ("room:join", json!(7)),
            ("room:join", json!({})),
            ("room:join", json!({ "room": "a b" })),
            ("room:join", json!({ "room": "a", "since": "yesterday" })),
            ("room:join", json!({ "room": "a", "since": { "epoch": "e", "offset": -1 } })),
            ("room:join", json!({ "room": "a", "since": ["e", 1] })),
            ("room:join", json!({ "room": "a", "sinse": "start" })),
            ("room:leave", json!(null)),
            ("message:ack", json!({ "room": "a", "epoch": "e" })),
            ("message:ack", json!(null)),
            ("event:publish", json!({ "event": "e" })),
        ] {
            let refused = Request::parse(event, Some(data.clone())).expect_err(event);
            assert_eq!(refused.code, "invalid", "{event} {data}");
            assert!(!refused.message.is_empty());
        }
        assert_eq!(Request::parse("room:join", None).expect_err("no argument").code, "invalid");
    }

    #[test]
    fn a_handshake_without_auth_is_fine_and_a_wrong_one_says_why() {
        assert_eq!(Handshake::parse(None), Ok(Handshake::default()));
        assert_eq!(Handshake::parse(Some(json!({ "later": 1 }))), Ok(Handshake::default()));
        for auth in [
            json!([null, null, false, false, true]),
            json!({ "userId": "a b" }),
            json!({ "clientId": "" }),
            json!(7),
            json!({ "batch": "yes" }),
        ] {
            let refused = Handshake::parse(Some(auth)).expect_err("wrong");
            assert_eq!(refused.code, "invalid_handshake");
            assert!(refused.to_string().starts_with("{\"code\":"), "{refused}");
        }
    }
}
