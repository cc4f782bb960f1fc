//! The journal: what of the local table is not written to Redis yet.
//!
//! It says what changed, not how: what is written is what holds when it is written, but for users, each of whose
//! changes is told. So it is no longer than what is there now and what went since; and where even that is too
//! much, because Redis is away, everything is written anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::table::{Change, Table};
use super::super::{Arrival, Line, Present};
use crate::model::{ChannelName, UserId, now_ms};

/// So many connections may be unwritten; beyond, all are written anew.
const UNWRITTEN: usize = 65_536;
/// How many changes, users, rooms, places and connections go into one batch at most, each: others wait for Redis no
/// longer than these take.
const BATCH: usize = 256;

/// The table of this node, and what of it is not written yet.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) table: Table,
    users: BTreeSet<UserId>,
    rooms: BTreeSet<ChannelName>,
    // Of nobody in particular: all connections in the room.
    places: BTreeSet<(ChannelName, Option<UserId>)>,
    connections: BTreeSet<Arc<str>>,
    too_much: bool,
    generation: u64,
}

/// A connection that is there.
pub(super) type Here = (Present, Arc<dyn Line>);

/// A part of what is not written yet, as it is now.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Users' connections and since when, in the order of the changes.
    pub(super) users: Vec<(UserId, usize, i64)>,
    /// Rooms' connections.
    pub(super) rooms: Vec<(ChannelName, usize)>,
    /// Connections in rooms: of a user, or all.
    pub(super) places: Vec<(ChannelName, Option<UserId>, usize)>,
    /// Connections, if they are there.
    pub(super) connections: Vec<(Arc<str>, Option<Here>)>,
    /// After this batch everything up to here is written.
    pub(super) generation: Option<u64>,
}

impl Journal {
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let (id, user) = (arrival.connection_id.clone(), arrival.user_id.clone());
        if self.table.arrive(arrival, now_ms()) {
            self.users.extend(user);
            self.touch(id);
        }
    }

    pub(super) fn depart(&mut self, connection_id: &str) -> Option<Arrival> {
        let (arrival, rooms) = self.table.depart(connection_id)?;
        for room in rooms {
            self.touch_room(&room, arrival.user_id.as_ref());
        }
        self.users.extend(arrival.user_id.clone());
        self.touch(arrival.connection_id.clone());
        Some(arrival)
    }

    pub(super) fn enter(&mut self, connection_id: &str, room: &ChannelName) {
        let Some(arrival) = self.table.enter(connection_id, room) else { return };
        let (id, user) = (arrival.connection_id.clone(), arrival.user_id.clone());
        self.touch_room(room, user.as_ref());
        self.touch(id);
    }

    pub(super) fn leave(&mut self, connection_id: &str, room: &ChannelName) {
        let Some(arrival) = self.table.leave(connection_id, room) else { return };
        let (id, user) = (arrival.connection_id.clone(), arrival.user_id.clone());
        self.touch_room(room, user.as_ref());
        self.touch(id);
    }

    fn touch_room(&mut self, room: &ChannelName, user: Option<&UserId>) {
        self.rooms.insert(room.clone());
        self.places.insert((room.clone(), None));
        if let Some(user) = user {
            self.places.insert((room.clone(), Some(user.clone())));
        }
    }

    /// Has a connection written again.
    pub(super) fn touch(&mut self, connection_id: Arc<str>) {
        self.connections.insert(connection_id);
        self.generation += 1;
        self.too_much |= self.connections.len() > UNWRITTEN || self.places.len() > 4 * UNWRITTEN;
        if self.too_much {
            self.forget();
        }
    }

    /// Has all rooms written again.
    pub(super) fn touch_rooms(&mut self) {
        self.places.extend(self.table.places());
    }

    /// Up to where everything has to be written for what holds now to be known.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether everything has to be written anew.
    pub(super) fn is_too_much(&self) -> bool {
        self.too_much
    }

    /// Nothing is written of what there is, and these users and rooms are, which may not be there any more.
    pub(super) fn begin(&mut self, users: Vec<UserId>, rooms: Vec<ChannelName>) {
        self.forget();
        self.too_much = false;
        self.generation += 1;
        self.users.extend(self.table.user_names().chain(users));
        self.rooms.extend(self.table.room_names().chain(rooms));
        self.places.extend(self.table.places());
        self.connections.extend(self.table.connection_names());
    }

    fn forget(&mut self) {
        self.users.clear();
        self.rooms.clear();
        self.places.clear();
        self.connections.clear();
    }

    /// Takes what is to be written next.
    pub(super) fn take(&mut self) -> Batch {
        let changes = self.table.take_changes(BATCH);
        let mut batch = Batch::default();
        for Change { user_id, connections, .. } in changes {
            let since = self.table.user(&user_id).map_or_else(now_ms, |online| online.since_ms);
            batch.users.push((user_id, connections, since));
        }
        if self.table.has_changes() {
            // What holds now comes after what happened before.
            return batch;
        }
        for user in take(&mut self.users) {
            let online = self.table.user(&user);
            let (count, since) = online.map_or((0, 0), |online| (online.connections, online.since_ms));
            batch.users.push((user, count, since));
        }
        for room in take(&mut self.rooms) {
            let count = self.table.in_room(&room, None);
            batch.rooms.push((room, count));
        }
        for (room, user) in take(&mut self.places) {
            let count = self.table.in_room(&room, user.as_ref());
            batch.places.push((room, user, count));
        }
        for id in take(&mut self.connections) {
            let present = self.table.present(&id);
            batch.connections.push((id, present));
        }
        let rest = [self.users.len(), self.rooms.len(), self.places.len(), self.connections.len()];
        batch.generation = rest.iter().all(|rest| *rest == 0).then_some(self.generation);
        batch
    }
}

fn take<T: Ord>(set: &mut BTreeSet<T>) -> Vec<T> {
    std::iter::from_fn(|| set.pop_first()).take(BATCH).collect()
}
