//! Runs a story: against the server and against the model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use tempfile::TempDir;
use tidings::broker::{Broker, BrokerError};
use tidings::fanout::Since;
use tidings::model::{Epoch, Position};
use tidings::store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::Client;
use super::node::{Node, group, leave_behind, row};
use super::ops::{Acked, DEVICES, End, Op, Publish, Room, Want};
use super::past::{News, Past, Sent, Span};
use super::session::{Session, Sessions, Work};
use super::view::View;
use super::world::{Checked, World};
use crate::support::stored::age;
use crate::support::{channel, forget, in_time};

/// A device and what its client knows.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// The connection that its client has.
    pub(super) session: Option<Arc<Session>>,
    client: Client,
    /// Those that it has given up and of which the server does not know.
    pub(super) late: Vec<Arc<Session>>,
    /// Where it was when it last read.
    seen: BTreeMap<Room, Position>,
}

pub(super) struct Run {
    dir: TempDir,
    pub(super) node: Node,
    broker: watch::Sender<Node>,
    pub(super) world: Arc<World>,
    pub(super) sessions: Sessions,
    pub(super) owners: Vec<Owner>,
    publishing: Vec<JoinHandle<()>>,
    /// Every connection since the last rest, and those that are open.
    pub(super) views: Vec<(Arc<Session>, View)>,
    sent: HashMap<Room, Vec<Sent>>,
    serial: u64,
    attempt: u32,
}

impl Run {
    pub(super) async fn begin(world: &Arc<World>) -> Self {
        let dir = TempDir::new().expect("a directory");
        let node = Node::open(dir.path()).await;
        for room in Room::ALL {
            let epoch = node.broker.top(&channel(room.name())).await.expect("a top").position.epoch;
            world.pasts().insert(room, vec![Past::new(room, epoch, world.tick(), None)]);
        }
        Self {
            dir,
            broker: watch::Sender::new(node.clone()),
            node,
            world: world.clone(),
            sessions: Sessions::default(),
            owners: DEVICES.iter().map(|_| Owner::default()).collect(),
            publishing: Vec::new(),
            views: Vec::new(),
            sent: HashMap::new(),
            serial: 0,
            attempt: 1,
        }
    }

    pub(super) async fn tell(mut self, story: &[Op]) -> Checked {
        for op in story {
            self.step(*op).await?;
        }
        self.settle().await?;
        let own: Vec<_> = self.views.iter().map(|(session, _)| session.clone()).collect();
        for session in own {
            session.end(true).await;
        }
        self.node.clone().end().await;
        // Nothing came after all had come to rest.
        self.check()
    }

    async fn step(&mut self, op: Op) -> Checked {
        match op {
            Op::Publish(publish) => self.publish(publish).await,
            Op::Join { device, room, want, batch, snapshot, wait } => {
                self.owners[device].read()?;
                let since = self.since(device, room, want);
                let session = self.session(device);
                session.ask(Work::Join { room, since, batch, snapshot });
                if wait {
                    session.flush().await;
                }
            }
            Op::Leave { device, room } => self.session(device).ask(Work::Leave(room)),
            Op::Pace { device, frames } => self.session(device).wire.set_capacity(frames),
            Op::Read { device } => self.owners[device].read()?,
            Op::Ack { device, room, what } => self.acknowledge(device, room, what),
            Op::Save { device } => self.session(device).ask(Work::Save),
            Op::Break { device, read } => {
                if read {
                    self.owners[device].read()?;
                }
                if let Some(session) = self.owners[device].session.take() {
                    session.end(true).await;
                }
            }
            Op::Return { device } => {
                let owner = &mut self.owners[device];
                owner.late.extend(owner.session.take());
                self.session(device);
            }
            Op::Late { device } => {
                if !self.owners[device].late.is_empty() {
                    self.owners[device].late.remove(0).end(true).await;
                }
            }
            Op::Age { room, keep } => self.age(room, keep).await,
            Op::Retain => {
                in_time("retention", self.node.broker.retain()).await.expect("retention works");
            }
            Op::Forget { room, n } => self.forget(room, n).await?,
            Op::Restart(end) => self.restart(end).await?,
            Op::Settle => self.settle().await?,
        }
        Ok(())
    }

    /// The connection of a device, which comes back if it has none or if it was ended.
    fn session(&mut self, device: usize) -> Arc<Session> {
        let owner = &mut self.owners[device];
        if let Some(session) = owner.session.take_if(|session| session.is_killed()) {
            owner.late.push(session);
        }
        if let Some(session) = &owner.session {
            return session.clone();
        }
        let session = Session::start(&self.node, &self.world, &self.sessions, device);
        owner.client = Client::default();
        owner.session = Some(session.clone());
        self.views.push((session.clone(), View::default()));
        session
    }

    fn since(&self, device: usize, room: Room, want: Want) -> Option<Since> {
        let seen = self.owners[device].seen.get(&room);
        Some(match (want, seen) {
            (Want::Now, _) => Since::Now,
            (Want::Stored, _) => return None,
            (Want::Start, _) | (Want::Seen | Want::Before(_), None) => Since::Start,
            (Want::Seen, Some(seen)) => Since::At(seen.clone()),
            (Want::Before(n), Some(seen)) => {
                let offset = seen.offset.saturating_sub(n.into());
                Since::At(Position { epoch: seen.epoch.clone(), offset })
            }
            (Want::OtherEpoch(n), _) => {
                Since::At(Position { epoch: Epoch::new("another"), offset: n.into() })
            }
            (Want::Beyond(n), _) => {
                let Position { epoch, offset } = self.world.top(room);
                Since::At(Position { epoch, offset: offset + u64::from(n) })
            }
        })
    }

    fn acknowledge(&mut self, device: usize, room: Room, what: Acked) {
        let seen = &self.owners[device].seen;
        // Any room that it knows is better than none.
        let known = seen.get_key_value(&room).or_else(|| seen.first_key_value());
        let Some((room, Position { epoch, offset })) = known.map(|(room, at)| (*room, at.clone())) else {
            return;
        };
        let (epoch, offset) = match what {
            Acked::Seen => (epoch, offset),
            Acked::Older(n) => (epoch, offset.saturating_sub(n.into())),
            Acked::Beyond(n) => (epoch, offset + u64::from(n)),
            Acked::OtherEpoch => (Epoch::new("another"), offset),
        };
        self.session(device).ask(Work::Ack(room, Position { epoch, offset }));
    }

    /// The messages of one call.
    fn draft(&mut self, Publish { room, n, large, priority, mix, repeat, .. }: Publish) -> Vec<Sent> {
        let mut drafts = Vec::new();
        for i in 0..n {
            self.serial += 1;
            let (id, serial) = (format!("m{}", self.serial), self.serial);
            let turn = mix.wrapping_add(i);
            let (event, key, news) = match room {
                Room::Keyed if turn % 4 != 3 => ("custom:state", Some(format!("k{}", turn % 3)), None),
                Room::Test => self.news(turn),
                _ => ("custom:test", None, None),
            };
            let fresh = Sent { id, serial, key, event, priority, large, news };
            let before = self.sent.entry(room).or_default();
            let known = repeat.filter(|_| i == 0 && !before.is_empty()).map(usize::from);
            let known = known.map(|back| before[before.len() - 1 - back % before.len()].clone());
            let sent = known.map_or(fresh, |known| Sent { serial, ..known });
            before.push(sent.clone());
            drafts.push(sent);
        }
        drafts
    }

    fn news(&mut self, turn: u8) -> (&'static str, Option<String>, Option<News>) {
        match turn % 16 {
            0 | 1 => {
                self.attempt += 1;
                ("test:started", None, Some(News::Started { attempt: self.attempt }))
            }
            2..=4 => ("test:log", None, Some(News::Log)),
            5 => ("test:completed", None, Some(News::Completed)),
            6 => ("custom:test", None, None),
            // Of an attempt that may have ended.
            7 => ("test:started", None, Some(News::Started { attempt: self.attempt })),
            _ => ("test:progress", Some("t".to_owned()), Some(News::Progress(turn % 100))),
        }
    }

    pub(super) async fn publish(&mut self, publish: Publish) {
        let (room, drafts, world) = (publish.room, self.draft(publish), self.world.clone());
        let mut nodes = self.broker.subscribe();
        let begin = world.tick();
        let publishing = tokio::spawn(async move {
            loop {
                let node = nodes.borrow_and_update().clone();
                let groups = drafts.iter().map(|sent| group(room, sent)).collect();
                match node.broker.append(groups).await {
                    Ok(results) => {
                        let span = Span { begin, end: world.tick() };
                        return world.answered(room, drafts, results, span);
                    }
                    // Without history an id is not known again: it would be sent twice.
                    Err(error) if is_closed(&error) && room.is_lossy() => return,
                    // The server has ended: the same again when it is back.
                    Err(error) if is_closed(&error) => {
                        world.try_one("sent again to the next server");
                        drop(node);
                        nodes.changed().await.expect("there is always a next one");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        if publish.wait {
            in_time("a publisher is answered", publishing).await.expect("no panic");
        } else {
            self.publishing.push(publishing);
        }
    }

    /// Waits until no publisher waits, and understands what was answered.
    pub(super) async fn published(&mut self) -> Checked {
        for publishing in self.publishing.drain(..) {
            in_time("a publisher is answered", publishing).await.expect("no panic");
        }
        self.world.understand()
    }

    async fn age(&mut self, room: Room, keep: u8) {
        let begin = self.world.tick();
        let aged = self.node.store.write(move |tx| {
            tx.merge_places()?;
            let find = "SELECT top FROM channel WHERE name = ?1";
            let top: u64 = tx.conn().query_row(find, [room.name()], |row| row.get(0))?;
            let upto = top.saturating_sub(keep.into());
            age(tx.conn(), room.name(), upto).map(|()| upto)
        });
        let upto = in_time("messages age", aged).await.expect("the store is open");
        let span = Span { begin, end: self.world.tick() };
        self.world.current(room, |past| past.aged.push((upto, span)));
    }

    /// What retention does to a channel of which nothing is left for a month; then it begins anew.
    async fn forget(&mut self, room: Room, n: u8) -> Checked {
        for (session, _) in &self.views {
            if self.is_open(session) {
                session.flush().await;
            }
        }
        self.published().await?;
        let places = self.world.places.lock().await;
        let forget = self.node.store.write(move |tx| forget(tx, room.name()));
        in_time("a channel is forgotten", forget).await.expect("the store is open");
        let begin = self.world.tick();
        let epoch = self.node.broker.top(&channel(room.name())).await.expect("a top").position.epoch;
        prop_assert!(epoch != self.world.epoch(room), "a channel that begins anew has another epoch");
        let base = self.world.current(room, |past| past.test_at(past.top()));
        let past = Past::new(room, epoch, begin, base.map_err(|at| TestCaseError::fail(format!("{at}")))?);
        self.world.pasts().get_mut(&room).expect("a room").push(past);
        drop(places);
        // Who listens hears of it with the next message; the first of these is never refused.
        let (large, priority, mix, repeat, wait) = (false, 0, 6, None, true);
        self.publish(Publish { room, n, large, priority, mix, repeat, wait }).await;
        self.world.understand()
    }

    pub(super) fn is_open(&self, session: &Arc<Session>) -> bool {
        let all = self.sessions.lock().expect("no panic");
        all.iter().any(|open| Arc::ptr_eq(open, session))
    }

    async fn restart(&mut self, end: End) -> Checked {
        let loses = matches!(end, End::HostDown { .. });
        if loses {
            // What was answered then is lost with the host; what was not, nobody knows.
            self.published().await?;
        }
        if !loses {
            // Somebody is in the middle of it.
            let (room, large, priority, mix, repeat, wait) = (Room::Plain, true, 0, 0, None, false);
            self.publish(Publish { room, n: 20, large, priority, mix, repeat, wait }).await;
        }
        for owner in &mut self.owners {
            owner.read()?;
            for session in owner.session.take().into_iter().chain(owner.late.drain(..)) {
                session.end(end == End::Clean).await;
            }
        }
        self.node.clone().end().await;
        leave_behind(self.dir.path(), end);
        let node = Node::open(self.dir.path()).await;
        for room in Room::ALL {
            let (position, floor) = row(&node, room).await;
            let stays = position.epoch == self.world.epoch(room);
            prop_assert_eq!(stays, !loses, "the epoch of {:?} after {:?}", room, end);
            if loses {
                let begin = self.world.tick();
                let mut past = self.world.current(room, |past| past.clone());
                past.messages.retain(|offset, _| *offset <= position.offset);
                past.aged.iter_mut().for_each(|(upto, _)| *upto = position.offset.min(*upto));
                (past.epoch, past.floor, past.begin) = (position.epoch, floor, begin);
                self.world.pasts().get_mut(&room).expect("a room").push(past);
            }
        }
        self.node = node.clone();
        self.broker.send_replace(node);
        Ok(())
    }
}

impl Owner {
    pub(super) fn read(&mut self) -> Checked {
        let Some(session) = &self.session else { return Ok(()) };
        self.client.read(&session.wire, &mut self.seen)
    }
}

/// Whether the server has ended.
fn is_closed(error: &BrokerError) -> bool {
    let BrokerError::Unavailable(cause) = error else { return false };
    matches!(cause.downcast(), Some(StoreError::Closed))
}
