//! One TCP connection: bytes in become requests or frames, bytes out are written at once or wait.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::rc::Rc;

use mio::Registry;
use mio::net::TcpStream;

use crate::wire::{self, Frame, Request};

/// A peer that so many writes wait for is given up.
const MAX_UNSENT: usize = 1_000_000;
const READ_BYTES: usize = 16 << 10;

/// What a peer said.
pub(crate) enum Input {
    Request(Request),
    Text(String),
    Ping(Vec<u8>),
}

pub(crate) struct Connection {
    stream: TcpStream,
    is_socket: bool,
    rooms: Vec<String>,
    read: Vec<u8>,
    /// What the kernel did not take, one entry for each write to come.
    unsent: VecDeque<Rc<[u8]>>,
    /// How much of the first of them it took.
    sent: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (rooms, read, unsent) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { stream, is_socket: false, rooms, read, unsent, sent: 0 }
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.is_socket
    }

    /// From here on its bytes are WebSocket frames.
    pub(crate) fn upgraded(&mut self) {
        self.is_socket = true;
    }

    pub(crate) fn rooms(&self) -> &[String] {
        &self.rooms
    }

    /// Notes a room; false if it was noted before.
    pub(crate) fn joined(&mut self, room: &str) -> bool {
        let new = !self.rooms.iter().any(|known| known == room);
        if new {
            self.rooms.push(room.to_owned());
        }
        new
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }

    /// Writes `bytes`, in order behind what waits already.
    pub(crate) fn send(&mut self, bytes: &Rc<[u8]>) -> io::Result<()> {
        if self.unsent.is_empty() {
            let sent = write(&mut self.stream, bytes)?;
            if sent == bytes.len() {
                return Ok(());
            }
            self.sent = sent;
        }
        if self.unsent.len() == MAX_UNSENT {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.unsent.push_back(bytes.clone());
        Ok(())
    }

    /// Writes what waits, reads what came; the flag says whether the connection is still open.
    pub(crate) fn progress(&mut self) -> (Vec<Input>, bool) {
        let open = self.flush().and_then(|()| self.fill()).unwrap_or(false);
        let mut inputs = Vec::new();
        let understood = self.parse(&mut inputs).is_ok();
        // An idle connection holds no buffer.
        if self.read.is_empty() {
            self.read = Vec::new();
        }
        (inputs, open && understood)
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.unsent.front() {
            self.sent += write(&mut self.stream, &bytes[self.sent..])?;
            if self.sent < bytes.len() {
                return Ok(());
            }
            self.sent = 0;
            self.unsent.pop_front();
        }
        Ok(())
    }

    /// Reads until there is no more; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => self.read.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn parse(&mut self, inputs: &mut Vec<Input>) -> io::Result<()> {
        let mut at = 0;
        let result = loop {
            let rest = &self.read[at..];
            let parsed = if self.is_socket { frame(rest) } else { request(rest) };
            match parsed {
                Ok(Some((input, n))) => {
                    at += n;
                    inputs.extend(input);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.read.drain(..at);
        result
    }
}

/// One `write`; how many bytes the kernel took, which may be none.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            taken => return taken,
        }
    }
}

/// What stands at the beginning of `bytes`, if it is complete, and its length.
type Parsed = io::Result<Option<(Option<Input>, usize)>>;

fn request(bytes: &[u8]) -> Parsed {
    Ok(wire::parse_request(bytes)?.map(|(request, n)| (Some(Input::Request(request)), n)))
}

fn frame(bytes: &[u8]) -> Parsed {
    let Some((frame, n)) = wire::parse_frame(bytes)? else { return Ok(None) };
    let input = match frame {
        Frame::Text(payload) => Some(Input::Text(String::from_utf8(payload).map_err(io::Error::other)?)),
        Frame::Ping(payload) => Some(Input::Ping(payload)),
        Frame::Pong => None,
        Frame::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    Ok(Some((input, n)))
}
