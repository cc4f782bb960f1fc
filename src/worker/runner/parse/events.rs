//! What runners tell beside their output, as JSON lines in the pipe that `TIDINGS_EVENTS` names: exact where output is
//! for people. Our plugin for pytest writes it, and any program may.
//!
//! `{"event":"plan","total":12}`, `{"event":"started","name":"a"}`, `{"event":"ended","name":"a","outcome":"passed",
//! "durationMs":3,"message":"…","output":"…"}` with the outcomes `passed`, `failed` and `skipped`;
//! `{"event":"reopened","name":"a","outcome":"failed"}` takes an outcome back, for a test that is tried again.

use serde::Deserialize;

use super::text::{Tail, add, fail, message, name, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// The environment variable that names the pipe.
pub const EVENTS_ENV: &str = "TIDINGS_EVENTS";

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Plan {
        total: u64,
    },
    Started {
        name: String,
    },
    #[serde(rename_all = "camelCase")]
    Ended {
        name: String,
        outcome: Outcome,
        duration_ms: Option<f64>,
        message: Option<String>,
        output: Option<String>,
    },
    Reopened {
        name: String,
        outcome: Outcome,
    },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Reads events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    planned: Option<u64>,
}

impl LineParser for Events {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        match serde_json::from_str(line) {
            Ok(Event::Plan { total }) => self.planned = Some(add(total, 0)),
            Ok(Event::Started { name: test }) => {
                let test = name(&test);
                if state.current.len() < MAX_CURRENT && !state.current.contains(&test) {
                    state.current.push(test.clone());
                }
                state.message = Some(test);
            }
            Ok(Event::Ended { name: test, outcome, duration_ms, message: why, output }) => {
                let test = name(&test);
                state.current.retain(|current| *current != test);
                if let Some(ms) = duration_ms.filter(|ms| (0.0..1e12).contains(ms)) {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e12")]
                    state.note_duration(&test, ms as u64);
                }
                match outcome {
                    Outcome::Failed => {
                        let mut tail = Tail::default();
                        tail.push(&output.unwrap_or_default());
                        let why = why.as_deref().map(message).unwrap_or_default();
                        fail(state, Failure { name: test, message: why, output: tail.text(), history: None });
                    }
                    Outcome::Passed => state.counts.passed = add(state.counts.passed, 1),
                    Outcome::Skipped => state.counts.skipped = add(state.counts.skipped, 1),
                }
            }
            Ok(Event::Reopened { name: test, outcome }) => reopen(&name(&test), outcome, state),
            // Of a newer or another protocol; what it means for the counts nobody knows.
            Err(_) => return,
        }
        state.counts.total = self.planned.or(state.counts.total);
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        settle(state);
    }
}

fn reopen(test: &str, outcome: Outcome, state: &mut ProgressState) {
    let count = match outcome {
        Outcome::Passed => &mut state.counts.passed,
        Outcome::Failed => {
            state.failures.retain(|failure| failure.name != test);
            &mut state.counts.failed
        }
        Outcome::Skipped => &mut state.counts.skipped,
    };
    *count = count.saturating_sub(1);
}

/// Whether this is an event.
pub(crate) fn is_event(line: &str) -> bool {
    serde_json::from_str::<Event>(line).is_ok()
}
