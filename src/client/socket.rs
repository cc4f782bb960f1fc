//! A Socket.IO connection over WebSocket: events out, acknowledgements and events in.
//!
//! Reconnecting is the caller's: only the caller knows the positions to join with again.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::Connection;
use super::handshake::handshake;
use super::room::{JoinRequest, Joined, Since};
use super::sender::SocketSender;
use super::{Authority, ClientError, ServerUrl};

/// How many set-aside events a call that waits for its answer may add up; then it stops reading.
const MAX_BACKLOG: usize = 100_000;
/// How many frames may wait to be written; then emitting waits.
const COMMANDS: usize = 256;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The handshake's `auth` object: `clientId`, `userId`, `acks`, `batch`, `inbox`.
    pub auth: Value,
    /// The token, if the server wants one; it stands in `auth` as `token`.
    pub token: Option<String>,
    /// Who signed the server's certificate, where that is none that the system knows.
    pub authority: Option<Authority>,
    /// How long connecting may take, from the first packet to the granted namespace.
    pub connect_timeout: Duration,
    /// How long the helpers (`join`, `leave`, `ping`) wait for their answer.
    pub answer_timeout: Duration,
    /// How many events may wait for the application. When so many do, the client stops reading.
    pub event_capacity: usize,
    /// The longest frame that is taken, in bytes.
    pub max_frame_bytes: usize,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            auth: Value::Object(Map::new()),
            token: None,
            authority: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            event_capacity: 256,
            max_frame_bytes: 16 << 20,
        }
    }
}

/// An event from the server.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name: a message's event, `message:batch`, `room:reset`, …
    pub name: String,
    /// Its first argument, unparsed; `null` if it has none.
    pub data: Box<RawValue>,
    pub(super) ack: Option<u64>,
}

impl Event {
    pub(super) fn new(name: String, data: Box<RawValue>, ack: Option<u64>) -> Self {
        Self { name, data, ack }
    }

    /// Whether the server waits for [`SocketSender::acknowledge`].
    #[must_use]
    pub fn wants_acknowledgement(&self) -> bool {
        self.ack.is_some()
    }
}

/// A connection to a server's namespace `/`. It ends when this is closed or dropped.
///
/// Events wait in a bounded channel. While it is full the client reads nothing, so that the server's writes to it
/// come to a halt and the server decides (it conflates, then reads on from history). An application that lags for
/// longer than the server's ping interval and timeout loses the connection, because pings are not read either.
#[derive(Debug)]
pub struct SocketClient {
    sender: SocketSender,
    events: mpsc::Receiver<Result<Event, ClientError>>,
    /// What came in while a method of this type waited for an answer.
    backlog: VecDeque<Result<Event, ClientError>>,
    task: JoinHandle<()>,
}

impl SocketClient {
    /// Connects to the server at `url` (see [`ServerUrl::parse`]), over WebSocket from the start.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Unreachable`], [`ClientError::NotTidings`], [`ClientError::Problem`] and
    /// [`ClientError::Refused`] by what is in the way; [`ClientError::Timeout`] after `connect_timeout`.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        let url = ServerUrl::parse(url)?;
        let after = options.connect_timeout;
        match timeout(after, handshake(&url, &options)).await {
            Err(_) => Err(ClientError::Timeout { what: format!("the connection to {url}"), after }),
            Ok(Err(error)) => Err(error),
            Ok(Ok((ws, silence))) => {
                let (commands, command_queue) = mpsc::channel(COMMANDS);
                let (event_queue, events) = mpsc::channel(options.event_capacity.max(1));
                let connection = Connection { ws, silence, commands: command_queue, events: event_queue };
                let sender = SocketSender::new(commands, options.answer_timeout);
                let task = tokio::spawn(connection.run());
                Ok(Self { sender, events, backlog: VecDeque::new(), task })
            }
        }
    }

    /// The next event; after an error, `None`. It loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        match self.backlog.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// A sender for others; see [`SocketSender`] for what it needs of this client.
    #[must_use]
    pub fn sender(&self) -> SocketSender {
        self.sender.clone()
    }

    /// Sends an event with one argument; returns once it is handed to the connection.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection has ended, [`ClientError::Json`] if `argument` is not JSON.
    pub async fn emit<A: Serialize>(&self, event: &str, argument: &A) -> Result<(), ClientError> {
        self.sender.emit(event, argument).await
    }

    /// Sends an event with one argument and waits for the first value of its acknowledgement (`null` if it has
    /// none).
    ///
    /// # Errors
    /// As [`Self::emit`], and [`ClientError::Timeout`].
    pub async fn emit_with_ack<A: Serialize>(
        &mut self,
        event: &str,
        argument: &A,
        within: Duration,
    ) -> Result<Box<RawValue>, ClientError> {
        let sender = self.sender.clone();
        self.while_reading(sender.emit_with_ack(event, argument, within)).await
    }

    /// Joins `room`; what is replayed comes as events.
    ///
    /// Events that came before the acknowledgement are handed out after it. That matters only to a second join of
    /// the same room, whose earlier messages cannot be told from the new ones: after a gap, connect anew.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the server says no, and as [`Self::emit_with_ack`].
    pub async fn join(&mut self, room: &str, since: Since) -> Result<Joined, ClientError> {
        self.join_with(&JoinRequest::new(room, since)).await
    }

    /// [`Self::join`] with everything that can be said.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_with(&mut self, request: &JoinRequest) -> Result<Joined, ClientError> {
        let sender = self.sender.clone();
        self.while_reading(sender.join_with(request)).await
    }

    /// Leaves `room`: after the acknowledgement nothing of it comes any more.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn leave(&mut self, room: &str) -> Result<(), ClientError> {
        let sender = self.sender.clone();
        self.while_reading(sender.leave(room)).await
    }

    /// Asks for a `heartbeat:pong`; returns how long it took.
    ///
    /// # Errors
    /// As [`Self::emit_with_ack`].
    pub async fn ping(&mut self) -> Result<Duration, ClientError> {
        let sender = self.sender.clone();
        self.while_reading(sender.ping()).await
    }

    /// Answers an event that wants it; see [`SocketSender::acknowledge`].
    ///
    /// # Errors
    /// As [`Self::emit`].
    pub async fn acknowledge(&self, event: &Event) -> Result<(), ClientError> {
        self.sender.acknowledge(event).await
    }

    /// Ends the connection; what was emitted before is still sent.
    pub async fn close(self) {
        let Self { sender, mut events, task, .. } = self;
        sender.close().await;
        // The task hands its last error to this channel before it ends, and the channel may be full.
        while events.recv().await.is_some() {}
        let _ = task.await;
    }

    /// Waits for `answer` and sets events aside, which would otherwise fill the channel and keep the answer out.
    async fn while_reading<T>(
        &mut self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                Some(event) = self.events.recv(), if self.backlog.len() < MAX_BACKLOG => {
                    self.backlog.push_back(event);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
