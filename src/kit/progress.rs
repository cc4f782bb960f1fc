//! How a handler tells how far it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::model::test::{Failure, MAX_FAILURES};
use crate::worker::progress::Progress as State;

/// Tells how far a test is. Clones tell of the same one.
///
/// None of these waits, and all may be called as often as one likes: of progress the newest state is told, at most ten times a
/// second; of the log the newest 2,000 lines wait to be told.
#[derive(Clone)]
pub struct Progress {
    state: State,
    cancel: CancellationToken,
    // Test cases are told one by one; until then `set` stands for them. Looked at and changed with the state only: the
    // first case of two clones would forget the other's.
    has_cases: Arc<AtomicBool>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("state", &self.state.state()).finish_non_exhaustive()
    }
}

impl Progress {
    pub(super) fn new(state: State, cancel: CancellationToken) -> Self {
        Self { state, cancel, has_cases: Arc::default() }
    }

    /// So many of so many are done. Where test cases are told one by one, they are what is counted, and this says how
    /// many there will be.
    pub fn set(&self, done: u64, total: u64) {
        self.state.update(|state| {
            state.counts.total = Some(total);
            if self.has_cases.load(Ordering::Relaxed) {
                return state.progress_from_counts();
            }
            state.counts.passed = done.min(total);
            if total > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
                let percent = done.min(total) as f64 * 100.0 / total as f64;
                state.progress = percent;
            }
        });
    }

    /// How far it is, from 0 to 100.
    pub fn percent(&self, percent: f64) {
        if percent.is_finite() {
            self.state.update(|state| state.progress = percent.clamp(0.0, 100.0));
        }
    }

    /// Something that is measured, as it is now.
    pub fn metric(&self, name: impl Into<String>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        self.state.update(|state| drop(state.metrics.insert(name, value)));
    }

    /// A line for people: what it does just now.
    pub fn message(&self, message: impl Into<String>) {
        let message = message.into();
        self.state.update(|state| state.message = Some(message));
    }

    /// Adds to the log; each line of `text` is one.
    pub fn log(&self, text: impl AsRef<str>) {
        text.as_ref().lines().for_each(|line| self.state.log(line));
    }

    /// A test case begins.
    pub fn started(&self, case: impl Into<String>) {
        let case = case.into();
        self.state.update(|state| {
            if state.current.len() < MAX_FAILURES {
                state.current.push(case);
            }
        });
    }

    /// A test case passed.
    pub fn passed(&self, case: impl AsRef<str>) {
        self.ended(case.as_ref(), |counts| counts.passed += 1);
    }

    /// A test case was skipped.
    pub fn skipped(&self, case: impl AsRef<str>) {
        self.ended(case.as_ref(), |counts| counts.skipped += 1);
    }

    /// A test case failed. The handler still says by its own end whether the whole did.
    pub fn failed(&self, case: impl AsRef<str>, why: impl Into<String>) {
        let failure =
            Failure { name: case.as_ref().to_owned(), message: why.into(), output: None, history: None };
        self.state.update(|state| state.note_failure(failure));
        self.ended(case.as_ref(), |counts| counts.failed += 1);
    }

    /// Whether the handler has to stop: somebody cancelled the job, its time is up, or the worker shuts down. What a
    /// handler returns then does not matter; one that does not return within five seconds is dropped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Resolves when the handler has to stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// The token behind [`Self::cancelled`], for what the handler starts.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    pub(super) fn passed_all(&self) {
        self.state.update(|state| {
            state.progress = 100.0;
            state.current.clear();
        });
    }

    fn ended(&self, case: &str, count: impl FnOnce(&mut crate::model::test::Counts)) {
        self.state.update(|state| {
            if !self.has_cases.swap(true, Ordering::Relaxed) {
                state.counts.passed = 0;
            }
            state.current.retain(|current| current != case);
            count(&mut state.counts);
            if state.counts.total.is_some() {
                state.progress_from_counts();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn no_case_of_clones_that_begin_at_once_is_lost() {
        for round in 0..2000 {
            let progress = Progress::new(State::new(), CancellationToken::new());
            // What stands for the cases until the first one is told.
            progress.set(3, 4);
            let begin = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let (progress, begin) = (progress.clone(), &begin);
                    scope.spawn(move || {
                        begin.wait();
                        progress.passed("case");
                        progress.set(4, 4);
                    });
                }
            });
            let state = progress.state.state();
            assert_eq!((state.counts.passed, state.counts.total), (4, Some(4)), "round {round}");
        }
    }
}
