//! What k6 prints: its summary, and with `--out json=-` a line of JSON for each measurement.
//!
//! k6 fails by its thresholds, not by its checks: so the thresholds are the test cases, and checks and requests are
//! measurements, named as those of our own stress tests.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::plain::Plain;
use super::text::{add, fail, name, settle};
use super::{Exit, LineParser};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;
use crate::worker::runner::latencies::Latencies;

/// How often the measurements are shown.
const TICK: Duration = Duration::from_millis(100);
/// More checks and thresholds than these are not told apart.
const MAX_NAMED: usize = 256;
/// The exit code where thresholds were crossed.
const CROSSED: Exit = Exit::Code(99);

#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(borrow)]
    data: Point<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Point<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    value: Option<f64>,
    #[serde(borrow)]
    tags: Tags<'a>,
    #[serde(borrow)]
    thresholds: Vec<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tags<'a> {
    #[serde(borrow)]
    check: Cow<'a, str>,
    #[serde(borrow)]
    group: Cow<'a, str>,
}

/// Reads the output of k6.
#[derive(Debug, Default)]
pub(super) struct K6 {
    requests: u64,
    failed: u64,
    latencies: Latencies,
    vus: Option<f64>,
    // Passed and failed.
    checks: BTreeMap<String, (u64, u64)>,
    all_checks: (u64, u64),
    // The second of the newest request, and how many there were in it.
    second: (String, u64),
    rps: Option<u64>,
    shown: Option<Instant>,
    // By metric and text, and whether it held, where that was told.
    thresholds: BTreeMap<(String, String), Option<(bool, String)>>,
    // The metric whose thresholds are being told.
    section: Option<String>,
    crossed: Vec<String>,
}

impl LineParser for K6 {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        if line.starts_with(r#"{"metric":"#) || line.starts_with(r#"{"type":"#) {
            if let Ok(line) = serde_json::from_str(line) {
                self.point(&line);
            }
            if self.shown.is_none_or(|at| at.elapsed() >= TICK) {
                self.shown = Some(Instant::now());
                self.show(state);
            }
        } else {
            self.text(line, state);
        }
    }

    fn finish(&mut self, exit: Exit, state: &mut ProgressState) {
        self.show(state);
        let failing = self.failing_checks();
        for ((metric, threshold), told) in std::mem::take(&mut self.thresholds) {
            // Where k6 was ended, or ended by another fault, before it told, nobody knows.
            let by_exit = || {
                (matches!(exit, Exit::Code(0)) || exit == CROSSED)
                    .then(|| (!self.crossed.contains(&metric), "the threshold was crossed".to_owned()))
            };
            let Some((kept, value)) = told.or_else(by_exit) else { continue };
            if kept {
                state.counts.passed = add(state.counts.passed, 1);
            } else {
                let output = (metric == "checks").then(|| failing.clone()).flatten();
                let test = name(&format!("{metric}: {threshold}"));
                fail(state, Failure { name: test, message: value, output, history: None });
            }
        }
        if exit == CROSSED && state.counts.failed == 0 {
            let why = "thresholds were crossed; k6 did not say which".to_owned();
            fail(
                state,
                Failure { name: "thresholds".to_owned(), message: why, output: failing, history: None },
            );
        }
        settle(state);
    }
}

impl K6 {
    fn point(&mut self, line: &Line<'_>) {
        let Point { time, value, tags, thresholds } = &line.data;
        for threshold in thresholds {
            self.threshold(&line.metric, threshold, None);
        }
        let Some(value) = *value else { return };
        match line.metric.as_ref() {
            "http_reqs" => {
                self.requests = add(self.requests, 1);
                self.count(time);
            }
            "http_req_failed" if value > 0.0 => self.failed = add(self.failed, 1),
            "http_req_duration" if (0.0..1e12).contains(&value) => {
                self.latencies.record(Duration::from_secs_f64(value / 1000.0));
            }
            "vus" => self.vus = Some(value),
            "checks" => self.check(tags, value > 0.0),
            _ => {}
        }
    }

    /// Counts the requests of a second.
    fn count(&mut self, time: &str) {
        let second = time.get(..19).unwrap_or_default();
        if second > self.second.0.as_str() {
            // The first second is not a whole one.
            if !self.second.0.is_empty() {
                self.rps = Some(self.second.1);
            }
            self.second = (second.to_owned(), 0);
        }
        self.second.1 += 1;
    }

    fn check(&mut self, tags: &Tags<'_>, passed: bool) {
        let bump = |counts: &mut (u64, u64)| {
            let count = if passed { &mut counts.0 } else { &mut counts.1 };
            *count = add(*count, 1);
        };
        bump(&mut self.all_checks);
        let group = tags.group.trim_start_matches("::");
        let title =
            if group.is_empty() { tags.check.to_string() } else { format!("{group} › {}", tags.check) };
        let title = name(&title);
        if self.checks.contains_key(&title) || self.checks.len() < MAX_NAMED {
            bump(self.checks.entry(title).or_default());
        }
    }

    fn threshold(&mut self, metric: &str, text: &str, told: Option<(bool, String)>) {
        let key = (name(metric), name(text));
        if self.thresholds.contains_key(&key) || self.thresholds.len() < MAX_NAMED {
            let known = self.thresholds.entry(key).or_default();
            *known = told.or(known.take());
        }
    }

    /// Takes a line for people.
    fn text(&mut self, line: &str, state: &mut ProgressState) {
        let words = line.trim();
        if let Some(title) = words.strip_prefix("█ ") {
            self.section = (title == "THRESHOLDS").then(String::new);
        } else if let Some(metrics) = words.split("thresholds on metrics '").nth(1) {
            let metrics = metrics.split('\'').next().unwrap_or_default();
            self.crossed = metrics.split(", ").take(MAX_NAMED).map(name).collect();
        } else if let Some(metric) = self.section.clone() {
            match verdict(words) {
                Some((kept, threshold, value)) => {
                    self.threshold(&metric, threshold, Some((kept, name(value))))
                }
                None if !words.is_empty() => self.section = Some(name(words)),
                None => {}
            }
        } else if let Some((_, rest)) = words.split_once("[ ").filter(|_| words.contains("% ] ")) {
            // `default   [  33% ] 2 VUs  1.0s/3s`
            let percent = rest.split('%').next().unwrap_or_default().trim();
            Plain.line(&format!("{percent}%"), state);
            state.message = Some(self.message());
        }
    }

    fn message(&self) -> String {
        let (passed, failed) = self.all_checks;
        let p95 = self.latencies.percentile(95.0);
        format!(
            "{} requests, p95 {p95:.1} ms, {failed} of {} checks failed",
            self.requests,
            add(passed, failed)
        )
    }

    fn show(&self, state: &mut ProgressState) {
        if self.requests == 0 && self.all_checks == (0, 0) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let error_rate = self.failed as f64 / self.requests.max(1) as f64;
        let percentile = |percent| json!(self.latencies.percentile(percent));
        let metrics = [
            ("requests", json!(self.requests)),
            ("errorRate", json!((error_rate * 1000.0).round() / 1000.0)),
            ("checksPassed", json!(self.all_checks.0)),
            ("checksFailed", json!(self.all_checks.1)),
            ("p50", percentile(50.0)),
            ("p90", percentile(90.0)),
            ("p95", percentile(95.0)),
            ("p99", percentile(99.0)),
            ("max", json!(self.latencies.max())),
            ("rps", json!(self.rps)),
            ("vus", json!(self.vus)),
        ];
        let known = metrics.into_iter().filter(|(_, value)| *value != Value::Null);
        state.metrics = known.map(|(name, value)| (name.to_owned(), value)).collect();
        state.message = Some(self.message());
    }

    /// Which checks failed how often.
    fn failing_checks(&self) -> Option<String> {
        let failing = self.checks.iter().filter(|(_, (_, failed))| *failed > 0);
        let mut tail = super::Tail::default();
        failing.for_each(|(check, (passed, failed))| {
            tail.line(&format!("{check}: {failed} of {} failed", add(*passed, *failed)));
        });
        tail.text()
    }
}

/// `✗ 'rate>0.9' rate=66.66%`: whether it held, the threshold, and the value.
fn verdict(words: &str) -> Option<(bool, &str, &str)> {
    let (kept, rest) = words
        .strip_prefix("✓ '")
        .map(|rest| (true, rest))
        .or_else(|| Some((false, words.strip_prefix("✗ '")?)))?;
    let (threshold, value) = rest.rsplit_once("' ").or_else(|| Some((rest.strip_suffix('\'')?, "")))?;
    Some((kept, threshold, value))
}

/// Whether only k6 prints this.
pub(super) fn gives_away(line: &str) -> bool {
    line == "     execution: local" || line.starts_with(r#"{"type":"Metric","data":{"name":""#)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, failure, names, read};
    use super::*;
    use crate::config::suite::Format;

    macro_rules! sample {
        ($name:literal) => {
            include_str!(concat!("../../../../tests/samples/", $name))
        };
    }

    #[test]
    fn thresholds_decide_and_checks_are_measured() {
        let state = read(Format::K6, sample!("k6-json.txt"), 99);
        assert_eq!(
            (state.counts, names(&state)),
            (counts(1, 2, 0), vec!["checks: rate>0.9", "http_req_failed: rate<0.5"])
        );
        let checks = failure(&state, "checks: rate>0.9");
        assert_eq!(
            (checks.message.as_str(), checks.output.as_deref()),
            ("rate=66.66%", Some("pages › has words: 6 of 6 failed"))
        );
        // k6's own: 12 requests, half of them failed, 12 of 18 checks passed, p(95)=23.49ms, max=26.84ms.
        let metrics = &state.metrics;
        assert_eq!((&metrics["requests"], &metrics["errorRate"]), (&json!(12), &json!(0.5)));
        assert_eq!((&metrics["checksPassed"], &metrics["checksFailed"]), (&json!(12), &json!(6)));
        assert!((metrics["max"].as_f64().unwrap() - 26.84).abs() < 0.05, "{metrics:?}");
        assert_eq!(read(Format::Auto, sample!("k6-json.txt"), 99), state);
    }

    #[test]
    fn without_json_the_summary_tells() {
        let state = read(Format::Auto, sample!("k6.txt"), 99);
        assert_eq!(
            (state.counts, names(&state)),
            (counts(1, 2, 0), vec!["checks: rate>0.9", "http_req_failed: rate<0.5"])
        );
    }

    #[test]
    fn without_a_summary_the_complaint_tells() {
        let lines: Vec<&str> = sample!("k6-json.txt").lines().filter(|line| line.starts_with('{')).collect();
        let json = lines.join("\n");
        let complaint =
            r#"time="…" level=error msg="thresholds on metrics 'checks, http_req_failed' have been crossed""#;
        let state = read(Format::K6, &format!("{json}\n{complaint}"), 99);
        assert_eq!(
            (state.counts, names(&state)),
            (counts(1, 2, 0), vec!["checks: rate>0.9", "http_req_failed: rate<0.5"])
        );
        assert_eq!(read(Format::K6, &json, 0).counts, counts(3, 0, 0));
        assert_eq!(names(&read(Format::K6, &json, 99)), ["thresholds"]);
        assert_eq!(read(Format::K6, "", 99).counts.failed, 1);
        // Aborted, by a script that throws, by a signal: no verdict.
        for code in [105, 107, 137] {
            assert_eq!(read(Format::K6, &json, code).counts.passed, 0, "{code}");
        }
    }

    #[test]
    fn it_is_followed_as_it_goes() {
        let mut parser = K6::default();
        let mut state = ProgressState::default();
        for (i, second) in ["01", "01", "02", "02", "02", "03"].iter().enumerate() {
            let line = format!(
                r#"{{"metric":"http_reqs","type":"Point","data":{{"time":"2026-01-01T00:00:{second}.5Z","value":1,"tags":{{}}}}}}"#
            );
            parser.line(&line, &mut state);
            assert_eq!(parser.requests, i as u64 + 1);
        }
        assert_eq!(parser.rps, Some(3));
        parser.line("default   [  40% ] 2 VUs  1.2s/3s", &mut state);
        assert_eq!(
            (state.progress, state.message.as_deref()),
            (40.0, Some("6 requests, p95 0.0 ms, 0 of 0 checks failed"))
        );
        parser.line("{\"metric\":\"checks\",\"type\":\"Point\",\"data\":{\"value\":", &mut state);
    }
}
