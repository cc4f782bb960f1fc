//! Reads the tree of `channels.toml` into drafts: every value by itself, with its place.
//!
//! A wrong value is reported and then treated as absent, so that one mistake does not hide the next.
//! What follows only from several values together is `check`'s.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeTable;

use super::conflate::ConflationPath;
use super::diagnostic::Mistakes;
use super::pattern::{EventPattern, Pattern};
use super::value::{At, Key, Value, boolean, duration, elements, entries, integer, parsed, unknown};
use super::{Join, Role};
use crate::config::nearest::did_you_mean;
use crate::model::Priority;
use crate::model::id::is_id_char;

const COMMON_KEYS: [&str; 4] = ["join", "publish", "history", "batch"];
const CHANNEL_KEYS: [&str; 9] =
    ["pattern", "events", "join", "publish", "history", "batch", "conflate", "priority", "snapshot"];

/// Bounds of values. A life of ten years and more overflows nothing, but is meant by nobody.
const SIZE: RangeInclusive<u64> = 0..=10_000_000;
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 31_557_600);
const BATCH_MAX: RangeInclusive<u64> = 1..=1000;
const INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);

/// The file as it was written.
#[derive(Default)]
pub(super) struct File {
    pub(super) defaults: Common,
    /// In the order of the file.
    pub(super) channels: Vec<Draft>,
}

/// What may stand in `[defaults]` and in each channel.
#[derive(Default)]
pub(super) struct Common {
    pub(super) join: Option<At<Join>>,
    pub(super) publish: Option<Vec<Role>>,
    pub(super) size: Option<u64>,
    pub(super) ttl: Option<Duration>,
    pub(super) max: Option<usize>,
    pub(super) interval: Option<Duration>,
}

/// One `[channel.NAME]`.
pub(super) struct Draft {
    pub(super) name: At<String>,
    pub(super) common: Common,
    /// The outer option: whether the key is there.
    pub(super) pattern: Option<Option<At<Pattern>>>,
    pub(super) events: Option<Vec<At<EventPattern>>>,
    pub(super) snapshot: Option<At<bool>>,
    pub(super) priority: Vec<(At<EventPattern>, Priority)>,
    pub(super) conflate: Vec<(At<EventPattern>, ConflationPath)>,
}

/// Reads the whole tree.
pub(super) fn read(tree: &DeTable<'_>, mistakes: &mut Mistakes<'_>) -> File {
    let mut file = File::default();
    for (key, value) in tree {
        match &**key.get_ref() {
            "defaults" => {
                for (key, value) in entries("defaults", value, mistakes) {
                    if !common(&mut file.defaults, key, value, mistakes) {
                        unknown(key, "in [defaults]", &COMMON_KEYS, mistakes);
                    }
                }
            }
            "channel" => {
                for (key, value) in entries("channel", value, mistakes) {
                    file.channels.push(channel(key, value, mistakes));
                }
            }
            _ => unknown(key, "at the top of the file", &["defaults", "channel"], mistakes),
        }
    }
    file.channels.sort_by_key(|draft| draft.name.at);
    file
}

fn channel(key: &Key<'_>, value: &Value<'_>, mistakes: &mut Mistakes<'_>) -> Draft {
    let name = At { value: key.get_ref().clone().into_owned(), at: key.span().start };
    if !(1..=64).contains(&name.value.len()) || !name.value.chars().all(is_id_char) {
        let message = "the name of a channel's entry is 1 to 64 of the characters A-Z a-z 0-9 _ . : -";
        mistakes.add(name.at, message);
    }
    let mut draft = Draft {
        name,
        common: Common::default(),
        pattern: None,
        events: None,
        snapshot: None,
        priority: Vec::new(),
        conflate: Vec::new(),
    };
    for (key, value) in entries(key.get_ref(), value, mistakes) {
        match &**key.get_ref() {
            "pattern" => draft.pattern = Some(parsed("pattern", value, Pattern::parse, mistakes)),
            "events" => draft.events = Some(events(value, mistakes)),
            "snapshot" => draft.snapshot = boolean("snapshot", value, mistakes),
            "priority" => draft.priority = by_event("priority", value, Priority::from_name, mistakes),
            "conflate" => draft.conflate = by_event("conflate", value, ConflationPath::parse, mistakes),
            _ if common(&mut draft.common, key, value, mistakes) => {}
            _ => unknown(key, &format!("in [channel.{}]", draft.name.value), &CHANNEL_KEYS, mistakes),
        }
    }
    draft
}

/// Reads one of the keys that `[defaults]` and channels share; `false` if it is none of them.
fn common(into: &mut Common, key: &Key<'_>, value: &Value<'_>, mistakes: &mut Mistakes<'_>) -> bool {
    match &**key.get_ref() {
        "join" => into.join = parsed("join", value, join, mistakes),
        "publish" => into.publish = roles(value, mistakes),
        "history" => {
            for (key, value) in entries("history", value, mistakes) {
                match &**key.get_ref() {
                    "size" => into.size = integer("history.size", value, SIZE, mistakes),
                    "ttl" => into.ttl = duration("history.ttl", value, TTL, mistakes),
                    _ => unknown(key, "in `history`", &["size", "ttl"], mistakes),
                }
            }
        }
        "batch" => {
            for (key, value) in entries("batch", value, mistakes) {
                match &**key.get_ref() {
                    "max" => {
                        let max = integer("batch.max", value, BATCH_MAX, mistakes);
                        into.max = max.and_then(|max| usize::try_from(max).ok());
                    }
                    "interval" => into.interval = duration("batch.interval", value, INTERVAL, mistakes),
                    _ => unknown(key, "in `batch`", &["max", "interval"], mistakes),
                }
            }
        }
        _ => return false,
    }
    true
}

fn join(text: &str) -> Result<Join, String> {
    match text {
        "anyone" => Ok(Join::Anyone),
        "user" => Ok(Join::User),
        "owner" => Ok(Join::Owner),
        "team" => Ok(Join::Team),
        _ => match text.strip_prefix("role:") {
            Some(role) => Role::parse(role).map(Join::Role).map_err(|e| e.to_string()),
            None => Err(format!(
                "`join` is anyone, user, owner, team or role:NAME, not {text:?}{}",
                did_you_mean(text, ["anyone", "user", "owner", "team"])
            )),
        },
    }
}

fn roles(value: &Value<'_>, mistakes: &mut Mistakes<'_>) -> Option<Vec<Role>> {
    let mut roles: Vec<Role> = Vec::new();
    for value in elements("publish", "roles", value, mistakes)? {
        let Some(role) = parsed("publish", value, Role::parse, mistakes) else { continue };
        if roles.contains(&role.value) {
            mistakes.add(role.at, format!("the role `{}` stands twice", role.value));
        }
        roles.push(role.value);
    }
    Some(roles)
}

/// The events of a channel that could be read.
fn events(value: &Value<'_>, mistakes: &mut Mistakes<'_>) -> Vec<At<EventPattern>> {
    let mut events: Vec<At<EventPattern>> = Vec::new();
    let Some(values) = elements("events", "event names", value, mistakes) else { return events };
    if values.is_empty() {
        mistakes.add_if_whole(value.span().start, "`events` is empty: nothing could be sent to this channel");
    }
    for value in values {
        let Some(event) = parsed("events", value, event, mistakes) else { continue };
        if events.iter().any(|other| other.value == event.value) {
            mistakes.add(event.at, format!("the event `{}` stands twice", event.value));
        } else {
            events.push(event);
        }
    }
    events
}

fn event(text: &str) -> Result<EventPattern, String> {
    EventPattern::parse(text).map_err(|e| format!("{e} (or such a name with `:*` at its end)"))
}

/// A table of events, each with a value that `read` understands.
fn by_event<T, E: Display>(
    what: &str,
    value: &Value<'_>,
    read: impl Fn(&str) -> Result<T, E>,
    mistakes: &mut Mistakes<'_>,
) -> Vec<(At<EventPattern>, T)> {
    let mut found = Vec::new();
    for (key, value) in entries(what, value, mistakes) {
        let at = key.span().start;
        let event = event(key.get_ref()).map_err(|message| mistakes.add(at, message));
        let read = parsed(what, value, &read, mistakes);
        if let (Ok(event), Some(read)) = (event, read) {
            found.push((At { value: event, at }, read.value));
        }
    }
    found
}
