//! A session: what one connected client asks for, done in the order in which it asked.
//!
//! Requests are queued while their packet is read and worked off by a task that lives only as long as there
//! is something to do: an idle connection has none.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::header::SEC_WEBSOCKET_KEY;
use serde_json::{Value, json};
use socketioxide::extract::SocketRef;

use super::places::Places;
use super::protocol::{Acknowledge, Handshake, Join, Refusal, Request};
use super::reply::Reply;
use super::transport::SocketTransport;
use super::{Edge, SocketOptions};
use crate::fanout::outbox::Limits;
use crate::fanout::{Connection, JoinRequest, Since};
use crate::listener::KillSwitch;
use crate::metrics;
use crate::model::{ChannelName, Incoming, Position, UserId, now_ms};
use crate::sync::{Device, Saved};

/// How many requests of one client may wait; more are refused.
const PENDING_REQUESTS: usize = 128;

/// One connected client.
#[derive(Debug)]
pub(super) struct Session {
    edge: Weak<Edge>,
    sid: String,
    client_id: String,
    user_id: Option<UserId>,
    // None where the client did not name itself: then there is nothing to recognise it by.
    device: Option<Device>,
    batch: bool,
    connection: Arc<Connection>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // With the refusals, which are answered in their order too.
    pending: VecDeque<(Result<Request, Refusal>, &'static str, Reply)>,
    working: bool,
    ended: bool,
    rooms: BTreeSet<ChannelName>,
    places: Places,
}

impl Session {
    pub(super) fn start(edge: &Arc<Edge>, socket: &SocketRef, handshake: Handshake) -> Arc<Self> {
        let began = socket.req_parts();
        // A connection that polling began on may be that of a proxy, who has others on it.
        let alone = began.headers.contains_key(SEC_WEBSOCKET_KEY);
        let kill = began.extensions.get::<KillSwitch>().filter(|_| alone).cloned();
        let carriers = edge.carriers.clone();
        let transport = SocketTransport::new(socket.clone(), kill, carriers, handshake.acks);
        let sid = socket.id.to_string();
        let limits = Limits { stuck: edge.options.write_deadline, ..Limits::default() };
        let device = handshake.client_id.clone();
        let device = device.map(|client_id| Device { user_id: handshake.user_id.clone(), client_id });
        Arc::new(Self {
            edge: Arc::downgrade(edge),
            client_id: handshake.client_id.unwrap_or_else(|| sid.clone()),
            sid,
            user_id: handshake.user_id,
            device,
            batch: handshake.batch,
            connection: edge.parts.fanout.connect(Box::new(transport), limits),
            state: Mutex::default(),
        })
    }

    /// Tells the client who it is here, and what holds; whether there is still somebody to tell.
    pub(super) fn greet(&self, socket: &SocketRef) -> bool {
        let Some(edge) = self.edge.upgrade() else { return false };
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
        let greeted = socket.emit("connection:established", &greeting);
        greeted.inspect_err(|error| tracing::debug!(sid = self.sid, %error, "nobody was greeted")).is_ok()
    }

    /// Takes an event in its order.
    pub(super) fn enqueue(self: &Arc<Self>, event: &'static str, data: Option<Value>, reply: Reply) {
        let request = Request::parse(event, data);
        match &request {
            Ok(Request::Ping(t)) => return pong(&reply, t.clone()),
            Ok(_) => {}
            Err(_) => metrics::rejected("invalid"),
        }
        let mut state = self.state();
        if state.ended {
            return;
        }
        if state.pending.len() >= PENDING_REQUESTS {
            drop(state);
            metrics::rejected("limit");
            let text = format!("{PENDING_REQUESTS} requests of this connection wait already");
            return reply.refuse_now(event, &Refusal::new("too_many_requests", text));
        }
        state.pending.push_back((request, event, reply));
        if !std::mem::replace(&mut state.working, true) {
            tokio::spawn(self.clone().work());
        }
    }

    /// Ends the session: the client has gone.
    pub(super) fn end(self: Arc<Self>) {
        self.connection.close();
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
                    let done = match request {
                        Ok(request) => self.act(&edge, request, &reply).await,
                        Err(refusal) => Err(refusal),
                    };
                    if let Err(refusal) = done {
                        reply.refuse(event, &refusal).await;
                    }
                }
                None if ended => break,
                None => {}
            }
        }
        edge.save(std::slice::from_ref(&self)).await;
        let rooms = std::mem::take(&mut self.state().rooms);
        for room in rooms {
            edge.parts.fanout.leave(&room, self.connection.id()).await;
        }
    }

    async fn act(self: &Arc<Self>, edge: &Edge, request: Request, reply: &Reply) -> Result<(), Refusal> {
        match request {
            Request::Join(join) => self.join(edge, join, reply).await,
            Request::Leave(room) => {
                // Where it was is kept for the day on which it joins again.
                edge.save(std::slice::from_ref(self)).await;
                self.forget(&room);
                edge.parts.fanout.leave(&room, self.connection.id()).await;
                reply.send(&json!({ "ok": true, "room": room })).await;
                Ok(())
            }
            Request::Acknowledge(Acknowledge { room, position }) => {
                self.acknowledge(&room, position)?;
                reply.send(&json!({ "ok": true })).await;
                Ok(())
            }
            Request::Publish(message) => self.publish(edge, *message, reply).await,
            // Answered at once, when it came.
            Request::Ping(_) => Ok(()),
        }
    }

    async fn join(&self, edge: &Edge, join: Join, reply: &Reply) -> Result<(), Refusal> {
        let Join { room, since, batch, snapshot } = join;
        if edge.parts.rules.resolve(room.as_str()).is_none() {
            metrics::rejected("unknown_channel");
            return Err(Refusal::new(
                "unknown_channel",
                format!("no channel of this server is called `{room}`"),
            ));
        }
        self.count_room(edge, &room)?;
        let (since, stored) = match since {
            Some(since) => (since, None),
            None => match self.stored_place(edge, &room).await {
                Some(place) => (Since::At(place.clone()), Some(place)),
                None => (Since::Now, None),
            },
        };
        let batch = batch.unwrap_or(self.batch);
        let request = JoinRequest { channel: room.clone(), since, batch, snapshot };
        let mut joined = match edge.parts.fanout.prepare_join(&self.connection, request).await {
            Ok(joined) => joined,
            Err(error) => {
                self.forget(&room);
                return Err(error.into());
            }
        };
        joined.ack.since = stored.filter(|_| joined.ack.recovered);
        // Before the first message of the room, which is handed over next.
        reply.send(&joined.ack).await;
        // A long replay must not keep this client's other requests waiting.
        edge.parts.fanout.finish_join(self.connection.clone(), joined);
        Ok(())
    }

    /// Where the client's device is, if it named one and something is stored of it.
    async fn stored_place(&self, edge: &Edge, room: &ChannelName) -> Option<Position> {
        let device = self.device.as_ref()?;
        edge.save_device(device).await;
        match edge.parts.sync.load(device, room).await {
            Ok(place) => place.map(|place| place.position),
            Err(error) => {
                // Live messages are worth more than none; the acknowledgement shows where they begin.
                tracing::warn!(%error, "the place of a device could not be read");
                None
            }
        }
    }

    /// Notes that the client processed everything of `room` up to `position`.
    fn acknowledge(&self, room: &ChannelName, position: Position) -> Result<(), Refusal> {
        let written = self.connection.written_of(room);
        let Some(written) = written else {
            return Err(Refusal::new("not_joined", format!("this connection is not in `{room}`")));
        };
        if position.epoch != written.epoch || position.offset > written.offset {
            let text = format!("`{room}` was sent up to {written}, and {position} lies beyond that");
            return Err(Refusal::new("never_sent", text));
        }
        self.state().places.acknowledge(room, position);
        Ok(())
    }

    pub(super) fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The places of the device that have changed since they were last asked for.
    pub(super) fn changed_places(&self) -> Vec<Saved> {
        let Some(device) = &self.device else { return Vec::new() };
        let written = self.connection.written();
        self.state().places.changed(device, written)
    }

    /// They could not be saved.
    pub(super) fn places_unsaved(&self) {
        self.state().places.unsaved();
    }

    fn forget(&self, room: &ChannelName) {
        let mut state = self.state();
        state.rooms.remove(room);
        state.places.forget(room);
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
        let results = edge.parts.publisher.publish(vec![message]).await;
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
