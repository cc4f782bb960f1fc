//! What Vitest prints: a line per file, with `--reporter=verbose` a line per test, blocks of failures and a summary.

use super::text::{Tail, add, message, name, number, settle, show, time};
use super::{Exit, LineParser};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// Between the parts of a test's name.
const BETWEEN: &str = " > ";
/// What rules off a block of the report.
const RULE: &str = "⎯⎯⎯⎯";

/// Reads the output of Vitest.
#[derive(Debug, Default)]
pub(super) struct Vitest {
    // Failures that share the block that is being printed.
    block: Option<(Vec<String>, Tail)>,
    ended: bool,
}

impl LineParser for Vitest {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(title) = line.strip_prefix(" FAIL  ") {
            self.title(name(title), state);
        } else if line.trim_start().starts_with(RULE) {
            self.close(state);
        } else if let Some((_, output)) = &mut self.block {
            output.line(line);
        } else if let Some(counts) = line.trim_start().strip_prefix("Tests  ") {
            self.ended = true;
            summarise(counts, state);
        } else if !self.ended
            && let Some((mark, title)) = marked(line)
        {
            entry(mark, title, state);
        }
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
        settle(state);
    }
}

impl Vitest {
    fn title(&mut self, title: String, state: &mut ProgressState) {
        match &mut self.block {
            // Several titles in a row share one error.
            Some((titles, output)) if output.text().is_none() && titles.len() < 50 => titles.push(title),
            _ => {
                self.close(state);
                self.block = Some((vec![title], Tail::default()));
            }
        }
    }

    fn close(&mut self, state: &mut ProgressState) {
        let Some((titles, output)) = self.block.take() else { return };
        let output = output.text();
        let first = output.as_deref().and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
        let why = first.map(message).unwrap_or_default();
        for title in titles {
            state.note_failure(Failure {
                name: title,
                message: why.clone(),
                output: output.clone(),
                history: None,
            });
        }
    }
}

/// The mark and the rest of a line of a file or, with the verbose reporter, of a test. What is further in is a test of a
/// file that has a line of its own.
fn marked(line: &str) -> Option<(char, &str)> {
    let text = line.strip_prefix(' ')?;
    let mark = text.chars().next().filter(|c| matches!(c, '✓' | '×' | '❯' | '↓' | '□' | '√'))?;
    text[mark.len_utf8()..].strip_prefix(' ').map(|rest| (mark, rest))
}

fn entry(mark: char, title: &str, state: &mut ProgressState) {
    let counts = &mut state.counts;
    if let Some((file, rest)) = title.split_once(" (")
        && let Some((inside, _)) = rest.rsplit_once(')')
        && let Some(all) =
            inside.split(" | ").find_map(|part| part.strip_suffix(" tests").or(part.strip_suffix(" test")))
    {
        let of = |what: &str| {
            let part = inside.split(" | ").find_map(|part| part.strip_suffix(what));
            part.and_then(number).unwrap_or(0)
        };
        let (failed, skipped) = (of(" failed"), add(of(" skipped"), of(" todo")));
        let all = number(all).unwrap_or(0);
        counts.failed = add(counts.failed, failed);
        counts.skipped = add(counts.skipped, skipped);
        counts.passed = add(counts.passed, all.saturating_sub(failed).saturating_sub(skipped));
        state.message = Some(message(file));
    } else if title.contains(BETWEEN) {
        let (test, ms) = timed(title);
        let count = match mark {
            '✓' | '√' => &mut counts.passed,
            '×' | '❯' => &mut counts.failed,
            _ => &mut counts.skipped,
        };
        *count = add(*count, 1);
        let test = name(test);
        if let Some(ms) = ms {
            state.note_duration(&test, ms);
        }
        state.message = Some(test);
    }
}

/// The test and the time of `a.test.ts > adds 2ms`.
fn timed(title: &str) -> (&str, Option<u64>) {
    let timed = title.rsplit_once(' ').filter(|(_, text)| text.ends_with("ms") || text.ends_with('s'));
    timed.and_then(|(test, text)| Some((test, Some(time(text)?)))).unwrap_or((title, None))
}

/// Takes `2 failed | 3 passed | 1 skipped | 1 todo (7)`.
fn summarise(summary: &str, state: &mut ProgressState) {
    let (summary, total) = summary.rsplit_once(" (").unwrap_or((summary, ""));
    let of = |what: &str| {
        let part = summary.split(" | ").find_map(|part| part.trim().strip_suffix(what));
        part.and_then(|count| number(count.trim())).unwrap_or(0)
    };
    state.counts.passed = of(" passed");
    state.counts.failed = of(" failed");
    state.counts.skipped = add(of(" skipped"), of(" todo"));
    let total = number(total.trim_end_matches(')')).unwrap_or(0);
    state.counts.total = Some(state.counts.done().max(total));
}

/// Whether only Vitest prints this.
pub(super) fn gives_away(line: &str) -> bool {
    let version = line.strip_prefix(" RUN  v").or_else(|| line.strip_prefix(" DEV  v"));
    version.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
