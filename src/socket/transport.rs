//! The transport of a connection: frames become Socket.IO events in the socket's queue.

use std::sync::{Arc, Weak};

use serde_json::value::RawValue;
use socketioxide::extract::SocketRef;
use socketioxide::{SendError as SocketSendError, SocketError};

use super::Edge;
use super::acks::Acks;
use super::inbox::Tap;
use crate::fanout::{Frame, SendError, Transport};
use crate::model::{EventName, Priority};

/// Writes to one socket.
#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: SocketRef,
    edge: Weak<Edge>,
    acks: Option<Acks>,
    tap: Option<Arc<Tap>>,
}

impl SocketTransport {
    /// Writes to `socket`, and tells `tap`; critical messages ask for an acknowledgement if `acks`.
    pub(super) fn new(socket: SocketRef, edge: Weak<Edge>, acks: bool, tap: Option<Arc<Tap>>) -> Self {
        Self { socket, edge, acks: acks.then(Acks::default), tap }
    }

    /// Sends one message; a notification is noted when it was written, or once it was acknowledged.
    fn send_message(
        &self,
        event: &EventName,
        priority: Priority,
        json: &Arc<RawValue>,
    ) -> Result<(), SocketSendError> {
        if let Some(acks) = self.acks.as_ref().filter(|_| priority == Priority::Critical) {
            let noted = self.tap.as_ref().and_then(|tap| tap.acknowledgement(json));
            return acks.send(&self.socket, event, json, noted);
        }
        self.socket.emit(event.as_str(), &**json)?;
        self.note(json);
        Ok(())
    }

    fn note(&self, json: &RawValue) {
        if let Some(tap) = &self.tap {
            tap.written(json);
        }
    }
}

impl Transport for SocketTransport {
    fn acknowledges(&self) -> bool {
        self.acks.is_some()
    }

    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let sent = match frame {
            Frame::Message { priority: Priority::Critical, .. }
                if self.acks.as_ref().is_some_and(Acks::is_full) =>
            {
                return Err(SendError::Full);
            }
            Frame::Message { event, priority, json } => self.send_message(event, priority, json),
            Frame::Batch(messages) => {
                let array: Vec<&RawValue> = messages.iter().map(AsRef::as_ref).collect();
                // In a tuple, so that the array is one argument and not many.
                let sent = self.socket.emit("message:batch", &(array,));
                sent.inspect(|()| messages.iter().for_each(|json| self.note(json)))
            }
            Frame::Reset(notice) => self.socket.emit("room:reset", notice),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(SocketSendError::Socket(SocketError::InternalChannelFull)) => Err(SendError::Full),
            Err(error) => {
                tracing::trace!(sid = %self.socket.id, %error, "the socket takes no more frames");
                Err(SendError::Closed)
            }
        }
    }

    fn kill(&self) {
        // The session as well: the library may notice only after its heartbeat.
        if let Some(edge) = self.edge.upgrade() {
            edge.end(self.socket.id);
        }
    }
}
