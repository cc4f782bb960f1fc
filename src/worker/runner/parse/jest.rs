//! What Jest prints: a title per file, with `--verbose` a line per test, a block per failure, and a summary, which is
//! right where tests are not told one by one.

use super::text::{Tail, add, message, name, number, settle, show, time};
use super::{Exit, LineParser};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// Reads the output of Jest.
#[derive(Debug, Default)]
pub(super) struct Jest {
    file: String,
    // A failure whose block is being printed, with its output.
    block: Option<(String, Tail)>,
    ended: bool,
}

impl LineParser for Jest {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if self.ended {
            return;
        }
        // A test may print a beginning like this.
        if let Some(counts) = line.strip_prefix("Tests: ").filter(|counts| counts.ends_with(" total")) {
            self.close(state);
            self.ended = true;
            summarise(counts, state);
        } else if let Some(file) = file(line) {
            self.close(state);
            self.file = name(file);
            state.message = Some(self.file.clone());
        } else if let Some(title) = line.strip_prefix("  ● ") {
            self.close(state);
            // What the tests of a file printed is no failure.
            let is_failure = title != "Console";
            self.block = is_failure.then(|| (self.title(title), Tail::default()));
        } else if let Some((_, output)) = &mut self.block {
            output.line(line.strip_prefix("    ").unwrap_or(line));
        } else if let Some((mark, title)) = marked(line) {
            let (test, ms) = timed(title);
            if let Some(ms) = ms {
                state.note_duration(&name(test), ms);
            }
            let count = match mark {
                '✓' | '√' => &mut state.counts.passed,
                '✕' | '×' => &mut state.counts.failed,
                _ => &mut state.counts.skipped,
            };
            *count = add(*count, 1);
        }
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
        settle(state);
    }
}

impl Jest {
    fn title(&self, title: &str) -> String {
        if title == "Test suite failed to run" { self.file.clone() } else { name(title) }
    }

    /// Notes the failure; at the end of a long run Jest prints each once more.
    fn close(&mut self, state: &mut ProgressState) {
        let Some((test, output)) = self.block.take() else { return };
        if state.failures.iter().any(|failure| failure.name == test) {
            return;
        }
        let output = output.text();
        let first = output.as_deref().and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
        let why = first.map(message).unwrap_or_default();
        state.note_failure(Failure { name: test, message: why, output, history: None });
        // Without `--verbose` the blocks are all there is until the summary.
        state.counts.failed = state.counts.failed.max(state.failures.len() as u64);
    }
}

/// The file of `PASS src/sum.test.js (5.1 s)`.
fn file(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("PASS ").or_else(|| line.strip_prefix("FAIL "))?;
    // A project's name may stand before the path.
    let path = rest.split(" (").next()?.trim().rsplit(' ').next()?;
    let (_, kind) = path.rsplit_once('.')?;
    matches!(kind, "js" | "jsx" | "ts" | "tsx" | "mjs" | "cjs" | "mts" | "cts").then_some(path)
}

/// The mark and the rest of `    ✓ adds (12 ms)`.
fn marked(line: &str) -> Option<(char, &str)> {
    let text = line.trim_start();
    let mark = text.chars().next().filter(|c| matches!(c, '✓' | '√' | '✕' | '×' | '○' | '✎'))?;
    (text.len() < line.len()).then_some(())?;
    text[mark.len_utf8()..].strip_prefix(' ').map(|rest| (mark, rest))
}

/// The test and the time of `adds (12 ms)`.
fn timed(title: &str) -> (&str, Option<u64>) {
    let timed = title.strip_suffix(')').and_then(|t| t.rsplit_once(" ("));
    timed.and_then(|(test, text)| Some((test, Some(time(text)?)))).unwrap_or((title, None))
}

/// Takes `      2 failed, 1 skipped, 1 todo, 3 passed, 7 total`.
fn summarise(summary: &str, state: &mut ProgressState) {
    let of = |what: &str| {
        let part = summary.split(',').find_map(|part| part.trim().strip_suffix(what));
        part.and_then(|count| number(count.trim())).unwrap_or(0)
    };
    state.counts.passed = of(" passed");
    state.counts.failed = of(" failed");
    state.counts.skipped = add(of(" skipped"), of(" todo"));
    state.counts.total = Some(state.counts.done().max(of(" total")));
}

/// Whether only Jest prints this.
pub(super) fn gives_away(line: &str) -> bool {
    file(line).is_some()
}
