//! The words of joining a room: what a client asks, and what the server acknowledges.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::model::{Epoch, Position};

/// Where a client wants to continue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Since {
    /// Where the server knows that this client stopped, or with what comes next if it knows nothing.
    #[default]
    Stored,
    /// With the first message of the channel.
    Start,
    /// With what comes next.
    Now,
    /// With the message after this one.
    After(Position),
}

/// What a client asks with `room:join`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinRequest {
    /// The room: a channel's name.
    pub room: String,
    /// Where to continue.
    pub since: Since,
    /// Whether messages may come as `message:batch`; as the connection's own setting if `None`.
    pub batch: Option<bool>,
    /// Whether the acknowledgement has to bring the snapshot; if `None`, where nothing is replayed.
    pub snapshot: Option<bool>,
}

impl JoinRequest {
    /// Asks for `room`, continuing at `since`.
    pub fn new(room: impl Into<String>, since: Since) -> Self {
        Self { room: room.into(), since, batch: None, snapshot: None }
    }
}

impl Serialize for JoinRequest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("room", &self.room)?;
        match &self.since {
            Since::Stored => {}
            Since::Start => map.serialize_entry("since", "start")?,
            Since::Now => map.serialize_entry("since", "now")?,
            Since::After(position) => map.serialize_entry("since", position)?,
        }
        if let Some(batch) = self.batch {
            map.serialize_entry("batch", &batch)?;
        }
        if let Some(snapshot) = self.snapshot {
            map.serialize_entry("snapshot", &snapshot)?;
        }
        map.end()
    }
}

/// What the server acknowledges a successful `room:join` with.
#[derive(Debug, Clone, Deserialize)]
pub struct Joined {
    /// The room.
    pub room: String,
    /// The channel's epoch.
    pub epoch: Epoch,
    /// The channel's newest offset when the join was decided.
    pub offset: u64,
    /// Whether what follows continues what the client had.
    pub recovered: bool,
    /// How many messages are sent again.
    pub replayed: u64,
    /// After what they follow, where the server continues from the place that it stored.
    #[serde(default)]
    pub since: Option<Position>,
    /// The state at `offset`, where the server sent one.
    #[serde(default)]
    pub snapshot: Option<Box<RawValue>>,
}

impl Joined {
    /// The newest position of the channel when the join was decided.
    #[must_use]
    pub fn top(&self) -> Position {
        Position { epoch: self.epoch.clone(), offset: self.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_says_only_what_was_chosen() {
        let written = |since| serde_json::to_string(&JoinRequest::new("r", since)).expect("JSON");
        assert_eq!(written(Since::Stored), r#"{"room":"r"}"#);
        assert_eq!(written(Since::Start), r#"{"room":"r","since":"start"}"#);
        assert_eq!(written(Since::Now), r#"{"room":"r","since":"now"}"#);
        let after = Since::After(Position { epoch: Epoch::new("e"), offset: 4 });
        assert_eq!(written(after), r#"{"room":"r","since":{"epoch":"e","offset":4}}"#);
        let all =
            JoinRequest { batch: Some(true), snapshot: Some(false), ..JoinRequest::new("r", Since::Stored) };
        assert_eq!(
            serde_json::to_string(&all).expect("JSON"),
            r#"{"room":"r","batch":true,"snapshot":false}"#
        );
    }
}
