//! Presence: which connections there are, whose they are, and which rooms they are in.
//!
//! This file holds the promises; [`embedded`] keeps them within one process, [`redis`] over many. What a connection is made of is
//! known only to the edge that made it, which hands in a [`Line`] to look at it and to end it.

pub mod embedded;
mod news;
pub mod redis;
mod table;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::fault::Fault;
use crate::metrics::Totals;
use crate::model::{ChannelName, UserId};

/// The way to a connection, for whoever has to look at it or to end it.
pub trait Line: Send + Sync + fmt::Debug + 'static {
    /// Ends it without a word of farewell, so that a client which comes back by itself does so. Returns at
    /// once; a second call changes nothing.
    fn end(&self);
    /// Whether messages still reach it.
    fn is_alive(&self) -> bool;
    /// What carries it now: `websocket`, `polling`.
    fn transport(&self) -> Option<&'static str>;
}

/// A connection that came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Names it; no other connection ever has the same name.
    pub connection_id: Arc<str>,
    /// The client's name for its device.
    pub client_id: Arc<str>,
    /// Whose it is, if it said so.
    pub user_id: Option<UserId>,
    /// When it came, in ms since the Unix epoch.
    pub connected_at_ms: i64,
    /// The way to it.
    pub line: Arc<dyn Line>,
}

/// A connection that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The node that holds it, where there are several.
    pub node: Option<Arc<str>>,
    /// Names it.
    pub connection_id: String,
    /// The client's name for its device.
    pub client_id: String,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// The rooms that it is in, by name.
    pub rooms: Vec<ChannelName>,
    /// When it came, in ms since the Unix epoch.
    pub connected_at_ms: i64,
    /// What carries it now.
    pub transport: Option<&'static str>,
}

/// A user with at least one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    /// Who.
    pub user_id: UserId,
    /// How many connections.
    pub connections: usize,
    /// Since when there has been at least one, in ms since the Unix epoch.
    pub since_ms: i64,
}

/// Who is in a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InRoom {
    /// The named users and how many of their connections are in it, by name.
    pub users: Vec<(UserId, usize)>,
    /// Connections in all, those without a name included.
    pub connections: usize,
}

/// A page of a list that is ordered by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// By name.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: usize,
    /// The name after which the next page begins, if there is more.
    pub next: Option<String>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections.
    pub connections: usize,
    /// Users with at least one of them.
    pub users: usize,
    /// Rooms with at least one of them in it.
    pub rooms: usize,
}

/// What one node has, and what it did since it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCounts {
    /// Names it; none where there is but one.
    pub node: Option<String>,
    /// Its connections.
    pub connections: usize,
    /// What it did.
    pub totals: Totals,
}

/// Who is there.
///
/// Where several nodes share a store, all of this is about the connections of all nodes together. Questions may
/// then fail while the store is away; what was asked of it is known to all again soon after it is back.
///
/// - A user's connections are counted exactly, whatever the order in which old ones go and new ones come: a
///   connection counts from [`Presence::arrive`] to [`Presence::depart`], and only once.
/// - `user:online` is published to `user-presence` when a user's first connection comes, `user:offline` when the
///   last one has gone: each change once, and the changes of one user in the order in which they happened. They
///   are told soon after the change, also when the store was away in between; what cannot be told for so long
///   that too many changes wait is told of only if the last told state no longer holds.
/// - Users of whom an earlier process told that they are online, and who were never told to have left, are told
///   to be offline when the first one starts.
///
/// Changes take effect at once and never wait, because an edge makes them where it must not wait.
#[async_trait]
pub trait Presence: Send + Sync + fmt::Debug + 'static {
    /// A connection came. A name that is known already is passed over.
    fn arrive(&self, arrival: Arrival);

    /// It went, and with it its memberships. A connection that is not known is passed over.
    fn depart(&self, connection_id: &str);

    /// It is in `room` now. Passed over for a connection that is not known.
    fn enter(&self, connection_id: &str, room: &ChannelName);

    /// It has left `room`.
    fn leave(&self, connection_id: &str, room: &ChannelName);

    /// What is known of `user`, if it is online.
    async fn user(&self, user: &UserId) -> Result<Option<Online>, Fault>;

    /// The users that are online, by name, after `after`, at most `limit`.
    async fn users(&self, after: Option<&str>, limit: usize) -> Result<Page<Online>, Fault>;

    /// Who is in `room`, from one moment.
    async fn room(&self, room: &ChannelName) -> Result<InRoom, Fault>;

    /// All connections, by name, after `after`, at most `limit`.
    async fn connections(&self, after: Option<&str>, limit: usize) -> Result<Page<Present>, Fault>;

    /// How many there are, from one moment.
    async fn counts(&self) -> Result<Counts, Fault>;

    /// What each node has, by name; this process alone where there is but one.
    async fn nodes(&self) -> Result<Vec<NodeCounts>, Fault>;

    /// Ends a connection; whether there was one. When this returns it counts no more. After an error it may have
    /// been ended.
    async fn end(&self, connection_id: &str) -> Result<bool, Fault>;

    /// Ends those of all connections that no message reaches any more; how many. A node that does not answer is
    /// left out.
    async fn end_dead(&self) -> Result<usize, Fault>;
}
