//! An accepted connection: its reads and writes, and the switch that ends it from outside.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::wire::Wire;

/// Ends a connection from outside, whatever it is doing.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    pressed: AtomicBool,
    requests: AtomicU64,
    reader: AtomicWaker,
    writer: AtomicWaker,
    wire: Wire,
}

impl Default for KillSwitch {
    /// A switch without a connection.
    fn default() -> Self {
        Self::new(Weak::new())
    }
}

impl KillSwitch {
    fn new(stream: Weak<TcpStream>) -> Self {
        Self(Arc::new(Switch {
            pressed: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            wire: Wire::new(stream),
        }))
    }

    /// The writing side of the connection.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.0.wire
    }

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

    /// The switch, if its connection is still there.
    #[must_use]
    pub fn upgrade(&self) -> Option<KillSwitch> {
        self.0.upgrade().map(KillSwitch)
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
    // Shared with its wire, which lets go of it when the connection ends.
    stream: Arc<TcpStream>,
    switch: KillSwitch,
    write_deadline: Duration,
    // Runs only while a write waits, so that an idle connection has no timer.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, write_deadline: Duration) -> Self {
        let stream = Arc::new(stream);
        let switch = KillSwitch::new(Arc::downgrade(&stream));
        Self { stream, switch, write_deadline, stuck: None }
    }

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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Registered before the check, or a press between the two would wake nobody.
        self.switch.0.reader.register(cx.waker());
        self.switch.check()?;
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.switch.0.writer.register(cx.waker());
        self.switch.check()?;
        let written = self.switch.wire().poll_write(&self.stream, cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream keeps nothing back.
        self.switch.check()?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write).map_err(Into::into))
    }
}
