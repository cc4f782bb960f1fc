//! Memories: how a channel knows the id of a message again.

use crate::broker::append::{Append, Count};
use crate::broker::redis::core::Core;

/// How an id is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It is noted, and is new for certain.
    Fresh,
    /// It is noted.
    Noted,
    /// The same, but it may be one of a row that somebody else sends again.
    Doubtful,
    /// The newest number of its row is noted.
    Counted,
    /// It is known if the first message of its group is.
    Mirrored,
}

impl Memory {
    pub(super) fn of(append: &Append, is_first: bool, core: &Core) -> Self {
        // The way to a cluster repeats by itself what it got no answer for, so that no id is certain to be new; and the
        // messages of a group are not appended in one step there.
        let cluster = core.redis.is_cluster();
        match &append.count {
            Some(_) if is_first || cluster => Self::Counted,
            Some(_) => Self::Mirrored,
            None if append.fresh && !cluster => Self::Fresh,
            None if !append.fresh && Count::read(append.id.as_str()).is_some() => Self::Doubtful,
            None => Self::Noted,
        }
    }

    /// What scripts and histories call it. A history knows no difference between the first three.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fresh => "f",
            Self::Noted => "m",
            Self::Doubtful => "?",
            Self::Counted => "c",
            Self::Mirrored => "n",
        }
    }
}
