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

use super::door::Admission;
use super::inbound::{Inbound, TOO_LARGE};
use super::wire::Wire;
use crate::limits::{Reason, met};
use crate::metrics;

/// Ends a connection from outside, whatever it is doing.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    pressed: AtomicBool,
    heard: AtomicBool,
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
            heard: AtomicBool::new(false),
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

    /// Ends the connection for `reason`, which is counted unless it has been ended before.
    fn press_for(&self, reason: Reason) {
        if !self.0.pressed.swap(true, Ordering::AcqRel) {
            met(reason);
        }
        self.press();
    }

    /// Takes note of the error of a read or a write, whichever side made it: the kernel gives up a peer that takes
    /// nothing by itself, and tells only one of them.
    pub fn failed(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::TimedOut {
            self.press_for(Reason::WriteDeadline);
        }
        error
    }

    /// Whether the peer said something after the last that was said to it.
    pub(super) fn is_spoken_to(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
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

    /// Whether both are of one connection.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
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
    stuck: Option<Stuck>,
    inbound: Box<Inbound>,
    admission: Option<Admission>,
}

/// A write that waits.
#[derive(Debug)]
struct Stuck {
    deadline: Pin<Box<Sleep>>,
    /// How much of what was written past the library the peer had taken when the time began.
    taken: u64,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        write_deadline: Duration,
        inbound: Inbound,
        admission: Option<Admission>,
    ) -> Self {
        let stream = Arc::new(stream);
        let switch = KillSwitch::new(Arc::downgrade(&stream));
        Self { stream, switch, write_deadline, stuck: None, inbound: Box::new(inbound), admission }
    }

    /// Its kill switch.
    #[must_use]
    pub fn kill_switch(&self) -> KillSwitch {
        self.switch.clone()
    }

    /// Takes note of what came, and ends a WebSocket over which too much comes.
    fn count(&mut self, came: &[u8]) -> io::Result<()> {
        if !came.is_empty() {
            self.switch.0.heard.store(true, Ordering::Relaxed);
        }
        if !self.switch.wire().is_websocket() {
            self.inbound.before(came, self.switch.request());
            return Ok(());
        }
        if !self.inbound.begins_with(self.switch.request()) {
            if !self.switch.0.pressed.swap(true, Ordering::AcqRel) {
                metrics::rejected("invalid");
            }
            self.switch.press();
        } else if let Err(reason) = self.inbound.take(came) {
            if reason == Reason::TooLarge {
                self.say_too_large();
            }
            self.switch.press_for(reason);
        }
        self.switch.check()
    }

    /// The last words to whoever sends a message that is too long.
    fn say_too_large(&self) {
        // Whoever takes nothing now does not hear why.
        if self.switch.wire().write(&mut vec![TOO_LARGE.into()]).is_ok_and(|is_taken| is_taken)
            && rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write).is_ok()
            && let Some(admission) = &self.admission
        {
            admission.listen_out(self.stream.clone());
        }
    }

    /// Lets a write wait no longer than the deadline. Every byte that is taken starts it anew.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stuck = None;
            self.switch.0.heard.store(false, Ordering::Relaxed);
            return Poll::Ready(written.map_err(|error| self.switch.failed(error)));
        }
        // What is written past the library counts as well.
        let (deadline, taken) = (self.write_deadline, self.switch.wire().taken());
        if self.stuck.as_ref().is_some_and(|stuck| stuck.taken != taken) {
            self.stuck = None;
        }
        let started = || Stuck { deadline: Box::pin(tokio::time::sleep(deadline)), taken };
        let stuck = self.stuck.get_or_insert_with(started);
        if stuck.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // The library takes a failed write for a lost packet and goes on; its reader, too, has to see the end.
        self.switch.press_for(Reason::WriteDeadline);
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
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let before = buf.filled().len();
            match self.stream.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(self.count(&buf.filled()[before..])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.switch.failed(error))),
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::live::Live;
    use crate::config::settings::Limits;
    use crate::listener::Listener;
    use crate::listener::door::Door;

    const DEADLINE: Duration = Duration::from_millis(300);
    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

    /// A connection with a small buffer, and its peer.
    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4096).unwrap();
        (Connection::new(stream, DEADLINE, Inbound::new(None, u64::MAX), None), peer)
    }

    #[tokio::test]
    async fn the_kernel_gives_up_a_peer_at_the_write_deadline() {
        let limits = Limits { write_deadline: Duration::from_millis(7321), ..Limits::default() };
        let door = Door::new(Live::new(limits), Live::default());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), door).unwrap();
        let _peer = TcpStream::connect(listener.address().unwrap()).await.unwrap();
        let (connection, _) = listener.accept().await;
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&*connection.stream).unwrap(), 7321);
        assert!(rustix::net::sockopt::tcp_nodelay(&*connection.stream).unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_ended_for_the_reader_too() {
        let (mut connection, _peer) = pair().await;
        let error = connection.write_all(&vec![b'x'; 16 << 20]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = connection.read(&mut [0]).await.expect_err("it has ended");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_peer_that_the_kernel_gave_up_is_ended_whoever_of_both_was_told() {
        let (mut connection, _peer) = pair().await;
        let switch = connection.kill_switch();
        let error = switch.failed(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!switch.0.pressed.load(Ordering::Acquire), "it is no deadline");
        switch.failed(io::Error::from(io::ErrorKind::TimedOut));
        let error = connection.read(&mut [0]).await.expect_err("it has ended");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_peer_that_takes_what_is_written_past_the_library_is_not_ended() {
        let (mut connection, mut peer) = pair().await;
        let switch = connection.kill_switch();
        switch.wire().upgrade();
        connection.write_all(HEAD).await.unwrap();
        // A direct frame that takes the peer several deadlines, and one of the library behind it.
        let mut frame = vec![0x81, 127];
        frame.extend((8_u64 << 20).to_be_bytes());
        frame.resize(frame.len() + (8 << 20), b'x');
        let whole = HEAD.len() + frame.len() + 2;
        assert!(!switch.wire().write(&mut vec![frame.into()]).unwrap(), "it is too large");
        let reader = tokio::spawn(async move {
            let (mut read, mut some) = (0, vec![0; 128 * 1024]);
            while read < whole {
                read += peer.read(&mut some).await.unwrap();
                tokio::time::sleep(DEADLINE / 20).await;
            }
        });
        connection.write_all(&[0x81, 0]).await.expect("the peer reads");
        reader.await.unwrap();
    }
}
