//! Plain lines of which a pattern says what they mean.
//!
//! A regular expression with named groups: `pass`, `fail` or `skip`, where one took part in the match, count a test
//! (with its `name`, `ms` and `message`); `done`, `total` and `percent` are the progress itself.

use regex::{Captures, Regex, RegexBuilder};

use super::text::{add, fail, message, name, number, settle, show};
use super::{Exit, LineParser};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// The groups that mean something.
const GROUPS: [&str; 9] = ["pass", "fail", "skip", "name", "ms", "message", "done", "total", "percent"];
/// How large a compiled pattern may be.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is no regular expression.
    #[error("the pattern is no regular expression: {0}")]
    Syntax(String),
    /// Nothing in it says what a line means.
    #[error(
        "the pattern has no named group that counts: use (?<pass>…), (?<fail>…), (?<skip>…), (?<done>…), (?<total>…) or (?<percent>…)"
    )]
    NoGroup,
    /// A group that means nothing.
    #[error("the pattern's group `{0}` means nothing; there are: {known}", known = GROUPS.join(", "))]
    UnknownGroup(String),
}

/// Reads lines by a pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    pattern: Regex,
    // `done` of the last line that said one, on top of what was counted.
    done: u64,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, InvalidPattern> {
        let built = RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
        let pattern = built.map_err(|e| InvalidPattern::Syntax(e.to_string()))?;
        let mut names = pattern.capture_names().flatten();
        if let Some(unknown) = names.clone().find(|name| !GROUPS.contains(name)) {
            return Err(InvalidPattern::UnknownGroup(unknown.to_owned()));
        }
        if !names.any(|name| !matches!(name, "name" | "ms" | "message")) {
            return Err(InvalidPattern::NoGroup);
        }
        Ok(Self { pattern, done: 0 })
    }

    fn count(&self, found: &Captures<'_>, state: &mut ProgressState) {
        let text = |group: &str| found.name(group).map(|m| m.as_str());
        let test = name(text("name").or_else(|| found.get(0).map(|m| m.as_str())).unwrap_or_default());
        if text("pass").is_some() {
            state.counts.passed = add(state.counts.passed, 1);
        } else if text("skip").is_some() {
            state.counts.skipped = add(state.counts.skipped, 1);
        } else if text("fail").is_some() {
            let why = text("message").map(message).unwrap_or_default();
            fail(state, Failure { name: test.clone(), message: why, output: None, history: None });
        } else {
            return;
        }
        if let Some(ms) = text("ms").and_then(number) {
            state.note_duration(&test, ms);
        }
    }
}

impl LineParser for Pattern {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let Some(found) = self.pattern.captures(line) else { return };
        let number_of = |group: &str| found.name(group).and_then(|m| number(m.as_str().trim()));
        self.count(&found, state);
        if let Some(total) = number_of("total") {
            state.counts.total = Some(total);
        }
        if let Some(done) = number_of("done") {
            self.done = done;
        }
        let told = found.name("message").or_else(|| found.name("name")).or_else(|| found.get(0));
        state.message = told.map(|m| message(m.as_str()));
        if state.counts.done() > 0 {
            show(state);
        } else if let Some(total) = state.counts.total.filter(|total| *total > 0) {
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
            let percent = self.done.min(total) as f64 * 100.0 / total as f64;
            state.progress = percent;
        }
        let percent = found.name("percent").and_then(|m| m.as_str().trim().parse::<f64>().ok());
        if let Some(percent) = percent.filter(|percent| (0.0..=100.0).contains(percent)) {
            state.progress = percent;
        }
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        if state.counts.done() > 0 {
            settle(state);
        }
    }
}
