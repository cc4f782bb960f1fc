//! Tests: their current state, and how messages change it.
//!
//! A snapshot at offset N is the fold of the test's messages up to N, on top of what the queue knew when the
//! test was submitted (`queue:job:added` has no twin among the `test:*` events).

mod data;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::TestEvent;
use super::forecast::{Slower, Stalled};
use super::past::TrackRecord;
use super::{Epoch, JobId, TestId};

pub use data::{Refused, TestData};

/// How many failures a snapshot names; the counts tell of the rest.
pub const MAX_FAILURES: usize = 50;

/// Where a test is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TestState {
    /// Submitted to run later.
    Scheduled,
    /// Waits for a worker.
    #[default]
    Queued,
    /// An attempt runs.
    Running,
    /// An attempt failed; another will follow.
    Retrying,
    /// Passed.
    Completed,
    /// Failed for good.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl TestState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name on the wire and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether its next attempt is still to come.
    #[must_use]
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Queued | Self::Retrying)
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How many test cases ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// Passed so far.
    #[serde(default)]
    #[schema(required)]
    pub passed: u64,
    /// Failed so far.
    #[serde(default)]
    #[schema(required)]
    pub failed: u64,
    /// Skipped so far.
    #[serde(default)]
    #[schema(required)]
    pub skipped: u64,
    /// How many there will be, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl Counts {
    /// How many have ended.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

/// A test case that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// Its name as the runner tells it.
    pub name: String,
    /// Why.
    #[serde(default)]
    #[schema(required)]
    pub message: String,
    /// The last lines that it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// How it did in the runs before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<TrackRecord>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TestError {
    /// `tests_failed`, `timeout`, `worker_lost`, `runner_error`, …
    pub code: String,
    /// For people.
    pub message: String,
}

/// When a test will probably end, in ms from the message that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EtaMs {
    /// Not before.
    pub low: u64,
    /// Hardly after.
    pub high: u64,
}

/// The current state of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Which test.
    pub test_id: TestId,
    /// The job that runs it; none for a test that reports from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// `stress`, `command`, …
    pub test_type: String,
    /// Where it is in its life.
    pub state: TestState,
    /// The newest attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// 0 to 100.
    pub progress: f64,
    /// Test cases by outcome.
    pub counts: Counts,
    /// The test cases that run now.
    #[serde(default)]
    #[schema(required)]
    pub current: Vec<String>,
    /// Whatever the runner measures.
    #[serde(default)]
    #[schema(required)]
    pub metrics: Map<String, Value>,
    /// The first failures.
    #[serde(default)]
    #[schema(required)]
    pub failures: Vec<Failure>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it will probably end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<EtaMs>,
    /// It takes longer than nearly all of its runs before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower: Option<Slower>,
    /// It is alive, and makes no progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Stalled>,
    /// Once it failed: how it did in the runs before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<TrackRecord>,
    /// What the runner found, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Value>,
    /// Why the newest attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TestError>,
    /// When it was submitted, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<i64>,
    /// When the newest attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    /// The epoch of `test-progress-{testId}` that `offset` counts in.
    pub epoch: Epoch,
    /// The state is the fold of the messages up to this offset.
    pub offset: u64,
}

impl Snapshot {
    /// A test that nobody has told anything about yet.
    #[must_use]
    pub fn new(test_id: TestId, test_type: &str, state: TestState, epoch: Epoch) -> Self {
        Self {
            test_id,
            job_id: None,
            test_type: test_type.to_owned(),
            state,
            attempt: 0,
            progress: 0.0,
            counts: Counts::default(),
            current: Vec::new(),
            metrics: Map::new(),
            failures: Vec::new(),
            message: None,
            eta_ms: None,
            slower: None,
            stalled: None,
            history: None,
            results: None,
            error: None,
            queued_at: None,
            started_at: None,
            ended_at: None,
            epoch,
            offset: 0,
        }
    }

    /// Whether this, the state of a test whose job has just been added, or has become due, takes the place of
    /// `stored`. No job is put into the queue twice at the same time.
    #[must_use]
    pub fn replaces(&self, stored: &Self) -> bool {
        if stored.queued_at != self.queued_at {
            return stored.queued_at < self.queued_at;
        }
        stored.job_id != self.job_id
            || (stored.state == TestState::Scheduled && self.state == TestState::Queued)
    }

    /// Whether whoever speaks for `job` may tell `event` of `attempt` here. Where a job runs the test, others
    /// may only add to the attempt that runs: a later one of their own would end the story of the job's.
    pub fn admits(&self, event: TestEvent, attempt: Option<u32>, job: Option<&JobId>) -> Result<(), Refused> {
        let Some(owner) = self.job_id.as_ref().filter(|owner| job != Some(*owner)) else { return Ok(()) };
        let adds = matches!(event, TestEvent::Progress | TestEvent::Log)
            && self.state == TestState::Running
            && attempt.is_none_or(|attempt| attempt <= self.attempt);
        if adds { Ok(()) } else { Err(Refused::Owned { job: owner.clone() }) }
    }

    /// Folds one message into the state. After a refusal the state is as before.
    pub fn fold(&mut self, event: TestEvent, data: TestData, timestamp_ms: i64) -> Result<(), Refused> {
        let attempt = data.attempt.unwrap_or_else(|| self.attempt.max(1));
        if attempt < self.attempt {
            return Err(Refused::StaleAttempt { attempt, current: self.attempt });
        }
        let ended = self.state.is_terminal() || self.state == TestState::Retrying;
        // A queued job that is cancelled ends without an attempt of its own, so `cancelled` may follow a retry.
        let may_end_again = event == TestEvent::Cancelled && !self.state.is_terminal();
        if attempt == self.attempt && ended && !may_end_again {
            return Err(Refused::Ended { attempt, state: self.state });
        }
        if attempt > self.attempt {
            self.begin(attempt);
        }
        if let Some(test_type) = data.test_type.clone() {
            self.test_type = test_type;
        }
        match event {
            TestEvent::Started => {
                self.state = TestState::Running;
                self.started_at = Some(data.started_at.unwrap_or(timestamp_ms));
                if data.job_id.is_some() {
                    self.job_id = data.job_id;
                }
            }
            TestEvent::Progress => {
                self.state = TestState::Running;
                self.started_at.get_or_insert(timestamp_ms);
                self.show(data);
            }
            TestEvent::Log => {}
            TestEvent::Completed => {
                self.progress = 100.0;
                self.end(TestState::Completed, data, timestamp_ms);
            }
            TestEvent::Failed if data.will_retry == Some(true) => {
                self.end(TestState::Retrying, data, timestamp_ms);
                self.ended_at = None;
            }
            TestEvent::Failed => self.end(TestState::Failed, data, timestamp_ms),
            TestEvent::Cancelled => self.end(TestState::Cancelled, data, timestamp_ms),
        }
        Ok(())
    }

    fn begin(&mut self, attempt: u32) {
        self.attempt = attempt;
        self.state = TestState::Running;
        self.progress = 0.0;
        self.counts = Counts::default();
        self.current.clear();
        self.metrics.clear();
        self.failures.clear();
        self.message = None;
        self.eta_ms = None;
        self.slower = None;
        self.stalled = None;
        self.history = None;
        self.results = None;
        self.error = None;
        self.started_at = None;
        self.ended_at = None;
    }

    /// Progress is absolute and complete: what it does not name is not there.
    fn show(&mut self, data: TestData) {
        self.progress = data.progress.unwrap_or(self.progress);
        self.counts = data.counts.unwrap_or(Counts {
            passed: data.completed.unwrap_or(0),
            total: data.total,
            ..Counts::default()
        });
        self.counts.total = self.counts.total.or(data.total);
        self.current = data.current.unwrap_or_default();
        self.metrics = data.metrics.unwrap_or_default();
        self.failures = data.failures.unwrap_or_default();
        self.failures.truncate(MAX_FAILURES);
        self.message = data.message;
        self.eta_ms = data.eta_ms;
        self.slower = data.slower;
        self.stalled = data.stalled;
    }

    fn end(&mut self, state: TestState, data: TestData, timestamp_ms: i64) {
        self.state = state;
        self.current.clear();
        self.eta_ms = None;
        self.slower = None;
        self.stalled = None;
        self.history = data.history;
        self.error = data.error;
        self.results = data.results;
        if let Some(counts) = data.counts {
            self.counts = counts;
        }
        if let Some(metrics) = data.metrics {
            self.metrics = metrics;
        }
        if let Some(mut failures) = data.failures {
            failures.truncate(MAX_FAILURES);
            self.failures = failures;
        }
        if let Some(message) = data.message {
            self.message = Some(message);
        }
        self.ended_at = Some(data.completed_at.unwrap_or(timestamp_ms));
    }
}

#[cfg(test)]
mod tests;
