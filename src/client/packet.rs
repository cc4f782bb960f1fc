//! Engine.IO v4 and Socket.IO v5 packets as text, without any I/O.
//!
//! What the clients of this crate need of the two protocols: the namespace `/`, one packet per WebSocket text
//! frame, no binary. Reading borrows from the frame, and arguments stay unparsed JSON, so that a receiver of
//! many messages pays only for the parts that it looks at. The rules are those of
//! <https://socket.io/docs/v4/engine-io-protocol/> and <https://socket.io/docs/v4/socket-io-protocol/>.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One packet, borrowed from the frame that carried it.
#[derive(Debug, Clone)]
pub enum Packet<'a> {
    /// `0`: the server opens the transport.
    Open(Open<'a>),
    /// `1`: the transport ends.
    Close,
    /// `2`: answer with a pong that has the same text.
    Ping(&'a str),
    /// `3`: the answer to a ping.
    Pong(&'a str),
    /// `6`: nothing; ends a pending poll.
    Noop,
    /// `40`: asks for the namespace (with the handshake's `auth`), or grants it (with `{sid}`).
    Connect(Option<&'a RawValue>),
    /// `41`: the namespace ends.
    Disconnect,
    /// `42`: an event.
    Event {
        /// The other side waits for an acknowledgement with this number.
        ack: Option<u64>,
        /// Its name.
        name: Cow<'a, str>,
        /// What stands behind its name.
        args: Vec<&'a RawValue>,
    },
    /// `43`: the acknowledgement of an event.
    Ack {
        /// The number that the event asked with.
        id: u64,
        /// What the other side's callback was given.
        args: Vec<&'a RawValue>,
    },
    /// `44`: the server refuses the namespace.
    ConnectError(&'a RawValue),
}

/// What the server says when it opens the transport.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open<'a> {
    /// The transport's session.
    #[serde(borrow)]
    pub sid: Cow<'a, str>,
    /// The server pings this often, in ms.
    #[serde(rename = "pingInterval")]
    pub ping_interval_ms: u64,
    /// The server waits this long for a pong, in ms.
    #[serde(rename = "pingTimeout")]
    pub ping_timeout_ms: u64,
}

impl Open<'_> {
    /// A server that was not heard of for this long is gone.
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms.saturating_add(self.ping_timeout_ms))
    }
}

/// Why a frame is not a packet of the part of the protocol that is spoken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A frame without a single character.
    #[error("an empty frame")]
    Empty,
    /// Binary frames and packets with attachments are not spoken here.
    #[error("a binary packet")]
    Binary,
    /// No packet type begins like this.
    #[error("a packet of unknown type {0:?}")]
    UnknownType(char),
    /// A packet of another namespace than `/`.
    #[error("a packet of the namespace {0:?}; only `/` is spoken here")]
    Namespace(String),
    /// The rest does not fit the packet's type.
    #[error("{what}: {reason}")]
    Malformed {
        /// The packet's type in words.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl<'a> Packet<'a> {
    /// Reads the packet of one text frame.
    pub fn parse(frame: &'a str) -> Result<Self, PacketError> {
        let (kind, rest) = split_kind(frame)?;
        match kind {
            '0' => Ok(Self::Open(json("the open packet", rest)?)),
            '1' => Ok(Self::Close),
            '2' => Ok(Self::Ping(rest)),
            '3' => Ok(Self::Pong(rest)),
            '4' => Self::parse_message(rest),
            '6' => Ok(Self::Noop),
            'b' => Err(PacketError::Binary),
            other => Err(PacketError::UnknownType(other)),
        }
    }

    fn parse_message(text: &'a str) -> Result<Self, PacketError> {
        let (kind, rest) = split_kind(text)?;
        if matches!(kind, '5' | '6') {
            return Err(PacketError::Binary);
        }
        let rest = without_namespace(rest)?;
        match kind {
            '0' if rest.is_empty() => Ok(Self::Connect(None)),
            '0' => Ok(Self::Connect(Some(json("the connect packet", rest)?))),
            '1' => Ok(Self::Disconnect),
            '2' => {
                let (ack, rest) = split_number("an event", rest)?;
                let Named { name, args } = json("an event", rest)?;
                Ok(Self::Event { ack, name, args })
            }
            '3' => {
                let what = "an acknowledgement";
                let (id, rest) = split_number(what, rest)?;
                let id = id.ok_or_else(|| malformed(what, "its number is missing"))?;
                Ok(Self::Ack { id, args: json(what, rest)? })
            }
            '4' => Ok(Self::ConnectError(json("the connect_error packet", rest)?)),
            other => Err(PacketError::UnknownType(other)),
        }
    }

    /// Appends the packet's text to `out`.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Open(open) => {
                // Writing a string as JSON to memory cannot fail, nor can writing to a `String`.
                let sid = serde_json::to_string(&open.sid).unwrap_or_default();
                let (interval, timeout) = (open.ping_interval_ms, open.ping_timeout_ms);
                let _ = write!(
                    out,
                    r#"0{{"sid":{sid},"upgrades":[],"pingInterval":{interval},"pingTimeout":{timeout}}}"#
                );
            }
            Self::Close => out.push('1'),
            Self::Ping(text) => out.extend(["2", text]),
            Self::Pong(text) => out.extend(["3", text]),
            Self::Noop => out.push('6'),
            Self::Connect(auth) => out.extend(["40", auth.map_or("", RawValue::get)]),
            Self::Disconnect => out.push_str("41"),
            Self::Event { ack, name, args } => {
                out.push_str("42");
                if let Some(id) = ack {
                    let _ = write!(out, "{id}");
                }
                out.push('[');
                out.push_str(&serde_json::to_string(name).unwrap_or_default());
                for arg in args {
                    out.extend([",", arg.get()]);
                }
                out.push(']');
            }
            Self::Ack { id, args } => {
                let _ = write!(out, "43{id}[");
                for (i, arg) in args.iter().enumerate() {
                    out.extend([if i == 0 { "" } else { "," }, arg.get()]);
                }
                out.push(']');
            }
            Self::ConnectError(error) => out.extend(["44", error.get()]),
        }
    }

    /// The packet's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

fn split_kind(text: &str) -> Result<(char, &str), PacketError> {
    let mut chars = text.chars();
    chars.next().map(|kind| (kind, chars.as_str())).ok_or(PacketError::Empty)
}

/// The namespace `/` is usually left out; written in full it ends with a comma.
fn without_namespace(text: &str) -> Result<&str, PacketError> {
    if !text.starts_with('/') {
        return Ok(text);
    }
    let (namespace, rest) = text.split_once(',').unwrap_or((text, ""));
    if namespace == "/" {
        Ok(rest)
    } else {
        Err(PacketError::Namespace(namespace.chars().take(64).collect()))
    }
}

fn split_number<'a>(what: &'static str, text: &'a str) -> Result<(Option<u64>, &'a str), PacketError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Ok((None, rest));
    }
    let number = number.parse().map_err(|_| malformed(what, "its number is too large"))?;
    Ok((Some(number), rest))
}

fn json<'a, T: Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T, PacketError> {
    serde_json::from_str(text).map_err(|e| PacketError::Malformed { what, reason: e.to_string() })
}

fn malformed(what: &'static str, reason: &str) -> PacketError {
    PacketError::Malformed { what, reason: reason.to_owned() }
}

/// An event's array: its name, then its arguments.
struct Named<'a> {
    name: Cow<'a, str>,
    args: Vec<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Named<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct NamedVisitor;
        impl<'de> Visitor<'de> for NamedVisitor {
            type Value = Named<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Named<'de>, A::Error> {
                let Name(name) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let mut args = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    args.push(arg);
                }
                Ok(Named { name, args })
            }
        }
        d.deserialize_seq(NamedVisitor)
    }
}

/// Only behind an attribute does serde borrow a `Cow`.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
