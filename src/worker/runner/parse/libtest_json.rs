//! JSON lines of libtest: `cargo nextest run --message-format libtest-json-plus`, and `cargo test -- --format json`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::panic::RustOutput;
use super::text::{add, fail, name, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// More binaries than this are not told apart.
const MAX_BINARIES: usize = 4096;
/// What stands before the output of a test.
const OUTPUTS: [&str; 2] = [r#","stdout":""#, r#", "stdout": ""#];

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    test_count: Option<u64>,
    // Seconds, or `0.123s` of older versions.
    exec_time: Option<Value>,
    stdout: Option<String>,
    message: Option<String>,
    reason: Option<String>,
    nextest: Option<Nextest>,
}

#[derive(Debug, Deserialize)]
struct Nextest {
    #[serde(rename = "crate")]
    package: String,
    test_binary: String,
}

/// Reads the JSON lines of libtest.
#[derive(Debug, Default)]
pub(super) struct LibtestJson {
    // A binary is announced again when its tests begin anew after a result.
    binaries: BTreeSet<String>,
}

impl LineParser for LibtestJson {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let Some(event) = event(line) else { return };
        match (event.kind.as_str(), event.event.as_str()) {
            ("suite", "started") => self.suite(&event, state),
            ("test", "started") => {
                let test = title(&event.name);
                if state.current.len() < MAX_CURRENT {
                    state.current.push(test.clone());
                }
                state.message = Some(test);
            }
            ("test" | "bench", _) => ended(&event, state),
            _ => {}
        }
        show(state);
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        settle(state);
    }
}

impl LibtestJson {
    fn suite(&mut self, event: &Event, state: &mut ProgressState) {
        let is_new = event.nextest.as_ref().is_none_or(|Nextest { package, test_binary }| {
            self.binaries.len() < MAX_BINARIES && self.binaries.insert(format!("{package}::{test_binary}"))
        });
        if is_new {
            let more = event.test_count.unwrap_or(0);
            state.counts.total = Some(add(state.counts.total.unwrap_or(0), more));
        }
    }
}

fn ended(event: &Event, state: &mut ProgressState) {
    let test = title(&event.name);
    state.current.retain(|current| *current != test);
    match event.event.as_str() {
        "ok" => state.counts.passed = add(state.counts.passed, 1),
        "ignored" => state.counts.skipped = add(state.counts.skipped, 1),
        "failed" | "timeout" => {
            let mut output = RustOutput::default();
            event.stdout.iter().flat_map(|text| text.lines()).for_each(|line| output.line(line));
            let (why, output) = output.into_parts();
            let said = event.message.as_ref().or(event.reason.as_ref());
            let why = if why.is_empty() { said.map(|text| super::text::message(text)) } else { Some(why) };
            fail(
                state,
                Failure { name: test.clone(), message: why.unwrap_or_default(), output, history: None },
            );
        }
        _ => return,
    }
    let seconds = match &event.exec_time {
        Some(Value::Number(seconds)) => seconds.as_f64(),
        Some(Value::String(text)) => text.trim_end_matches('s').parse().ok(),
        _ => None,
    };
    if let Some(seconds) = seconds.filter(|s| (0.0..1e9).contains(s)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e12")]
        state.note_duration(&test, (seconds * 1000.0) as u64);
    }
}

/// nextest writes `crate::binary$module::test`.
fn title(text: &str) -> String {
    name(&text.replacen('$', " ", 1))
}

/// The event of a line. Text that a test printed without a line's end may stand before it.
fn event(line: &str) -> Option<Event> {
    let start = [r#"{"type":""#, r#"{ "type": ""#].iter().filter_map(|key| line.rfind(key)).max()?;
    let line = &line[start..];
    serde_json::from_str(line).ok().or_else(|| {
        // One that was cut in the output of its test, which stands at its end.
        let at = line.find(OUTPUTS[0]).or_else(|| line.find(OUTPUTS[1]))?;
        serde_json::from_str(&format!("{}}}", &line[..at])).ok()
    })
}

/// Whether only libtest prints this.
pub(super) fn gives_away(line: &str) -> bool {
    event(line).is_some_and(|e| matches!(e.kind.as_str(), "suite" | "test") && !e.event.is_empty())
}
