//! The rules of channels, as `channels.toml` declares them: which exist, what they carry, who may join them.
//!
//! `parse` reads the file's tree (`value` its leaves), `check` makes namespaces of it; both collect every mistake
//! with its place.
//! `pattern` and `conflate` hold the two small languages that stand in the file.

mod check;
mod conflate;
mod diagnostic;
mod parse;
mod pattern;
mod value;

pub use conflate::{ConflationPath, InvalidPath};
pub use diagnostic::{Diagnostic, RulesError};
pub use pattern::{EventPattern, Pattern, PatternError};

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use crate::model::Priority;
use crate::model::id::is_id_char;

/// The rules that hold without `--channels FILE`.
pub const BUILTIN: &str = include_str!("../../channels.toml");

/// All namespaces. No two of them match the same channel name.
///
/// Whoever holds rules sees a reload: [`Rules::replace`] exchanges all of them at once.
#[derive(Debug)]
pub struct Rules(Live<Table>);

/// The namespaces of one file.
#[derive(Debug)]
struct Table {
    namespaces: Vec<Arc<Namespace>>,
    /// Those whose pattern is one name.
    literal: HashMap<String, Arc<Namespace>>,
    /// Those whose pattern has a placeholder.
    open: Vec<Arc<Namespace>>,
}

impl Rules {
    /// The rules that are compiled in.
    #[must_use]
    pub fn builtin() -> Self {
        Self::parse("channels.toml", BUILTIN)
            .expect("a test proves that the compiled-in rules have no mistake")
    }

    /// Reads rules from `text`; `file_name` stands in the messages. The error lists every mistake there is.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, RulesError> {
        let (tree, syntax) = toml::de::DeTable::parse_recoverable(text);
        let mut mistakes = diagnostic::Mistakes::new(text, &syntax);
        let file = parse::read(tree.get_ref(), &mut mistakes);
        let namespaces = check::namespaces(file, &mut mistakes);
        let diagnostics = mistakes.into_diagnostics();
        if !diagnostics.is_empty() {
            return Err(RulesError::Mistakes { file: file_name.to_owned(), diagnostics });
        }
        Ok(Self::of(namespaces))
    }

    /// Reads rules from a file.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(source) => Err(RulesError::Read { file, source }),
        }
    }

    fn of(namespaces: Vec<Namespace>) -> Self {
        let namespaces: Vec<_> = namespaces.into_iter().map(Arc::new).collect();
        let (open, literal): (Vec<_>, Vec<_>) =
            namespaces.iter().cloned().partition(|namespace| namespace.pattern.placeholder().is_some());
        let literal = literal.into_iter().map(|n| (n.pattern.to_string(), n)).collect();
        Self(Live::new(Table { namespaces, literal, open }))
    }

    /// What holds by `other` holds by these rules from now on, too, for all who share them. What was resolved before
    /// keeps its namespace.
    pub fn replace(&self, other: &Self) {
        self.0.share(other.0.get());
    }

    /// All namespaces, in the order of the file.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.0.read().namespaces.clone()
    }

    /// The namespace that `channel` belongs to; none if no pattern matches, so that there is no such channel.
    #[must_use]
    pub fn resolve(&self, channel: &str) -> Option<Resolved> {
        let table = self.0.read();
        if let Some(namespace) = table.literal.get(channel) {
            return Some(Resolved { namespace: namespace.clone(), placeholder: None });
        }
        table.open.iter().find_map(|namespace| {
            let placeholder = namespace.pattern.matches(channel)?;
            Some(Resolved { namespace: namespace.clone(), placeholder })
        })
    }
}

/// What a channel's name turned out to be.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The rules that hold for it.
    pub namespace: Arc<Namespace>,
    /// The bytes of the name that stand for the placeholder, where the pattern has one.
    pub placeholder: Option<Range<usize>>,
}

impl Resolved {
    /// What the placeholder stands for in `channel`, the name that was resolved: a test's id, a user's, …
    #[must_use]
    pub fn value<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.get(self.placeholder.clone()?)
    }
}

/// The rules that the channels of one pattern share.
#[derive(Debug)]
pub struct Namespace {
    /// Its name in the file and in metrics: `test-progress`.
    pub name: String,
    /// Which channels belong to it.
    pub pattern: Pattern,
    /// What they carry.
    pub events: Vec<EventPattern>,
    /// Who may join.
    pub join: Join,
    /// Who may send; nobody but the server if empty.
    pub publish: Vec<Role>,
    /// What is kept.
    pub history: History,
    /// When messages leave for receivers that asked for batches.
    pub batch: Batch,
    /// Whether its channels have the state of a test.
    pub snapshot: bool,
    /// The most particular patterns first, like `conflate`.
    priorities: Vec<(EventPattern, Priority)>,
    conflate: Vec<(EventPattern, ConflationPath)>,
}

impl Namespace {
    /// Whether its channels carry `event`.
    #[must_use]
    pub fn allows(&self, event: &str) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event))
    }

    /// The priority of a message that names none: what the file says for the event (the event itself before a
    /// wildcard), else what the contract says, else normal.
    #[must_use]
    pub fn priority(&self, event: &str) -> Priority {
        let own = self.priorities.iter().find(|(pattern, _)| pattern.matches(event));
        own.map_or_else(|| default_priority(event), |(_, priority)| *priority)
    }

    /// Where the data of `event` says which older messages a newer one supersedes; none if it supersedes none.
    #[must_use]
    pub fn conflation_path(&self, event: &str) -> Option<&ConflationPath> {
        self.conflate.iter().find(|(pattern, _)| pattern.matches(event)).map(|(_, path)| path)
    }
}

/// What the contract says of an event for which a namespace says nothing.
fn default_priority(event: &str) -> Priority {
    match event {
        "system:alert" | "system:maintenance:start" | "system:maintenance:end" => Priority::Critical,
        "test:started"
        | "test:completed"
        | "test:failed"
        | "test:cancelled"
        | "queue:job:started"
        | "queue:job:completed"
        | "queue:job:failed"
        | "queue:job:cancelled"
        | "queue:job:retrying"
        | "queue:paused"
        | "queue:resumed"
        | "user:notification"
        | "user:notification:recalled"
        | "user:notification:read" => Priority::High,
        "test:log" | "user:online" | "user:offline" => Priority::Low,
        _ => Priority::Normal,
    }
}

/// How much of a channel is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// At most this many messages; 0 keeps none.
    pub size: u64,
    /// No message for longer than this.
    pub ttl: Duration,
}

/// When pending messages leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// As soon as so many are pending.
    pub max: usize,
    /// Once in this time; zero turns batching off.
    pub interval: Duration,
}

/// Who may join a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// Every caller; every authenticated one where authentication is on.
    Anyone,
    /// Every caller who is a named user.
    User,
    /// The user that the placeholder names.
    Owner,
    /// The members of the team that the placeholder names.
    Team,
    /// Whoever has this role.
    Role(Role),
}

/// A caller's role: `worker`, `admin`, or any name that a token may carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role(Arc<str>);

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is 1 to 64 of the characters A-Z a-z 0-9 _ . : - , not {0:?}")]
pub struct InvalidRole(pub String);

impl Role {
    /// Takes `text` as it is, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidRole> {
        if (1..=64).contains(&text.len()) && text.chars().all(is_id_char) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidRole(text.chars().take(64).collect()))
        }
    }

    /// The role as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
