//! The reference receiver: which messages continue what was received before, without any I/O.
//!
//! Per room it keeps a position and checks `offset == last + 1 + conflated`. Every client that promises to its
//! user that nothing is missing has to do the same, in whatever language.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::room::{Joined, Since};
use crate::model::{Epoch, Position};

/// The event whose argument is an array of messages.
pub const MESSAGE_BATCH: &str = "message:batch";
/// The event that says that a room does not continue.
pub const ROOM_RESET: &str = "room:reset";

/// What a receiver has to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: process it.
    Deliver,
    /// It was there before (`offset <= last`): ignore it.
    Duplicate,
    /// Something is missing, or was conflated that had been delivered: connect anew and join with
    /// [`Receiver::position`].
    ///
    /// The position stays, so that the next join asks for what is missing; until then everything that follows
    /// is a gap as well. Where a gap is to be counted and passed over, call [`Receiver::skip_to`]. In a channel
    /// without history gaps are no error.
    Gap {
        /// `last + 1 + conflated`.
        expected: u64,
        /// The message's offset.
        got: u64,
    },
    /// It is of another epoch than the room, and no `room:reset` said so: join again.
    OtherEpoch,
    /// Its channel was not joined, or was left: ignore it.
    NotJoined,
}

/// The part of a message that decides on its order. Everything else of it stays unread.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Envelope<'a> {
    /// Where it stands.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// What happened.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// The unbroken past that `offset` counts in.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// Its number in the channel.
    pub offset: u64,
    /// How many messages right before it the receiver was spared.
    #[serde(default)]
    pub conflated: u64,
    /// When the server accepted it, in ms since the Unix epoch.
    #[serde(default)]
    pub timestamp: i64,
}

/// A message with what is to be done with it.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What to do with it.
    pub verdict: Verdict,
    /// Its place.
    pub envelope: Envelope<'a>,
    /// All of it.
    pub message: &'a RawValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cursor {
    /// Everything up to here was received.
    At(Position),
    /// The server continues where only it knows; the first message tells.
    First(Epoch),
}

#[derive(Debug, Deserialize)]
struct Reset {
    room: String,
    epoch: Epoch,
    offset: u64,
}

/// The positions of all joined rooms.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    rooms: HashMap<String, Cursor>,
}

impl Receiver {
    /// A receiver that has joined nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the acknowledgement of a join that asked for `since`.
    ///
    /// The first `last` is `since.offset`, or the acknowledgement's offset where nothing is replayed. Where the
    /// server continues from its own stored position, the first message sets it.
    pub fn joined(&mut self, since: &Since, ack: &Joined) {
        let first = if !ack.recovered || ack.replayed == 0 {
            Cursor::At(ack.top())
        } else {
            match since {
                Since::After(position) => Cursor::At(position.clone()),
                Since::Start => Cursor::At(Position { epoch: ack.epoch.clone(), offset: 0 }),
                Since::Now => Cursor::At(ack.top()),
                Since::Stored => match &ack.since {
                    Some(position) => Cursor::At(position.clone()),
                    None => Cursor::First(ack.epoch.clone()),
                },
            }
        };
        self.rooms.insert(ack.room.clone(), first);
    }

    /// Forgets a room.
    pub fn left(&mut self, room: &str) {
        self.rooms.remove(room);
    }

    /// The room continues after `position`: takes a `room:reset`, or passes over a gap.
    pub fn skip_to(&mut self, room: &str, position: Position) {
        self.rooms.insert(room.to_owned(), Cursor::At(position));
    }

    /// Where the room is: what a second join gives as `since`. `None` if it was not joined, or if the server
    /// continues and nothing has come yet.
    #[must_use]
    pub fn position(&self, room: &str) -> Option<&Position> {
        match self.rooms.get(room)? {
            Cursor::At(position) => Some(position),
            Cursor::First(_) => None,
        }
    }

    /// Judges one message; only [`Verdict::Deliver`] moves the room's position.
    pub fn take(&mut self, message: &Envelope<'_>) -> Verdict {
        let Some(cursor) = self.rooms.get_mut(&*message.channel) else { return Verdict::NotJoined };
        match cursor {
            Cursor::At(at) => {
                if at.epoch.as_str() != message.epoch {
                    return Verdict::OtherEpoch;
                }
                if message.offset <= at.offset {
                    return Verdict::Duplicate;
                }
                let expected = at.offset.saturating_add(1).saturating_add(message.conflated);
                if message.offset != expected {
                    return Verdict::Gap { expected, got: message.offset };
                }
                at.offset = message.offset;
            }
            Cursor::First(epoch) => {
                if epoch.as_str() != message.epoch {
                    return Verdict::OtherEpoch;
                }
                *cursor = Cursor::At(Position { epoch: epoch.clone(), offset: message.offset });
            }
        }
        Verdict::Deliver
    }

    /// Takes an event as it comes from the socket: a message, a batch of them, or a `room:reset`. Returns the
    /// messages in their order; for an event that is no message, none.
    ///
    /// # Errors
    /// The argument of a batch or a reset is not as the contract says. Nothing of it was taken.
    pub fn receive<'a>(
        &mut self,
        name: &str,
        data: &'a RawValue,
    ) -> Result<Vec<Received<'a>>, serde_json::Error> {
        match name {
            ROOM_RESET => {
                let Reset { room, epoch, offset } = serde_json::from_str(data.get())?;
                // A reset that crossed with a leave must not bring the room back.
                if self.rooms.contains_key(&room) {
                    self.skip_to(&room, Position { epoch, offset });
                }
                Ok(Vec::new())
            }
            MESSAGE_BATCH => {
                let messages: Vec<&RawValue> = serde_json::from_str(data.get())?;
                let read = |message: &'a RawValue| Ok((serde_json::from_str(message.get())?, message));
                let messages = messages.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
                Ok(messages.into_iter().map(|(envelope, message)| self.judge(envelope, message)).collect())
            }
            // Whatever has no position is no message of a channel: `connection:established`, `error`, …
            _ => Ok(serde_json::from_str(data.get())
                .map(|envelope| vec![self.judge(envelope, data)])
                .unwrap_or_default()),
        }
    }

    fn judge<'a>(&mut self, envelope: Envelope<'a>, message: &'a RawValue) -> Received<'a> {
        Received { verdict: self.take(&envelope), envelope, message }
    }
}

#[cfg(test)]
mod tests;
