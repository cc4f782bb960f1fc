//! Transports: what takes the frames of a connection, without waiting.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::model::Published;

/// What is handed to a transport.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// One message, under its event's name, and how many the receiver was spared right before it.
    Message(&'a Arc<Published>, u64),
    /// `message:batch`: several of them, oldest of each channel first.
    Batch(&'a [(Arc<Published>, u64)]),
    /// `room:reset`: what follows does not continue what the receiver had.
    Reset(&'a RawValue),
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The transport's queue is full: offer the frame again later.
    Full,
    /// The transport is gone.
    Closed,
}

impl SendError {
    /// Whether what was taken is written, by the answer of [`Transport::flush`].
    pub fn is_written(flushed: Result<(), Self>) -> Result<bool, Self> {
        match flushed {
            Ok(()) => Ok(true),
            Err(Self::Full) => Ok(false),
            Err(Self::Closed) => Err(Self::Closed),
        }
    }
}

/// Takes frames in order, without waiting.
pub trait Transport: Send + Sync + 'static {
    /// Takes the frame for writing, whole or not at all; it may wait for [`Transport::flush`].
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError>;
    /// Writes what was taken. After [`SendError::Full`] some of it still waits: flush again later.
    fn flush(&self) -> Result<(), SendError> {
        Ok(())
    }
    /// [`Transport::send`] and [`Transport::flush`] in one, for a frame that nothing waits before: whether it was
    /// written. If not, it was taken, and still waits: flush again later.
    ///
    /// # Errors
    /// [`SendError::Full`]: the frame was not taken.
    fn pass(&self, frame: Frame<'_>) -> Result<bool, SendError> {
        self.send(frame)?;
        SendError::is_written(self.flush())
    }
    /// Ends the transport: its peer is beyond help.
    fn kill(&self);
    /// Whether its peer acknowledges critical messages, which then never ride in a batch.
    fn acknowledges(&self) -> bool {
        false
    }
}
