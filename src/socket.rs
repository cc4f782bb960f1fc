//! The Socket.IO edge: stock clients in, rooms and messages out (protocol v5 over polling and WebSocket).
//!
//! `protocol` reads what clients send, `session` acts on it in order, `transport` writes, `inbox` sees what a
//! user's devices got, `line` ends what has to be ended, `slim` keeps idle connections small.

mod inbox;
mod line;
mod protocol;
mod reply;
mod session;
mod slim;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide::{ParserConfig, SocketIo};

use crate::config::channels::Rules;
use crate::fanout::Fanout;
use crate::listener::KillSwitch;
use crate::notify::Notifier;
use crate::notify::receipts::Receipts;
use crate::presence::Presence;
use crate::publish::Publisher;
use line::Lines;
use protocol::{Handshake, Refusal, Request};
use reply::Reply;
use session::Session;

pub use slim::SlimService;

/// The most packets that wait in one socket's own queue; what does not fit waits in its outbox, which can
/// conflate it.
const SOCKET_QUEUE: usize = 256;
/// What a frame may have beside a message's data.
const ENVELOPE_BYTES: usize = 8 * 1024;

/// How the edge behaves.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// The name of this node, for people.
    pub node: String,
    /// How often the server pings.
    pub heartbeat_interval: Duration,
    /// How long it waits for the answer.
    pub heartbeat_timeout: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Rooms of one connection.
    pub rooms_per_connection: usize,
    /// Bytes of a message's data.
    pub message_bytes: usize,
}

/// What the edge needs of the rest of the server.
#[derive(Debug, Clone)]
pub struct SocketState {
    /// Brings messages to connections.
    pub fanout: Arc<Fanout>,
    /// The door for messages.
    pub publisher: Publisher,
    /// Which channels exist.
    pub rules: Arc<Rules>,
    /// Who is there.
    pub presence: Arc<dyn Presence>,
    /// Knows what waits for a user who connects.
    pub notifier: Notifier,
    /// Takes note of what users' devices got.
    pub receipts: Receipts,
}

/// What sessions work with.
#[derive(Debug)]
struct Edge {
    options: SocketOptions,
    fanout: Arc<Fanout>,
    publisher: Publisher,
    rules: Arc<Rules>,
    presence: Arc<dyn Presence>,
    notifier: Notifier,
    receipts: Receipts,
    lines: Lines,
    // Sessions live here and nowhere else: a socket's handlers hold weak references, or the two would keep
    // each other for ever.
    sessions: Mutex<HashMap<Sid, Arc<Session>>>,
}

/// Wraps `inner` so that `/socket.io/` is served by the edge and everything else by `inner`.
pub fn serve<S: Clone>(
    options: SocketOptions,
    state: SocketState,
    inner: S,
) -> SlimService<socketioxide::service::SocketIoService<S>> {
    let frame_bytes = options.message_bytes + ENVELOPE_BYTES;
    let (service, io) = SocketIo::builder()
        .ping_interval(options.heartbeat_interval)
        .ping_timeout(options.heartbeat_timeout)
        .max_buffer_size(SOCKET_QUEUE)
        .max_payload(frame_bytes as u64)
        .ws_read_buffer_size(512)
        .ws_max_message_size(frame_bytes)
        .ws_max_frame_size(frame_bytes)
        .connect_timeout(Duration::from_secs(10))
        .with_parser(ParserConfig::common().max_incoming_binaries(0))
        .build_with_inner_svc(inner);
    let lines = Lines::default();
    let SocketState { fanout, publisher, rules, presence, notifier, receipts } = state;
    let edge = Arc::new(Edge {
        options,
        fanout,
        publisher,
        rules,
        presence,
        notifier,
        receipts,
        lines: lines.clone(),
        sessions: Mutex::new(HashMap::new()),
    });
    let (admit, connect) = (edge.clone(), edge);
    let handler = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        // Registered here and now: what arrives before an event has its handler is lost without a word.
        connect.clone().connect(&socket, auth.ok());
        async {}
    };
    let admission = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let admitted = admit.admit(&socket, auth.ok());
        async move { admitted }
    };
    io.ns("/", handler.with(admission));
    SlimService::new(service, lines)
}

impl Edge {
    /// Decides about a handshake; a refusal reaches the client as `connect_error`.
    fn admit(&self, socket: &SocketRef, auth: Option<Value>) -> Result<(), Refusal> {
        Handshake::parse(auth)?;
        if self.sessions().len() >= self.options.connections {
            crate::metrics::rejected("limit");
            let limit = self.options.connections;
            tracing::warn!(limit, sid = %socket.id, "a connection was refused: the server has as many as it may");
            return Err(Refusal::new(
                "too_many_connections",
                format!("the server has its {limit} connections"),
            ));
        }
        Ok(())
    }

    fn connect(self: Arc<Self>, socket: &SocketRef, auth: Option<Value>) {
        // Admitted before, so it can be read.
        let handshake = Handshake::parse(auth).unwrap_or_default();
        let switch = socket.req_parts().extensions.get::<KillSwitch>().cloned();
        self.lines.open(socket.id.as_str(), socket.transport_type(), switch);
        let session = Session::start(&self, socket, handshake);
        self.sessions().insert(socket.id, session.clone());
        for event in Request::EVENTS {
            let weak = Arc::downgrade(&session);
            // The closure's body runs while the packet is read, so requests are queued in their order.
            socket.on(event, move |reply: Reply, TryData(data): TryData<Value>| {
                if let Some(session) = weak.upgrade() {
                    session.enqueue(event, data.ok(), reply);
                }
                async {}
            });
        }
        let edge = Arc::downgrade(&self);
        socket.on_disconnect(move |socket: SocketRef, reason: DisconnectReason| {
            if let Some(edge) = edge.upgrade() {
                edge.lines.close(socket.id.as_str());
                // Only who says goodbye has read what was written before.
                let parted = [DisconnectReason::ClientNSDisconnect, DisconnectReason::TransportClose]
                    .contains(&reason);
                edge.forget(socket.id, !parted);
            }
            async {}
        });
        if !socket.connected() {
            // Gone before it could be heard to go.
            self.lines.close(socket.id.as_str());
            return self.forget(socket.id, true);
        }
        session.greet(socket);
        session.open_inbox();
    }

    /// Ends a client that may or may not know of it: what carries it, and its session.
    fn end(&self, socket: &SocketRef) {
        self.lines.end(socket.id.as_str());
        self.forget(socket.id, true);
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

    fn sessions(&self) -> MutexGuard<'_, HashMap<Sid, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
