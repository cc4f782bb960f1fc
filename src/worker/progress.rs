//! How a running attempt tells how far it is.
//!
//! A runner changes one state as often as it likes; the attempt's publisher looks at it at its own pace, so a
//! fast runner costs nothing but the newest state is always told. Log lines queue up to a bound; beyond it
//! the oldest ones make room and are counted, because a tail is worth more than a head.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::model::forecast::{Outlook, Slower, Stage, Stalled};
use crate::model::now_ms;
use crate::model::test::{Counts, EtaMs, Failure, MAX_FAILURES};

/// The longest log line that is kept, in bytes; the rest of a longer one is cut.
pub const MAX_LINE_BYTES: usize = 4096;
/// How many of the slowest test cases are known.
pub const MAX_SLOWEST: usize = 20;
/// How many log lines wait for the publisher at most.
pub const MAX_PENDING_LINES: usize = 2000;

/// How long a test case took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseTime {
    /// Its name as the runner tells it.
    pub name: String,
    /// In milliseconds.
    pub duration_ms: u64,
}

/// The whole state of a running attempt: absolute and complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressState {
    /// 0 to 100.
    pub progress: f64,
    /// Test cases by outcome.
    pub counts: Counts,
    /// The test cases that run now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub current: Vec<String>,
    /// Whatever the runner measures.
    pub metrics: Map<String, Value>,
    /// The first failures; at most [`MAX_FAILURES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// A line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it will probably end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<EtaMs>,
    /// It takes longer than nearly all of its runs before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower: Option<Slower>,
    /// It is alive, and makes no progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Stalled>,
    /// The test cases that took longest, the slowest one first; at most [`MAX_SLOWEST`]. They are told with the results.
    #[serde(skip)]
    pub slowest: Vec<CaseTime>,
}

impl ProgressState {
    /// Notes a failed test case, unless enough are noted already.
    pub fn note_failure(&mut self, failure: Failure) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure);
        }
    }

    /// Adds what can be said of its future; `knows` says that the runner itself knows its end.
    pub(crate) fn foreseen(mut self, outlook: &mut Outlook, knows: bool) -> Self {
        let stage = Stage { progress: self.progress, counts: self.counts, current: &self.current };
        let prospect = outlook.look(stage, self.eta_ms, knows, now_ms());
        self.eta_ms = prospect.eta_ms;
        (self.slower, self.stalled) = (prospect.slower, prospect.stalled);
        self
    }

    /// The percentage, and the data of `test:progress` without `testId` and `attempt`.
    pub(crate) fn told(&self) -> Option<(f64, Box<RawValue>)> {
        #[derive(Serialize)]
        struct Told<'a> {
            #[serde(flatten)]
            state: &'a ProgressState,
            completed: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            total: Option<u64>,
        }
        // A hundredth of a percent is more than any bar shows.
        let percent = (self.progress * 100.0).round() / 100.0;
        let state = &Self { progress: percent, ..self.clone() };
        let told = Told { state, completed: state.counts.done(), total: state.counts.total };
        Some((percent, to_raw_value(&told).ok()?))
    }

    /// Notes how long a test case took, if it is one of the slowest. Of several tries the longest counts.
    pub fn note_duration(&mut self, name: &str, duration_ms: u64) {
        if let Some(known) = self.slowest.iter().position(|case| case.name == name) {
            if self.slowest[known].duration_ms >= duration_ms {
                return;
            }
            self.slowest.remove(known);
        }
        let at = self.slowest.partition_point(|case| case.duration_ms >= duration_ms);
        if at < MAX_SLOWEST {
            self.slowest.insert(at, CaseTime { name: name.to_owned(), duration_ms });
            self.slowest.truncate(MAX_SLOWEST);
        }
    }

    /// Sets `progress` from the counts where the total is known.
    pub fn progress_from_counts(&mut self) {
        if let Some(total) = self.counts.total.filter(|t| *t > 0) {
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
            let percent = self.counts.done() as f64 * 100.0 / total as f64;
            self.progress = percent.clamp(0.0, 100.0);
        }
    }
}

/// Log lines that wait to be published.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogChunk {
    /// The number of the first of `lines`, from 1; a jump over the end of the chunk before shows lost lines.
    pub first_line: u64,
    /// The lines, without their ends.
    pub lines: Vec<String>,
}

#[derive(Debug, Default)]
struct Inner {
    state: ProgressState,
    changed: bool,
    lines: VecDeque<String>,
    // The number of `lines.front()`.
    first_line: u64,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Notify,
}

/// The runner's end; clones tell of the same attempt.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

impl Progress {
    /// The state of an attempt that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the state.
    pub fn update(&self, change: impl FnOnce(&mut ProgressState)) {
        let mut inner = self.lock();
        change(&mut inner.state);
        inner.changed = true;
        drop(inner);
        self.0.wake.notify_one();
    }

    /// Adds a line of output, without its end.
    pub fn log(&self, line: &str) {
        let cut = line.floor_char_boundary(MAX_LINE_BYTES);
        let mut inner = self.lock();
        if inner.lines.is_empty() && inner.first_line == 0 {
            inner.first_line = 1;
        }
        if inner.lines.len() == MAX_PENDING_LINES {
            inner.lines.pop_front();
            inner.first_line += 1;
        }
        inner.lines.push_back(line[..cut].to_owned());
        drop(inner);
        self.0.wake.notify_one();
    }

    /// The newest state.
    #[must_use]
    pub fn state(&self) -> ProgressState {
        self.lock().state.clone()
    }

    /// The newest state, if it changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> Option<ProgressState> {
        let mut inner = self.lock();
        std::mem::take(&mut inner.changed).then(|| inner.state.clone())
    }

    /// Waiting log lines, oldest first: up to `max` of them and about `max_bytes`, but at least one.
    #[must_use]
    pub fn take_log(&self, max: usize, max_bytes: usize) -> Option<LogChunk> {
        let mut inner = self.lock();
        if inner.lines.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |line: &&String| {
            bytes += line.len();
            bytes <= max_bytes
        };
        let n = inner.lines.iter().take(max).take_while(fits).count().max(1);
        let chunk = LogChunk { first_line: inner.first_line, lines: inner.lines.drain(..n).collect() };
        inner.first_line += n as u64;
        Some(chunk)
    }

    /// Waits until something was changed or logged since the last wait.
    pub async fn changed(&self) {
        self.0.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panicking runner cannot leave the state half changed in a way that matters: it is only shown.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_state_is_told_once() {
        let p = Progress::new();
        assert_eq!(p.take_changed(), None);
        p.update(|s| s.progress = 1.0);
        p.update(|s| s.progress = 2.0);
        assert_eq!(p.take_changed().map(|s| s.progress), Some(2.0));
        assert_eq!(p.take_changed(), None);
    }

    #[test]
    fn a_flood_of_lines_keeps_the_tail_and_its_numbers() {
        let p = Progress::new();
        for i in 1..=MAX_PENDING_LINES + 10 {
            p.log(&format!("line {i}"));
        }
        let chunk = p.take_log(5, 1000).expect("lines");
        assert_eq!((chunk.first_line, chunk.lines[0].as_str()), (11, "line 11"));
        assert_eq!(p.take_log(1, 1).map(|c| c.first_line), Some(16));
    }

    #[test]
    fn the_slowest_cases_are_known_in_order() {
        let mut state = ProgressState::default();
        (0..100).for_each(|i| state.note_duration(&format!("case {i}"), i * 7 % 100));
        state.note_duration("case 1", 1000);
        state.note_duration("case 1", 3);
        let known: Vec<u64> = state.slowest.iter().map(|case| case.duration_ms).collect();
        assert_eq!((known.len(), &known[..3]), (MAX_SLOWEST, &[1000, 99, 98][..]));
        assert!(known.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let p = Progress::new();
        p.log(&"é".repeat(MAX_LINE_BYTES));
        assert_eq!(p.take_log(1, 1).map(|c| c.lines[0].len()), Some(MAX_LINE_BYTES));
    }
}
