//! Following rooms: stays connected, continues where it was, and checks that nothing is missing.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::{Joined, Since};
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::client::{Authority, ClientError};
use tidings::model::Message;
use tidings::tasks::Tasks;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

/// The pauses between tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How much waits for whoever listens to a task.
const WAITING: usize = 64;

/// What a follower hears.
#[derive(Debug)]
pub(crate) enum News {
    /// A room was joined, or joined again.
    Joined(Box<Joined>),
    /// The next message of a room: none is missing before it.
    Message(Box<Message>),
    /// What follows in this room does not continue what came before.
    Reset(Value),
    /// The connection is lost; the follower tries again by itself.
    Lost(ClientError),
}

/// What a follower saw so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) messages: u64,
    pub(crate) duplicates: u64,
    pub(crate) gaps: u64,
    pub(crate) resets: u64,
}

/// Follows rooms of one server.
pub(crate) struct Follower {
    url: String,
    token: Option<String>,
    authority: Option<Authority>,
    rooms: Vec<String>,
    since: Since,
    receiver: Receiver,
    socket: Option<SocketClient>,
    waiting: VecDeque<News>,
    pause: Duration,
    // Whether this connection brought a message.
    fruitful: bool,
    rest: bool,
    delivery: Delivery,
}

impl Follower {
    pub(crate) fn new(url: &str, token: Option<String>, rooms: Vec<String>, since: Since) -> Self {
        Self {
            url: url.to_owned(),
            token,
            authority: None,
            rooms,
            since,
            receiver: Receiver::new(),
            socket: None,
            waiting: VecDeque::new(),
            pause: FIRST_PAUSE,
            fruitful: false,
            rest: false,
            delivery: Delivery::default(),
        }
    }

    /// The same, where `authority` signed the server's certificate.
    pub(crate) fn trusting(mut self, authority: Option<Authority>) -> Self {
        self.authority = authority;
        self
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Follows one more room, from what comes next on, or from the beginning of its history.
    pub(crate) async fn join(&mut self, room: &str, since: Since) -> Result<(), ClientError> {
        if let Some(socket) = &mut self.socket {
            let joined = socket.join(room, since.clone()).await?;
            self.receiver.joined(&since, &joined);
            self.waiting.push_back(News::Joined(Box::new(joined)));
        }
        if !self.rooms.iter().any(|known| known == room) {
            self.rooms.push(room.to_owned());
        }
        Ok(())
    }

    /// Follows a room no more; whether it was followed.
    pub(crate) async fn leave(&mut self, room: &str) -> Result<bool, ClientError> {
        let known = self.rooms.len();
        self.rooms.retain(|joined| joined != room);
        if known == self.rooms.len() {
            return Ok(false);
        }
        if let Some(socket) = &mut self.socket {
            socket.leave(room).await?;
            self.receiver.left(room);
        }
        Ok(true)
    }

    /// How long the server takes to answer; nothing while there is no connection.
    pub(crate) async fn ping(&mut self) -> Result<Option<Duration>, ClientError> {
        match &mut self.socket {
            Some(socket) => Ok(Some(socket.ping().await?)),
            None => Ok(None),
        }
    }

    /// The rooms that are followed.
    pub(crate) fn rooms(&self) -> &[String] {
        &self.rooms
    }

    /// The next news. An error is one that trying again does not mend. Whoever drops this before it is done breaks off
    /// what it was at, be it a connection or a pause: who waits for other things, too, lets it run in an [`Aside`].
    pub(crate) async fn next(&mut self) -> Result<News, ClientError> {
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return Ok(news);
            }
            let Some(socket) = &mut self.socket else {
                if std::mem::take(&mut self.rest) {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                if let Err(error) = self.connect().await {
                    if matches!(
                        error,
                        ClientError::Rejected { .. }
                            | ClientError::Refused { .. }
                            | ClientError::Url { .. }
                            | ClientError::Distrusted { .. }
                    ) {
                        return Err(error);
                    }
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    return Ok(News::Lost(error));
                }
                continue;
            };
            match socket.next().await {
                Some(Ok(event)) => self.hear(&event.name, &event.data).map_err(|error| {
                    ClientError::Json { what: format!("the event {}", event.name), reason: error.to_string() }
                })?,
                Some(Err(error)) => {
                    self.socket = None;
                    return Ok(News::Lost(error));
                }
                None => {
                    self.socket = None;
                    return Ok(News::Lost(ClientError::Closed));
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let options = ConnectOptions {
            token: self.token.clone(),
            authority: self.authority.clone(),
            ..ConnectOptions::default()
        };
        let mut socket = SocketClient::connect(&self.url, options).await?;
        for room in &self.rooms {
            let known = self.receiver.position(room).cloned();
            let since = known.map_or_else(|| self.since.clone(), Since::After);
            let joined = socket.join(room, since.clone()).await?;
            self.receiver.joined(&since, &joined);
            self.waiting.push_back(News::Joined(Box::new(joined)));
        }
        self.socket = Some(socket);
        self.fruitful = false;
        self.pause = FIRST_PAUSE;
        Ok(())
    }

    fn hear(&mut self, name: &str, data: &RawValue) -> serde_json::Result<()> {
        if name == "room:reset" {
            self.delivery.resets += 1;
            self.waiting.push_back(News::Reset(serde_json::from_str(data.get())?));
        }
        for received in self.receiver.receive(name, data)? {
            match received.verdict {
                Verdict::Deliver => {
                    self.delivery.messages += 1;
                    self.fruitful = true;
                    let message = serde_json::from_str(received.message.get())?;
                    self.waiting.push_back(News::Message(Box::new(message)));
                }
                Verdict::Duplicate => self.delivery.duplicates += 1,
                Verdict::NotJoined => {}
                Verdict::Gap { .. } | Verdict::OtherEpoch => {
                    // What is missing is in the history: come back and ask for it.
                    self.delivery.gaps += 1;
                    self.socket = None;
                    // A gap that is there again, although it was asked for, does not close by haste.
                    self.rest = !self.fruitful;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A task of its own that tells what it finds, until this is dropped. What waits for the next of it may be dropped at any
/// time.
pub(crate) struct Aside<T> {
    told: mpsc::Receiver<T>,
    _stop: DropGuard,
}

impl<T> Aside<T> {
    pub(crate) fn start<F>(name: &str, task: impl FnOnce(mpsc::Sender<T>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, told) = mpsc::channel(WAITING);
        let tasks = Tasks::new();
        let stop = tasks.stopping().clone().drop_guard();
        tasks.spawn(name, task(tell));
        Self { told, _stop: stop }
    }

    /// None once the task has ended.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.told.recv().await
    }
}
