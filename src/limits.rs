//! Limits: how much of something one party may have or do, counted in bounded memory.
//!
//! [`address`] names who comes over the network, [`rate`] measures how often, [`table`] counts for each party, and with
//! it [`crowd`] sessions and [`pace`] what is sent. What the limits are is a setting (`limits.*`); what becomes of whoever is over one is decided where it is met, by its
//! [`Reason`].

pub mod address;
pub mod crowd;
pub mod pace;
pub mod rate;
pub mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics;

/// Which limit was met: the label of `tidings_rejected_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Connections in all.
    Connections,
    /// Connections of one address.
    ConnectionsOfAddress,
    /// New connections of one address in a second.
    ConnectRate,
    /// Connections that have not finished their handshake.
    Handshakes,
    /// Connections of one user.
    ConnectionsOfUser,
    /// Rooms of one connection, or of one user.
    Rooms,
    /// Events of one connection in a second.
    EventRate,
    /// Events or packets that go on coming far beyond that.
    Flood,
    /// Messages that one party publishes in a second.
    PublishRate,
    /// Notifications that one party sends in a second.
    NotificationRate,
    /// Jobs that one party submits in a second.
    JobRate,
    /// In no room, and silent.
    Idle,
    /// A head, a body or a handshake that took too long.
    Timeout,
    /// No further request on a connection.
    KeepAlive,
    /// No answer to the server's pings.
    Heartbeat,
    /// A peer that takes nothing of what is written to it.
    WriteDeadline,
    /// A head, a body or a message that is too long.
    TooLarge,
}

impl Reason {
    /// The label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "address_connections",
            Self::ConnectRate => "connect_rate",
            Self::Handshakes => "handshakes",
            Self::ConnectionsOfUser => "user_connections",
            Self::Rooms => "rooms",
            Self::EventRate => "event_rate",
            Self::Flood => "flood",
            Self::PublishRate => "publish_rate",
            Self::NotificationRate => "notification_rate",
            Self::JobRate => "job_rate",
            Self::Idle => "idle",
            Self::Timeout => "timeout",
            Self::KeepAlive => "keep_alive",
            Self::Heartbeat => "heartbeat",
            Self::WriteDeadline => "write_deadline",
            Self::TooLarge => "too_large",
        }
    }

    /// For programs: what they are told. It stays the same over versions.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Connections | Self::ConnectionsOfAddress | Self::ConnectionsOfUser => {
                "too_many_connections"
            }
            Self::ConnectRate => "too_many_connects",
            Self::Handshakes => "too_many_handshakes",
            Self::Rooms => "too_many_rooms",
            Self::EventRate | Self::Flood | Self::PublishRate | Self::NotificationRate | Self::JobRate => {
                "rate_limited"
            }
            Self::Idle => "idle",
            Self::Timeout => "request_timeout",
            Self::KeepAlive | Self::Heartbeat | Self::WriteDeadline | Self::TooLarge => self.label(),
        }
    }

    /// For people: what it is about.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Connections => "the server has as many connections as it may (limits.connections)",
            Self::ConnectionsOfAddress => {
                "this address has as many connections as it may (limits.connections_per_address)"
            }
            Self::ConnectionsOfUser => {
                "this user has as many connections as it may, over all servers (limits.connections_per_user)"
            }
            Self::ConnectRate => "this address connects more often than it may (limits.connects_per_second)",
            Self::Handshakes => "too many connections have not finished their handshake (limits.handshakes)",
            Self::Rooms => {
                "this user is in as many rooms as it may, over all servers (limits.rooms_per_user)"
            }
            Self::EventRate | Self::Flood => {
                "this connection sends more events in a second than it may (limits.events_per_second)"
            }
            Self::PublishRate => {
                "more messages in a second than this party may publish (limits.publishes_per_second)"
            }
            Self::NotificationRate => {
                "more notifications in a second than this party may send (limits.notifications_per_second)"
            }
            Self::JobRate => "more jobs in a second than this party may submit (limits.jobs_per_second)",
            Self::Idle => {
                "this connection was in no room and sent nothing for too long (limits.idle_timeout)"
            }
            Self::Timeout => "the request did not come in time",
            Self::KeepAlive => "no further request came in time (limits.keep_alive)",
            Self::Heartbeat => "the server's pings were not answered in time (heartbeat)",
            Self::WriteDeadline => "the peer took nothing before the write deadline (limits.write_deadline)",
            Self::TooLarge => "longer than it may be (limits.message_bytes)",
        }
    }

    /// The refusal as it stands in an answer of HTTP with status 429 (RFC 9457).
    #[must_use]
    pub fn problem(self) -> String {
        let (detail, code) = (self.detail(), self.code());
        format!(
            r#"{{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"{detail}","code":"{code}"}}"#
        )
    }
}

/// In how many seconds to come again, where `wait` is how long it takes until something is left.
#[must_use]
pub fn retry_after_s(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait.is_zero()))
}

/// Counts something that was refused or ended because of a limit.
pub fn met(reason: Reason) {
    metrics::rejected(reason.label());
}

/// What holds for a party: what is configured for everybody, with 0 for no limit; else what is usual for those
/// who come from other machines.
#[must_use]
pub fn cap(configured: Option<u32>, usual: u32, is_loopback: bool) -> Option<u32> {
    let cap = configured.unwrap_or(if is_loopback { 0 } else { usual });
    Some(cap).filter(|cap| *cap > 0)
}

/// Says now and then that something happens often, because a line for each would be a flood of its own.
#[derive(Debug, Default)]
pub struct Notice {
    next_ns: AtomicU64,
    unsaid: AtomicU64,
}

impl Notice {
    /// The pause between two lines.
    const PAUSE_NS: u64 = 10_000_000_000;

    /// Nothing has happened.
    #[must_use]
    pub const fn new() -> Self {
        Self { next_ns: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened once more: how often since it was last said, if it is time to say it again.
    pub fn due(&self) -> Option<u64> {
        self.due_at(rate::now_ns())
    }

    fn due_at(&self, now: u64) -> Option<u64> {
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        let next = self.next_ns.load(Ordering::Relaxed);
        let later = now + Self::PAUSE_NS;
        let said = now >= next
            && self.next_ns.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        said.then(|| self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_holds_only_for_other_machines() {
        assert_eq!((cap(None, 7, false), cap(None, 7, true)), (Some(7), None));
        assert_eq!((cap(Some(3), 7, false), cap(Some(3), 7, true)), (Some(3), Some(3)));
        assert_eq!((cap(Some(0), 7, false), cap(Some(0), 7, true)), (None, None));
    }

    #[test]
    fn what_happens_often_is_said_now_and_then_with_its_number() {
        let notice = Notice::default();
        let second = 1_000_000_000;
        let said: Vec<_> = (0..25).map(|n| notice.due_at(n * second)).collect();
        assert_eq!(said.iter().flatten().collect::<Vec<_>>(), [&1, &10, &10]);
    }
}
