//! Jobs: requests to run a test, and the attempts that follow from them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::pause::MAX_SUITE_LEN;
use super::test::{TestError, TestState};
use super::trace::TraceContext;
use super::{JobId, Priority, TestId, UserId, WorkerId};

/// The test type whose jobs run a suite.
pub const SUITE_TYPE: &str = "command";
/// The longest name of a series, in characters.
const MAX_SERIES: usize = 300;

/// A job goes through the same states as the test that it runs.
pub type JobState = TestState;

/// One request to run a test, as the queue keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Names the job.
    pub job_id: JobId,
    /// The test that it runs.
    pub test_id: TestId,
    /// Which runner handles it: `stress`, `command`, …
    pub test_type: String,
    /// What its runs have in common: with others of this name it shares its history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the runner is told.
    pub config: Map<String, Value>,
    /// Where it is in its life.
    pub state: JobState,
    /// Higher ones run first.
    pub priority: Priority,
    /// The newest attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The queue gives up after this many.
    pub max_attempts: u32,
    /// How long an attempt may take; the runner's own limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A second submission with the same key returns this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
    /// The team that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// Who submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The trace that it belongs to, as W3C has it: that of its submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub traceparent: Option<TraceContext>,
    /// When it was submitted, in ms since the Unix epoch.
    pub created_at: i64,
    /// When it may start: the delay of its submission or the back-off before its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    /// When the newest attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    /// Who runs, or ran, the newest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Somebody asked to cancel the running attempt.
    #[serde(default)]
    #[schema(required)]
    pub cancel_requested: bool,
    /// Why the newest attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TestError>,
    /// How long its holder may be silent: it runs outside of all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Why it does not start, where that is not plain waiting for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

impl Job {
    /// What its runs have in common, so that they share a past.
    #[must_use]
    pub fn series(&self) -> String {
        let Self { name, test_type, config, test_id, lease_ms, .. } = self;
        series(name.as_deref(), test_type, config, test_id.as_str(), lease_ms.is_some())
    }

    /// The suite that it runs, by which it can be paused and counted; none of what is held outside.
    #[must_use]
    pub fn suite(&self) -> Option<&str> {
        suite(&self.test_type, &self.config).filter(|_| self.lease_ms.is_none())
    }

    /// Where it waits: with those that may be held back together.
    #[must_use]
    pub fn lane(&self) -> String {
        self.suite().map_or_else(|| self.test_type.clone(), lane)
    }

    /// The span of its newest attempt, or that of its submission before the first one.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let submitted = self.traceparent?;
        let attempt = self.attempt;
        Some(if attempt == 0 { submitted } else { submitted.derived(&format!("{}/{attempt}", self.job_id)) })
    }
}

/// The suite that a job of this type and config runs.
pub(crate) fn suite<'a>(test_type: &str, config: &'a Map<String, Value>) -> Option<&'a str> {
    let suite = config.get("suite").and_then(Value::as_str).filter(|_| test_type == SUITE_TYPE);
    suite.filter(|suite| !suite.is_empty() && suite.len() <= MAX_SUITE_LEN)
}

/// Where the jobs of a suite wait.
pub(crate) fn lane(suite: &str) -> String {
    format!("{SUITE_TYPE}/{suite}")
}

/// The series of a job: its name, or else what it runs, or else what its test is called without the part that differs
/// from run to run. What is `held` outside has a URL only to be shown.
pub(crate) fn series(
    name: Option<&str>,
    test_type: &str,
    config: &Map<String, Value>,
    test: &str,
    held: bool,
) -> String {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    // A run of single cases says nothing of how long all of them take.
    let part = if text("suite").is_some() && config.contains_key("only") { ":only" } else { "" };
    let what = match (name, text("suite"), text("url").filter(|_| !held)) {
        (Some(name), _, _) => format!("{name}{part}"),
        (None, Some(suite), _) => {
            let params = config.get("params").map(Value::to_string).unwrap_or_default();
            format!("{suite}{params}{part}")
        }
        (None, None, Some(url)) => url.to_owned(),
        (None, None, None) => stable(test).to_owned(),
    };
    format!("{test_type}:{what}").chars().take(MAX_SERIES).collect()
}

/// A test's id without the parts at its end that differ from run to run: numbers, dates, ULIDs, hashes.
fn stable(id: &str) -> &str {
    let mut kept = id;
    while let Some(at) = kept.rfind(['-', '_', '.', ':']) {
        let part = &kept[at + 1..];
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        let is_hash = part.len() >= 7 && part.bytes().any(|byte| byte.is_ascii_digit());
        if at == 0 || !(is_number || is_hash) {
            break;
        }
        kept = &kept[..at];
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{series, stable};

    #[test]
    fn a_run_of_single_cases_is_of_another_series_whatever_its_name() {
        let of = |name, config: serde_json::Value| {
            series(name, "command", config.as_object().expect("an object"), "t", false)
        };
        let (all, part) = (json!({"suite": "unit"}), json!({"suite": "unit", "only": ["a"]}));
        assert_eq!(of(None, all.clone()), "command:unit");
        assert_eq!(of(None, part.clone()), "command:unit:only");
        assert_eq!(of(Some("nightly"), all), "command:nightly");
        assert_eq!(of(Some("nightly"), part), "command:nightly:only");
    }

    #[test]
    fn what_differs_from_run_to_run_is_no_part_of_a_series() {
        for (id, kept) in [
            ("nightly", "nightly"),
            ("nightly-17", "nightly"),
            ("nightly_2026-11-28", "nightly"),
            ("external_01KB5Y6ZV1E9S5M3Q4W5R6T7Y8", "external"),
            ("build.3fa9c21d", "build"),
            ("suite-a", "suite-a"),
            ("stress_123", "stress"),
            ("123", "123"),
            ("-5", "-5"),
        ] {
            assert_eq!(stable(id), kept, "{id}");
        }
    }
}
