//! What Playwright Test prints with its `list`, `line` and `dot` reporters. Its summary alone knows which tests passed
//! only when they were tried again.

use std::collections::BTreeSet;

use super::text::{Tail, add, message, name, number, settle, show, time};
use super::{Exit, LineParser};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// More failed tests than this are not remembered for the case that they pass when they are tried again.
const MAX_TRACKED: usize = 4096;

/// Reads the output of Playwright Test.
#[derive(Debug, Default)]
pub(super) struct Playwright {
    announced: u64,
    failed: BTreeSet<String>,
    // The failure whose block is being printed.
    block: Option<(String, Tail)>,
    // The outcome of the summary whose tests are being named.
    summary: Option<&'static str>,
}

impl LineParser for Playwright {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(count) = announced(line) {
            self.announced = count;
            state.counts.total = Some(count);
        } else if let Some((outcome, count)) = summary(line) {
            self.close(state);
            self.summarise(outcome, count, state);
        } else if let Some(outcome) = self.summary {
            // A test that passed in the end is no failure.
            if outcome == "flaky" {
                let test = title(line);
                state.failures.retain(|failure| failure.name != test);
            }
        } else if let Some(test) = block(line) {
            self.close(state);
            self.block = Some((test, Tail::default()));
        } else if let Some((mark, rest)) = listed(line) {
            self.close(state);
            self.listed(mark, rest, state);
        } else if let Some((n, rest)) = counted(line) {
            self.close(state);
            state.message = Some(name(rest));
            state.current = vec![name(rest)];
            // Which of those before passed is told at the end.
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
            let percent =
                n.saturating_sub(1).min(self.announced) as f64 * 100.0 / self.announced.max(1) as f64;
            state.progress = percent;
            return;
        } else if let Some((_, output)) = &mut self.block {
            output.line(line.strip_prefix("    ").unwrap_or(line));
        }
        if state.counts.done() > 0 {
            show(state);
        }
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
        settle(state);
    }
}

impl Playwright {
    fn listed(&mut self, mark: char, rest: &str, state: &mut ProgressState) {
        // The number of the attempt stands first.
        let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let (rest, ms) = timed(rest);
        let (test, is_retry) = match rest.rsplit_once(" (retry #") {
            Some((test, _)) => (title(test), true),
            None => (title(rest), false),
        };
        if let Some(ms) = ms {
            state.note_duration(&test, ms);
        }
        state.message = Some(test.clone());
        let counts = &mut state.counts;
        match mark {
            '-' => counts.skipped = add(counts.skipped, 1),
            '✓' | '√' | 'o' => {
                if is_retry && self.failed.remove(&test) {
                    counts.failed = counts.failed.saturating_sub(1);
                }
                counts.passed = add(counts.passed, 1);
            }
            _ if is_retry && self.failed.contains(&test) => {}
            _ => {
                counts.failed = add(counts.failed, 1);
                if self.failed.len() < MAX_TRACKED {
                    self.failed.insert(test);
                }
            }
        }
    }

    fn summarise(&mut self, outcome: &'static str, count: u64, state: &mut ProgressState) {
        if self.summary.is_none() {
            (state.counts.passed, state.counts.failed, state.counts.skipped) = (0, 0, 0);
            state.current.clear();
        }
        self.summary = Some(outcome);
        let counts = &mut state.counts;
        let slot = match outcome {
            "passed" | "flaky" => &mut counts.passed,
            "skipped" | "did not run" => &mut counts.skipped,
            _ => &mut counts.failed,
        };
        *slot = add(*slot, count);
        counts.total = Some(counts.done().max(self.announced));
    }

    fn close(&mut self, state: &mut ProgressState) {
        let Some((test, output)) = self.block.take() else { return };
        let output = output.text();
        let first = output.as_deref().and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
        let why = first.map(message).unwrap_or_default();
        state.note_failure(Failure { name: test, message: why, output, history: None });
    }
}

/// Takes `Running 6 tests using 1 worker`.
fn announced(line: &str) -> Option<u64> {
    let (count, rest) = line.strip_prefix("Running ")?.split_once(" test")?;
    let rest = rest.strip_prefix('s').unwrap_or(rest);
    (rest.starts_with(" using ") && rest.contains(" worker")).then(|| number(count))?
}

/// Takes `  3 passed (13.3s)`.
fn summary(line: &str) -> Option<(&'static str, u64)> {
    let (count, rest) = line.strip_prefix("  ")?.split_once(' ')?;
    let count = number(count)?;
    let known = ["passed", "failed", "flaky", "skipped", "did not run", "interrupted"];
    let outcome = known.into_iter().find(|known| {
        rest.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
    })?;
    Some((outcome, count))
}

/// The mark and the rest of `  ✓  1 a.spec.js:3:3 › sum › adds (17ms)`.
fn listed(line: &str) -> Option<(char, &str)> {
    let text = line.strip_prefix("  ")?;
    let mark = text.chars().next().filter(|c| matches!(c, '✓' | '✘' | '-' | '√' | 'x' | 'o'))?;
    let rest = text[mark.len_utf8()..].strip_prefix(' ')?;
    (rest.trim_start().starts_with(|c: char| c.is_ascii_digit()) && rest.contains(" › "))
        .then_some((mark, rest))
}

/// Takes `[3/6] (retries) a.spec.js:4:3 › sum › is wrong`.
fn counted(line: &str) -> Option<(u64, &str)> {
    let (numbers, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (n, _) = numbers.split_once('/')?;
    rest.contains(" › ").then(|| number(n).map(|n| (n, rest)))?
}

/// The test of `  1) a.spec.js:4:3 › sum › is wrong ───────`.
fn block(line: &str) -> Option<String> {
    let (n, rest) = line.trim_start().split_once(") ")?;
    (number(n).is_some() && rest.contains(" › ") && rest.ends_with('─')).then(|| title(rest))
}

fn title(text: &str) -> String {
    name(text.trim().trim_end_matches('─'))
}

/// The test and the time of `adds (17ms)`.
fn timed(text: &str) -> (&str, Option<u64>) {
    let timed = text.strip_suffix(')').and_then(|t| t.rsplit_once(" ("));
    timed.and_then(|(test, text)| Some((test, Some(time(text)?)))).unwrap_or((text, None))
}

/// Whether only Playwright Test prints this.
pub(super) fn gives_away(line: &str) -> bool {
    announced(line).is_some()
}
