//! The link: keeps one connection for commands open, and says whether it is.
//!
//! A task of its own looks at the connection once a second, and at once when a command failed, and makes it anew
//! when it does not answer. Between two tries it waits longer each time, by a random part, so that many servers
//! do not come back all at once.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionLike as _;
use ::redis::{Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Connection, Incarnation, RedisFault, RedisOptions, Status};
use crate::metrics;
use crate::tasks::Tasks;

/// The pause between two looks at a connection that works.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause after the first failed try; it doubles with each one.
const PAUSE_FIRST: Duration = Duration::from_millis(25);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a command waits for a connection that is just being made.
const GRACE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    status: watch::Receiver<Status>,
    suspicion: Arc<Notify>,
}

#[derive(Debug, Clone)]
enum State {
    Up(Connection),
    Down(RedisFault),
}

impl Link {
    /// Connects within `patience`, then keeps connected.
    pub(super) async fn start(
        options: &RedisOptions,
        patience: Duration,
        tasks: &Tasks,
    ) -> Result<Self, RedisFault> {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new();
        let (connection, incarnation) = loop {
            match Connection::dial(options).await {
                Ok(made) => break made,
                Err(fault) if fault.is_lasting() || Instant::now() >= deadline => return Err(fault),
                Err(_) => backoff.wait().await,
            }
        };
        let (state, state_seen) = watch::channel(State::Up(connection.clone()));
        let (status, status_seen) = watch::channel(Status::Up(incarnation));
        let suspicion = Arc::new(Notify::new());
        let keeper = Keeper { options: options.clone(), state, status, suspicion: suspicion.clone() };
        tasks.spawn("redis-link", keeper.run(connection));
        Ok(Self { state: state_seen, status: status_seen, suspicion })
    }

    /// The connection; while there is none, after a short wait, why.
    pub(super) async fn connection(&self) -> Result<Connection, RedisFault> {
        let fault = match &*self.state.borrow() {
            State::Up(connection) => return Ok(connection.clone()),
            State::Down(fault) => fault.clone(),
        };
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up(_)));
        match tokio::time::timeout(GRACE, up).await {
            Ok(Ok(state)) => match &*state {
                State::Up(connection) => Ok(connection.clone()),
                State::Down(fault) => Err(fault.clone()),
            },
            Ok(Err(_)) => Err(RedisFault::Away("this server is going away".to_owned())),
            Err(_) => Err(fault),
        }
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Has the connection looked at now.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }
}

struct Keeper {
    options: RedisOptions,
    state: watch::Sender<State>,
    status: watch::Sender<Status>,
    suspicion: Arc<Notify>,
}

impl Keeper {
    async fn run(self, mut connection: Connection) {
        loop {
            let fault = self.watch(connection).await;
            tracing::warn!(%fault, redis = %self.options.url, "the connection to Redis is lost; making it anew");
            self.tell(State::Down(fault.clone()), Status::Down(fault));
            let (made, incarnation) = self.make_anew().await;
            tracing::info!(redis = %self.options.url, "connected to Redis again");
            metrics::broker_reconnected();
            connection = made;
            self.tell(State::Up(connection.clone()), Status::Up(incarnation));
        }
    }

    /// Returns when the connection does not work any more.
    async fn watch(&self, mut connection: Connection) -> RedisFault {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.suspicion.notified() => {}
            }
            if let Err(fault) = look(&mut connection).await {
                return fault;
            }
        }
    }

    async fn make_anew(&self) -> (Connection, Incarnation) {
        let mut backoff = Backoff::new();
        let mut told = None;
        loop {
            match Connection::dial(&self.options).await {
                Ok(made) => return made,
                Err(fault) => {
                    if told.as_ref() != Some(&fault) {
                        tracing::warn!(%fault, redis = %self.options.url, "no connection to Redis yet");
                        self.tell(State::Down(fault.clone()), Status::Down(fault.clone()));
                        told = Some(fault);
                    }
                }
            }
            backoff.wait().await;
        }
    }

    fn tell(&self, state: State, status: Status) {
        self.state.send_replace(state);
        self.status.send_replace(status);
    }
}

/// Whether the connection answers, and the server behind it still takes changes.
async fn look(connection: &mut Connection) -> Result<(), RedisFault> {
    let fault = |error| RedisFault::of(&error);
    match connection {
        // Which node a cluster's connection would ask says little of the others; it looks after them by itself.
        Connection::Cluster(cluster) => {
            cluster.req_packed_command(&cmd("PING")).await.map(drop).map_err(fault)
        }
        Connection::Single(single) => {
            let role = single.req_packed_command(&cmd("ROLE")).await.map_err(fault)?;
            let role = first_of(role)?;
            if role == "master" {
                Ok(())
            } else {
                Err(RedisFault::ReadOnly(format!("the server has become a {role}")))
            }
        }
    }
}

/// What a `ROLE` begins with.
fn first_of(answer: Value) -> Result<String, RedisFault> {
    let first = match answer.extract_error().map_err(|error| RedisFault::of(&error))? {
        Value::Array(parts) => parts.into_iter().next().unwrap_or(Value::Nil),
        other => other,
    };
    ::redis::from_redis_value(first).map_err(|error| RedisFault::unreadable(&error))
}

/// Pauses that grow, with a random part.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.next.mul_f64(0.5 + fastrand::f64() * 0.5)).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
    }
}
