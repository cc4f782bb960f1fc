//! What `cargo nextest run` prints for people: a line per test with its time, the output of those that failed, and
//! a summary, which is right about retries.

use super::panic::RustOutput;
use super::text::{add, fail, message, name, number, settle, show, time};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// Where the titles of its lines end.
const TITLE_COLUMNS: usize = 12;

/// Reads the output of nextest.
#[derive(Debug, Default)]
pub(super) struct Nextest {
    // The output of the test that failed last, if that is what is being printed.
    open: Option<(String, RustOutput)>,
    in_output: bool,
    ended: bool,
}

/// How a test ended, or how an attempt of it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    // It runs on, or is tried again.
    Pending,
}

impl LineParser for Nextest {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if self.ended {
            return;
        }
        if let Some(summary) = line.strip_prefix("     Summary [") {
            self.close(state);
            self.ended = true;
            summarise(summary, state);
        } else if let Some((verdict, status, test, ms)) = result(line) {
            self.close(state);
            self.test(verdict, status, test, ms, state);
        } else if let Some(starting) = starting(line) {
            state.counts.total = Some(starting);
        } else if self.open.is_some() {
            self.output(line);
        } else if line.starts_with("   Compiling ") {
            state.message = Some(message(line));
        }
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
        settle(state);
    }
}

impl Nextest {
    fn test(&mut self, verdict: Verdict, status: &str, test: &str, ms: u64, state: &mut ProgressState) {
        let test = name(test);
        state.message = Some(test.clone());
        state.current.retain(|current| *current != test);
        match verdict {
            Verdict::Passed => state.counts.passed = add(state.counts.passed, 1),
            Verdict::Failed => {
                let why = if status == "FAIL" { String::new() } else { message(status) };
                fail(state, Failure { name: test.clone(), message: why, output: None, history: None });
                self.open = Some((test.clone(), RustOutput::default()));
                self.in_output = false;
            }
            Verdict::Pending => {
                if status == "SLOW" && state.current.len() < MAX_CURRENT {
                    state.current.push(test);
                }
                return;
            }
        }
        state.note_duration(&test, ms);
    }

    /// The output stands below its title, four columns in.
    fn output(&mut self, line: &str) {
        let Some((_, output)) = &mut self.open else { return };
        if line.starts_with("  stdout ───")
            || line.starts_with("  stderr ───")
            || line.starts_with("  output ───")
        {
            self.in_output = true;
        } else if self.in_output && (line.is_empty() || line.starts_with("    ")) {
            let line = line.get(4..).unwrap_or("");
            // What the harness says of the one test that it ran.
            let is_frame = line.starts_with("running 1 test")
                || line.starts_with("test result: ")
                || line == "failures:"
                || (line.starts_with("test ") && line.ends_with("FAILED"));
            if !is_frame {
                output.line(line);
            }
        }
    }

    fn close(&mut self, state: &mut ProgressState) {
        let Some((test, output)) = self.open.take() else { return };
        let (why, output) = output.into_parts();
        if let Some(failure) = state.failures.iter_mut().rev().find(|f| f.name == test) {
            if failure.message.is_empty() {
                failure.message = why;
            }
            failure.output = output;
        }
    }
}

/// Takes `PASS [   0.005s] (2/6) tiny tests::is_two`.
fn result(line: &str) -> Option<(Verdict, &str, &str, u64)> {
    let (status, rest) = line.split_once(" [")?;
    // The titles are right-aligned in twelve columns, so that what tests print, further in, is none.
    let is_aligned =
        status.len() == TITLE_COLUMNS || (status.len() > TITLE_COLUMNS && !status.starts_with(' '));
    let status = is_aligned.then(|| status.trim())?;
    let (ms, rest) = rest.split_once("] ")?;
    let ms = time(ms.trim().trim_start_matches('>').trim())?;
    let verdict = match status {
        "PASS" | "LEAK" => Verdict::Passed,
        "FAIL" | "TIMEOUT" | "ABORT" | "XFAIL" | "LEAK-FAIL" => Verdict::Failed,
        "SLOW" | "TERMINATING" => Verdict::Pending,
        _ if status.starts_with("SIG") => Verdict::Failed,
        _ if status.starts_with("TRY ") && status.ends_with("PASS") => Verdict::Passed,
        _ if status.starts_with("FLAKY ") => Verdict::Passed,
        _ if status.starts_with("TRY ") || status.starts_with("RETRY ") => Verdict::Pending,
        _ => return None,
    };
    // `(2/6)`, in newer versions.
    let test = match rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, test)) => test,
        None => rest,
    };
    Some((verdict, status, test.trim(), ms))
}

/// Takes `    Starting 6 tests across 2 binaries (1 test skipped)`.
fn starting(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("    Starting ")?;
    let (count, rest) = rest.split_once(' ')?;
    (rest.starts_with("test") && rest.contains(" across ")).then(|| number(count))?
}

/// Takes `   0.625s] 6 tests run: 3 passed (1 flaky), 3 failed, 1 skipped`.
fn summarise(summary: &str, state: &mut ProgressState) {
    let Some((_, outcomes)) = summary.split_once(" run: ") else { return };
    let mut counts = [0; 3];
    for part in outcomes.split(", ") {
        let mut words = part.split_whitespace();
        let Some(count) = words.next().and_then(number) else { continue };
        let slot = match words.next() {
            Some("passed") => 0,
            Some("skipped") => 2,
            _ => 1,
        };
        counts[slot] = add(counts[slot], count);
    }
    let [passed, failed, skipped] = counts;
    state.counts.passed = passed;
    state.counts.failed = failed;
    state.counts.skipped = skipped;
    state.counts.total = Some(state.counts.done());
}

/// Whether only nextest prints this.
pub(super) fn gives_away(line: &str) -> bool {
    line.starts_with(" Nextest run ID ") || starting(line).is_some()
}
