//! A session: what one connected client asks for, done in the order in which it asked.
//!
//! Requests are queued while their packet is read and worked off by a task that lives only as long as there
//! is something to do: an idle connection has none.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};
use socketioxide::extract::SocketRef;

use super::line::SessionLine;
use super::protocol::{Handshake, Join, Refusal, Request};
use super::reply::Reply;
use super::transport::SocketTransport;
use super::{Edge, SocketOptions};
use crate::fanout::outbox::Limits;
use crate::fanout::{Connection, JoinRequest};
use crate::metrics;
use crate::model::{ChannelName, Incoming, UserId, now_ms};
use crate::presence::Arrival;

/// How many requests of one client may wait; more are refused.
const PENDING_REQUESTS: usize = 128;

/// One connected client.
#[derive(Debug)]
pub(super) struct Session {
    edge: Weak<Edge>,
    sid: String,
    client_id: String,
    user_id: Option<UserId>,
    batch: bool,
    connection: Arc<Connection>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<(Request, &'static str, Reply)>,
    working: bool,
    ended: bool,
    rooms: BTreeSet<ChannelName>,
}

impl Session {
    pub(super) fn start(edge: &Arc<Edge>, socket: &SocketRef, handshake: Handshake) -> Arc<Self> {
        let transport = SocketTransport { socket: socket.clone(), lines: edge.lines.clone() };
        let sid = socket.id.to_string();
        let session = Arc::new(Self {
            edge: Arc::downgrade(edge),
            client_id: handshake.client_id.unwrap_or_else(|| sid.clone()),
            sid,
            user_id: handshake.user_id,
            batch: handshake.batch,
            connection: edge.fanout.connect(Box::new(transport), Limits::default()),
            state: Mutex::default(),
        });
        edge.presence.arrive(Arrival {
            connection_id: session.sid.clone(),
            client_id: session.client_id.clone(),
            user_id: session.user_id.clone(),
            connected_at_ms: now_ms(),
            line: Arc::new(SessionLine { edge: session.edge.clone(), socket: socket.clone() }),
        });
        session
    }

    /// Tells the client who it is here, and what holds.
    pub(super) fn greet(&self, socket: &SocketRef) {
        let Some(edge) = self.edge.upgrade() else { return };
        let SocketOptions { node, heartbeat_interval, heartbeat_timeout, .. } = &edge.options;
        let greeting = json!({
            "connectionId": self.sid,
            "clientId": self.client_id,
            "userId": self.user_id,
            "node": node,
            "serverTime": now_ms(),
            "heartbeat": {
                "intervalMs": heartbeat_interval.as_millis(),
                "timeoutMs": heartbeat_timeout.as_millis(),
            },
            "limits": {
                "roomsPerConnection": edge.options.rooms_per_connection,
                "messageBytes": edge.options.message_bytes,
            },
        });
        let mut greeting = greeting;
        if self.user_id.is_none()
            && let Some(object) = greeting.as_object_mut()
        {
            object.remove("userId");
        }
        if let Err(error) = socket.emit("connection:established", &greeting) {
            tracing::debug!(sid = self.sid, %error, "the greeting could not be sent");
        }
    }

    /// Takes an event in its order.
    pub(super) fn enqueue(self: &Arc<Self>, event: &'static str, data: Option<Value>, reply: Reply) {
        let request = match Request::parse(event, data) {
            Ok(Request::Ping(t)) => return pong(&reply, t),
            Ok(request) => request,
            Err(refusal) => {
                metrics::rejected("invalid");
                return spawn_refusal(reply, event, refusal);
            }
        };
        let mut state = self.state();
        if state.ended {
            return;
        }
        if state.pending.len() >= PENDING_REQUESTS {
            drop(state);
            metrics::rejected("limit");
            let text = format!("{PENDING_REQUESTS} requests of this connection wait already");
            return spawn_refusal(reply, event, Refusal::new("too_many_requests", text));
        }
        state.pending.push_back((request, event, reply));
        if !std::mem::replace(&mut state.working, true) {
            tokio::spawn(self.clone().work());
        }
    }

    /// Ends the session: the client has gone.
    pub(super) fn end(self: Arc<Self>) {
        self.connection.close();
        if let Some(edge) = self.edge.upgrade() {
            edge.presence.depart(&self.sid);
        }
        let mut state = self.state();
        state.ended = true;
        state.pending.clear();
        if !std::mem::replace(&mut state.working, true) {
            drop(state);
            tokio::spawn(self.work());
        }
    }

    /// Works off what waits, and leaves all rooms once the session has ended.
    async fn work(self: Arc<Self>) {
        let Some(edge) = self.edge.upgrade() else { return };
        loop {
            let (next, ended) = {
                let mut state = self.state();
                let next = state.pending.pop_front();
                if next.is_none() && !state.ended {
                    state.working = false;
                    return;
                }
                (next, state.ended)
            };
            match next {
                Some((request, event, reply)) => {
                    if let Err(refusal) = self.act(&edge, request, &reply).await {
                        reply.refuse(event, &refusal).await;
                    }
                }
                None if ended => break,
                None => {}
            }
        }
        let rooms = std::mem::take(&mut self.state().rooms);
        for room in rooms {
            edge.fanout.leave(&room, self.connection.id()).await;
        }
    }

    async fn act(&self, edge: &Edge, request: Request, reply: &Reply) -> Result<(), Refusal> {
        match request {
            Request::Join(join) => self.join(edge, join, reply).await,
            Request::Leave(room) => {
                self.leave(edge, &room).await;
                reply.send(&json!({ "ok": true, "room": room })).await;
                Ok(())
            }
            Request::Publish(message) => self.publish(edge, *message, reply).await,
            // Answered at once, when it came.
            Request::Ping(_) => Ok(()),
        }
    }

    async fn join(&self, edge: &Edge, join: Join, reply: &Reply) -> Result<(), Refusal> {
        let Join { room, since, batch, snapshot } = join;
        if edge.rules.resolve(room.as_str()).is_none() {
            metrics::rejected("unknown_channel");
            return Err(Refusal::new(
                "unknown_channel",
                format!("no channel of this server is called `{room}`"),
            ));
        }
        self.count_room(edge, &room)?;
        let batch = batch.unwrap_or(self.batch);
        let request = JoinRequest { channel: room.clone(), since, batch, snapshot };
        let joined = match edge.fanout.prepare_join(&self.connection, request).await {
            Ok(joined) => joined,
            Err(error) => {
                self.leave(edge, &room).await;
                return Err(error.into());
            }
        };
        edge.presence.enter(&self.sid, &room);
        // Before the first message of the room, which this task hands over next.
        reply.send(&joined.ack).await;
        if let Err(error) = edge.fanout.complete_join(&self.connection, joined).await {
            tracing::warn!(sid = self.sid, %room, %error, "a join broke off; the client has to join again");
            self.leave(edge, &room).await;
            reply.emit_now(
                "error",
                &json!({ "code": "unavailable", "message": error.to_string(), "event": "room:join" }),
            );
        }
        Ok(())
    }

    async fn leave(&self, edge: &Edge, room: &ChannelName) {
        self.state().rooms.remove(room);
        edge.presence.leave(&self.sid, room);
        edge.fanout.leave(room, self.connection.id()).await;
    }

    fn count_room(&self, edge: &Edge, room: &ChannelName) -> Result<(), Refusal> {
        let limit = edge.options.rooms_per_connection;
        let mut state = self.state();
        if !state.rooms.contains(room) && state.rooms.len() >= limit {
            metrics::rejected("limit");
            let text = format!("a connection may be in {limit} rooms; leave one first");
            return Err(Refusal::new("too_many_rooms", text));
        }
        state.rooms.insert(room.clone());
        Ok(())
    }

    async fn publish(&self, edge: &Edge, mut message: Incoming, reply: &Reply) -> Result<(), Refusal> {
        // Who speaks is known from the connection; a message may name somebody only where it is not.
        if let Some(user) = &self.user_id {
            message.user_id.get_or_insert_with(|| user.clone());
        }
        let results = edge.publisher.publish(vec![message]).await;
        let Some(result) = results.into_iter().next() else { return Ok(()) };
        let appended = result?;
        let position = appended.position;
        reply
            .send(
                &json!({ "ok": true, "id": appended.id, "epoch": position.epoch, "offset": position.offset }),
            )
            .await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pong(reply: &Reply, t: Option<Value>) {
    let mut pong = json!({ "serverTime": now_ms() });
    if let (Some(t), Some(object)) = (t, pong.as_object_mut()) {
        object.insert("t".to_owned(), t);
    }
    reply.emit_now("heartbeat:pong", &pong);
}

/// Refusals of what cannot even be queued; bounded by the socket's own reading.
fn spawn_refusal(reply: Reply, event: &'static str, refusal: Refusal) {
    tokio::spawn(async move { reply.refuse(event, &refusal).await });
}
