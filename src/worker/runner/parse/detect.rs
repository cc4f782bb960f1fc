//! Finds out which format a command's output has.

use std::collections::VecDeque;

use super::plain::Plain;
use super::{
    Exit, LineParser, cargo_test, go_json, jest, k6, libtest_json, nextest, node_spec, parser, playwright,
    pytest, report, tap_line, vitest,
};
use crate::config::suite::Format;
use crate::worker::progress::ProgressState;

/// How many of the newest lines before the decision are kept for the parser, and how many bytes of them.
const MAX_KEPT_LINES: usize = 256;
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Reads output as plain text until a line gives its format away; then hands the lines before it, and all
/// that follow, to that format's parser.
#[derive(Default)]
pub struct Detector {
    settled: Option<Box<dyn LineParser>>,
    kept: VecDeque<String>,
    kept_bytes: usize,
}

impl Detector {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn keep(&mut self, line: &str) {
        self.kept_bytes += line.len();
        self.kept.push_back(line.to_owned());
        // A build may print for minutes before its tests begin: the newest lines are the ones that matter.
        while self.kept.len() > MAX_KEPT_LINES || self.kept_bytes > MAX_KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.len();
        }
    }
}

impl LineParser for Detector {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(parser) = &mut self.settled {
            return parser.line(line, state);
        }
        let Some(format) = recognise(line) else {
            self.keep(line);
            return Plain.line(line, state);
        };
        // The percentages of a build before the tests are not the tests' progress.
        state.progress = 0.0;
        let mut parser = parser(format);
        for line in self.kept.drain(..) {
            parser.line(&line, state);
        }
        // However long it is.
        parser.line(line, state);
        self.settled = Some(parser);
    }

    fn finish(&mut self, exit: Exit, state: &mut ProgressState) {
        match &mut self.settled {
            Some(parser) => parser.finish(exit, state),
            None => Plain.finish(exit, state),
        }
    }
}

/// Whether a line can belong to one format only.
type GivesAway = fn(&str) -> bool;

/// The format that only this line can belong to.
fn recognise(line: &str) -> Option<Format> {
    let known: [(GivesAway, Format); 13] = [
        (go_json::gives_away, Format::GoJson),
        (libtest_json::gives_away, Format::LibtestJson),
        (report::gives_jest_away, Format::JestJson),
        (report::gives_playwright_away, Format::PlaywrightJson),
        (k6::gives_away, Format::K6),
        (cargo_test::gives_away, Format::CargoTest),
        (nextest::gives_away, Format::Nextest),
        (pytest::gives_away, Format::Pytest),
        (vitest::gives_away, Format::Vitest),
        (playwright::gives_away, Format::Playwright),
        (jest::gives_away, Format::Jest),
        (node_spec::gives_away, Format::NodeSpec),
        (tap_line::gives_away, Format::Tap),
    ];
    known.into_iter().find(|(gives_away, _)| gives_away(line)).map(|(_, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_before_the_decision_are_not_lost() {
        let mut state = ProgressState::default();
        let mut detector = Detector::new();
        for line in ["fetching [50%]", "t/a.t .. ", "1..2", "not ok 1 - a", "ok 2 - b", "ok"] {
            detector.line(line, &mut state);
        }
        detector.finish(Exit::Code(1), &mut state);
        assert_eq!((state.counts.failed, state.counts.passed, state.counts.total), (1, 1, Some(2)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut state = ProgressState::default();
        let mut detector = Detector::new();
        for _ in 0..10_000 {
            detector.line(&"x".repeat(1000), &mut state);
            assert!(detector.kept.len() <= MAX_KEPT_LINES && detector.kept_bytes <= MAX_KEPT_BYTES);
        }
        detector.line("running 1 test", &mut state);
        detector.line("test a ... ok", &mut state);
        assert_eq!(state.counts.passed, 1);
    }

    #[test]
    fn a_line_gives_its_format_away() {
        let json = r#"glued{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"a"}"#;
        assert_eq!(recognise(json), Some(Format::GoJson));
        assert_eq!(recognise("running 12 tests"), Some(Format::CargoTest));
        assert_eq!(recognise("   Doc-tests tiny"), Some(Format::CargoTest));
        assert_eq!(recognise("===== test session starts ====="), Some(Format::Pytest));
        assert_eq!(recognise("a.py::b PASSED  [ 50%]"), Some(Format::Pytest));
        assert_eq!(recognise("..F [100%]"), Some(Format::Pytest));
        assert_eq!(recognise("not ok 1 - a"), Some(Format::Tap));
        assert_eq!(recognise("    Starting 6 tests across 2 binaries"), Some(Format::Nextest));
        assert_eq!(recognise("FAIL unit src/a.test.ts (5.1 s)"), Some(Format::Jest));
        assert_eq!(recognise("  ✔ adds (0.72ms)"), Some(Format::NodeSpec));
        for line in [
            "ok  \tpkg\t0.1s",
            "FAIL\tpkg\t0.1s",
            "✔ built (2s)",
            "",
            "okay 1",
            "1..5",
            "running tests",
            "     Running `x`",
            "{}",
            "[ 50%]",
        ] {
            assert_eq!(recognise(line), None, "{line}");
        }
    }
}
