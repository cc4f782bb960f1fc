//! Values: what the words of the contract mean, without any I/O.
//!
//! Everything above (configuration, seams, back ends, services, edges) speaks in these types. Nothing here
//! knows of tokio, axum, SQLite or Redis.

pub mod channel;
pub mod event;
pub mod farewell;
pub mod forecast;
pub mod id;
pub mod job;
pub mod message;
pub mod past;
pub mod pause;
pub mod position;
pub mod priority;
pub mod readable;
pub mod test;
pub mod trace;

pub use channel::ChannelName;
pub use event::EventName;
pub use id::{InvalidId, JobId, MessageId, TestId, UserId, WorkerId};
pub use job::{Job, JobState};
pub use message::{Incoming, Message, Published};
pub use pause::{Pause, Scope};
pub use position::{Epoch, Position};
pub use priority::Priority;
pub use test::{Snapshot, TestState};

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch by this machine's clock.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
