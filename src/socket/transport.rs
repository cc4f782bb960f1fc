//! The transport of a connection: frames of the fan-out become Socket.IO events of one client.

use std::sync::{Arc, Weak};

use serde_json::value::RawValue;
use socketioxide::socket::Sid;

use super::Edge;
use super::acks::Acks;
use super::inbox::Tap;
use super::packet;
use super::voice::Voice;
use crate::fanout::{Frame, SendError, Transport};
use crate::model::{Priority, Published};

/// Writes to one client.
#[derive(Debug)]
pub(super) struct SocketTransport {
    pub(super) sid: Sid,
    pub(super) voice: Arc<Voice>,
    pub(super) edge: Weak<Edge>,
    /// Set where critical messages ask for an acknowledgement.
    pub(super) acks: Option<Acks>,
    /// Set where notifications are noted: once they are written or, if asked for, acknowledged.
    pub(super) tap: Option<Arc<Tap>>,
}

impl SocketTransport {
    fn send_message(&self, message: &Arc<Published>, conflated: u64) -> Result<(), SendError> {
        let event = &message.event;
        if let Some(acks) = self.acks.as_ref().filter(|_| self.is_owed_an_answer(message)) {
            if acks.is_full() {
                return Err(SendError::Full);
            }
            let json = message.json_conflated(conflated);
            let noted = self.tap.as_ref().and_then(|tap| tap.acknowledgement(message));
            return self.voice.say_indirectly(|socket| acks.send(socket, event, &json, noted));
        }
        self.voice.say(
            || packet::message(message, conflated),
            |socket| socket.emit(event.as_str(), &*message.json_conflated(conflated)),
        )?;
        self.note(message);
        Ok(())
    }

    fn send_batch(&self, messages: &[(Arc<Published>, u64)]) -> Result<(), SendError> {
        self.voice.say(
            || packet::batch(messages),
            |socket| {
                let array: Vec<_> =
                    messages.iter().map(|(m, conflated)| m.json_conflated(*conflated)).collect();
                let array: Vec<&RawValue> = array.iter().map(AsRef::as_ref).collect();
                // In a tuple, so that the array is one argument and not many.
                socket.emit(packet::BATCH, &(array,))
            },
        )?;
        messages.iter().for_each(|(message, _)| self.note(message));
        Ok(())
    }

    fn is_owed_an_answer(&self, message: &Published) -> bool {
        self.acks.is_some() && message.priority == Priority::Critical
    }

    fn note(&self, message: &Published) {
        if let Some(tap) = &self.tap {
            tap.written(message);
        }
    }
}

impl Transport for SocketTransport {
    fn acknowledges(&self) -> bool {
        self.acks.is_some()
    }

    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        match frame {
            Frame::Message(message, conflated) => self.send_message(message, conflated),
            Frame::Batch(messages) => self.send_batch(messages),
            Frame::Reset(notice) => self.voice.say(
                || packet::event("room:reset", notice.get()),
                |socket| socket.emit("room:reset", notice),
            ),
        }
    }

    fn pass(&self, frame: Frame<'_>) -> Result<bool, SendError> {
        match frame {
            Frame::Message(message, conflated) if !self.is_owed_an_answer(message) => {
                let written = self.voice.say_at_once(
                    || packet::message(message, conflated),
                    |socket| socket.emit(message.event.as_str(), &*message.json_conflated(conflated)),
                )?;
                self.note(message);
                Ok(written)
            }
            _ => {
                self.send(frame)?;
                SendError::is_written(self.flush())
            }
        }
    }

    fn flush(&self) -> Result<(), SendError> {
        self.voice.flush()
    }

    fn kill(&self) {
        // The session as well: the library may notice only after its heartbeat.
        if let Some(edge) = self.edge.upgrade() {
            edge.end(self.sid);
        }
    }
}
