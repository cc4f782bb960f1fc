//! Makes namespaces of drafts: what is missing, what contradicts what, which patterns collide.

use std::time::Duration;

use super::diagnostic::Mistakes;
use super::parse::{Common, Draft, File};
use super::pattern::{EventPattern, Pattern};
use super::value::At;
use super::{Batch, History, Join, Namespace, Role};

/// The namespaces of a file. They are only good if no mistake was found by then.
pub(super) fn namespaces(file: File, mistakes: &mut Mistakes<'_>) -> Vec<Namespace> {
    // Where something else is wrong, that is what became of the channels.
    if file.channels.is_empty() && mistakes.is_empty() {
        mistakes.add(0, "no channel is declared; each has an entry [channel.NAME]");
    }
    overlaps(&file.channels, mistakes);
    let defaults = file.defaults;
    file.channels.into_iter().filter_map(|draft| namespace(draft, &defaults, mistakes)).collect()
}

fn namespace(draft: Draft, defaults: &Common, mistakes: &mut Mistakes<'_>) -> Option<Namespace> {
    let name = &draft.name.value;
    for (key, missing) in [("pattern", draft.pattern.is_none()), ("events", draft.events.is_none())] {
        if missing {
            mistakes.add_if_whole(draft.name.at, format!("[channel.{name}] lacks `{key}`"));
        }
    }
    if let Some(events) = &draft.events {
        let priorities = draft.priority.iter().map(|(event, _)| ("priority", event));
        let conflated = draft.conflate.iter().map(|(event, _)| ("conflate", event));
        for (table, event) in priorities.chain(conflated) {
            listed(table, event, name, events, mistakes);
        }
    }
    let common = &draft.common;
    if let Some(Some(pattern)) = &draft.pattern {
        join_fits(common.join.as_ref(), defaults.join.as_ref(), pattern, mistakes);
        let of_test = pattern.value.placeholder() == Some("testId");
        if let Some(At { value: true, at }) = draft.snapshot
            && !of_test
        {
            let message = format!(
                "`snapshot` is the state of a test, so the pattern needs {{testId}}; `{}` has none",
                pattern.value
            );
            mistakes.add_if_whole(at, message);
        }
    }
    let join = common.join.as_ref().or(defaults.join.as_ref());
    let publish = common.publish.as_ref().or(defaults.publish.as_ref());
    Some(Namespace {
        pattern: draft.pattern??.value,
        events: draft.events?.into_iter().map(|event| event.value).collect(),
        join: join.map_or(Join::Anyone, |join| join.value.clone()),
        publish: publish.cloned().unwrap_or_else(usual_publishers),
        history: History {
            size: common.size.or(defaults.size).unwrap_or(10_000),
            ttl: common.ttl.or(defaults.ttl).unwrap_or(Duration::from_hours(7 * 24)),
        },
        batch: Batch {
            max: common.max.or(defaults.max).unwrap_or(10),
            interval: common.interval.or(defaults.interval).unwrap_or(Duration::from_millis(100)),
        },
        snapshot: draft.snapshot.is_some_and(|snapshot| snapshot.value),
        priorities: most_particular_first(draft.priority),
        conflate: most_particular_first(draft.conflate),
        name: draft.name.value,
    })
}

fn usual_publishers() -> Vec<Role> {
    ["worker", "admin"].iter().filter_map(|role| Role::parse(role).ok()).collect()
}

fn most_particular_first<T>(entries: Vec<(At<EventPattern>, T)>) -> Vec<(EventPattern, T)> {
    let mut entries: Vec<_> = entries.into_iter().map(|(event, value)| (event.value, value)).collect();
    entries.sort_by_key(|(event, _)| event.rank());
    entries
}

/// An entry for an event that never comes is a slip of the pen.
fn listed(
    table: &str,
    event: &At<EventPattern>,
    name: &str,
    events: &[At<EventPattern>],
    mistakes: &mut Mistakes<'_>,
) {
    if events.iter().any(|listed| listed.value.meets(&event.value)) {
        return;
    }
    let known: Vec<_> = events.iter().map(|event| event.value.to_string()).collect();
    let word = event.value.to_string();
    let meant = crate::config::nearest::did_you_mean(&word, known.iter().map(String::as_str));
    let message = format!("`{table}` names `{word}`, which is not among the events of `{name}`{meant}");
    mistakes.add_if_whole(event.at, message);
}

/// `owner` and `team` ask whom the placeholder names.
fn join_fits(
    own: Option<&At<Join>>,
    default: Option<&At<Join>>,
    pattern: &At<Pattern>,
    mistakes: &mut Mistakes<'_>,
) {
    if pattern.value.placeholder().is_some() {
        return;
    }
    let Some(join) = own.or(default) else { return };
    let word = match join.value {
        Join::Owner => "owner",
        Join::Team => "team",
        Join::Anyone | Join::User | Join::Role(_) => return,
    };
    // A default is right by itself; the channel is where it does not fit.
    let (at, whence) = if own.is_some() { (join.at, "") } else { (pattern.at, " of [defaults]") };
    let message = format!(
        "`join = \"{word}\"`{whence} asks for the {word} that a placeholder names; `{}` has none",
        pattern.value
    );
    mistakes.add_if_whole(at, message);
}

/// A name that two patterns match would belong to nobody in particular.
fn overlaps(drafts: &[Draft], mistakes: &mut Mistakes<'_>) {
    let patterns: Vec<(&str, &At<Pattern>)> = drafts
        .iter()
        .filter_map(|draft| Some((draft.name.value.as_str(), draft.pattern.as_ref()?.as_ref()?)))
        .collect();
    for (i, (name, pattern)) in patterns.iter().enumerate() {
        for (other_name, other) in &patterns[..i] {
            // The entries stand in the order of the file, but a pattern may stand apart from its entry.
            let ((first_name, first), (name, pattern)) = if other.at < pattern.at {
                ((other_name, other), (name, pattern))
            } else {
                ((name, pattern), (other_name, other))
            };
            if let Some(both) = first.value.overlap(&pattern.value) {
                let line = mistakes.line(first.at);
                let message = format!(
                    "the pattern `{}` of `{name}` overlaps `{}` of `{first_name}` (line {line}): \
                     `{both}` would belong to both",
                    pattern.value, first.value
                );
                mistakes.add(pattern.at, message);
            }
        }
    }
}
