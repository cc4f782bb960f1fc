//! What pytest prints: dots, the lines of `-v` and of xdist, the failures, the summary.
//!
//! The last line tells the counts; it is right where lines were glued together by what the tests print.

use super::text::{add, fail, message, name, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::{Failure, MAX_FAILURES};
use crate::worker::progress::ProgressState;

mod line;
mod report;

pub(super) use line::gives_away;
use line::{Section, Status};
use report::Report;

/// Reads the output of pytest.
#[derive(Debug, Default)]
pub(super) struct Pytest {
    section: Section,
    report: Report,
    // A test that prints without being captured; its status comes on a later line.
    open: Option<String>,
    // The counts were told by the last line.
    told: bool,
    collected: Option<u64>,
    // What the newest summary names. Runs in the output of tests have one, too, and the last is that of all.
    summarised: Vec<String>,
}

impl LineParser for Pytest {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(summary) = line::summary(line) {
            self.report.finish(state);
            self.told = true;
            state.counts.passed = summary.passed;
            state.counts.failed = summary.failed;
            state.counts.skipped = summary.skipped;
            state.counts.total = self.collected;
            state.message = Some(message(line.trim_matches(['=', ' '])));
        } else if let Some(section) = line::section(line) {
            self.report.finish(state);
            self.section = section;
            if section == Section::Summary {
                self.summarised.clear();
            }
        } else {
            match self.section {
                Section::Progress => self.progress(line, state),
                Section::Failures => self.report.line(line, state),
                Section::Summary => {
                    let named = report::summary_line(line, state);
                    // One more than are kept says that there are too many.
                    self.summarised.extend(named.filter(|_| self.summarised.len() <= MAX_FAILURES));
                }
                Section::Other => {}
            }
        }
        show(state);
    }

    fn finish(&mut self, exit: Exit, state: &mut ProgressState) {
        self.report.finish(state);
        // A run that was cut short has the failures that its report names.
        if !self.told && !exit.is_success() {
            state.counts.failed = state.counts.failed.max(state.failures.len() as u64);
        }
        if self.told && u64::try_from(self.summarised.len()).is_ok_and(|named| named == state.counts.failed) {
            state.failures.retain(|failure| self.summarised.contains(&failure.name));
        }
        settle(state);
    }
}

impl Pytest {
    fn progress(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(total) = line::collected(line) {
            self.collected = Some(total);
            state.counts.total = Some(total);
        } else if let Some((id, status)) = line::worker_line(line).or_else(|| line::verbose_line(line)) {
            self.open = None;
            count(status, Some(id), state);
        } else if let Some((file, marks)) = line::dots(line) {
            if let Some(file) = file {
                state.message = Some(message(file));
            }
            for status in marks.chars().filter_map(Status::of_mark) {
                count(status, None, state);
            }
        } else if let Some(id) = line::started(line) {
            if state.current.len() < MAX_CURRENT {
                state.current.push(name(id));
            }
            self.open = Some(name(id));
        } else if let Some(status) = line::status_alone(line)
            && let Some(id) = self.open.take()
        {
            count(status, Some(&id), state);
        }
    }
}

fn count(status: Status, id: Option<&str>, state: &mut ProgressState) {
    if let Some(id) = id.map(name) {
        state.current.retain(|c| *c != id);
        state.message = Some(id.clone());
        if status == Status::Failed {
            fail(state, Failure { name: id, ..Failure::default() });
            return;
        }
    }
    let count = match status {
        Status::Passed => &mut state.counts.passed,
        Status::Failed => &mut state.counts.failed,
        Status::Skipped => &mut state.counts.skipped,
    };
    *count = add(*count, 1);
}
