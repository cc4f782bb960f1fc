//! Answers of the scripts: a word and what follows it, or pages of jobs.

use std::collections::BTreeSet;
use std::fmt::Display;

use ::redis::Value;

use super::control::waits;
use super::entry::Added;
use super::row::{self, Stored, Unreadable, list, number, text};
use crate::model::{Job, JobState};
use crate::queue::{QueueError, explain};

/// An answer as its word and what follows it.
pub(super) fn answer(value: Value) -> Result<(String, std::vec::IntoIter<Value>), QueueError> {
    let mut elements = list(value)?.into_iter();
    let word = text(&elements.next().unwrap_or_default())?;
    Ok((word, elements))
}

/// An answer that no script of ours gives.
pub(super) fn unexpected(word: &str) -> QueueError {
    Unreadable::answer(format!("a script answered {word:?}")).into()
}

pub(super) fn parsed<T, E>(value: &Value, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, QueueError>
where
    E: Display,
{
    Ok(parse(&text(value)?).map_err(|e| Unreadable::answer(e.to_string()))?)
}

pub(super) fn state_of(value: &Value) -> Result<JobState, QueueError> {
    parsed(value, |name| JobState::from_name(name).ok_or("no such state"))
}

/// What the script says of a job that it added, behind the word.
pub(super) fn added(first: Value, rest: std::vec::IntoIter<Value>) -> Result<Added, QueueError> {
    let parts: Vec<Value> = std::iter::once(first).chain(rest).collect();
    let [seq, now, change, state, depth, queued] =
        <[Value; 6]>::try_from(parts).map_err(|_| unexpected("too little"))?;
    Ok(Added {
        seq: number(&seq)?,
        now_ms: number(&now)?,
        change: number(&change)?,
        state: state_of(&state)?,
        depth: text(&depth)?,
        queued_ms: number(&queued)?,
    })
}

/// What Redis holds of a job is nothing that the script understands.
pub(super) fn broken(why: Option<Value>) -> QueueError {
    let why = text(&why.unwrap_or_default()).unwrap_or_default();
    Unreadable::answer(format!("a job is none: {why}")).into()
}

/// What the workers of all nodes handle.
pub(super) fn handled(value: Option<Value>) -> Result<BTreeSet<String>, QueueError> {
    let mut types = BTreeSet::new();
    for worker in list(value.unwrap_or_default())? {
        types.extend(parsed(&worker, |text| serde_json::from_str::<Vec<String>>(text))?);
    }
    Ok(types)
}

/// The one job that was asked for, which says why it waits.
pub(super) fn one(value: Value) -> Result<Option<Job>, QueueError> {
    let mut parts = list(value)?.into_iter();
    let found = list(parts.next().unwrap_or_default())?.into_iter().next();
    let Some(found) = found else { return Ok(None) };
    let job = Stored::read(found)?.job;
    let handled = handled(parts.next())?;
    let waits = waits(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())?;
    Ok(Some(explain(job, || handled, &waits)))
}

/// A stretch of a list.
pub(super) struct Stretch {
    /// Those that can be read, with their numbers.
    pub(super) jobs: Vec<(i64, Job)>,
    /// How many were looked at.
    pub(super) seen: usize,
    /// The number of the last of these.
    pub(super) last: Option<i64>,
}

/// Jobs, each of which says why it waits.
pub(super) fn stretch(value: Value) -> Result<Stretch, QueueError> {
    let mut parts = list(value)?.into_iter();
    let jobs = row::jobs(parts.next().unwrap_or_default())?;
    let handled = handled(parts.next())?;
    let seen = usize::try_from(number(&parts.next().unwrap_or_default())?).unwrap_or(0);
    let last = parts.next();
    let last = last.filter(|_| seen > 0).map(|last| number(&last)).transpose()?;
    let waits = waits(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())?;
    let explained = |stored: Stored| (stored.seq, explain(stored.job, || handled.clone(), &waits));
    Ok(Stretch { jobs: jobs.into_iter().map(explained).collect(), seen, last })
}
