//! What `cargo test` prints for people: the output of libtest for several binaries, then the doctests.
//!
//! Each binary says how many tests it runs and closes with a result; the result is right where lines were
//! glued together by what the tests print (`--no-capture`) or left out (`--quiet`).

use super::text::{Tail, add, fail, message, name, number, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::{Counts, Failure};
use crate::worker::progress::ProgressState;

mod blocks;
use blocks::Blocks;

/// How a test case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Ignored,
}

/// A test case whose verdict comes on a later line, because it prints without being captured.
#[derive(Debug)]
struct Open {
    name: String,
    // What the newest line would mean if it were the last one.
    guess: Option<Verdict>,
}

/// What the result of a binary says.
#[derive(Debug, Clone, Copy)]
struct Ended {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Reads the output of `cargo test`.
#[derive(Debug, Default)]
pub(super) struct CargoTest {
    // The binary, as cargo announced it.
    binary: Option<String>,
    // Whether a binary has begun and not told its result.
    running: bool,
    // The counts when it began, and how many tests it said it would run.
    before: Counts,
    announced: u64,
    // The newest line was a result that does not fit the binary: a test's output, or a run that broke off.
    doubtful: Option<Ended>,
    open: Option<Open>,
    blocks: Blocks,
    recent: Tail,
}

impl LineParser for CargoTest {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if self.announcement(line, state) {
            return;
        }
        self.recent.line(line);
        if self.running {
            // A test may print something of the kind, such as the output of another `cargo test`.
            let result = Ended::read(line);
            if let Some(result) = result.filter(|result| self.fits(*result, state)) {
                self.end_of_binary(result, state);
                return show(state);
            }
            if result.is_some() || !(line.is_empty() || line.starts_with("error: ")) {
                self.doubtful = result;
            }
            if self.blocks.line(line, self.names_failures(state), state) {
                self.close(None, state);
            } else {
                self.test_line(line, state);
            }
        }
        show(state);
    }

    fn finish(&mut self, exit: Exit, state: &mut ProgressState) {
        self.close(None, state);
        self.blocks.finish(state);
        self.believe(state);
        if !exit.is_success() {
            self.died("the test binary ended without a result", state);
        }
        settle(state);
    }
}

impl CargoTest {
    /// What cargo, and a binary that begins, say about themselves.
    fn announcement(&mut self, line: &str, state: &mut ProgressState) -> bool {
        // What a failed test printed is told below `failures:`, whatever it looks like.
        let is_told = self.running && self.blocks.are_inside();
        if let Some(count) = running_tests(line).filter(|_| !is_told) {
            self.close(None, state);
            self.believe(state);
            self.died("the test binary ended without a result", state);
            self.running = true;
            self.announced = count;
            self.before = state.counts;
            self.recent = Tail::default();
            self.blocks = Blocks::default();
            state.counts.total = Some(add(state.counts.total.unwrap_or(0), count));
        } else if let Some(binary) = binary(line) {
            state.message = Some(message(binary));
            self.binary = Some(name(binary));
        } else if line.starts_with("   Compiling ") && !self.running {
            state.message = Some(message(line));
        } else if let Some(reason) =
            line.strip_prefix("  process didn't exit successfully: ").filter(|_| !is_told)
        {
            self.died(reason, state);
        } else {
            return false;
        }
        show(state);
        true
    }

    fn test_line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some((test, rest)) = split_test(line) {
            let test = EXPECTATIONS.iter().find_map(|told| test.strip_suffix(told)).unwrap_or(test);
            self.close(None, state);
            if let Some(slow) = rest.is_empty().then(|| test.strip_suffix(SLOW)).flatten() {
                if state.current.len() < MAX_CURRENT {
                    state.current.push(name(slow));
                }
                return;
            }
            self.open = Some(Open { name: name(test), guess: guess(rest) });
            if let Some(verdict) = verdict(rest) {
                self.close(Some(verdict), state);
            }
        } else if let Some(test) = line.strip_suffix(" --- FAILED") {
            self.count(&name(test), Verdict::Failed, state);
        } else if let Some(open) = &mut self.open {
            match verdict(line) {
                Some(verdict) => self.close(Some(verdict), state),
                None if !line.is_empty() => open.guess = guess(line),
                None => {}
            }
        } else {
            dots(line, state);
        }
    }

    /// Closes the open test case with `verdict`, or with the best guess.
    fn close(&mut self, verdict: Option<Verdict>, state: &mut ProgressState) {
        if let Some(open) = self.open.take()
            && let Some(verdict) = verdict.or(open.guess)
        {
            self.count(&open.name, verdict, state);
        }
    }

    fn count(&self, test: &str, verdict: Verdict, state: &mut ProgressState) {
        state.current.retain(|c| c != test);
        match verdict {
            Verdict::Passed => state.counts.passed = add(state.counts.passed, 1),
            Verdict::Ignored => state.counts.skipped = add(state.counts.skipped, 1),
            Verdict::Failed => {
                fail(state, Failure { name: test.to_owned(), ..Failure::default() });
            }
        }
    }

    /// Whether it can be the result of the binary that runs: as many tests as it announced, and all failures that it named.
    fn fits(&self, result: Ended, state: &ProgressState) -> bool {
        let named = state.counts.failed.saturating_sub(self.before.failed);
        result.all() == self.announced && result.failed >= named
    }

    /// Whether the binary names its failures before it tells of them; `--quiet` of older versions does not.
    fn names_failures(&self, state: &ProgressState) -> bool {
        state.counts.failed > self.before.failed
    }

    /// Takes a result that does not fit for one that does, as nothing came after it.
    fn believe(&mut self, state: &mut ProgressState) {
        if let Some(result) = self.doubtful.take().filter(|_| self.running) {
            self.end_of_binary(result, state);
        }
    }

    fn end_of_binary(&mut self, result: Ended, state: &mut ProgressState) {
        self.close(None, state);
        self.blocks.finish(state);
        self.running = false;
        self.doubtful = None;
        state.current.clear();
        state.counts.passed = add(self.before.passed, result.passed);
        state.counts.failed = add(self.before.failed, result.failed);
        state.counts.skipped = add(self.before.skipped, result.ignored);
        state.counts.total = Some(add(self.before.total.unwrap_or(0), result.all()));
    }

    /// A binary that began is gone: what it did not run will not run.
    fn died(&mut self, reason: &str, state: &mut ProgressState) {
        if !std::mem::take(&mut self.running) {
            return;
        }
        let name = self.binary.clone().unwrap_or_else(|| "test binary".to_owned());
        fail(state, Failure { name, message: message(reason), output: self.recent.text(), history: None });
        state.counts.total = Some(state.counts.done());
    }
}

impl Ended {
    /// Takes `test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    fn read(line: &str) -> Option<Self> {
        let result = line.strip_prefix("test result: ").filter(|result| result.contains(" filtered out"))?;
        let of = |what: &str| {
            let part = result.split(['.', ';']).find_map(|p| p.trim().strip_suffix(what))?;
            number(part.trim())
        };
        let passed = add(of(" passed")?, of(" measured").unwrap_or(0));
        Some(Self { passed, failed: of(" failed").unwrap_or(0), ignored: of(" ignored").unwrap_or(0) })
    }

    fn all(self) -> u64 {
        add(add(self.passed, self.failed), self.ignored)
    }
}

/// What stands behind the name of a test of which something else than to pass is expected, and is no part of it.
const EXPECTATIONS: [&str; 3] = [" - should panic", " - compile fail", " - compile"];
const SLOW: &str = " has been running for over 60 seconds";

/// Splits `test a::b ... ok` at the dots. What another test printed may stand before it on the line.
fn split_test(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("test ") {
        return match rest.split_once(" ... ") {
            Some((test, rest)) => Some((test, rest)),
            None => rest
                .strip_suffix(" ...")
                .or_else(|| rest.ends_with(SLOW).then_some(rest))
                .map(|test| (test, "")),
        };
    }
    let (before, rest) = line.rsplit_once(" ... ")?;
    let (_, test) = before.rsplit_once("test ")?;
    (verdict(rest).is_some() && !test.contains(' ')).then_some((test, rest))
}

fn verdict(text: &str) -> Option<Verdict> {
    // `--report-time` adds ` <0.003s>`.
    let text = text.split_once(" <").filter(|(_, t)| t.ends_with("s>")).map_or(text, |(v, _)| v).trim();
    match text {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed),
        "ignored" => Some(Verdict::Ignored),
        _ if text.starts_with("ignored, ") => Some(Verdict::Ignored),
        _ if text.starts_with("bench: ") => Some(Verdict::Passed),
        _ => None,
    }
}

/// The verdict that something printed without a line's end stands before.
fn guess(text: &str) -> Option<Verdict> {
    if text.ends_with("FAILED") {
        Some(Verdict::Failed)
    } else {
        text.ends_with("ok").then_some(Verdict::Passed)
    }
}

/// Counts a line of `--quiet`, such as `..i. 4/9`. Failures have a line of their own.
fn dots(line: &str, state: &mut ProgressState) {
    let marks = line.split_once(' ').map_or(line, |(marks, _)| marks);
    if marks.is_empty() || !marks.bytes().all(|b| matches!(b, b'.' | b'i')) {
        return;
    }
    for mark in marks.bytes() {
        let count = if mark == b'i' { &mut state.counts.skipped } else { &mut state.counts.passed };
        *count = add(*count, 1);
    }
}

fn running_tests(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("running ")?;
    let count = rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))?;
    number(count)
}

fn binary(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("     Running ") {
        return rest.split_once(" (").map(|(binary, _)| binary);
    }
    line.strip_prefix("   ").filter(|rest| rest.starts_with("Doc-tests "))
}

/// Whether only `cargo test` prints this.
pub(super) fn gives_away(line: &str) -> bool {
    running_tests(line).is_some() || binary(line).is_some()
}
