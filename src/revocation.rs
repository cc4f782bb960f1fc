//! Revocation: who is shut out, although their token would be taken.
//!
//! This file holds the promises; [`embedded`] keeps them on one machine, [`mod@redis`] on many.

pub mod embedded;
pub mod redis;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use crate::fault::Fault;
use crate::model::UserId;

/// So many users, and as many tokens, may be shut out at once: every node keeps all of them in memory.
pub const MOST: usize = 100_000;

/// Everybody who is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revoked {
    /// Users, until they are let in again.
    pub users: HashSet<UserId>,
    /// Tokens, by their id, and until when in ms since the Unix epoch: by then they have expired.
    pub tokens: HashMap<String, i64>,
}

impl Revoked {
    /// The changes after which `list` shuts out everybody whom this one does.
    #[must_use]
    pub fn missing_in(&self, list: &Self) -> Vec<Change> {
        let users = self.users.difference(&list.users).cloned().map(Change::Block);
        let lacks = |token: &str, until: i64| list.tokens.get(token).is_none_or(|known| *known < until);
        let tokens = self.tokens.iter().filter(|(token, until)| lacks(token, **until));
        users.chain(tokens.map(|(token, until)| Change::Revoke(token.clone(), *until))).collect()
    }
}

/// How far a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Another one where a list began anew.
    pub history: u64,
    /// Rises with each change.
    pub number: u64,
}

impl Version {
    /// Whether a list that is so far has all changes of one that was as far as `earlier`.
    #[must_use]
    pub fn follows(self, earlier: Self) -> bool {
        self.history == earlier.history && self.number >= earlier.number
    }
}

/// A change of who is shut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A user is shut out.
    Block(UserId),
    /// A user is let in again.
    Unblock(UserId),
    /// A token is shut out until then, in ms since the Unix epoch.
    Revoke(String, i64),
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RevocationError {
    /// The list is as long as it may be. Nothing was changed.
    #[error("{MOST} users or tokens are shut out already; let some in again, or change the keys")]
    TooMany,
    /// The store.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The list of those who are shut out.
///
/// - What was changed is on every node's list within a second of the answer, as long as the store can be reached, and
///   after a restart.
/// - A token that was shut out is forgotten after its time, and not before.
/// - Making a change again changes nothing.
/// - A store that lost changes is at a version that does not follow the one before: whoever saw that one puts them back.
/// - Nobody puts back who was let in after the version that it saw.
#[async_trait]
pub trait Revocations: Send + Sync + 'static {
    /// Makes a change; whether it was one. After an error of the store it may have been made. If the store is behind
    /// `known`, the version that the caller saw last, it lost changes, and another history begins.
    async fn apply(&self, change: Change, known: Version) -> Result<bool, RevocationError>;

    /// Makes a change again which the list had at version `known`, unless it was taken back since; whether it did.
    async fn put_back(&self, change: Change, known: Version) -> Result<bool, RevocationError>;

    /// The whole list, without tokens whose time is over.
    async fn load(&self) -> Result<Revoked, Fault>;

    /// How far the list is: another version after each change.
    async fn version(&self) -> Result<Version, Fault>;
}
