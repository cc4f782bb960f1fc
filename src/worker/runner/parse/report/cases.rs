//! The test cases of reports, as each runner writes them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::text::{MAX_NAME_BYTES, Tail, add, fail, message, name, plain_text};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// A test file of Jest or Vitest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct TestFile {
    assertion_results: Vec<Assertion>,
    message: String,
    name: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Assertion {
    ancestor_titles: Vec<String>,
    title: String,
    status: String,
    duration: Option<f64>,
    failure_messages: Option<Vec<String>>,
}

/// A test file, or a block in it, of Playwright Test.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Suite {
    title: String,
    specs: Vec<Spec>,
    suites: Vec<Suite>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    title: String,
    file: String,
    line: u64,
    column: u64,
    tests: Vec<Tried>,
}

/// A test case in one project.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Tried {
    status: String,
    project_name: String,
    results: Vec<Try>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Try {
    duration: Option<f64>,
    error: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    message: Option<String>,
    stack: Option<String>,
}

/// Something that went wrong outside of test cases.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GlobalError {
    message: Option<String>,
}

/// A metric of k6, with its thresholds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metric {
    thresholds: BTreeMap<String, Verdict>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Verdict {
    /// `--summary-export`: whether it was crossed.
    Crossed(bool),
    /// `handleSummary`: whether it was kept.
    Kept { ok: bool },
}

/// A failure whose message is the first line of `text`.
fn failure(test: String, text: &str) -> Failure {
    let mut output = Tail::default();
    text.lines().for_each(|line| output.line(&plain_text(line)));
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Failure { name: test, message: message(&plain_text(first)), output: output.text(), history: None }
}

/// The name of a test case below these titles. A file of a few bytes can have a million of them below titles of megabytes,
/// so no more is joined than is kept.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        if text.len() > MAX_NAME_BYTES {
            break;
        }
        text.push_str(if i == 0 { "" } else { " › " });
        text.push_str(part);
    }
    name(&text)
}

fn note_duration(state: &mut ProgressState, test: &str, ms: Option<f64>) {
    if let Some(ms) = ms.filter(|ms| (0.0..1e12).contains(ms)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e12")]
        state.note_duration(test, ms as u64);
    }
}

impl TestFile {
    pub(super) fn show(self, state: &mut ProgressState) {
        let mut has_failed = false;
        for case in self.assertion_results {
            let mut titles = case.ancestor_titles;
            titles.push(case.title);
            let test = name(&titles.join(" › "));
            note_duration(state, &test, case.duration);
            match case.status.as_str() {
                "passed" => state.counts.passed = add(state.counts.passed, 1),
                "failed" => {
                    has_failed = true;
                    fail(state, failure(test, &case.failure_messages.unwrap_or_default().join("\n")));
                }
                _ => state.counts.skipped = add(state.counts.skipped, 1),
            }
        }
        // A file that could not be loaded has no test cases, and the runners count none for it.
        if self.status == "failed" && !has_failed {
            // Jest's title says no more than that.
            let text = self.message.trim_start();
            let text = text.strip_prefix("● Test suite failed to run").unwrap_or(text);
            state.note_failure(failure(name(&self.name), text));
        }
    }
}

impl Suite {
    pub(super) fn show(self, state: &mut ProgressState) {
        // The outermost title is the file's name, which stands in the place of each test, too.
        self.walk(&mut Vec::new(), state);
    }

    fn walk(self, titles: &mut Vec<String>, state: &mut ProgressState) {
        for spec in self.specs {
            spec.show(titles, state);
        }
        for suite in self.suites {
            titles.push(name(&suite.title));
            suite.walk(titles, state);
            titles.pop();
        }
    }
}

impl Spec {
    fn show(self, titles: &[String], state: &mut ProgressState) {
        let Self { title, file, line, column, tests } = self;
        let place = format!("{}:{line}:{column}", name(&file));
        let title = name(&title);
        for tried in tests {
            let project = name(&tried.project_name);
            let project = (!project.is_empty()).then(|| format!("[{project}]"));
            let parts = project.as_deref().into_iter().chain([place.as_str()]);
            let parts = parts.chain(titles.iter().map(String::as_str)).chain([title.as_str()]);
            let test = joined(parts);
            for tries in &tried.results {
                note_duration(state, &test, tries.duration);
            }
            match tried.status.as_str() {
                "expected" | "flaky" => state.counts.passed = add(state.counts.passed, 1),
                "skipped" => state.counts.skipped = add(state.counts.skipped, 1),
                _ => {
                    let said = tried.results.into_iter().filter_map(|tries| tries.error).next_back();
                    let Said { message, stack } = said.unwrap_or_default();
                    fail(state, failure(test, &message.or(stack).unwrap_or_default()));
                }
            }
        }
    }
}

impl GlobalError {
    pub(super) fn show(self, state: &mut ProgressState) {
        let text = self.message.unwrap_or_default();
        state.note_failure(failure("outside of the tests".to_owned(), &text));
    }
}

impl Metric {
    pub(super) fn show(self, metric: &str, state: &mut ProgressState) {
        for (threshold, verdict) in self.thresholds {
            let (Verdict::Crossed(false) | Verdict::Kept { ok: true }) = verdict else {
                fail(state, failure(name(&format!("{metric}: {threshold}")), "the threshold was crossed"));
                continue;
            };
            state.counts.passed = add(state.counts.passed, 1);
        }
    }
}
