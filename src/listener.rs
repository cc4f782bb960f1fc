//! The listener: accepts TCP connections as a server of many sockets has to.
//!
//! - The backlog is wide: a thousand clients that come at once are not sent away to try again after a second.
//! - `TCP_NODELAY` is set: a small answer does not wait for the acknowledgement of the one before.
//! - Every connection has a write deadline and a kill switch, because a WebSocket writer that waits for a peer
//!   which never reads cannot be ended in any other way.
//! - A connection that became a WebSocket can be written to past the library that serves it ([`wire`]).

mod connection;
pub mod frames;
pub mod serve;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;

pub use connection::{Connection, KillSwitch, WeakKillSwitch};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{hint}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: io::Error,
    hint: &'static str,
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener {
    inner: tokio::net::TcpListener,
    write_deadline: Duration,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one. A connection whose peer takes nothing for
    /// `write_deadline` while something is to be written ends.
    pub fn bind(address: SocketAddr, write_deadline: Duration) -> Result<Self, ListenError> {
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Or a restart finds the address taken by connections that are still closing.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let inner = listen().map_err(|source| ListenError { address, hint: hint(&source), source })?;
        Ok(Self { inner, write_deadline })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has the port: stop it, or choose another with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege: choose a higher one with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this host has no such address: choose one of its own with --listen"
        }
        _ => "",
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
                    }
                    return (Connection::new(stream, self.write_deadline), peer);
                }
                // The peer went away while it waited; the next one may be fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "a connection could not be accepted; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}
