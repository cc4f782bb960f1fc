//! Identities: who a caller is, and what its token says that it may do. Values, without I/O.

use std::sync::Arc;

use super::access::{Grant, Right};
use crate::config::channels::Role;
use crate::model::UserId;

/// May do everything.
pub const ADMIN: &str = "admin";
/// Speaks for tests, whoever submitted them.
pub const WORKER: &str = "worker";
/// Submits jobs, and controls its own.
pub const SUBMIT: &str = "submit";
/// Reads metrics.
pub const METRICS: &str = "metrics";

/// Who a caller is. Shared by everything that a connection does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    pub(super) user: Option<UserId>,
    pub(super) roles: Box<[Role]>,
    pub(super) teams: Box<[Box<str>]>,
    pub(super) grants: Box<[Grant]>,
    pub(super) token_id: Option<Box<str>>,
    pub(super) expires_at_ms: Option<i64>,
    pub(super) unrestricted: bool,
}

impl Identity {
    /// A caller while authentication is off: it has all roles, and is whoever it says it is.
    #[must_use]
    pub fn unrestricted(user: Option<UserId>) -> Self {
        Self { user, unrestricted: true, ..Self::default() }
    }

    /// The server itself.
    #[must_use]
    pub fn server() -> &'static Self {
        static SERVER: std::sync::OnceLock<Identity> = std::sync::OnceLock::new();
        SERVER.get_or_init(|| Self::unrestricted(None))
    }

    /// Nobody in particular, while authentication is off; all such callers share one.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        static NOBODY: std::sync::OnceLock<Arc<Identity>> = std::sync::OnceLock::new();
        NOBODY.get_or_init(|| Arc::new(Self::unrestricted(None))).clone()
    }

    /// The user; none for a program that acts for nobody in particular.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Names the token, so that it can be revoked (`jti`).
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// From when on the token is taken no more, in ms since the Unix epoch.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<i64> {
        self.expires_at_ms
    }

    /// Whether it has the role `role`. An administrator has every role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.is_admin() || self.roles.iter().any(|own| own.as_str() == role)
    }

    /// Whether it may do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.unrestricted || self.roles.iter().any(|own| own.as_str() == ADMIN)
    }

    /// Whether authentication is off for it.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.unrestricted
    }

    /// Whether it belongs to the team `team`.
    #[must_use]
    pub fn in_team(&self, team: &str) -> bool {
        self.teams.iter().any(|own| **own == *team)
    }

    /// Whether a message of it may name somebody else as its user: workers report on other people's tests.
    #[must_use]
    pub fn speaks_for_others(&self) -> bool {
        self.has_role(WORKER)
    }

    /// Whether its token gives it `right` in `channel`, beside what its roles do.
    pub(super) fn is_granted(&self, right: Right, channel: &str) -> bool {
        self.grants.iter().any(|grant| grant.gives(right, channel))
    }
}
