//! The live view: a bar per test, and a line for each thing that ends.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tidings::model::Message;

use crate::client::print_line;

/// A test on the screen.
struct Row {
    bar: ProgressBar,
    test: String,
    ended: Option<String>,
}

/// What is on the screen.
pub(super) struct View {
    screen: MultiProgress,
    rows: BTreeMap<String, Row>,
    conflated: u64,
    open: bool,
}

impl View {
    pub(super) fn new(url: &str) -> Self {
        let _ = print_line(format_args!(
            "tidings demo: three real tests on a server of their own\n  page     {url}\n  metrics  {url}/metrics\n"
        ));
        Self { screen: MultiProgress::new(), rows: BTreeMap::new(), conflated: 0, open: true }
    }

    /// How many messages newer ones stood for.
    pub(super) fn conflated(&self) -> u64 {
        self.conflated
    }

    /// Whether it still shows bars.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn note(&self, text: &str) {
        self.say(text);
    }

    /// Shows what a message tells.
    pub(super) fn show(&mut self, message: &Message) {
        self.conflated += message.conflated;
        let data = &message.data;
        match message.event.as_str() {
            "queue:job:added" => self.add(data),
            "queue:job:started" => self.with_row(data, |row| row.bar.set_message("running")),
            "test:progress" => self.progress(data),
            "queue:job:completed" => self.end(data, "passed"),
            "queue:job:failed" => {
                let error = data["error"]["message"].as_str().unwrap_or("failed").to_owned();
                self.end(data, &format!("failed: {error}"));
            }
            "queue:job:cancelled" => self.end(data, "cancelled"),
            "queue:job:retrying" => {
                self.with_row(data, |row| row.bar.set_message("waits for its next attempt"))
            }
            _ => {}
        }
    }

    fn add(&mut self, data: &Value) {
        let (job, test) = (string(data, "jobId"), string(data, "testId"));
        let bar = self.screen.add(ProgressBar::new(100));
        // The template is fixed, so that it is known to be right.
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:16} {bar:24.cyan/dim} {pos:>3} %  {wide_msg}")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(test.clone());
        bar.set_message("queued");
        self.say(&format!("{test:16} queued"));
        self.rows.insert(job, Row { bar, test, ended: None });
    }

    fn progress(&mut self, data: &Value) {
        let test = string(data, "testId");
        let Some(row) = self.rows.values().find(|row| row.test == test) else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        row.bar.set_position(data["progress"].as_f64().unwrap_or(0.0) as u64);
        row.bar.set_message(detail(data));
    }

    fn end(&mut self, data: &Value, outcome: &str) {
        let mut said = None;
        self.with_row(data, |row| {
            if outcome == "passed" {
                row.bar.set_position(100);
            }
            row.bar.abandon_with_message(outcome.to_owned());
            row.ended = Some(outcome.to_owned());
            said = Some(format!("{:16} {outcome}", row.test));
        });
        if let Some(text) = said {
            self.say(&text);
        }
    }

    fn with_row(&mut self, data: &Value, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.get_mut(&string(data, "jobId")) {
            change(row);
        }
    }

    /// Where there are no bars, lines tell.
    fn say(&self, text: &str) {
        if self.screen.is_hidden() {
            let _ = print_line(text);
        }
    }

    pub(super) fn all_ended(&self, jobs: &[String]) -> bool {
        jobs.iter().all(|job| self.rows.get(job).is_some_and(|row| row.ended.is_some()))
    }

    /// The outcome of a job, as a line.
    pub(super) fn line(&self, job: &str) -> String {
        match self.rows.get(job) {
            Some(Row { test, ended: Some(outcome), .. }) => format!("{test:16} {outcome}"),
            Some(Row { test, .. }) => format!("{test:16} has not ended"),
            None => format!("{job} was never queued"),
        }
    }

    pub(super) fn finish(&mut self) {
        self.open = false;
        if !self.screen.is_hidden() {
            let _ = print_line("");
        }
    }
}

/// The numbers behind a bar.
fn detail(data: &Value) -> String {
    if let (Some(rps), Some(p99)) = (data["metrics"]["rps"].as_f64(), data["metrics"]["p99"].as_f64()) {
        return format!("{rps:.0} requests/s, p99 {p99:.1} ms");
    }
    let counts = &data["counts"];
    let failed = counts["failed"].as_u64().unwrap_or(0);
    let current = data["current"][0].as_str().unwrap_or_default();
    format!("{} passed, {failed} failed  {current}", counts["passed"].as_u64().unwrap_or(0))
}

fn string(data: &Value, key: &str) -> String {
    data[key].as_str().unwrap_or_default().to_owned()
}
