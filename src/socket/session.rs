//! A session: what one connected client asks for, done in the order in which it asked.
//!
//! Requests are queued while their packet is read and worked off by a task that lives only as long as there
//! is something to do: an idle connection has none.

mod device;
mod identity;
mod rooms;
mod trace;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tokio::sync::oneshot;

use super::acks::Acks;
use super::admission::Admitted;
use super::carriers::SessionLine;
use super::inbox::Tap;
use super::protocol::{Acknowledge, Handshake, Refusal, Request};
use super::reply::Reply;
use super::transport::SocketTransport;
use super::voice::Voice;
use super::{Edge, Greeting, greeting};
use crate::auth::Identity;
use crate::fanout::Connection;
use crate::fanout::outbox::Limits;
use crate::limits::Reason;
use crate::limits::pace::Act;
use crate::limits::rate::now_ns;
use crate::metrics;
use crate::model::{ChannelName, Incoming, UserId, now_ms};
use crate::presence::Arrival;
use crate::sync::Device;
use crate::sync::places::Places;

/// How many requests of one client may wait; more are refused.
const PENDING_REQUESTS: usize = 128;

/// One connected client.
#[derive(Debug)]
pub(super) struct Session {
    edge: Weak<Edge>,
    sid: Arc<str>,
    client_id: Arc<str>,
    user_id: Option<UserId>,
    // None where the client did not name itself: then there is nothing to recognise it by.
    device: Option<Device>,
    batch: bool,
    // None for who is nobody.
    tap: Option<Arc<Tap>>,
    inbox: bool,
    connection: Arc<Connection>,
    voice: Arc<Voice>,
    // None only where the library admitted without asking.
    admitted: Option<Arc<Admitted>>,
    id: Sid,
    // When it last said something, in seconds of `rate::now_ns`.
    heard_s: AtomicU32,
    state: Mutex<State>,
}

/// What a session has to do.
#[derive(Debug)]
enum Work {
    /// What its client asked for, or why it will not get it: refusals are answered in their order too.
    Request(Result<Request, Refusal>, &'static str, Reply),
    /// Bring its user's notifications.
    Inbox(ChannelName),
    /// See which of its rooms are still for it, because the rules have changed, and say whether that is known of all.
    Review(oneshot::Sender<bool>),
}

#[derive(Debug)]
struct State {
    // Changes when the client brings a newer token; its user never does.
    identity: Arc<Identity>,
    pending: VecDeque<Work>,
    working: bool,
    ended: bool,
    broke: bool,
    // Each once; few, as an outbox has them too.
    rooms: Vec<ChannelName>,
    places: Places,
}

impl State {
    fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            pending: VecDeque::new(),
            working: false,
            ended: false,
            broke: false,
            rooms: Vec::new(),
            places: Places::default(),
        }
    }

    fn enter(&mut self, room: &ChannelName) {
        if !self.rooms.contains(room) {
            self.rooms.push(room.clone());
        }
    }
}

impl Session {
    pub(super) fn start(
        edge: &Arc<Edge>,
        socket: &SocketRef,
        handshake: Handshake,
        identity: Arc<Identity>,
    ) -> Arc<Self> {
        let sid: Arc<str> = socket.id.as_str().into();
        let user_id = identity.user().cloned();
        let tap = user_id.clone().map(|user| {
            let channels = edge.parts.notifier.channels_of(&user);
            Arc::new(Tap::new(user, channels, sid.clone(), edge.parts.receipts.clone()))
        });
        let voice = Arc::new(Voice::new(socket.clone(), edge.carriers.clone()));
        let transport = SocketTransport {
            sid: socket.id,
            voice: voice.clone(),
            edge: Arc::downgrade(edge),
            acks: handshake.acks.then(Acks::default),
            tap: tap.clone(),
        };
        let limits = Limits { stuck: edge.options.write_deadline, ..Limits::default() };
        let device = handshake.client_id.clone();
        let device = device.map(|client_id| Device { user_id: user_id.clone(), client_id });
        let session = Arc::new(Self {
            edge: Arc::downgrade(edge),
            client_id: handshake.client_id.map_or_else(|| sid.clone(), Arc::from),
            sid,
            user_id,
            device,
            batch: handshake.batch,
            tap,
            voice,
            admitted: Admitted::of(socket),
            id: socket.id,
            heard_s: AtomicU32::new(now_s()),
            inbox: handshake.inbox,
            connection: edge.parts.fanout.connect(Box::new(transport), limits),
            state: Mutex::new(State::new(identity)),
        });
        edge.parts.presence.arrive(Arrival {
            connection_id: session.sid.clone(),
            client_id: session.client_id.clone(),
            user_id: session.user_id.clone(),
            connected_at_ms: now_ms(),
            line: Arc::new(SessionLine { edge: session.edge.clone(), socket: socket.clone() }),
        });
        session
    }

    /// Tells the client who it is here, and what holds; whether there is still somebody to tell.
    pub(super) fn greet(&self) -> bool {
        let Some(edge) = self.edge.upgrade() else { return false };
        let expires_at = self.identity().expires_at_ms();
        let address = self.admitted.as_ref().map(|admitted| admitted.address);
        let limits =
            greeting::Limits::of(&edge.options, &edge.parts.crowd.limits(), address, self.user_id.is_some());
        let (sid, client_id, user_id) = (&*self.sid, &*self.client_id, self.user_id.as_ref());
        let greeting = Greeting::new(&edge.options, sid, client_id, user_id, expires_at, limits);
        let greeted = self.voice.say_indirectly(|socket| socket.emit("connection:established", &greeting));
        // Its fence is on the way before the first room is joined.
        let greeted = greeted.and_then(|()| self.voice.flush());
        greeted.inspect_err(|error| tracing::debug!(sid = &*self.sid, ?error, "nobody was greeted")).is_ok()
    }

    /// Takes an event in its order.
    pub(super) fn enqueue(self: &Arc<Self>, event: &'static str, data: Option<Value>, reply: Reply) {
        self.heard_s.store(now_s(), Ordering::Relaxed);
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
        state.pending.push_back(Work::Request(request, event, reply));
        self.wake(state);
    }

    /// Brings the user's notifications before anything that the client asks for.
    pub(super) fn open_inbox(self: &Arc<Self>) {
        let tap = self.tap.iter().filter(|_| self.inbox);
        let channels = tap.flat_map(|tap| tap.channels().iter().cloned());
        let mut state = self.state();
        state.pending.extend(channels.map(Work::Inbox));
        if !state.pending.is_empty() {
            self.wake(state);
        }
    }

    /// Leaves those rooms that are not for it any more, after what its client asked for before; whether that is known of
    /// all of them.
    pub(super) async fn review_rooms(self: Arc<Self>) -> bool {
        let (done, reviewed) = oneshot::channel();
        {
            let mut state = self.state();
            if state.ended {
                return true;
            }
            state.pending.push_back(Work::Review(done));
            self.wake(state);
        }
        // A session that ends drops what waits, and is in no room.
        reviewed.await.unwrap_or(true)
    }

    /// What the library calls it.
    pub(super) fn id(&self) -> Sid {
        self.id
    }

    /// Whether it is in no room and has said nothing for so long.
    pub(super) fn is_idle(&self, timeout: Duration) -> bool {
        let silent_s = now_s().saturating_sub(self.heard_s.load(Ordering::Relaxed));
        if u64::from(silent_s) < timeout.as_secs().max(1) {
            return false;
        }
        let state = self.state();
        state.rooms.is_empty() && !state.working && !state.ended
    }

    /// Tells the client that it is about to be ended for that.
    pub(super) fn tell_idle(&self) {
        let notice = json!({ "code": Reason::Idle.code(), "message": Reason::Idle.detail(), "event": null });
        let told = self.voice.say_indirectly(|socket| socket.emit("error", &notice));
        if let Err(error) = told.and_then(|()| self.voice.flush()) {
            tracing::debug!(sid = &*self.sid, ?error, "an idle client could not be told that it is");
        }
    }

    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.working, true) {
            match self.edge.upgrade() {
                // The server waits for it at its end.
                Some(edge) => drop(edge.work.spawn(self.clone().work())),
                None => drop(tokio::spawn(self.clone().work())),
            }
        }
    }

    /// Ends the session: the client has gone; `broke` says that it was not its wish.
    pub(super) fn end(self: Arc<Self>, broke: bool) {
        self.connection.close();
        if let Some(edge) = self.edge.upgrade() {
            edge.parts.presence.depart(&self.sid);
        }
        let mut state = self.state();
        state.ended = true;
        state.broke = broke;
        state.pending.clear();
        self.wake(state);
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
                    // An idle connection keeps no room for what it may ask one day.
                    state.pending = VecDeque::new();
                    return;
                }
                (next, state.ended)
            };
            match next {
                Some(Work::Request(request, event, reply)) => {
                    let done = match request {
                        Ok(request) => self.act(&edge, request, &reply).await,
                        Err(refusal) => Err(refusal),
                    };
                    if let Err(refusal) = done {
                        reply.refuse(&self.voice, event, &refusal).await;
                    }
                }
                Some(Work::Inbox(channel)) => self.join_inbox(&edge, channel).await,
                Some(Work::Review(done)) => {
                    // Whoever asked may be gone.
                    let _ = done.send(self.leave_lost(&edge).await);
                }
                None if ended => break,
                None => {}
            }
        }
        edge.save(std::slice::from_ref(&self)).await;
        let rooms = std::mem::take(&mut self.state().rooms);
        for room in rooms {
            self.give_back(&room);
            edge.parts.fanout.leave(&room, self.connection.id()).await;
        }
        if let Some(tap) = self.tap.as_ref().filter(|_| self.state().broke) {
            // A peer that reads has answered a ping that was sent behind everything older than this.
            tap.broke(edge.options.heartbeat_interval + edge.options.heartbeat_timeout).await;
        }
    }

    async fn act(self: &Arc<Self>, edge: &Edge, request: Request, reply: &Reply) -> Result<(), Refusal> {
        match request {
            Request::Join(join) => self.join(edge, join, reply).await,
            Request::Leave(room) => {
                // Where it was is kept for the day on which it joins again.
                edge.save(std::slice::from_ref(self)).await;
                self.leave(edge, &room).await;
                reply.send(&self.voice, &json!({ "ok": true, "room": room })).await;
                Ok(())
            }
            Request::Acknowledge(Acknowledge { room, position }) => {
                self.acknowledge(edge, &room, position).await?;
                reply.send(&self.voice, &json!({ "ok": true })).await;
                Ok(())
            }
            Request::Publish(message) => self.publish(edge, *message, reply).await,
            Request::Refresh(token) => self.refresh(edge, &token, reply).await,
            // Answered at once, when it came.
            Request::Ping(_) => Ok(()),
        }
    }

    async fn publish(&self, edge: &Edge, message: Incoming, reply: &Reply) -> Result<(), Refusal> {
        if let Some(admitted) = &self.admitted {
            let paced = edge.parts.pace.take(Act::Publish, self.user_id.as_ref(), admitted.address, 1);
            paced.map_err(|wait| {
                let reason = Reason::PublishRate;
                let text =
                    format!("{}; the next one may come in {} ms", reason.detail(), wait.as_millis() + 1);
                Refusal::new(reason.code(), text)
            })?;
        }
        let (message, traced) = trace::begin(message);
        let published = edge.parts.publisher.publish_one(&self.identity(), message).await;
        traced.end(published.as_ref().err());
        let appended = published?;
        let position = appended.position;
        let placed =
            json!({ "ok": true, "id": appended.id, "epoch": position.epoch, "offset": position.offset });
        reply.send(&self.voice, &placed).await;
        Ok(())
    }

    /// Lets everything leave that its client was to get; whether it has.
    pub(super) fn settle(&self) -> bool {
        let idle = !self.state().working;
        self.connection.settle() && idle
    }

    /// Nothing more of its rooms is brought to its client.
    pub(super) fn silence(&self) {
        self.connection.close();
    }

    /// What speaks to its client.
    pub(super) fn voice(&self) -> &Voice {
        &self.voice
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_s() -> u32 {
    u32::try_from(now_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

fn pong(reply: &Reply, t: Option<Value>) {
    let mut pong = json!({ "serverTime": now_ms() });
    if let (Some(t), Some(object)) = (t, pong.as_object_mut()) {
        object.insert("t".to_owned(), t);
    }
    reply.emit_now("heartbeat:pong", &pong);
}
