//! `[limits]`: bounds on what clients may have and do.

use std::time::Duration;

use serde::Deserialize;

/// Bounds on what clients may have and do.
///
/// Those that may be left out hold for everybody where they are set, with 0 for no limit, and have a default for
/// clients that come from other machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The length of one message.
    pub message_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Connections of one address, if not [`Limits::CONNECTIONS_PER_ADDRESS`] for other machines.
    pub connections_per_address: Option<u32>,
    /// Connections of one user, over all nodes; 0 for no limit.
    pub connections_per_user: u32,
    /// New connections of one address in a second, if not [`Limits::CONNECTS_PER_SECOND`] for other machines.
    pub connects_per_second: Option<u32>,
    /// Connections that have not finished their handshake.
    pub handshakes: usize,
    /// Rooms that one connection may be in.
    pub rooms_per_connection: usize,
    /// Rooms that all connections of one user are in, each counted once, over all nodes; 0 for no limit.
    pub rooms_per_user: u32,
    /// Events that one connection sends in a second, if not [`Limits::EVENTS_PER_SECOND`] for other machines.
    pub events_per_second: Option<u32>,
    /// Messages that one user, or one address, publishes in a second, if not [`Limits::PUBLISHES_PER_SECOND`] for
    /// other machines.
    pub publishes_per_second: Option<u32>,
    /// Notifications, broadcasts and recalls that one user, or one address, asks for in a second, if not
    /// [`Limits::NOTIFICATIONS_PER_SECOND`] for other machines.
    pub notifications_per_second: Option<u32>,
    /// Jobs that one user, or one address, submits or has run again in a second, if not [`Limits::JOBS_PER_SECOND`] for
    /// other machines.
    pub jobs_per_second: Option<u32>,
    /// Messages in one `POST /api/v1/events`.
    pub publish_batch: usize,
    /// The length of one request's body.
    pub body_bytes: usize,
    /// The length of one request's head.
    pub header_bytes: usize,
    /// The headers of one request.
    pub headers: usize,
    /// How long a connection may take to its first request, and a session from then to its namespace.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub connect_timeout: Duration,
    /// How long a request's body may take.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub body_timeout: Duration,
    /// How long a connection may be open without a request, between two of them.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub keep_alive: Duration,
    /// How long a session may be in no room and send nothing.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what is written to it before its connection ends.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub write_deadline: Duration,
}

impl Limits {
    /// Connections of one address of another machine, unless set.
    pub const CONNECTIONS_PER_ADDRESS: u32 = 1000;
    /// New connections of one address of another machine in a second, unless set.
    pub const CONNECTS_PER_SECOND: u32 = 100;
    /// Events of one connection from another machine in a second, unless set.
    pub const EVENTS_PER_SECOND: u32 = 100;
    /// Messages that a party of another machine publishes in a second, unless set.
    pub const PUBLISHES_PER_SECOND: u32 = 1000;
    /// Notifications that a party of another machine sends in a second, unless set.
    pub const NOTIFICATIONS_PER_SECOND: u32 = 100;
    /// Jobs that a party of another machine submits in a second, unless set.
    pub const JOBS_PER_SECOND: u32 = 100;
    /// What a frame may have beside a message's data.
    const ENVELOPE_BYTES: usize = 8 * 1024;

    /// The length of what comes or goes at once over Socket.IO, where a message may have so many bytes of data.
    #[must_use]
    pub fn frame_bytes(message_bytes: usize) -> usize {
        message_bytes + Self::ENVELOPE_BYTES
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            connections: 10_000,
            connections_per_user: 10,
            connections_per_address: None,
            connects_per_second: None,
            handshakes: 4096,
            rooms_per_connection: 50,
            rooms_per_user: 50,
            events_per_second: None,
            publishes_per_second: None,
            notifications_per_second: None,
            jobs_per_second: None,
            publish_batch: 1000,
            body_bytes: 4 * 1024 * 1024,
            header_bytes: 32 * 1024,
            headers: 100,
            connect_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            idle_timeout: Duration::from_mins(5),
            write_deadline: Duration::from_secs(30),
        }
    }
}
