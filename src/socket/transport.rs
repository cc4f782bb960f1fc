//! The transport of a connection: frames become Socket.IO events in the socket's queue.

use std::sync::Weak;

use serde_json::value::RawValue;
use socketioxide::extract::SocketRef;
use socketioxide::{SendError as SocketSendError, SocketError};

use super::Edge;
use super::acks::Acks;
use crate::fanout::{Frame, SendError, Transport};
use crate::model::Priority;

/// Writes to one socket.
#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: SocketRef,
    edge: Weak<Edge>,
    acks: Option<Acks>,
}

impl SocketTransport {
    /// Writes to `socket`; critical messages ask for an acknowledgement if `acks`.
    pub(super) fn new(socket: SocketRef, edge: Weak<Edge>, acks: bool) -> Self {
        Self { socket, edge, acks: acks.then(Acks::default) }
    }
}

impl Transport for SocketTransport {
    fn acknowledges(&self) -> bool {
        self.acks.is_some()
    }

    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let sent = match frame {
            Frame::Message { event, priority, json } => match &self.acks {
                Some(acks) if priority == Priority::Critical => {
                    if !acks.has_room() {
                        return Err(SendError::Full);
                    }
                    acks.send(&self.socket, event, json)
                }
                _ => self.socket.emit(event.as_str(), &**json),
            },
            Frame::Batch(messages) => {
                let messages: Vec<&RawValue> = messages.iter().map(AsRef::as_ref).collect();
                // In a tuple, so that the array is one argument and not many.
                self.socket.emit("message:batch", &(messages,))
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
