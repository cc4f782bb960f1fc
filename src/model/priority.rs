//! Priorities: which channel's messages leave first.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How urgent a message or a job is. Priority orders channels and jobs, never messages of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Priority {
    /// 1: may wait longest.
    Low = 1,
    /// 2: what most messages are.
    #[default]
    Normal = 2,
    /// 3: leaves at once.
    High = 3,
    /// 4: leaves at once, and is acknowledged where the client agreed to.
    Critical = 4,
}

/// Text or a number that names no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a priority is 1 (low), 2 (normal), 3 (high) or 4 (critical), not {0}")]
pub struct InvalidPriority(pub String);

impl Priority {
    /// All priorities, lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The number that stands in messages.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name that stands in `channels.toml` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The priority with this number.
    pub fn from_number(n: u64) -> Result<Self, InvalidPriority> {
        Self::ALL
            .into_iter()
            .find(|p| u64::from(p.number()) == n)
            .ok_or_else(|| InvalidPriority(n.to_string()))
    }

    /// The priority with this name.
    pub fn from_name(name: &str) -> Result<Self, InvalidPriority> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| InvalidPriority(format!("{name:?}")))
    }

    /// Whether a message of this priority leaves without waiting for its batch window.
    #[must_use]
    pub fn is_urgent(self) -> bool {
        self >= Self::High
    }
}

impl utoipa::ToSchema for Priority {}

impl utoipa::PartialSchema for Priority {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(4))
            .description(Some("1 low, 2 normal, 3 high, 4 critical"))
            .into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_number(u64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
