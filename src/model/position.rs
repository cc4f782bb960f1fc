//! Positions: where a message stands in its channel.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Marks an unbroken past of a channel. While it stays the same, offsets rise by exactly one per message; it
/// changes when the channel's past can no longer be vouched for.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The longest epoch that is taken from a client, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Takes `s` as an epoch. Any string may come from a client; only equality matters.
    #[must_use]
    pub fn new(s: &str) -> Self {
        Self(Arc::from(s))
    }

    /// A new epoch that differs from every earlier one but for a chance of 2⁻⁶⁰.
    #[must_use]
    pub fn generate() -> Self {
        // The low 60 bits of a ULID are random; twelve characters of its Crockford base 32 hold them.
        let text = ulid::Ulid::generate().to_string().to_ascii_lowercase();
        Self(Arc::from(&text[text.len() - 12..]))
    }

    /// The epoch as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A place in a channel: offsets start at 1; offset 0 stands before the first message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Position {
    /// The unbroken past that `offset` counts in.
    pub epoch: Epoch,
    /// How many messages of that past are at or before this place.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_epochs_differ() {
        let epochs: std::collections::HashSet<_> = (0..1000).map(|_| Epoch::generate()).collect();
        assert_eq!(epochs.len(), 1000);
    }
}
