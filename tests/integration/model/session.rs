//! A connection: the wire, and what the server does for it in the order in which it is asked.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::{RawValue, to_raw_value};
use tidings::fanout::{Connection, Frame, JoinAck, JoinRequest, SendError, Since, Transport, outbox::Limits};
use tidings::model::{Position, UserId};
use tidings::sync::places::Places;
use tidings::sync::{Device, Place, SyncState};
use tokio::sync::{mpsc, oneshot};

use super::node::Node;
use super::ops::{DEVICES, Room};
use super::past::{Span, Tick};
use super::world::World;
use crate::support::channel;

/// Small, so that little is enough to fall behind; never stuck, because a test may be slow.
const LIMITS: Limits =
    Limits { bytes: 48 * 1024, room: 8 * 1024, stuck: std::time::Duration::from_secs(3600) };

/// What became of a connection, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Entry {
    /// A join begins.
    Joining(Room),
    /// It is acknowledged. `stored` says that the server chose where to continue.
    Joined { room: Room, since: Since, stored: bool, wants_snapshot: bool, ack: Box<JoinAck>, span: Span },
    /// A leave is acknowledged.
    Left(Room),
    /// The server ends the connection.
    Killed(Tick),
    /// Its end, whoever wanted it.
    Ended,
    /// A frame was taken by the transport.
    Frame { event: String, data: Box<RawValue> },
    /// An acknowledgement was taken or refused. The log was this long when it came.
    Acked { room: Room, position: Position, taken: bool, from: usize },
    /// A place is to be saved. The log was this long when it was looked up.
    Saved { room: Room, place: Place, from: usize },
    /// The server stored what the device's place was.
    Loaded { room: Room, place: Option<Place>, expected: Option<Place> },
}

/// The transport and what it took.
#[derive(Debug)]
pub(super) struct Wire {
    world: Arc<World>,
    log: Mutex<Vec<Entry>>,
    /// How many more frames are taken.
    capacity: AtomicUsize,
    killed: AtomicBool,
    broken: AtomicBool,
}

impl Wire {
    fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            log: Mutex::default(),
            capacity: AtomicUsize::new(usize::MAX),
            killed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, entry: Entry) {
        self.log().push(entry);
    }

    pub(super) fn set_capacity(&self, frames: Option<u8>) {
        self.capacity.store(frames.map_or(usize::MAX, usize::from), Ordering::Release);
    }
}

struct Far(Arc<Wire>);

impl Transport for Far {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let wire = &self.0;
        if wire.broken.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        let less =
            |capacity: usize| if capacity == usize::MAX { Some(capacity) } else { capacity.checked_sub(1) };
        wire.capacity.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).map_err(|_| SendError::Full)?;
        let (event, data) = match frame {
            Frame::Message(message, conflated) => {
                (message.event.as_str(), (*message.json_conflated(conflated)).to_owned())
            }
            Frame::Batch(batch) => {
                let messages: Vec<_> =
                    batch.iter().map(|(m, conflated)| m.json_conflated(*conflated)).collect();
                let messages: Vec<&RawValue> = messages.iter().map(AsRef::as_ref).collect();
                ("message:batch", to_raw_value(&messages).expect("messages are JSON"))
            }
            Frame::Reset(notice) => ("room:reset", notice.to_owned()),
        };
        wire.note(Entry::Frame { event: event.to_owned(), data });
        Ok(())
    }

    fn kill(&self) {
        self.0.note(Entry::Killed(self.0.world.tick()));
        self.0.killed.store(true, Ordering::Release);
    }
}

/// What a client asks, and when the server does something of its own.
#[derive(Debug)]
pub(super) enum Work {
    /// No `since`: where the device's place is.
    Join {
        room: Room,
        since: Option<Since>,
        batch: bool,
        snapshot: bool,
    },
    Leave(Room),
    Ack(Room, Position),
    Save,
    /// Answers when everything before it was done.
    Flush(oneshot::Sender<()>),
    /// The end, with or without a last save.
    End {
        save: bool,
        done: oneshot::Sender<()>,
    },
}

/// All sessions of this node, for those that want to know of others of their device.
pub(super) type Sessions = Arc<Mutex<Vec<Arc<Session>>>>;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) device: usize,
    pub(super) wire: Arc<Wire>,
    connection: Arc<Connection>,
    places: Mutex<Places>,
    rooms: Mutex<BTreeSet<Room>>,
    ended: AtomicBool,
    work: mpsc::UnboundedSender<Work>,
}

/// What a session's task needs.
struct Desk {
    session: Arc<Session>,
    node: Node,
    world: Arc<World>,
    sessions: Sessions,
}

impl Session {
    pub(super) fn start(node: &Node, world: &Arc<World>, sessions: &Sessions, device: usize) -> Arc<Self> {
        let wire = Wire::new(world);
        let (work, queue) = mpsc::unbounded_channel();
        let session = Arc::new(Self {
            device,
            connection: node.fanout.connect(Box::new(Far(wire.clone())), LIMITS),
            wire,
            places: Mutex::default(),
            rooms: Mutex::default(),
            ended: AtomicBool::new(false),
            work,
        });
        sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session.clone());
        let desk = Desk {
            session: session.clone(),
            node: node.clone(),
            world: world.clone(),
            sessions: sessions.clone(),
        };
        tokio::spawn(desk.work(queue));
        session
    }

    pub(super) fn ask(&self, work: Work) {
        // A session that has ended does not answer.
        let _ = self.work.send(work);
    }

    /// Ends it as the edge does: at once for the fan-out, and in order for what is saved. Nothing is taken by
    /// its transport any more.
    pub(super) async fn end(&self, save: bool) {
        self.wire.note(Entry::Ended);
        self.wire.broken.store(true, Ordering::Release);
        self.connection.close();
        self.ended.store(true, Ordering::Release);
        let (done, ended) = oneshot::channel();
        self.ask(Work::End { save, done });
        crate::support::in_time("a session ends", ended).await.expect("an answer");
    }

    /// Whether the server ended it.
    pub(super) fn is_killed(&self) -> bool {
        self.wire.killed.load(Ordering::Acquire)
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.ask(Work::Flush(done));
        crate::support::in_time("a session does what it was asked", flushed).await.expect("an answer");
    }

    /// The places that have changed, as they stand in the log.
    fn changed(&self) -> Vec<tidings::sync::Saved> {
        let (user, client) = DEVICES[self.device];
        let device =
            Device { user_id: Some(UserId::parse(user).expect("a user")), client_id: client.to_owned() };
        let from = self.wire.log().len();
        let written = self.connection.written();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = places.changed(&device, written);
        for saved in &changed {
            let (room, place) = (Room::of(saved.channel.as_str()), saved.place.clone());
            self.wire.note(Entry::Saved { room, place, from });
        }
        changed
    }
}

impl Desk {
    async fn work(self, mut queue: mpsc::UnboundedReceiver<Work>) {
        while let Some(work) = queue.recv().await {
            let ended = self.session.ended.load(Ordering::Acquire);
            match work {
                Work::Flush(done) => {
                    let _ = done.send(());
                }
                Work::End { save, done } => {
                    if save {
                        self.save(std::slice::from_ref(&self.session)).await;
                    }
                    let rooms = std::mem::take(&mut *self.rooms());
                    for room in rooms {
                        self.leave_fanout(room).await;
                    }
                    let mut all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                    all.retain(|session| !Arc::ptr_eq(session, &self.session));
                    drop(all);
                    let _ = done.send(());
                    return;
                }
                // What waits when the client goes is not done any more.
                _ if ended => {}
                Work::Join { room, since, batch, snapshot } => self.join(room, since, batch, snapshot).await,
                Work::Leave(room) => {
                    self.save(std::slice::from_ref(&self.session)).await;
                    self.rooms().remove(&room);
                    self.session
                        .places
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .forget(&channel(room.name()));
                    self.leave_fanout(room).await;
                    self.session.wire.note(Entry::Left(room));
                }
                Work::Ack(room, position) => self.acknowledge(room, position),
                Work::Save => self.save(std::slice::from_ref(&self.session)).await,
            }
        }
    }

    async fn join(&self, room: Room, since: Option<Since>, batch: bool, snapshot: bool) {
        let Self { session, node, world, .. } = self;
        self.rooms().insert(room);
        let (since, stored) = match since {
            Some(since) => (since, false),
            None => match self.stored_place(room).await {
                Some(place) => (Since::At(place), true),
                None => (Since::Now, false),
            },
        };
        session.wire.note(Entry::Joining(room));
        let request = JoinRequest { channel: channel(room.name()), since: since.clone(), batch, snapshot };
        let begin = world.tick();
        // The node may end meanwhile; its clients notice that by themselves.
        let Ok(mut joined) = node.fanout.prepare_join(&session.connection, request).await else { return };
        let span = Span { begin, end: world.tick() };
        if let (Since::At(place), true) = (&since, stored && joined.ack.recovered) {
            joined.ack.since = Some(place.clone());
        }
        let ack = Box::new(joined.ack.clone());
        session.wire.note(Entry::Joined { room, since, stored, wants_snapshot: snapshot, ack, span });
        node.fanout.finish_join(session.connection.clone(), joined);
    }

    /// The place of the device, after all its connections have told theirs.
    async fn stored_place(&self, room: Room) -> Option<Position> {
        let device = self.session.device;
        let own = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.iter().filter(|session| session.device == device).cloned().collect::<Vec<_>>()
        };
        self.save(&own).await;
        let (user, client) = DEVICES[device];
        let named = Device { user_id: UserId::parse(user).ok(), client_id: client.to_owned() };
        let known = self.world.places.lock().await;
        let place = self.node.sync.load(&named, &channel(room.name())).await.ok()?;
        let expected = known.load(device, room);
        drop(known);
        self.session.wire.note(Entry::Loaded { room, place: place.clone(), expected });
        place.map(|place| place.position)
    }

    async fn save(&self, sessions: &[Arc<Session>]) {
        let mut known = self.world.places.lock().await;
        let saved: Vec<_> = sessions.iter().flat_map(|session| session.changed()).collect();
        if self.node.sync.save(saved.clone()).await.is_ok() {
            known.save(&self.world, &saved);
        } else {
            for session in sessions {
                session.places.lock().unwrap_or_else(PoisonError::into_inner).unsaved();
            }
        }
    }

    fn acknowledge(&self, room: Room, position: Position) {
        let Session { wire, connection, places, .. } = &*self.session;
        let from = wire.log().len();
        let name = channel(room.name());
        let written = connection.written_of(&name);
        let taken = written.is_some_and(|written| Places::may_acknowledge(&written, &position));
        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
        if taken {
            places.acknowledge(&name, position.clone());
        }
        wire.note(Entry::Acked { room, position, taken, from });
    }

    async fn leave_fanout(&self, room: Room) {
        self.node.fanout.leave(&channel(room.name()), self.session.connection.id()).await;
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeSet<Room>> {
        self.session.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
