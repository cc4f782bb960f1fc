//! Jobs: requests to run a test, and the attempts that follow from them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::test::{TestError, TestState};
use super::trace::TraceContext;
use super::{JobId, Priority, TestId, UserId, WorkerId};

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
    /// The span of its newest attempt, or that of its submission before the first one.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let submitted = self.traceparent?;
        let attempt = self.attempt;
        Some(if attempt == 0 { submitted } else { submitted.derived(&format!("{}/{attempt}", self.job_id)) })
    }
}
