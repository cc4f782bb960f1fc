//! One connection of the swarm: its socket, how far its handshake is, and what is cut or not yet written.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::frame;

/// So many connections of one source address; the kernel has about 28,000 ports for them.
const PER_SOURCE: usize = 20_000;
/// Loopback addresses to connect from, 127.0.0.1 and on.
const SOURCES: usize = 250;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The TCP connection is being made.
    Connecting,
    /// The upgrade is asked for.
    Upgrading,
    /// The Engine.IO handshake is awaited.
    Opening,
    /// The Socket.IO connection is asked for.
    Greeting,
    /// The join is asked for.
    Joining,
    /// Messages come.
    Joined,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    /// The beginning of what was cut at the end of the last read; mostly empty.
    pub(super) cut: Vec<u8>,
    /// What the socket did not take yet; mostly empty.
    unwritten: Vec<u8>,
}

/// How many connections to `server` this machine can make.
pub(in crate::bench) fn most_connections(server: SocketAddr) -> usize {
    if is_loopback(server) { PER_SOURCE * SOURCES } else { PER_SOURCE }
}

fn is_loopback(server: SocketAddr) -> bool {
    matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

impl Link {
    /// Begins to connect as the `index`th client.
    pub(super) fn connect(server: SocketAddr, index: usize) -> std::io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let source = index / PER_SOURCE;
        if source > 0 && is_loopback(server) {
            let host = u8::try_from(source % SOURCES).unwrap_or_default() + 1;
            rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
        }
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = TcpStream::from_std(std::net::TcpStream::from(socket));
        Ok(Self { stream, stage: Stage::Connecting, cut: Vec::new(), unwritten: Vec::new() })
    }

    /// Whether the TCP connection stands by now.
    pub(super) fn is_connected(&self) -> std::io::Result<bool> {
        if let Some(e) = self.stream.take_error()? {
            return Err(e);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sends a packet in a frame of its own.
    pub(super) fn send(
        &mut self,
        opcode: u8,
        payload: &[u8],
        rng: &mut fastrand::Rng,
    ) -> std::io::Result<()> {
        let mut out = Vec::with_capacity(payload.len() + 14);
        frame::write_masked(&mut out, opcode, payload, rng.u32(..).to_ne_bytes());
        self.write(&out)
    }

    /// Writes `bytes`, or keeps what the socket does not take.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.unwritten.extend(bytes);
        self.flush()
    }

    /// Writes on with what was kept.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        while !self.unwritten.is_empty() {
            match self.stream.write(&self.unwritten) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.unwritten.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads into `buffer` behind what was cut; how much of it is filled, and whether there may be more.
    /// `None`: nothing came.
    pub(super) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> std::io::Result<Option<(usize, bool)>> {
        let kept = self.cut.len();
        if buffer.len() < kept + room {
            buffer.resize(kept + room, 0);
        }
        buffer[..kept].copy_from_slice(&self.cut);
        let space = &mut buffer[kept..kept + room];
        loop {
            match self.stream.read(space) {
                Ok(0) => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
                Ok(n) => return Ok(Some((kept + n, n == room))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Keeps `rest` for the next read.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.cut.clear();
        self.cut.extend_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// Beyond this, something is broken.
    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

    #[test]
    fn clients_beyond_the_ports_of_one_address_come_from_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = listener.local_addr().expect("an address");
        for (index, source) in
            [(0, "127.0.0.1"), (PER_SOURCE, "127.0.0.2"), (3 * PER_SOURCE + 1, "127.0.0.4")]
        {
            let link = Link::connect(server, index).expect("a connection");
            let (_, peer) = listener.accept().expect("a client");
            assert_eq!(peer.ip().to_string(), source);
            assert!(link.is_connected().expect("no error"));
        }
    }

    #[test]
    fn what_was_cut_stands_before_what_comes_next() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut link = Link::connect(listener.local_addr().expect("an address"), 0).expect("a connection");
        let (mut peer, _) = listener.accept().expect("a client");
        let mut buffer = Vec::new();
        let mut next = |link: &mut Link| {
            let end = Instant::now() + DEADLINE;
            loop {
                if let Some((filled, _)) = link.read(&mut buffer, 16).expect("readable") {
                    return buffer[..filled].to_vec();
                }
                assert!(Instant::now() < end, "nothing came");
            }
        };
        peer.write_all(b"abcdef").expect("written");
        assert_eq!(next(&mut link), b"abcdef");
        link.keep(b"ef");
        peer.write_all(b"gh").expect("written");
        assert_eq!(next(&mut link), b"efgh");
        link.keep(b"");
        drop(peer);
        let end = Instant::now() + DEADLINE;
        while link.read(&mut buffer, 16).is_ok() {
            assert!(Instant::now() < end, "the end was not seen");
        }
    }
}
