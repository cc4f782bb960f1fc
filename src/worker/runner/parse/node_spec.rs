//! The `spec` reporter of `node --test`: marks, nested like the tests, and totals, which are right.

use super::text::{Tail, add, message, name, number, settle, show, time};
use super::{Exit, LineParser};
use crate::model::test::{Failure, MAX_FAILURES};
use crate::worker::progress::ProgressState;

/// Suites may be nested this deep; what is deeper is counted as tests until the totals come.
const MAX_DEPTH: usize = 32;

/// What stands above the failures of the `dot` reporter, which tells nothing else.
const DOTS_FAILED: &str = "Failed tests:";

/// Reads the spec reporter.
#[derive(Debug, Default)]
pub(super) struct NodeSpec {
    // The suites that are open, by their indentation.
    open: Vec<(usize, String)>,
    // Whether the totals have come; then the failures are told.
    totals: bool,
    // What has others inside and failed: tests, which count, and suites, which do not.
    parents: Vec<Failure>,
    block: Option<(String, Tail)>,
}

impl LineParser for NodeSpec {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some((what, count)) = total(text) {
            self.total(what, count, state);
        } else if line == DOTS_FAILED {
            // The dots before it say nothing that could be counted.
            self.totals = true;
        } else if let Some(title) = text.strip_prefix("▶ ") {
            self.open_suite(indent, title, state);
        } else if let Some((mark, rest)) = marked(text) {
            self.close(state);
            self.test(indent, mark, rest, state);
        } else if let Some((_, output)) = &mut self.block {
            output.line(line.strip_prefix("  ").unwrap_or(line));
        }
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
        self.name_parents(state);
        state.counts.failed = state.counts.failed.max(u64::try_from(state.failures.len()).unwrap_or(0));
        settle(state);
    }
}

impl NodeSpec {
    fn open_suite(&mut self, indent: usize, title: &str, state: &mut ProgressState) {
        // Older versions close a suite with the same mark, and its time.
        let (title, ms) = timed(title);
        while self.open.pop_if(|(i, _)| *i >= indent).is_some() {}
        if ms.is_none() && self.open.len() < MAX_DEPTH {
            self.open.push((indent, name(title)));
        }
        state.current = self.path("").into_iter().collect();
    }

    fn test(&mut self, indent: usize, mark: char, rest: &str, state: &mut ProgressState) {
        let (rest, directive) = rest.rsplit_once(" # ").map_or((rest, false), |(rest, _)| (rest, true));
        let (title, ms) = timed(rest);
        if self.totals {
            if mark == '✖' && !directive {
                self.block = Some((name(title), Tail::default()));
            }
            return;
        }
        let closes = self.open.last().is_some_and(|(i, open)| *i == indent && *open == name(title));
        while self.open.pop_if(|(i, _)| *i >= indent).is_some() {}
        if closes {
            if mark == '✖' && !directive && self.parents.len() < MAX_FAILURES {
                let name = self.path(title).unwrap_or_default();
                let message = "its subtests failed".to_owned();
                self.parents.push(Failure { name, message, output: None, history: None });
            }
            return;
        }
        let test = self.path(title).unwrap_or_default();
        if let Some(ms) = ms {
            state.note_duration(&test, ms);
        }
        let count = match mark {
            _ if directive => &mut state.counts.skipped,
            '✔' => &mut state.counts.passed,
            '✖' => &mut state.counts.failed,
            _ => &mut state.counts.skipped,
        };
        *count = add(*count, 1);
        state.message = Some(test);
    }

    fn total(&mut self, what: &str, count: u64, state: &mut ProgressState) {
        if !std::mem::replace(&mut self.totals, true) {
            state.current.clear();
            (state.counts.passed, state.counts.failed, state.counts.skipped) = (0, 0, 0);
        }
        let slot = match what {
            "pass" => &mut state.counts.passed,
            "fail" | "cancelled" => &mut state.counts.failed,
            "skipped" | "todo" => &mut state.counts.skipped,
            "tests" => return state.counts.total = Some(count),
            _ => return,
        };
        *slot = add(*slot, count);
    }

    /// Notes the failure whose report ends here.
    fn close(&mut self, state: &mut ProgressState) {
        let Some((test, output)) = self.block.take() else { return };
        let output = output.text();
        // Suites among the failures of the `dot` reporter; those of spec are counted.
        if state.counts.done() == 0 && output.as_deref().is_some_and(is_of_subtests) {
            return;
        }
        let first = output.as_deref().and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
        let why = first.map(message).unwrap_or_default();
        state.note_failure(Failure { name: test, message: why, output, history: None });
    }

    /// Names those that failed by their subtests, which the report at the end leaves out, unless some of them may be suites.
    fn name_parents(&mut self, state: &mut ProgressState) {
        let unnamed = usize::try_from(state.counts.failed).unwrap_or(usize::MAX);
        if self.totals && unnamed.saturating_sub(state.failures.len()) == self.parents.len() {
            self.parents.drain(..).for_each(|failure| state.note_failure(failure));
        }
    }

    fn path(&self, title: &str) -> Option<String> {
        let names = self.open.iter().map(|(_, name)| name.as_str());
        let path: Vec<&str> = names.chain((!title.is_empty()).then_some(title)).collect();
        (!path.is_empty()).then(|| name(&path.join(" > ")))
    }
}

/// `'1 subtest failed'`
fn is_of_subtests(output: &str) -> bool {
    output.trim().trim_matches('\'').ends_with(" failed") && output.contains(" subtest")
}

/// Takes `ℹ pass 4`.
fn total(text: &str) -> Option<(&str, u64)> {
    let (what, count) = text.strip_prefix("ℹ ")?.split_once(' ')?;
    let known = ["tests", "suites", "pass", "fail", "cancelled", "skipped", "todo"];
    known.contains(&what).then(|| number(count.trim()).map(|count| (what, count)))?
}

fn marked(text: &str) -> Option<(char, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '✔' | '✖' | '﹣'))?;
    let rest = text[mark.len_utf8()..].strip_prefix(' ')?;
    // The heading of the failures at the end.
    (rest != "failing tests:").then_some((mark, rest))
}

/// The test and the time of `adds (0.721905ms)`.
fn timed(title: &str) -> (&str, Option<u64>) {
    let timed = title.strip_suffix(')').and_then(|t| t.rsplit_once(" ("));
    timed.and_then(|(test, text)| Some((test, Some(time(text)?)))).unwrap_or((title, None))
}

/// Whether only this reporter prints this.
pub(super) fn gives_away(line: &str) -> bool {
    marked(line.trim_start()).is_some_and(|(_, rest)| {
        let rest = rest.rsplit_once(" # ").map_or(rest, |(rest, _)| rest);
        timed(rest).1.is_some() && rest.ends_with("ms)")
    })
}
