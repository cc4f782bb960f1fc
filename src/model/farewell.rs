//! What a server that goes away tells everybody who is connected to it.

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{MessageId, Priority, now_ms};

/// The event that a client is told last.
pub const GOING_AWAY: &str = "system:maintenance:start";

/// Its message. It is for one connection and stands in no channel: the servers that go on have nothing to tell.
#[must_use]
pub fn going_away() -> Box<RawValue> {
    let notice = json!({
        "id": MessageId::generate(),
        "event": GOING_AWAY,
        "priority": Priority::Critical.number(),
        "timestamp": now_ms(),
        "data": { "level": "info", "message": "this server goes away; connect again" },
    });
    to_raw_value(&notice).expect("a value that was made here is JSON")
}
