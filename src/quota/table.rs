//! What this process counts of each user. No I/O, no locks.

use std::collections::{HashMap, HashSet};

use super::Count;
use crate::model::{ChannelName, UserId};

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    // With how many connections are in each; few.
    rooms: Vec<(ChannelName, u32)>,
}

/// Users with a connection.
#[derive(Debug, Default)]
pub(super) struct Table {
    users: HashMap<UserId, Entry>,
    // Of whom something changed that is not written.
    touched: HashSet<UserId>,
    number: u64,
}

impl Table {
    /// One more connection, unless `most` are there.
    pub(super) fn connect(&mut self, user: &UserId, most: Option<u32>) -> Option<Count> {
        let held = self.users.get(user).map_or(0, |entry| entry.connections);
        if most.is_some_and(|most| held >= most) {
            return None;
        }
        self.users.entry(user.clone()).or_default().connections += 1;
        Some(self.count(user))
    }

    pub(super) fn disconnect(&mut self, user: &UserId) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 {
                self.users.remove(user);
            }
        }
    }

    /// One more connection in `room`, unless `most` others are there; whether it is the first one.
    pub(super) fn enter(
        &mut self,
        user: &UserId,
        room: &ChannelName,
        most: Option<u32>,
    ) -> Option<(Count, bool)> {
        let entry = self.users.entry(user.clone()).or_default();
        let known = entry.rooms.iter().position(|(known, _)| known == room);
        match known {
            Some(at) => entry.rooms[at].1 += 1,
            None if most.is_some_and(|most| entry.rooms.len() >= most as usize) => return None,
            None => entry.rooms.push((room.clone(), 1)),
        }
        Some((self.count(user), known.is_none()))
    }

    pub(super) fn leave(&mut self, user: &UserId, room: &ChannelName) {
        let Some(entry) = self.users.get_mut(user) else { return };
        if let Some(at) = entry.rooms.iter().position(|(known, _)| known == room) {
            entry.rooms[at].1 -= 1;
            if entry.rooms[at].1 == 0 {
                entry.rooms.swap_remove(at);
            }
        }
    }

    fn count(&mut self, user: &UserId) -> Count {
        self.number += 1;
        let (connections, rooms) = self.users.get(user).map_or((0, Vec::new()), |entry| {
            (entry.connections, entry.rooms.iter().map(|(room, _)| room.clone()).collect())
        });
        Count { user: user.clone(), number: self.number, connections, rooms }
    }

    pub(super) fn touch(&mut self, user: &UserId) {
        self.touched.insert(user.clone());
    }

    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.users.keys().cloned());
    }

    /// What is to be written of some of those of whom something changed.
    pub(super) fn take_touched(&mut self, most: usize) -> Vec<Count> {
        let users: Vec<_> = self.touched.iter().take(most).cloned().collect();
        for user in &users {
            self.touched.remove(user);
        }
        if self.touched.is_empty() {
            self.touched = HashSet::new();
        }
        users.iter().map(|user| self.count(user)).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}
