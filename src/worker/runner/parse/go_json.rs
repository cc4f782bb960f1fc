//! `go test -json`: one JSON object per line, as `go doc test2json` describes it.
//!
//! Test cases are the leaves: a test with subtests only counts if it failed and none of them did. A package
//! that fails without a failing test, because it does not build or ends early, counts as one failure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::text::{Tail, add, fail, message, name, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// More tests than this at once are still counted, but their output is not kept.
const MAX_TRACKED: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Event {
    action: String,
    package: String,
    test: String,
    output: String,
    import_path: String,
    failed_build: String,
}

/// A test or package that runs.
#[derive(Debug, Default)]
struct Running {
    output: Tail,
    reason: Option<String>,
    has_subtests: bool,
    // A failure inside of it was counted.
    failed_inside: bool,
}

/// Reads `go test -json`.
#[derive(Debug, Default)]
pub(super) struct GoJson {
    // By package, then test; the package itself has the test "".
    running: BTreeMap<(String, String), Running>,
    // What the compiler said, by import path.
    builds: BTreeMap<String, Tail>,
    // Lines that are not JSON: the compiler's, before Go 1.24.
    stray: Tail,
    failed: bool,
}

impl LineParser for GoJson {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let Some(event) = event(line) else {
            self.stray.line(line);
            return;
        };
        match event.action.as_str() {
            "build-output" => {
                if let Some(tail) = slot(&mut self.builds, &event.import_path) {
                    tail.push(&event.output);
                }
            }
            "start" | "run" => self.begin(&event, state),
            "output" => {
                let key = (name(&event.package), name(&event.test));
                if let Some(running) = self.running.get_mut(&key) {
                    running.output.push(&event.output);
                    running.note_reason(&event.output);
                } else if event.test.is_empty() {
                    slot(&mut self.running, &key).into_iter().for_each(|r| r.output.push(&event.output));
                }
            }
            "pass" | "skip" | "fail" | "bench" if event.test.is_empty() => self.end_package(&event, state),
            "pass" | "skip" | "fail" | "bench" => self.end_test(&event, state),
            _ => {}
        }
        show(state);
    }

    fn finish(&mut self, exit: Exit, state: &mut ProgressState) {
        // A build that fails before any package starts leaves no other trace.
        if !exit.is_success() && !self.failed {
            for (path, tail) in std::mem::take(&mut self.builds) {
                let failure = Failure {
                    name: path,
                    message: "the build failed".to_owned(),
                    output: tail.text(),
                    history: None,
                };
                fail(state, failure);
            }
        }
        self.running.clear();
        settle(state);
    }
}

impl GoJson {
    fn begin(&mut self, event: &Event, state: &mut ProgressState) {
        let (package, test) = (name(&event.package), name(&event.test));
        if let Some((parent, _)) = test.rsplit_once('/')
            && let Some(parent) = self.running.get_mut(&(package.clone(), parent.to_owned()))
        {
            parent.has_subtests = true;
        }
        state.message = Some(package.clone());
        slot(&mut self.running, &(package, test));
        self.show_current(state);
    }

    fn end_test(&mut self, event: &Event, state: &mut ProgressState) {
        let (package, test) = (name(&event.package), name(&event.test));
        let running = self.running.remove(&(package.clone(), test.clone())).unwrap_or_default();
        match event.action.as_str() {
            "fail" if !running.failed_inside => {
                let title = name(&format!("{package}.{test}"));
                self.fail(title, running.reason.unwrap_or_default(), running.output.text(), state);
            }
            _ if running.has_subtests => {}
            "skip" => state.counts.skipped = add(state.counts.skipped, 1),
            "pass" | "bench" => state.counts.passed = add(state.counts.passed, 1),
            _ => {}
        }
        if event.action == "fail" {
            let parent = test.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
            if let Some(outer) = slot(&mut self.running, &(package, parent)) {
                outer.failed_inside = true;
            }
        }
        self.show_current(state);
    }

    fn end_package(&mut self, event: &Event, state: &mut ProgressState) {
        let package = name(&event.package);
        let whole = self.running.remove(&(package.clone(), String::new())).unwrap_or_default();
        let mut inside_failed = whole.failed_inside;
        // What still runs now was cut off by the package's end.
        let cut_off: Vec<_> = self.running.keys().filter(|(p, _)| *p == package).cloned().collect();
        for key in cut_off {
            let test = self.running.remove(&key);
            inside_failed |= test.is_some_and(|t| t.failed_inside);
        }
        if event.action == "fail" && !inside_failed {
            let build = self.builds.remove(&name(&event.failed_build));
            let output = build.as_ref().and_then(Tail::text);
            let said = whole.output.text();
            let build_failed = build.is_some() || said.as_ref().is_some_and(|s| s.contains("[build failed]"));
            let (reason, output) = if build_failed {
                ("the build failed".to_owned(), output.or_else(|| self.stray.text()))
            } else {
                let reason = "the package failed without a failing test".to_owned();
                (whole.reason.unwrap_or(reason), said)
            };
            self.fail(package, reason, output, state);
        }
        self.show_current(state);
    }

    fn fail(&mut self, name: String, reason: String, output: Option<String>, state: &mut ProgressState) {
        self.failed = true;
        fail(state, Failure { name, message: reason, output, history: None });
    }

    fn show_current(&self, state: &mut ProgressState) {
        state.current.clear();
        let tests = self.running.keys().filter(|(_, test)| !test.is_empty());
        state.current.extend(tests.take(MAX_CURRENT).map(|(package, test)| format!("{package}.{test}")));
    }
}

impl Running {
    /// Notes what says best why the test failed: a panic, else the last message of `t.Error` and its kin.
    fn note_reason(&mut self, output: &str) {
        let text = output.trim();
        let has_panicked = self.reason.as_ref().is_some_and(|r| r.starts_with("panic: "));
        let is_message = text.split_once(".go:").is_some_and(|(file, rest)| {
            !file.contains(['/', ' ', '\t']) && rest.starts_with(|c: char| c.is_ascii_digit())
        });
        if !has_panicked && (text.starts_with("panic: ") || is_message) {
            self.reason = Some(message(text));
        }
    }
}

/// The value for `key`, unless there are too many already.
fn slot<'a, K: Ord + Clone, V: Default>(map: &'a mut BTreeMap<K, V>, key: &K) -> Option<&'a mut V> {
    if map.len() >= MAX_TRACKED && !map.contains_key(key) {
        return None;
    }
    Some(map.entry(key.clone()).or_default())
}

/// The event of a line. Text that a test printed without a line's end may stand before it.
fn event(line: &str) -> Option<Event> {
    let json = &line[start(line)?..];
    let event: Event = serde_json::from_str(json).ok()?;
    (!event.action.is_empty()).then_some(event)
}

fn start(line: &str) -> Option<usize> {
    [r#"{"Time":""#, r#"{"Action":""#, r#"{"ImportPath":""#].iter().filter_map(|key| line.rfind(key)).max()
}

/// Whether only `go test -json` prints this.
pub(super) fn gives_away(line: &str) -> bool {
    event(line).is_some_and(|e| !e.package.is_empty() || !e.import_path.is_empty())
}
