//! The listener: accepts TCP connections as a server of many sockets has to.
//!
//! - The backlog is wide: a thousand clients that come at once are not sent away to try again after a second.
//! - `TCP_NODELAY` is set: a small answer does not wait for the acknowledgement of the one before.
//! - Every connection has a write deadline and a kill switch, because a WebSocket writer that waits for a peer
//!   which never reads cannot be ended in any other way. `TCP_USER_TIMEOUT` has the kernel give up a peer that
//!   is gone at the same time.
//! - Who is over a limit is turned away before anything is served ([`door`]).
//! - A connection that became a WebSocket can be written to past the library that serves it ([`wire`]).

mod connection;
pub mod deadline;
pub mod door;
pub mod frames;
mod inbound;
pub mod serve;
mod turned_away;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

pub use connection::{Connection, KillSwitch, WeakKillSwitch};
use door::Door;

/// How many connections may wait to be accepted.
pub const BACKLOG: u32 = 4096;
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
    door: Arc<Door>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one. Whoever comes has to pass `door`.
    pub fn bind(address: SocketAddr, door: Arc<Door>) -> Result<Self, ListenError> {
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Or a restart finds the address taken by connections that are still closing.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let inner = listen().map_err(|source| ListenError { address, hint: hint(&source), source })?;
        Ok(Self { inner, door })
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

impl Listener {
    /// The next connection that is let in.
    pub async fn accept(&self) -> (Connection, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    let Some((stream, admission)) = self.door.admit(peer, stream) else { continue };
                    let write_deadline = self.door.limits().write_deadline;
                    if let Err(error) = prepare(&stream, write_deadline) {
                        tracing::debug!(%peer, %error, "the options of a connection could not be set");
                    }
                    let inbound = self.door.inbound(peer.ip());
                    let connection = Connection::new(stream, write_deadline, inbound, Some(admission));
                    self.door.entered(&connection.kill_switch());
                    return (connection, peer);
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
}

fn prepare(stream: &TcpStream, write_deadline: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let timeout_ms = u32::try_from(write_deadline.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, timeout_ms)?)
}
