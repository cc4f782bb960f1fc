//! Answers of the scripts: a word and what follows it, or pages of jobs.

use std::collections::BTreeSet;
use std::fmt::Display;

use ::redis::Value;

use super::row::{self, Unreadable, list, text};
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

/// What the workers of all nodes handle.
pub(super) fn handled(value: Option<Value>) -> Result<BTreeSet<String>, QueueError> {
    let mut types = BTreeSet::new();
    for worker in list(value.unwrap_or_default())? {
        types.extend(parsed(&worker, |text| serde_json::from_str::<Vec<String>>(text))?);
    }
    Ok(types)
}

/// Jobs with their numbers, each of which says why it waits.
pub(super) fn page(value: Value) -> Result<Vec<(i64, Job)>, QueueError> {
    let mut parts = list(value)?.into_iter();
    let jobs = row::jobs(parts.next().unwrap_or_default())?;
    let handled = handled(parts.next())?;
    Ok(jobs.into_iter().map(|stored| (stored.seq, explain(stored.job, || handled.clone()))).collect())
}
