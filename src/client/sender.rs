//! The sending half of a Socket.IO connection: emit, and wait for acknowledgements.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Command, Question};
use super::packet::Packet;
use super::room::{JoinRequest, Joined, Since};
use super::socket::Event;
use super::{ClientError, Told};

/// Sends over a connection that somebody else reads from. Clones share the connection, and do not keep it open.
///
/// Its methods wait for answers, and answers stand behind events: somebody has to keep reading the
/// [`SocketClient`](super::SocketClient) meanwhile. The client's own methods of the same names see to that
/// themselves.
#[derive(Debug, Clone)]
pub struct SocketSender {
    commands: mpsc::Sender<Command>,
    ids: Arc<AtomicU64>,
    answer_timeout: Duration,
}

/// What every acknowledgement of the contract begins with.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    error: Option<Told>,
}

impl SocketSender {
    pub(super) fn new(commands: mpsc::Sender<Command>, answer_timeout: Duration) -> Self {
        Self { commands, ids: Arc::default(), answer_timeout }
    }

    /// Sends an event with one argument; returns once it is handed to the connection, and waits while too many
    /// frames wait there.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection has ended, [`ClientError::Json`] if `argument` is not JSON.
    pub async fn emit<A: Serialize>(&self, event: &str, argument: &A) -> Result<(), ClientError> {
        self.send(Command::Send(frame(event, None, argument)?)).await
    }

    /// Sends an event with one argument and waits for the first value of its acknowledgement (`null` if it has
    /// none).
    ///
    /// # Errors
    /// As [`Self::emit`], and [`ClientError::Timeout`].
    pub async fn emit_with_ack<A: Serialize>(
        &self,
        event: &str,
        argument: &A,
        within: Duration,
    ) -> Result<Box<RawValue>, ClientError> {
        let id = self.next_id();
        self.ask(Question::Ack(id), event, frame(event, Some(id), argument)?, within).await
    }

    /// Sends an event whose acknowledgement is `{"ok": true, …}` or `{"ok": false, "error"}`, as all of the
    /// contract are, and reads the former as a `T`.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the server says no, and as [`Self::emit_with_ack`].
    pub async fn request<A: Serialize, T: serde::de::DeserializeOwned>(
        &self,
        event: &str,
        argument: &A,
    ) -> Result<T, ClientError> {
        let answer = self.emit_with_ack(event, argument, self.answer_timeout).await?;
        let unreadable = |e: serde_json::Error| ClientError::json(format!("the answer to {event}"), &e);
        match serde_json::from_str(answer.get()).map_err(unreadable)? {
            Answer { ok: true, .. } => serde_json::from_str(answer.get()).map_err(unreadable),
            Answer { error, .. } => {
                let Told { code, message } = error.unwrap_or_else(|| Told {
                    code: "unknown".to_owned(),
                    message: "the server gave no reason".to_owned(),
                });
                Err(ClientError::Rejected { event: event.to_owned(), code, message })
            }
        }
    }

    /// Joins `room`; what is replayed comes as events.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn join(&self, room: &str, since: Since) -> Result<Joined, ClientError> {
        self.join_with(&JoinRequest::new(room, since)).await
    }

    /// [`Self::join`] with everything that can be said.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn join_with(&self, request: &JoinRequest) -> Result<Joined, ClientError> {
        self.request("room:join", request).await
    }

    /// Leaves `room`: after the acknowledgement nothing of it comes any more.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn leave(&self, room: &str) -> Result<(), ClientError> {
        self.request::<_, serde::de::IgnoredAny>("room:leave", &room).await.map(drop)
    }

    /// Asks for a `heartbeat:pong`; returns how long it took.
    ///
    /// # Errors
    /// As [`Self::emit_with_ack`].
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        #[derive(Serialize)]
        struct Ping {
            t: u64,
        }
        let t = self.next_id();
        let event = "heartbeat:ping";
        let asked = Instant::now();
        self.ask(Question::Ping(t), event, frame(event, None, &Ping { t })?, self.answer_timeout).await?;
        Ok(asked.elapsed())
    }

    /// Answers an event that wants it (a critical message on a connection with `acks`); does nothing for others.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection has ended.
    pub async fn acknowledge(&self, event: &Event) -> Result<(), ClientError> {
        match event.ack {
            Some(id) => self.send(Command::Send(Packet::Ack { id, args: Vec::new() }.text())).await,
            None => Ok(()),
        }
    }

    /// Ends the connection for everybody, after what was sent before.
    pub(super) async fn close(&self) {
        // If the task is gone, so is the connection.
        let _ = self.commands.send(Command::Close).await;
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed)
    }

    async fn ask(
        &self,
        question: Question,
        event: &str,
        frame: String,
        within: Duration,
    ) -> Result<Box<RawValue>, ClientError> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.send(Command::Ask { question, frame, answer }).await?;
            answered.await.map_err(|_| ClientError::Closed)
        };
        timeout(within, asking)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { what: event.to_owned(), after: within }))
    }
}

fn frame<A: Serialize>(event: &str, ack: Option<u64>, argument: &A) -> Result<String, ClientError> {
    let argument = to_raw_value(argument).map_err(|e| ClientError::json(event, &e))?;
    Ok(Packet::Event { ack, name: Cow::Borrowed(event), args: vec![&argument] }.text())
}
