//! The listener: accepts TCP connections as a server of many sockets has to.
//!
//! - The backlog is wide: a thousand clients that come at once are not sent away to try again after a second.
//! - `TCP_NODELAY` is set: a small answer does not wait for the acknowledgement of the one before.
//! - Every connection has a write deadline and a kill switch, because a WebSocket writer that waits for a peer
//!   which never reads cannot be ended in any other way.

pub mod serve;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Sleep;

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
                    let switch = KillSwitch::default();
                    let (write_deadline, stuck) = (self.write_deadline, None);
                    return (Connection { stream, switch, write_deadline, stuck }, peer);
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

/// Ends a connection from outside, whatever it is doing.
#[derive(Debug, Clone, Default)]
pub struct KillSwitch(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    pressed: AtomicBool,
    requests: AtomicU64,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl KillSwitch {
    /// Ends the connection: its next read and write fail.
    pub fn press(&self) {
        self.0.pressed.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// A request begins on the connection.
    pub fn begin_request(&self) {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of the newest request of the connection.
    #[must_use]
    pub fn request(&self) -> u64 {
        self.0.requests.load(Ordering::Acquire)
    }

    /// A switch that does nothing once the connection is gone.
    #[must_use]
    pub fn downgrade(&self) -> WeakKillSwitch {
        WeakKillSwitch(Arc::downgrade(&self.0))
    }

    /// Whether the connection may go on.
    pub fn check(&self) -> io::Result<()> {
        if self.0.pressed.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by the server"));
        }
        Ok(())
    }
}

/// A kill switch that does not keep what belongs to its connection.
#[derive(Debug, Clone)]
pub struct WeakKillSwitch(Weak<Switch>);

impl WeakKillSwitch {
    /// Ends the connection, if it is still there.
    pub fn press(&self) {
        if let Some(switch) = self.0.upgrade() {
            KillSwitch(switch).press();
        }
    }

    /// Ends the connection, if it has had no request after the one with this number.
    pub fn press_during(&self, request: u64) {
        if let Some(switch) = self.0.upgrade()
            && switch.requests.load(Ordering::Acquire) == request
        {
            KillSwitch(switch).press();
        }
    }

    /// Whether the connection is still there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    switch: KillSwitch,
    write_deadline: Duration,
    // Runs only while a write waits, so that an idle connection has no timer.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Its kill switch.
    #[must_use]
    pub fn kill_switch(&self) -> KillSwitch {
        self.switch.clone()
    }

    /// Lets a write wait no longer than the deadline. Every byte that is taken starts it anew.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let deadline = self.write_deadline;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
        if stuck.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let text = "the peer took nothing before the write deadline";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Registered before the check, or a press between the two would wake nobody.
        self.switch.0.reader.register(cx.waker());
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.switch.0.writer.register(cx.waker());
        self.switch.check()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.switch.0.writer.register(cx.waker());
        self.switch.check()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
