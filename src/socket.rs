//! The Socket.IO edge: stock clients in, rooms and messages out (protocol v5 over polling and WebSocket).
//!
//! `protocol` reads what clients send, `session` acts on it in order, `transport` writes, `inbox` sees what a
//! user's devices got, `slim` keeps idle connections small, `carriers` knows how to end a session, `farewell` ends all of
//! them with the server.

mod acks;
mod admission;
mod carriers;
mod farewell;
mod greeting;
mod inbox;
mod intake;
mod packet;
mod protocol;
mod reply;
mod session;
mod slim;
mod transport;
mod voice;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide::{ParserConfig, SocketIo};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::origin::Origins;
use crate::auth::{Auth, AuthError, Identity, Rights, Watched};
use crate::config::live::Live;
use crate::config::settings::Limits;
use crate::fanout::Fanout;
use crate::limits::crowd::Crowd;
use crate::limits::pace::Pace;
use crate::limits::{Reason, met};
use crate::notify::Notifier;
use crate::notify::receipts::Receipts;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::quota::Quota;
use crate::sync::{Device, Saved, SyncState};
use crate::tasks::Tasks;
use carriers::Carriers;
use intake::Intake;
use protocol::Handshake;
use session::Session;

pub use farewell::Clients;
pub use greeting::Greeting;
pub use slim::SlimService;

/// The most packets that wait in one socket's own queue; what does not fit waits in its outbox, which can
/// conflate it.
const SOCKET_QUEUE: usize = 256;
/// How often those are looked for that have nothing to do here.
const LOOK: Duration = Duration::from_secs(1);

/// So many sessions are looked at at once when the rules have changed.
const REVIEWED_AT_ONCE: usize = 64;

/// What was said last has so long to be read before the connection is cut.
const FAREWELL: Duration = Duration::from_millis(500);

/// How the edge behaves.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// The name of this node, for people.
    pub node: String,
    /// How often the server pings.
    pub heartbeat_interval: Duration,
    /// How long it waits for the answer.
    pub heartbeat_timeout: Duration,
    /// Rooms of one connection.
    pub rooms_per_connection: usize,
    /// Bytes of a message's data.
    pub message_bytes: usize,
    /// How long a session may be without its namespace.
    pub connect_timeout: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_deadline: Duration,
    /// How often the places of devices are saved.
    pub save_every: Duration,
}

/// What the edge stands on.
pub struct SocketParts {
    /// Brings messages to connections.
    pub fanout: Arc<Fanout>,
    /// The door for messages.
    pub publisher: Publisher,
    /// Who callers are.
    pub auth: Arc<Auth>,
    /// What they may do.
    pub rights: Rights,
    /// Which pages may ask.
    pub origins: Live<Origins>,
    /// The places of devices.
    pub sync: Arc<dyn SyncState>,
    /// Who is there.
    pub presence: Arc<dyn Presence>,
    /// Knows what waits for a user who connects.
    pub notifier: Notifier,
    /// Takes note of what users' devices got.
    pub receipts: Receipts,
    /// Counts sessions, and knows the limits.
    pub crowd: Arc<Crowd>,
    /// Measures what is published.
    pub pace: Arc<Pace>,
    /// Counts what users have.
    pub quota: Arc<Quota>,
}

impl std::fmt::Debug for SocketParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketParts").field("fanout", &self.fanout).finish_non_exhaustive()
    }
}

/// What sessions work with.
#[derive(Debug)]
struct Edge {
    options: SocketOptions,
    parts: SocketParts,
    // Sessions live here and nowhere else: a socket's handlers hold weak references, or the two would keep
    // each other for ever.
    sessions: Mutex<HashMap<Sid, Arc<Session>>>,
    carriers: Arc<Carriers>,
    // What sessions do for their clients, and after them.
    work: TaskTracker,
    // Everybody has been sent away; who comes all the same is, too.
    closed: AtomicBool,
}

/// Wraps `inner` so that `/socket.io/` is served by the edge and everything else by `inner`. The clients are for whoever
/// ends the server.
pub fn serve<S: Clone>(
    options: SocketOptions,
    parts: SocketParts,
    inner: S,
    tasks: &Tasks,
) -> (SlimService<socketioxide::service::SocketIoService<S>>, Clients) {
    let frame_bytes = Limits::frame_bytes(options.message_bytes);
    let (service, io) = SocketIo::builder()
        .ping_interval(options.heartbeat_interval)
        .ping_timeout(options.heartbeat_timeout)
        .max_buffer_size(SOCKET_QUEUE)
        .max_payload(frame_bytes as u64)
        .ws_read_buffer_size(512)
        .ws_max_message_size(frame_bytes)
        .ws_max_frame_size(frame_bytes)
        .connect_timeout(options.connect_timeout)
        .with_parser(ParserConfig::common().max_incoming_binaries(0))
        .build_with_inner_svc(inner);
    let (carriers, crowd) = (Arc::<Carriers>::default(), parts.crowd.clone());
    let origins = parts.origins.clone();
    let edge = Arc::new(Edge {
        options,
        parts,
        sessions: Mutex::default(),
        carriers: carriers.clone(),
        work: TaskTracker::new(),
        closed: AtomicBool::new(false),
    });
    let clients = Clients(edge.clone());
    let watched: Arc<dyn Watched> = edge.clone();
    edge.parts.auth.watch(&watched);
    tasks.spawn("sessions", edge.clone().watch());
    tasks.spawn_draining("sync-state", edge.clone().save_places(tasks.stopping().clone()));
    let (admit, connect) = (edge.clone(), edge);
    let handler = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        connect.clone().connect(&socket, auth.ok());
        async {}
    };
    let admission = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let edge = admit.clone();
        // What cannot be read is not taken for nothing: it is refused, as what is no object.
        let auth = auth.unwrap_or(Value::Bool(false));
        async move { edge.admit(&socket, Some(auth)).await }
    };
    io.ns("/", handler.with(admission));
    (SlimService::new(service, carriers, crowd, origins), clients)
}

impl Watched for Edge {
    fn review(&self, judge: &dyn Fn(&Identity) -> Option<AuthError>) -> Option<i64> {
        let sessions: Vec<(Sid, Arc<Session>)> =
            self.sessions().iter().map(|(sid, session)| (*sid, session.clone())).collect();
        let mut next = None;
        for (sid, session) in sessions {
            let identity = session.identity();
            match judge(&identity) {
                Some(error) => self.dismiss(sid, &session, &error),
                None => next = next.into_iter().chain(identity.expires_at_ms()).min(),
            }
        }
        next
    }

    fn review_rooms(self: Arc<Self>) -> BoxFuture<'static, bool> {
        let sessions: Vec<Arc<Session>> = self.sessions().values().cloned().collect();
        let reviewed = stream::iter(sessions).map(Session::review_rooms).buffer_unordered(REVIEWED_AT_ONCE);
        reviewed.fold(true, |all, is_known| std::future::ready(all && is_known)).boxed()
    }
}

/// Reads what a client asks with `event` as a session does, and forgets it; the error is the code of the refusal. For
/// `tests/fuzz`, which has no connection.
pub fn read_request(event: &str, data: Option<Value>) -> Result<(), &'static str> {
    protocol::Request::parse(event, data).map(drop).map_err(|refusal| refusal.code)
}

/// The same with the `auth` of a handshake.
pub fn read_handshake(auth: Option<Value>) -> Result<(), &'static str> {
    Handshake::parse(auth).map(drop).map_err(|refusal| refusal.code)
}

impl Edge {
    fn connect(self: Arc<Self>, socket: &SocketRef, auth: Option<Value>) {
        // Admitted before, so it can be read, and it is known who it is.
        let handshake = Handshake::parse(auth).unwrap_or_default();
        let Some(identity) = socket.extensions.remove::<Arc<Identity>>() else { return };
        let began = socket.req_parts();
        self.carriers.open(socket.id, &began.headers, &began.extensions);
        let session = Session::start(&self, socket, handshake, identity);
        self.sessions().insert(socket.id, session.clone());
        self.parts.auth.note(&session.identity());
        let edge = Arc::downgrade(&self);
        socket.on_disconnect(move |socket: SocketRef, reason: DisconnectReason| {
            if let Some(edge) = edge.upgrade() {
                // The library tells so of sessions that were ended long before, too.
                if reason == DisconnectReason::HeartbeatTimeout && edge.has(socket.id) {
                    met(Reason::Heartbeat);
                }
                // Only who says goodbye has read what was written before.
                let parted = [DisconnectReason::ClientNSDisconnect, DisconnectReason::TransportClose]
                    .contains(&reason);
                if reason == DisconnectReason::ClientNSDisconnect {
                    edge.forget(socket.id, false);
                    edge.carriers.part(socket.id);
                } else {
                    edge.disconnected(socket.id, !parted);
                }
            }
            async {}
        });
        // Who went away before the handler of that was there is told of by nobody else.
        if !session.greet() {
            return self.disconnected(socket.id, true);
        }
        // Whoever was shut out while they were let in.
        if let Some(error) = self.parts.auth.judge(&session.identity()) {
            return self.dismiss(socket.id, &session, &error);
        }
        session.open_inbox();
        // Admitted before, so it has an intake.
        if let Some(intake) = Intake::of(socket) {
            intake.open(&session);
        }
        if self.closed.load(Ordering::Acquire) {
            self.end(socket.id);
        }
    }

    fn disconnected(&self, sid: Sid, broke: bool) {
        self.carriers.forget(sid);
        self.forget(sid, broke);
    }

    /// Ends those that have nothing to do here, for ever: sessions that are in no room and silent, and those that left
    /// their namespace and did not come back, which the library would keep for as long as their clients like.
    async fn watch(self: Arc<Self>) {
        let SocketOptions { heartbeat_interval, heartbeat_timeout, connect_timeout, .. } = self.options;
        let mut told: Vec<Arc<Session>> = Vec::new();
        loop {
            let timeout = self.parts.crowd.limits().idle_timeout;
            tokio::time::sleep((timeout / 4).min(connect_timeout / 4).min(LOOK)).await;
            for session in told.drain(..).filter(|session| session.is_idle(timeout)) {
                met(Reason::Idle);
                self.end(session.id());
            }
            let sessions = self.sessions();
            told.extend(sessions.values().filter(|session| session.is_idle(timeout)).cloned());
            drop(sessions);
            told.iter().for_each(|session| session.tell_idle());
            for _ in 0..self.carriers.end_parted(connect_timeout, heartbeat_interval + heartbeat_timeout) {
                met(Reason::Timeout);
            }
        }
    }

    /// Ends a client that may or may not know of it: what carries it, and its session.
    fn end(&self, sid: Sid) {
        self.carriers.end(sid);
        self.forget(sid, true);
    }

    /// Ends a client that may not stay, after telling it why. It is a transport that ends, and not the namespace: stock
    /// clients then come back by themselves, with a newer token if they have one, and are else refused.
    fn dismiss(&self, sid: Sid, session: &Session, error: &AuthError) {
        tracing::info!(%sid, code = error.code(), "a connection ends: its client may not stay");
        session.say_farewell(error);
        // From now on nothing is sent, and nothing it sends is taken.
        self.forget(sid, true);
        let carriers = self.carriers.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            carriers.end(sid);
        });
    }

    /// Ends a session, if it has not ended before; `broke` says that it was not the client's wish.
    fn forget(&self, sid: Sid, broke: bool) {
        let session = self.sessions().remove(&sid);
        if let Some(session) = session {
            session.end(broke);
        }
    }

    fn has(&self, sid: Sid) -> bool {
        self.sessions().contains_key(&sid)
    }

    /// Saves the places of all devices now and then, and a last time when the server stops.
    async fn save_places(self: Arc<Self>, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.options.save_every) => {}
                () = stopping.cancelled() => {}
            }
            let sessions: Vec<Arc<Session>> = self.sessions().values().cloned().collect();
            self.save(&sessions).await;
        }
    }

    /// Saves the places of other connections of the same device, so that a new one goes on where they are.
    async fn save_device(&self, device: &Device) {
        let of_device = |session: &&Arc<Session>| session.device() == Some(device);
        let sessions: Vec<Arc<Session>> = self.sessions().values().filter(of_device).cloned().collect();
        self.save(&sessions).await;
    }

    async fn save(&self, sessions: &[Arc<Session>]) {
        let places: Vec<Saved> = sessions.iter().flat_map(|session| session.changed_places()).collect();
        if let Err(error) = self.parts.sync.save(places).await {
            tracing::warn!(%error, "places of devices could not be saved; trying again");
            sessions.iter().for_each(|session| session.places_unsaved());
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Sid, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
