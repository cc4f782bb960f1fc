//! The voice: the way of everything that one client is told in a certain order.
//!
//! A client over WebSocket is written to directly ([`crate::listener::wire`]): the library's queue, its task for the
//! client and its copies of every packet cost several times what the write itself does. The library keeps the rest:
//! the handshake, polling, what clients send, acknowledgements that they owe, heartbeats.
//!
//! What goes through the library (*indirect*) and what does not keep their order: after an indirect packet everything
//! is indirect, until a fence that was sent after it has come out at the other end.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use socketioxide::extract::SocketRef;
use socketioxide::{SendError as SocketSendError, SocketError, TransportType};

use super::carriers::Carriers;
use super::packet;
use crate::fanout::SendError;
use crate::listener::frames::FENCE;
use crate::listener::wire::Written;
use crate::listener::{KillSwitch, WeakKillSwitch};

/// So many frames, or bytes of them, are gathered for one write.
const GATHERED: usize = 64;
const GATHERED_BYTES: usize = 64 * 1024;
/// So much is said between two polls; an answer, which may carry what was said in two of these times, holds more.
const POLLED_BYTES: usize = 32 * 1024;
/// A fence that did not come out for so long is sent again: it may have gone by polling.
const FENCE_AGAIN: Duration = Duration::from_secs(1);
/// The library itself tells every client first that it is connected.
const BY_THE_LIBRARY: u64 = 1;

/// Where the numbers of a voice begin. One WebSocket may carry several sessions one after the other; the fence of an
/// earlier one must not pass for one of a later.
fn first_number() -> u64 {
    static VOICES: AtomicU64 = AtomicU64::new(0);
    VOICES.fetch_add(1, Ordering::Relaxed) << 32 | BY_THE_LIBRARY
}

/// Speaks to one client.
pub(super) struct Voice {
    socket: SocketRef,
    carriers: Arc<Carriers>,
    state: Mutex<State>,
}

struct State {
    line: Option<WeakKillSwitch>,
    /// Direct frames that are not written yet.
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    /// The polls so far, and what was said since the last one.
    polls: u64,
    polled_bytes: usize,
    /// How many packets went through the library.
    indirect: u64,
    /// How many of them the newest fence stands behind.
    fenced: u64,
    fenced_at: Option<Instant>,
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice").field("sid", &self.socket.id).finish_non_exhaustive()
    }
}

impl Voice {
    pub(super) fn new(socket: SocketRef, carriers: Arc<Carriers>) -> Self {
        let state = State {
            line: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            polls: 0,
            polled_bytes: 0,
            indirect: first_number(),
            fenced: 0,
            fenced_at: None,
        };
        Self { socket, carriers, state: Mutex::new(state) }
    }

    /// Says something in its order: as a WebSocket frame if that can be, else through the library. It may wait for
    /// [`Voice::flush`]. A refusal leaves nothing said.
    pub(super) fn say(
        &self,
        frame: impl FnOnce() -> Bytes,
        emit: impl FnOnce(&SocketRef) -> Result<(), SocketSendError>,
    ) -> Result<(), SendError> {
        self.say_in(&mut self.lock(), frame, emit)
    }

    /// [`Voice::say`] and [`Voice::flush`] in one, as [`crate::fanout::Transport::pass`].
    pub(super) fn say_at_once(
        &self,
        frame: impl FnOnce() -> Bytes,
        emit: impl FnOnce(&SocketRef) -> Result<(), SocketSendError>,
    ) -> Result<bool, SendError> {
        let mut state = self.lock();
        if state.gathered.is_empty()
            && let Some(line) = self.direct(&mut state)
        {
            return match line.wire().write_one(frame()).map_err(|error| closed(&line, error))? {
                Written::Whole => Ok(true),
                Written::Waits => Ok(false),
                Written::Refused => Err(SendError::Full),
            };
        }
        self.say_in(&mut state, frame, emit)?;
        SendError::is_written(self.flush_in(&mut state))
    }

    fn say_in(
        &self,
        state: &mut State,
        frame: impl FnOnce() -> Bytes,
        emit: impl FnOnce(&SocketRef) -> Result<(), SocketSendError>,
    ) -> Result<(), SendError> {
        let Some(line) = self.direct(state) else {
            if self.socket.transport_type() == TransportType::Polling {
                self.count_for_poll(state, frame().len())?;
            }
            return self.emit(state, emit);
        };
        // What the peer did not take the last time goes first.
        if state.gathered.is_empty() && !line.wire().flush().map_err(|error| closed(&line, error))? {
            return Err(SendError::Full);
        }
        let frame = frame();
        state.gathered_bytes += frame.len();
        if state.gathered.capacity() == 0 {
            // Most connections hear one message at a time, and a vector begins with room for four.
            state.gathered.reserve_exact(1);
        }
        state.gathered.push(frame);
        if state.gathered.len() >= GATHERED || state.gathered_bytes >= GATHERED_BYTES {
            state.write(&line)?;
        }
        Ok(())
    }

    /// Says something in its order, but through the library in any case.
    pub(super) fn say_indirectly(
        &self,
        emit: impl FnOnce(&SocketRef) -> Result<(), SocketSendError>,
    ) -> Result<(), SendError> {
        let mut state = self.lock();
        self.emit(&mut state, emit)
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// [`SendError::Full`]: all is said, but the peer has not taken it yet; flush again.
    pub(super) fn flush(&self) -> Result<(), SendError> {
        self.flush_in(&mut self.lock())
    }

    fn flush_in(&self, state: &mut State) -> Result<(), SendError> {
        let Some(line) = self.line(state) else { return Ok(()) };
        if line.wire().passed() != state.indirect {
            self.fence(state);
            return Ok(());
        }
        if state.gathered.is_empty() {
            let clear = line.wire().flush().map_err(|error| closed(&line, error))?;
            return if clear { Ok(()) } else { Err(SendError::Full) };
        }
        if state.write(&line)? { Ok(()) } else { Err(SendError::Full) }
    }

    /// Ends the client's WebSocket behind everything that was said. Whether that was said; if not, what was said before
    /// still waits: ask again. A client that answers has read all of it.
    pub(super) fn hang_up(&self) -> Result<bool, SendError> {
        let mut state = self.lock();
        if !SendError::is_written(self.flush_in(&mut state))? {
            return Ok(false);
        }
        let Some(line) = self.direct(&mut state) else { return Ok(false) };
        Ok(line.wire().write_one(packet::going_away()).map_err(|error| closed(&line, error))?
            != Written::Refused)
    }

    /// Whether the client polls, and how often it has.
    pub(super) fn polls(&self) -> Option<u64> {
        let polls = self.socket.transport_type() == TransportType::Polling;
        polls.then(|| self.carriers.polls(self.socket.id))
    }

    /// Keeps what one poll takes away below what one answer holds. The library sets the packet that found no room in
    /// an answer aside for the next poll, and forgets it when the client goes on over WebSocket instead.
    fn count_for_poll(&self, state: &mut State, bytes: usize) -> Result<(), SendError> {
        let polls = self.carriers.polls(self.socket.id);
        if state.polls != polls {
            (state.polls, state.polled_bytes) = (polls, 0);
        }
        if state.polled_bytes > 0 && state.polled_bytes + bytes > POLLED_BYTES {
            return Err(SendError::Full);
        }
        state.polled_bytes += bytes;
        Ok(())
    }

    fn emit(
        &self,
        state: &mut State,
        emit: impl FnOnce(&SocketRef) -> Result<(), SocketSendError>,
    ) -> Result<(), SendError> {
        if !state.gathered.is_empty()
            && let Some(line) = state.line.as_ref().and_then(WeakKillSwitch::upgrade)
        {
            // What the peer does not take at once waits in the wire, before anything of the library.
            state.write(&line)?;
        }
        emit(&self.socket).map_err(send_error)?;
        state.indirect += 1;
        Ok(())
    }

    /// Has a fence follow what went through the library, if none does yet.
    fn fence(&self, state: &mut State) {
        let waits =
            state.fenced == state.indirect && state.fenced_at.is_some_and(|at| at.elapsed() < FENCE_AGAIN);
        // A full queue gets one with the next flush.
        if !waits && self.socket.emit(FENCE, &state.indirect).is_ok() {
            (state.fenced, state.fenced_at) = (state.indirect, Some(Instant::now()));
        }
    }

    /// The client's WebSocket, if all that went through the library has come out there.
    fn direct(&self, state: &mut State) -> Option<KillSwitch> {
        self.line(state).filter(|line| line.wire().passed() == state.indirect)
    }

    /// The client's WebSocket, if it has one.
    fn line(&self, state: &mut State) -> Option<KillSwitch> {
        if let Some(line) = state.line.as_ref().and_then(WeakKillSwitch::upgrade) {
            return Some(line);
        }
        // Before an upgrade is complete, the library still sends by polling.
        if self.socket.transport_type() != TransportType::Websocket {
            return None;
        }
        state.line = self.carriers.websocket(self.socket.id);
        state.line.as_ref()?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a refusal of the library means.
#[expect(clippy::needless_pass_by_value, reason = "the library hands its errors out by value")]
pub(super) fn send_error(error: SocketSendError) -> SendError {
    if let SocketSendError::Socket(SocketError::InternalChannelFull) = error {
        return SendError::Full;
    }
    tracing::trace!(%error, "a socket takes no more packets");
    SendError::Closed
}

fn closed(line: &KillSwitch, error: io::Error) -> SendError {
    let error = line.failed(error);
    tracing::trace!(%error, "a WebSocket takes no more frames");
    SendError::Closed
}

impl State {
    fn write(&mut self, line: &KillSwitch) -> Result<bool, SendError> {
        self.gathered_bytes = 0;
        line.wire().write(&mut self.gathered).map_err(|error| closed(line, error))
    }
}
