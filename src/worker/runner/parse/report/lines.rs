//! Reports that are printed: one JSON document among the lines.

use super::super::text::number;
use super::super::{Exit, LineParser};
use super::{ReportError, Stats, Totals, read};
use crate::worker::progress::ProgressState;

/// The longest report that is kept, in bytes; of a longer one, what stands within it counts, and the totals.
const MAX_REPORT_BYTES: usize = 8 << 20;
/// What the reports of Jest and of Vitest begin with. Their totals come first, so that they are read of the longest line.
const JEST: [&str; 2] = [r#"{"numFailedTestSuites":"#, r#"{"numTotalTestSuites":"#];

/// Reads a report that the command prints. There is nothing to tell before it comes.
#[derive(Debug, Default)]
pub(in super::super) struct JsonReport {
    // A report of many lines that has not ended yet.
    open: Option<String>,
    is_cut: bool,
    in_stats: bool,
    stats: Option<Stats>,
}

impl LineParser for JsonReport {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if gives_jest_away(line) {
            // What cannot be read is left out; a line may have been cut.
            drop(read(line.as_bytes(), state));
            state.message = None;
        } else if line == "{" {
            *self = Self { open: Some("{\n".to_owned()), ..Self::default() };
            // Of lines that were read as text before this was known for what it is.
            state.message = None;
        } else if self.open.is_some() && line.starts_with([' ', '}', ']']) {
            self.more(line);
            if line == "}" {
                self.close(state);
            }
        }
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        self.close(state);
    }
}

impl JsonReport {
    fn more(&mut self, line: &str) {
        let Some(text) = &mut self.open else { return };
        self.is_cut |= text.len() + line.len() > MAX_REPORT_BYTES;
        if !self.is_cut {
            text.push_str(line);
            text.push('\n');
        }
        // The summary of Playwright Test stands at the very end.
        if line == r#"  "stats": {"# {
            (self.in_stats, self.stats) = (true, Some(Stats::default()));
        } else if line.starts_with("  }") {
            self.in_stats = false;
        } else if let (true, Some(stats)) = (self.in_stats, &mut self.stats) {
            let field = line.trim().trim_end_matches(',').split_once(": ");
            let Some((key, count)) = field.and_then(|(key, value)| Some((key, number(value)?))) else {
                return;
            };
            match key.trim_matches('"') {
                "expected" => stats.expected = count,
                "unexpected" => stats.unexpected = count,
                "flaky" => stats.flaky = count,
                "skipped" => stats.skipped = count,
                _ => {}
            }
        }
    }

    fn close(&mut self, state: &mut ProgressState) {
        let Some(text) = self.open.take() else { return };
        let before = state.counts;
        let known = read(text.as_bytes(), state);
        // A line that was cut, or a report that was, is no JSON from there on; its totals stand in lines of their own. Other
        // documents of JSON are nobody's business.
        let stats = self.stats.filter(|_| !self.in_stats);
        if let (Err(ReportError::Json(_)), Some(stats)) = (known, stats) {
            let totals = Totals::from(stats);
            state.counts = before;
            let counts = &mut state.counts;
            counts.passed = counts.passed.saturating_add(totals.passed);
            counts.failed = counts.failed.saturating_add(totals.failed);
            counts.skipped = counts.skipped.saturating_add(totals.skipped);
            super::settle(state);
        }
    }
}

/// Whether only the JSON reporters of Jest and Vitest print this.
pub(in super::super) fn gives_jest_away(line: &str) -> bool {
    JEST.iter().any(|beginning| line.starts_with(beginning))
}

/// Whether only the JSON reporter of Playwright Test prints this.
pub(in super::super) fn gives_playwright_away(line: &str) -> bool {
    line.starts_with(r#"    "failOnFlakyTests": "#) || line.starts_with(r#"    "forbidOnly": "#)
}
