//! The wire: the bytes that one connection writes, once it is a WebSocket that two may write to.
//!
//! The library that serves a WebSocket has a queue and a task for each. Whoever fans messages out has the same frame
//! for a thousand of them, and writes it past the library: no task is woken and nothing is copied. Both meet here.
//!
//! - A frame of one never begins inside of a frame of the other, and each side's frames keep their order.
//! - What was taken from the fan-out and not by the peer yet goes before anything else.
//! - Where the order between the two sides matters, the fan-out sends a *fence* through the library: once it has come
//!   by here, everything before it has. A fence itself is not written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::frames::{Step, Walk};

/// How many frames one system call takes at most.
const FRAMES_AT_ONCE: usize = 64;
/// The head of the answer to an upgrade is shorter.
const MAX_HEAD: usize = 4096;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The peer took it.
    Whole,
    /// It waits here, as [`Wire::write`] says.
    Waits,
    /// What was written before still waits, and this was not taken.
    Refused,
}

/// The writing side of one connection.
#[derive(Debug)]
pub struct Wire {
    // Most connections are never upgraded; those pay for one look.
    upgrading: AtomicBool,
    framed: AtomicBool,
    passed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stream: Weak<TcpStream>,
    phase: Phase,
    // Taken from the fan-out; the first one may be cut.
    rest: VecDeque<Bytes>,
    /// How many bytes of it the peer took in all.
    taken: u64,
}

#[derive(Debug)]
enum Phase {
    /// Answers to requests.
    Http,
    /// The answer to an upgrade; its head so far.
    Answer(Vec<u8>),
    /// WebSocket frames.
    Frames(Walk),
}

impl Wire {
    pub(super) fn new(stream: Weak<TcpStream>) -> Self {
        let state = State { stream, phase: Phase::Http, rest: VecDeque::new(), taken: 0 };
        Self {
            upgrading: AtomicBool::new(false),
            framed: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }

    /// The connection's newest request asks to become a WebSocket.
    pub fn upgrade(&self) {
        self.lock().phase = Phase::Answer(Vec::new());
        self.upgrading.store(true, Ordering::Release);
    }

    /// Whether it became a WebSocket. Before its peer was told so, none speaks as one.
    pub(super) fn is_websocket(&self) -> bool {
        self.framed.load(Ordering::Acquire)
    }

    /// The number of the last fence that came by.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    /// Writes `frames`, each a whole WebSocket frame; never waits. Whether the peer took them all: what it did not
    /// waits here, and [`Wire::flush`] goes on.
    ///
    /// # Errors
    /// The connection is gone, or is no WebSocket.
    pub fn write(&self, frames: &mut Vec<Bytes>) -> io::Result<bool> {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Frames(_)) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        state.write(frames)
    }

    /// Writes one frame, as [`Wire::write`] does several, but only if nothing waits before it.
    ///
    /// # Errors
    /// As [`Wire::write`].
    pub fn write_one(&self, mut frame: Bytes) -> io::Result<Written> {
        let mut state = self.lock();
        if !state.rest.is_empty() {
            if !state.flush()? {
                return Ok(Written::Refused);
            }
            state.rest = VecDeque::new();
        }
        let Phase::Frames(walk) = &state.phase else { return Err(io::ErrorKind::NotConnected.into()) };
        if walk.at_boundary() {
            let stream = state.stream.upgrade().ok_or(io::ErrorKind::NotConnected)?;
            let n = try_write(&stream, &[IoSlice::new(&frame)])?.unwrap_or(0);
            state.taken += n as u64;
            if n == frame.len() {
                return Ok(Written::Whole);
            }
            frame.advance(n);
        }
        state.rest.push_back(frame);
        Ok(Written::Waits)
    }

    /// Offers the peer again what it did not take; whether nothing waits any more.
    ///
    /// # Errors
    /// As [`Wire::write`].
    pub fn flush(&self) -> io::Result<bool> {
        let mut state = self.lock();
        let clear = state.flush()?;
        if clear {
            state.rest = VecDeque::new();
        }
        Ok(clear)
    }

    /// How many direct bytes the peer has taken: while this rises, it reads.
    pub(super) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Writes for whoever serves the connection.
    pub(super) fn poll_write(
        &self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.upgrading.load(Ordering::Acquire) {
            return poll_stream(stream, cx, bufs);
        }
        let mut state = self.lock();
        ready!(state.poll_rest(stream, cx))?;
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[] as &[u8], |buf| buf);
        match &mut state.phase {
            Phase::Http => poll_stream(stream, cx, bufs),
            Phase::Answer(head) => {
                let n = ready!(poll_stream(stream, cx, &[IoSlice::new(first)]))?;
                head.extend_from_slice(&first[..n]);
                if let Some(next) = after_head(head) {
                    let is_websocket = matches!(next, Phase::Frames(_));
                    self.upgrading.store(is_websocket, Ordering::Release);
                    self.framed.store(is_websocket, Ordering::Release);
                    state.phase = next;
                }
                Poll::Ready(Ok(n))
            }
            Phase::Frames(walk) => match walk.step(first) {
                Step::Fence { number, len } => {
                    self.passed.store(number, Ordering::Release);
                    Poll::Ready(Ok(len))
                }
                Step::Run(len) => {
                    let n = ready!(poll_stream(stream, cx, &[IoSlice::new(&first[..len])]))?;
                    walk.advance(&first[..n]);
                    Poll::Ready(Ok(n))
                }
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The room for frames goes back and forth: mostly the peer takes all at once, and one of us suffices with it.
    fn write(&mut self, frames: &mut Vec<Bytes>) -> io::Result<bool> {
        if self.rest.is_empty() {
            self.rest = std::mem::take(frames).into();
        } else {
            self.rest.extend(frames.drain(..));
        }
        let clear = self.flush()?;
        if clear {
            *frames = std::mem::take(&mut self.rest).into();
        }
        Ok(clear)
    }

    fn flush(&mut self) -> io::Result<bool> {
        let Phase::Frames(walk) = &self.phase else { return Err(io::ErrorKind::NotConnected.into()) };
        if self.rest.is_empty() {
            return Ok(true);
        }
        if !walk.at_boundary() {
            return Ok(false);
        }
        let stream = self.stream.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        while !self.rest.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
            let Some(n) = try_write(&stream, self.slices(&mut slices))? else { return Ok(false) };
            self.taken(n);
        }
        Ok(true)
    }

    fn poll_rest(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Inside of a frame of the other side nothing of this one has begun.
        while !self.rest.is_empty() && matches!(&self.phase, Phase::Frames(walk) if walk.at_boundary()) {
            let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
            let n = ready!(poll_stream(stream, cx, self.slices(&mut slices)))?;
            self.taken(n);
        }
        Poll::Ready(Ok(()))
    }

    fn slices<'a, 'b>(&'a self, slices: &'b mut [IoSlice<'a>; FRAMES_AT_ONCE]) -> &'b [IoSlice<'a>] {
        let n = self.rest.len().min(FRAMES_AT_ONCE);
        slices.iter_mut().zip(&self.rest).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
        &slices[..n]
    }

    fn taken(&mut self, mut n: usize) {
        self.taken += n as u64;
        while let Some(front) = self.rest.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.rest.pop_front();
        }
    }
}

/// What follows the head of an answer, once it is complete.
fn after_head(head: &[u8]) -> Option<Phase> {
    let end = head.windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(end) if head.starts_with(b"HTTP/1.1 101") => {
            let mut walk = Walk::default();
            walk.advance(&head[end + 4..]);
            Some(Phase::Frames(walk))
        }
        None if head.len() < MAX_HEAD => None,
        _ => Some(Phase::Http),
    }
}

/// How much the peer took; `None` if it takes nothing now.
fn try_write(stream: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    loop {
        // The kernel takes one buffer for less than a list of one.
        let written = match bufs {
            [one] => stream.try_write(one),
            several => stream.try_write_vectored(several),
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn poll_stream(stream: &TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_write_vectored(bufs) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests;
