//! The totals that `node --test` writes behind its TAP. They are right: beside the leaves it counts tests that have
//! subtests, which TAP alone does not tell from suites.

use super::super::text::{add, number};
use crate::model::test::{Counts, Failure, MAX_FAILURES};
use crate::worker::progress::ProgressState;

/// Their comments, in their order.
const WORDS: [&str; 7] = ["tests", "suites", "pass", "fail", "cancelled", "skipped", "todo"];

/// Reads the totals of one run after the other.
#[derive(Debug, Default)]
pub(super) struct Totals {
    // How many of the words have come, and what they said.
    read: usize,
    values: [u64; WORDS.len()],
    // The plan of the run has come, behind all that its tests printed.
    is_due: bool,
    // The counts before the run.
    before: Counts,
    // Tests that failed by their subtests alone.
    parents: Vec<Failure>,
    pub(super) were_told: bool,
}

impl Totals {
    /// Notes a test that failed only because a subtest did; it counts if the totals say so.
    pub(super) fn parent(&mut self, failure: Failure) {
        if self.parents.len() < MAX_FAILURES {
            self.parents.push(failure);
        }
    }

    /// A plan outside of subtests was told, or with `false` a point: node's totals stand right behind its plan, and what looks
    /// like them elsewhere was printed by a test.
    pub(super) fn due(&mut self, is_due: bool) {
        self.is_due = is_due;
    }

    /// Takes a comment outside of subtests; the last one of the totals settles the counts.
    pub(super) fn comment(&mut self, comment: &str, state: &mut ProgressState) {
        let said = comment.split_once(' ').and_then(|(word, count)| Some((word, number(count)?)));
        let Some((word, count)) = said else { return self.read = 0 };
        if word == WORDS[0] {
            self.read = 0;
        }
        if !self.is_due || word != WORDS[self.read] {
            return self.read = 0;
        }
        self.values[self.read] = count;
        self.read += 1;
        if self.read == WORDS.len() {
            self.settle(state);
        }
    }

    fn settle(&mut self, state: &mut ProgressState) {
        let [_, _, passed, failed, cancelled, skipped, todo] = self.values;
        state.counts.passed = add(self.before.passed, passed);
        state.counts.failed = add(self.before.failed, add(failed, cancelled));
        state.counts.skipped = add(self.before.skipped, add(skipped, todo));
        self.parents.drain(..).for_each(|failure| state.note_failure(failure));
        state.counts.total = Some(state.counts.done());
        (self.read, self.before, self.were_told, self.is_due) = (0, state.counts, true, false);
    }
}
