//! The decision: may this identity read that channel, or publish there? Values, without I/O; every door asks here.
//!
//! | `join` | who may read |
//! |---|---|
//! | `anyone` | every caller |
//! | `user` | callers who are a user |
//! | `owner` | the user whom the placeholder names; of `{testId}` and `{jobId}`, who submitted the job |
//! | `team` | members of the team that the placeholder names; of `{testId}` and `{jobId}`, of the job's team |
//! | `role:NAME` | callers with that role |
//!
//! Administrators may read everything. A grant of the token adds to what the rules give, and takes nothing away.

use super::identity::Identity;
use crate::config::channels::{Join, Namespace, Resolved};
use crate::model::UserId;

/// What may be done in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Join, and everything else that reads.
    Join,
    /// Publish.
    Publish,
}

/// A right that a token gives in some channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Without the `*` at its end, if it had one.
    name: Box<str>,
    is_prefix: bool,
    join: bool,
    publish: bool,
}

impl Grant {
    /// Reads a pattern, which is a channel's name or the beginning of one followed by `*`, and its rights.
    pub(super) fn parse<'a>(pattern: &str, rights: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let (name, is_prefix) = pattern.strip_suffix('*').map_or((pattern, false), |name| (name, true));
        if name.contains('*') || pattern.is_empty() {
            return Err(format!("`{pattern}` is no channel's name, nor the beginning of one before a `*`"));
        }
        let mut grant = Self { name: name.into(), is_prefix, join: false, publish: false };
        for right in rights {
            match right {
                "join" => grant.join = true,
                "publish" => grant.publish = true,
                _ => return Err(format!("`{pattern}` gives \"join\" or \"publish\", not {right:?}")),
            }
        }
        Ok(grant)
    }

    pub(super) fn gives(&self, right: Right, channel: &str) -> bool {
        let given = match right {
            Right::Join => self.join,
            Right::Publish => self.publish,
        };
        given && if self.is_prefix { channel.starts_with(&*self.name) } else { channel == &*self.name }
    }
}

/// Whose a channel is, as far as its rule asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The user.
    pub owner: Option<UserId>,
    /// The team.
    pub team: Option<String>,
}

/// What has to be looked up before a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks<'a> {
    /// Nothing: this is the decision.
    Decided(bool),
    /// Whose the newest job of this test is.
    Test(&'a str),
    /// Whose this job is.
    Job(&'a str),
}

/// Whether `identity` may read `channel`, which was resolved to `resolved`; or what has to be known for that.
#[must_use]
pub fn may_read<'a>(identity: &Identity, resolved: &Resolved, channel: &'a str) -> Asks<'a> {
    let namespace = &resolved.namespace;
    if identity.is_admin() || identity.is_granted(Right::Join, channel) {
        return Asks::Decided(true);
    }
    let named = resolved.value(channel);
    let decided = match &namespace.join {
        Join::Anyone => true,
        Join::User => identity.user().is_some(),
        Join::Role(role) => identity.has_role(role.as_str()),
        Join::Owner | Join::Team => match (namespace.pattern.placeholder(), named) {
            (Some("testId"), Some(test)) => return Asks::Test(test),
            (Some("jobId"), Some(job)) => return Asks::Job(job),
            (_, Some(named)) if namespace.join == Join::Owner => {
                identity.user().is_some_and(|user| user.as_str() == named)
            }
            (_, Some(named)) => identity.in_team(named),
            (_, None) => false,
        },
    };
    Asks::Decided(decided)
}

/// Whether `identity` may read a channel that is about `subject`.
#[must_use]
pub fn may_read_of(identity: &Identity, rule: &Join, subject: &Subject) -> bool {
    match rule {
        _ if identity.is_admin() => true,
        Join::Anyone => true,
        Join::User => identity.user().is_some(),
        Join::Role(role) => identity.has_role(role.as_str()),
        Join::Owner => is_owner(identity, subject),
        Join::Team => is_in_team(identity, subject),
    }
}

/// Whether `identity` may publish to `channel` of `namespace`. Where nobody may but the server, nobody may.
#[must_use]
pub fn may_publish(identity: &Identity, namespace: &Namespace, channel: &str) -> bool {
    let roles = &namespace.publish;
    !roles.is_empty()
        && (identity.is_admin()
            || roles.iter().any(|role| identity.has_role(role.as_str()))
            || identity.is_granted(Right::Publish, channel))
}

/// Whether `identity` may cancel or retry a job of `subject`: its submitter, or a member of its team, with the role
/// that submits.
#[must_use]
pub fn may_control(identity: &Identity, subject: &Subject) -> bool {
    let own = is_owner(identity, subject) || is_in_team(identity, subject);
    identity.is_admin() || (identity.has_role(super::identity::SUBMIT) && own)
}

fn is_owner(identity: &Identity, subject: &Subject) -> bool {
    subject.owner.is_some() && identity.user() == subject.owner.as_ref()
}

fn is_in_team(identity: &Identity, subject: &Subject) -> bool {
    subject.team.as_ref().is_some_and(|team| identity.in_team(team))
}
