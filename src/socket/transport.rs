//! The transport of a connection: frames become Socket.IO events in the socket's queue.

use serde_json::value::RawValue;
use socketioxide::extract::SocketRef;
use socketioxide::{SendError as SocketSendError, SocketError};

use super::line::Lines;
use crate::fanout::{Frame, SendError, Transport};

/// Writes to one socket.
#[derive(Debug)]
pub(super) struct SocketTransport {
    pub(super) socket: SocketRef,
    pub(super) lines: Lines,
}

impl Transport for SocketTransport {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let sent = match frame {
            Frame::Message { event, json } => self.socket.emit(event.as_str(), &**json),
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
        self.lines.end(self.socket.id.as_str());
    }
}
