//! What the view of `tidings watch` shows: tests as their messages tell of them. No I/O.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tidings::model::Message;

use crate::plain::is_obeyed;

/// How many tests that ended are shown.
const MAX_ENDED: usize = 6;
/// How many failures of running tests and of those that ended are shown on top.
const MAX_FAILURES: usize = 6;
/// How many lines of the chosen test's output are shown.
const MAX_LOG: usize = 10;
/// How many tests are known at once; the oldest that ended go first.
const MAX_TESTS: usize = 500;
const BAR: usize = 20;

/// A test that runs, or waits for its next attempt.
#[derive(Debug, Default)]
struct Row {
    state: Value,
}

/// A test that ended.
#[derive(Debug)]
struct Ended {
    test: String,
    outcome: String,
    failures: Vec<String>,
}

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct Board {
    running: BTreeMap<String, Row>,
    ended: VecDeque<Ended>,
    log: VecDeque<String>,
    chosen: Option<String>,
    trouble: Option<String>,
}

impl Board {
    /// Begins, or begins anew, with the snapshots of the tests that run: no others do.
    pub(super) fn begin(&mut self, tests: &Value) {
        self.running.clear();
        for test in tests["tests"].as_array().into_iter().flatten() {
            self.running.insert(string(test, "testId"), Row { state: test.clone() });
        }
        self.bound();
        self.choose_any();
    }

    /// What is wrong with the connection, if anything is.
    pub(super) fn trouble(&mut self, trouble: Option<String>) {
        self.trouble = trouble;
    }

    /// The test whose output is shown.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// Chooses a test by its id.
    pub(super) fn choose(&mut self, test: &str) {
        self.chosen = Some(test.to_owned());
        self.log.clear();
    }

    /// Chooses the next or the previous one that runs.
    pub(super) fn step(&mut self, forward: bool) {
        let tests: Vec<&String> = self.running.keys().collect();
        let Some(last) = tests.len().checked_sub(1) else { return };
        let at = self.chosen.as_ref().and_then(|chosen| tests.iter().position(|test| *test == chosen));
        let next = match at {
            Some(at) if forward => (at + 1).min(last),
            Some(at) => at.saturating_sub(1),
            None => 0,
        };
        let next = tests[next].clone();
        if self.chosen.as_ref() != Some(&next) {
            self.choose(&next);
        }
    }

    /// Takes a message of `test-updates`, or of the chosen test's own channel.
    pub(super) fn hear(&mut self, message: &Message) {
        let data: &Value = &message.data;
        let test = string(data, "testId");
        let is_own = message.channel.as_str().starts_with("test-progress-");
        match message.event.as_str() {
            "test:log" if is_own && self.chosen.as_deref() == Some(test.as_str()) => self.print(data),
            _ if is_own => {}
            "test:started" => {
                self.running.insert(test, Row { state: data.clone() });
                self.bound();
            }
            "test:progress" => self.running.entry(test).or_default().state = data.clone(),
            "test:failed" if data["willRetry"] == true => {
                if let Some(row) = self.running.get_mut(&test) {
                    row.state["message"] = "waits for its next attempt".into();
                }
            }
            "test:completed" => self.end(test, "passed", data),
            "test:cancelled" => self.end(test, "cancelled", data),
            "test:failed" => {
                let why = data["error"]["message"].as_str().unwrap_or("failed").to_owned();
                self.end(test, &format!("failed: {}", why.lines().next().unwrap_or_default()), data);
            }
            _ => {}
        }
        self.choose_any();
    }

    /// The lines of the screen, none longer than `width` characters, at most `height` of them.
    pub(super) fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let mut lines = self.failures();
        if !lines.is_empty() {
            lines.insert(0, "failures".to_owned());
            lines.push(String::new());
        }
        lines.push(match self.running.len() {
            0 => "no test runs".to_owned(),
            1 => "1 test runs".to_owned(),
            n => format!("{n} tests run"),
        });
        lines.extend(self.running.iter().map(|(test, row)| self.row(test, row)));
        if !self.ended.is_empty() {
            lines.extend([String::new(), "ended".to_owned()]);
            lines.extend(
                self.ended
                    .iter()
                    .take(MAX_ENDED)
                    .map(|ended| format!("  {:24} {}", ended.test, ended.outcome)),
            );
        }
        let log = self.log();
        // The failures on top and the log at the end stay; what is between gives way.
        lines.truncate(height.saturating_sub(log.len() + 1).max(1));
        lines.extend(log);
        lines.push(match &self.trouble {
            Some(trouble) => format!("{trouble}; trying again"),
            None => "↑ ↓ choose a test · q ends".to_owned(),
        });
        lines
            .iter()
            .map(|line| {
                line.chars().filter(|c| !is_obeyed(*c) && *c != '\n' && *c != '\t').take(width).collect()
            })
            .collect()
    }

    fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (test, row) in &self.running {
            for failure in row.state["failures"].as_array().into_iter().flatten() {
                lines.push(format!("  ✗ {test}: {}", failure_line(failure)));
            }
        }
        for ended in &self.ended {
            lines.extend(ended.failures.iter().map(|failure| format!("  ✗ {}: {failure}", ended.test)));
        }
        let more = lines.len().saturating_sub(MAX_FAILURES);
        lines.truncate(MAX_FAILURES);
        if more > 0 {
            lines.push(format!("  … and {more} more"));
        }
        lines
    }

    fn row(&self, test: &str, row: &Row) -> String {
        let state = &row.state;
        let percent = state["progress"].as_f64().unwrap_or(0.0).clamp(0.0, 100.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let (filled, percent) = ((percent * BAR as f64 / 100.0) as usize, percent as u64);
        let mark = if self.chosen.as_deref() == Some(test) { '›' } else { ' ' };
        let eta = match (state["etaMs"]["low"].as_u64(), state["etaMs"]["high"].as_u64()) {
            (Some(low), Some(high)) => format!("  {}–{} left", time(low), time(high)),
            _ => String::new(),
        };
        let what = match state["counts"].is_object() {
            true => crate::wait::summary(state),
            false => state["message"].as_str().unwrap_or("begins").to_owned(),
        };
        let (done, rest) = ("━".repeat(filled), "─".repeat(BAR - filled));
        format!("{mark} {test:24} {done}{rest} {percent:>3} %{eta}  {what}")
    }

    fn log(&self) -> Vec<String> {
        let Some(chosen) = self.chosen.as_ref().filter(|_| !self.log.is_empty()) else { return Vec::new() };
        let title = format!("output of {chosen}");
        [String::new(), title].into_iter().chain(self.log.iter().map(|line| format!("  {line}"))).collect()
    }

    fn print(&mut self, data: &Value) {
        let lines = data["lines"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for line in lines {
            if self.log.len() == MAX_LOG {
                self.log.pop_front();
            }
            self.log.push_back(line.to_owned());
        }
    }

    fn end(&mut self, test: String, outcome: &str, data: &Value) {
        let row = self.running.remove(&test).unwrap_or_default();
        let told = [&data["failures"], &data["results"]["failures"], &row.state["failures"]];
        let failures = told.into_iter().find_map(Value::as_array).into_iter().flatten();
        let failures =
            if outcome.starts_with("failed") { failures.map(failure_line).collect() } else { Vec::new() };
        self.ended.push_front(Ended { test, outcome: outcome.to_owned(), failures });
        self.ended.truncate(MAX_ENDED);
    }

    /// Somebody's output is shown, as long as somebody runs.
    fn choose_any(&mut self) {
        if self.chosen.is_none()
            && let Some(first) = self.running.keys().next().cloned()
        {
            self.choose(&first);
        }
    }

    fn bound(&mut self) {
        while self.running.len() > MAX_TESTS {
            self.running.pop_first();
        }
    }
}

fn failure_line(failure: &Value) -> String {
    let name = failure["name"].as_str().unwrap_or("?");
    match failure["message"].as_str().and_then(|why| why.lines().next()) {
        Some(why) if !why.is_empty() => format!("{name}: {why}"),
        _ => name.to_owned(),
    }
}

/// A time as people say it.
fn time(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..=99 => format!("{s} s"),
        s @ 100..=5999 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

fn string(data: &Value, key: &str) -> String {
    data[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(channel: &str, event: &str, data: &Value) -> Message {
        let message = json!({ "id": "m", "event": event, "channel": channel, "priority": 2, "timestamp": 1, "data": data,
            "epoch": "e", "offset": 1 });
        serde_json::from_value(message).expect("a message")
    }

    fn heard(events: &[(&str, Value)]) -> Board {
        let mut board = Board::default();
        for (event, data) in events {
            board.hear(&message("test-updates", event, data));
        }
        board
    }

    #[test]
    fn a_running_test_has_a_bar_and_the_time_that_is_left() {
        let progress = json!({ "testId": "a", "progress": 50, "counts": { "passed": 3, "failed": 1 },
            "etaMs": { "low": 20_000, "high": 200_000 }, "current": ["sorts"] });
        let board = heard(&[("test:started", json!({ "testId": "a" })), ("test:progress", progress)]);
        let lines = board.lines(200, 50);
        let expected = "› a                        ━━━━━━━━━━──────────  50 %  20 s–3 min left  3 passed, 1 failed  sorts";
        assert!(lines.contains(&expected.to_owned()), "{lines:#?}");
    }

    #[test]
    fn what_ended_unheard_is_gone_when_it_begins_anew() {
        let mut board = heard(&[("test:started", json!({ "testId": "a" }))]);
        board.begin(&json!({ "tests": [{ "testId": "b", "progress": 3 }] }));
        let lines = board.lines(200, 50);
        assert_eq!(lines[0], "1 test runs");
        assert!(lines[1].contains(" b "), "{lines:#?}");
    }

    #[test]
    fn failures_stand_on_top_also_of_what_has_ended() {
        let failures = json!([{ "name": "case", "message": "is wrong\nvery" }]);
        let board = heard(&[
            ("test:progress", json!({ "testId": "b", "progress": 1, "failures": failures })),
            (
                "test:failed",
                json!({ "testId": "a", "willRetry": false, "error": { "message": "1 failed" }, "failures": failures }),
            ),
            ("test:completed", json!({ "testId": "c" })),
        ]);
        let lines = board.lines(200, 50);
        assert_eq!(lines[..3], ["failures", "  ✗ b: case: is wrong", "  ✗ a: case: is wrong"]);
        assert!(lines.iter().any(|line| line.starts_with("  c ") && line.ends_with("passed")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with("failed: 1 failed")), "{lines:#?}");
    }

    #[test]
    fn the_output_of_the_chosen_one_is_shown_and_the_screen_is_never_overfull() {
        let mut board =
            heard(&[("test:started", json!({ "testId": "a" })), ("test:started", json!({ "testId": "b" }))]);
        assert_eq!(board.chosen(), Some("a"));
        board.step(true);
        assert_eq!(board.chosen(), Some("b"));
        let log =
            json!({ "testId": "b", "lines": (0..50).map(|i| format!("line {i}\u{7}")).collect::<Vec<_>>() });
        board.hear(&message("test-progress-b", "test:log", &log));
        board.trouble(Some("away".to_owned()));
        let lines = board.lines(30, 16);
        assert_eq!(lines.len(), 16);
        assert_eq!(lines[14..], ["  line 49", "away; trying again"]);
        assert!(board.lines(3, 5).iter().all(|line| line.chars().count() <= 3));
    }
}
