//! The table of who is there, and the changes that are still to be told. No I/O, no locks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Arrival, Counts, InRoom, Line, Online, Page, Present};
use crate::model::{ChannelName, UserId};

/// So many changes may wait to be told; then a user's change and its reverse take each other away.
pub(super) const PENDING: usize = 8192;

/// A user came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) user_id: UserId,
    pub(super) online: bool,
    pub(super) connections: usize,
}

impl Change {
    pub(super) fn offline(user_id: UserId) -> Self {
        Self { user_id, online: false, connections: 0 }
    }
}

#[derive(Debug)]
struct Entry {
    arrival: Arrival,
    // In their order; few, and a tree would have room for eleven.
    rooms: Vec<ChannelName>,
}

#[derive(Debug)]
struct UserEntry {
    connections: usize,
    since_ms: i64,
}

#[derive(Debug, Default)]
struct RoomEntry {
    users: BTreeMap<UserId, usize>,
    connections: usize,
}

/// Connections with their rooms, counted by user and by room.
#[derive(Debug, Default)]
pub(super) struct Table {
    connections: BTreeMap<Arc<str>, Entry>,
    users: BTreeMap<UserId, UserEntry>,
    rooms: HashMap<ChannelName, RoomEntry>,
    changes: VecDeque<Change>,
}

impl Table {
    /// Whether it was not known.
    pub(super) fn arrive(&mut self, arrival: Arrival, now_ms: i64) -> bool {
        if self.connections.contains_key(&*arrival.connection_id) {
            return false;
        }
        if let Some(user_id) = &arrival.user_id {
            let user = self.users.entry(user_id.clone());
            let user = user.or_insert(UserEntry { connections: 0, since_ms: now_ms });
            user.connections += 1;
            if user.connections == 1 {
                self.note(Change { user_id: user_id.clone(), online: true, connections: 1 });
            }
        }
        let id = arrival.connection_id.clone();
        self.connections.insert(id, Entry { arrival, rooms: Vec::new() });
        true
    }

    /// What was known of the connection and the rooms that it was in, for the caller to let go.
    pub(super) fn depart(&mut self, connection_id: &str) -> Option<(Arrival, Vec<ChannelName>)> {
        let Entry { arrival, rooms } = self.connections.remove(connection_id)?;
        for room in &rooms {
            self.count_out(room, arrival.user_id.as_ref());
        }
        if let Some(user_id) = &arrival.user_id
            && let Some(user) = self.users.get_mut(user_id)
        {
            user.connections -= 1;
            if user.connections == 0 {
                self.users.remove(user_id);
                self.note(Change::offline(user_id.clone()));
            }
        }
        Some((arrival, rooms))
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() >= PENDING {
            // The last one that waits of this user is the reverse of this one: after both, all is as it was.
            let reverse = self.changes.iter().rposition(|waiting| waiting.user_id == change.user_id);
            if reverse.is_some_and(|index| self.changes.remove(index).is_some()) {
                return;
            }
        }
        self.changes.push_back(change);
    }

    pub(super) fn take_changes(&mut self, most: usize) -> Vec<Change> {
        self.changes.drain(..most.min(self.changes.len())).collect()
    }

    /// Whose connection it is, if this changed anything.
    pub(super) fn enter(&mut self, connection_id: &str, room: &ChannelName) -> Option<&Arrival> {
        let entry = self.connections.get_mut(connection_id)?;
        let place = entry.rooms.binary_search(room).err()?;
        entry.rooms.insert(place, room.clone());
        let in_room = self.rooms.entry(room.clone()).or_default();
        in_room.connections += 1;
        if let Some(user_id) = &entry.arrival.user_id {
            *in_room.users.entry(user_id.clone()).or_default() += 1;
        }
        Some(&entry.arrival)
    }

    /// Whose connection it is, if this changed anything.
    pub(super) fn leave(&mut self, connection_id: &str, room: &ChannelName) -> Option<&Arrival> {
        let entry = self.connections.get_mut(connection_id)?;
        let place = entry.rooms.binary_search(room).ok()?;
        entry.rooms.remove(place);
        let user_id = entry.arrival.user_id.clone();
        self.count_out(room, user_id.as_ref());
        self.connections.get(connection_id).map(|entry| &entry.arrival)
    }

    fn count_out(&mut self, room: &ChannelName, user_id: Option<&UserId>) {
        let Some(in_room) = self.rooms.get_mut(room) else { return };
        in_room.connections -= 1;
        if let Some(user_id) = user_id
            && let Some(connections) = in_room.users.get_mut(user_id)
        {
            *connections -= 1;
            if *connections == 0 {
                in_room.users.remove(user_id);
            }
        }
        if in_room.connections == 0 {
            self.rooms.remove(room);
        }
    }

    pub(super) fn user(&self, user_id: &UserId) -> Option<Online> {
        self.users.get(user_id).map(|entry| online(user_id, entry))
    }

    pub(super) fn users(&self, after: Option<&str>, limit: usize) -> Page<Online> {
        let rest = self.users.range::<str, _>((from(after), Bound::Unbounded));
        let items: Vec<_> = rest.take(limit.max(1) + 1).map(|(user, entry)| online(user, entry)).collect();
        page(items, self.users.len(), limit, |online| online.user_id.to_string())
    }

    pub(super) fn room(&self, room: &ChannelName) -> InRoom {
        self.rooms.get(room).map_or_else(InRoom::default, |entry| InRoom {
            users: entry.users.iter().map(|(user, n)| (user.clone(), *n)).collect(),
            connections: entry.connections,
        })
    }

    /// A page of connections whose transports are still to be asked of their lines.
    pub(super) fn connections(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> (Page<Present>, Vec<Arc<dyn Line>>) {
        let rest = self.connections.range::<str, _>((from(after), Bound::Unbounded));
        let entries: Vec<_> = rest.take(limit.max(1) + 1).map(|(_, entry)| entry).collect();
        let lines = entries.iter().map(|entry| entry.arrival.line.clone()).collect();
        let items = entries.into_iter().map(present).collect();
        (page(items, self.connections.len(), limit, |present| present.connection_id.clone()), lines)
    }

    pub(super) fn counts(&self) -> Counts {
        let (connections, users) = (self.connections.len(), self.users.len());
        Counts { connections, users, rooms: self.rooms.len() }
    }

    /// Whether there is something to be told.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// How many connections of `user` are in `room`, or how many of all.
    pub(super) fn in_room(&self, room: &ChannelName, user: Option<&UserId>) -> usize {
        let Some(entry) = self.rooms.get(room) else { return 0 };
        user.map_or(entry.connections, |user| entry.users.get(user).copied().unwrap_or(0))
    }

    /// What is known of a connection, but for what carries it, which its line knows.
    pub(super) fn present(&self, connection_id: &str) -> Option<(Present, Arc<dyn Line>)> {
        let entry = self.connections.get(connection_id)?;
        Some((present(entry), entry.arrival.line.clone()))
    }

    pub(super) fn connection_names(&self) -> impl Iterator<Item = Arc<str>> {
        self.connections.keys().cloned()
    }

    pub(super) fn user_names(&self) -> impl Iterator<Item = UserId> {
        self.users.keys().cloned()
    }

    pub(super) fn room_names(&self) -> impl Iterator<Item = ChannelName> {
        self.rooms.keys().cloned()
    }

    /// Who is where: each room by itself, and with each of its users.
    pub(super) fn places(&self) -> impl Iterator<Item = (ChannelName, Option<UserId>)> {
        self.rooms.iter().flat_map(|(room, entry)| {
            let users = entry.users.keys().cloned().map(Some);
            std::iter::once(None).chain(users).map(|user| (room.clone(), user))
        })
    }

    pub(super) fn line(&self, connection_id: &str) -> Option<Arc<dyn Line>> {
        self.connections.get(connection_id).map(|entry| entry.arrival.line.clone())
    }

    pub(super) fn lines(&self) -> Vec<(String, Arc<dyn Line>)> {
        self.connections.iter().map(|(id, entry)| (id.to_string(), entry.arrival.line.clone())).collect()
    }
}

fn from(after: Option<&str>) -> Bound<&str> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

fn online(user_id: &UserId, entry: &UserEntry) -> Online {
    Online { user_id: user_id.clone(), connections: entry.connections, since_ms: entry.since_ms }
}

fn present(entry: &Entry) -> Present {
    let Arrival { connection_id, client_id, user_id, connected_at_ms, .. } = &entry.arrival;
    Present {
        node: None,
        connection_id: connection_id.to_string(),
        client_id: client_id.to_string(),
        user_id: user_id.clone(),
        rooms: entry.rooms.clone(),
        connected_at_ms: *connected_at_ms,
        transport: None,
    }
}

/// Makes a page of `items`, of which there is one more than `limit` if there is a next page.
fn page<T>(mut items: Vec<T>, total: usize, limit: usize, name: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit.max(1);
    items.truncate(limit.max(1));
    let next = items.last().filter(|_| more).map(name);
    Page { items, total, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoLine;

    impl Line for NoLine {
        fn end(&self) {}
        fn is_alive(&self) -> bool {
            true
        }
        fn transport(&self) -> Option<&'static str> {
            None
        }
    }

    fn arrival(connection: &str, user: &str) -> Arrival {
        Arrival {
            connection_id: connection.into(),
            client_id: connection.into(),
            user_id: Some(UserId::parse(user).unwrap()),
            connected_at_ms: 0,
            line: Arc::new(NoLine),
        }
    }

    #[test]
    fn when_too_many_changes_wait_a_change_and_its_reverse_take_each_other_away() {
        let mut table = Table::default();
        for n in 0..PENDING * 2 {
            table.arrive(arrival(&format!("c{n}"), "ann"), 0);
            table.depart(&format!("c{n}"));
        }
        table.arrive(arrival("last", "ann"), 0);
        assert!(table.changes.len() <= PENDING + 1);
        let changes = table.take_changes(usize::MAX);
        let states: Vec<_> = changes.iter().map(|change| change.online).collect();
        assert!(states.iter().enumerate().all(|(index, online)| *online == (index % 2 == 0)));
        assert_eq!(states.last(), Some(&true), "the state that holds is the last one told");
    }
}
