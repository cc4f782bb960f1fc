//! Rest: everything that is on its way arrives, and is compared with the model.

use std::sync::Arc;
use std::time::Duration;

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use tidings::broker::Broker;
use tidings::model::{Position, UserId};
use tidings::sync::{Device, SyncState};
use tokio::time::Instant;

use super::ops::{DEVICES, Publish, Room};
use super::past::{Span, same_state};
use super::run::Run;
use super::session::Work;
use super::world::Checked;
use crate::support::{ALL, channel};

/// Everything comes to rest within this.
const REST: Duration = Duration::from_secs(10);

impl Run {
    /// Checks what every connection was sent so far.
    pub(super) fn check(&mut self) -> Checked {
        for (session, view) in &mut self.views {
            view.advance(&session.wire, &self.world).map_err(|error| {
                TestCaseError::fail(format!("{error}\non a connection of {:?}", DEVICES[session.device]))
            })?;
        }
        Ok(())
    }

    /// Lets everything come to rest, and compares.
    pub(super) async fn settle(&mut self) -> Checked {
        for (session, _) in &self.views {
            session.wire.set_capacity(None);
        }
        self.published().await?;
        for (session, _) in &self.views {
            if self.is_open(session) {
                session.flush().await;
            }
        }
        let began = Instant::now();
        let mut sentinel = began + Duration::from_millis(50);
        loop {
            self.check()?;
            let waits = self.unfinished();
            if waits.is_empty() {
                break;
            }
            prop_assert!(began.elapsed() < REST, "not within {:?}: {:#?}", REST, waits);
            if waits.iter().any(|(_, room, _)| room.is_lossy()) && Instant::now() > sentinel {
                // What a lossy channel dropped is told by nothing but its next message.
                let (large, priority, mix, repeat, wait) = (false, 3, 0, None, true);
                self.publish(Publish { room: Room::Lossy, n: 1, large, priority, mix, repeat, wait }).await;
                self.world.understand()?;
                sentinel = Instant::now() + Duration::from_millis(50);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.at_rest().await
    }

    /// What has not come to rest: the device, the room, and where it is.
    fn unfinished(&self) -> Vec<(usize, Room, Position)> {
        let open = self.views.iter().filter(|(session, _)| self.is_open(session) && !session.is_killed());
        let rooms = open.flat_map(|(session, view)| {
            view.rooms().map(|(room, at, waits)| (session.device, room, at.clone(), waits))
        });
        let behind = rooms.filter(|(_, room, at, waits)| *waits || self.world.top(*room) != *at);
        behind.map(|(device, room, at, _)| (device, room, at)).collect()
    }

    async fn at_rest(&mut self) -> Checked {
        let mut ended = Vec::new();
        for (session, view) in &self.views {
            if session.is_killed() {
                if self.is_open(session) {
                    ended.push(session.clone());
                }
            } else if self.is_open(session) {
                view.rest()?;
                session.ask(Work::Save);
                session.flush().await;
            }
        }
        self.check()?;
        for session in ended {
            session.end(true).await;
        }
        for owner in &mut self.owners {
            owner.session.take_if(|session| session.is_killed());
            owner.late.retain(|session| !session.is_killed());
            owner.read()?;
        }
        self.check()?;
        self.compare_places().await?;
        self.compare_channels().await?;
        let sessions = self.sessions.lock().expect("no panic").clone();
        self.views.retain(|(session, _)| sessions.iter().any(|open| Arc::ptr_eq(open, session)));
        Ok(())
    }

    /// Every place is the one that the saves made, and none that was saved is missing.
    async fn compare_places(&self) -> Checked {
        let stored = self.world.places.lock().await;
        for (session, view) in self.views.iter().filter(|(session, _)| self.is_open(session)) {
            for (room, basis, position) in view.places() {
                if self.world.epoch(room) == position.epoch {
                    let known = stored.of(session.device, room, basis);
                    let covered =
                        known.is_some_and(|at| at.epoch == position.epoch && at.offset >= position.offset);
                    prop_assert!(covered, "{:?} {} of {:?} is stored as {:?}", basis, position, room, known);
                }
            }
        }
        for (device, (user, client)) in DEVICES.into_iter().enumerate() {
            let named = Device { user_id: UserId::parse(user).ok(), client_id: client.to_owned() };
            for room in Room::ALL {
                let place = self.node.sync.load(&named, &channel(room.name())).await.expect("a look");
                prop_assert_eq!(place, stored.load(device, room), "{:?} in {:?}", DEVICES[device], room);
            }
        }
        Ok(())
    }

    /// The store holds what the model holds.
    async fn compare_channels(&self) -> Checked {
        for room in Room::ALL {
            let name = channel(room.name());
            let top = self.node.broker.top(&name).await.expect("a top");
            let page = self.node.broker.history(&name, 0, ALL).await.expect("a page");
            let read: Vec<_> = page.messages.iter().map(|m| (m.position.offset, serial(m))).collect();
            let past = self.world.current(room, |past| past.clone());
            let lossy = room.is_lossy();
            prop_assert!(lossy || top.position.offset == past.top(), "{:?}: {}", room, top.position);
            prop_assert_eq!(&top.position.epoch, &past.epoch, "{:?}", room);
            let now = Span { begin: u64::MAX, end: u64::MAX };
            let oldest = if lossy { u64::MAX } else { past.oldest(now, past.top()).0 };
            let expected = past.messages.range(oldest..).map(|(offset, _)| *offset);
            prop_assert!(read.iter().map(|(offset, _)| *offset).eq(expected), "{:?}: {:?}", room, read);
            for (offset, serial) in read {
                prop_assert!(past.messages[&offset].serials.contains(&serial), "{:?} {}", room, offset);
            }
            let state = if room == Room::Test { past.test_at(past.top()) } else { Ok(None) };
            let same = state.is_ok_and(|state| same_state(state, top.snapshot.as_ref()));
            prop_assert!(same, "{:?} against {:?}", top, state);
        }
        Ok(())
    }
}

fn serial(message: &tidings::model::Published) -> u64 {
    crate::support::read(message)["data"]["serial"].as_u64().expect("a number")
}
