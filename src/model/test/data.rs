//! What `test:*` messages say, and why one may have no place in a test's story.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Counts, EtaMs, Failure, TestError, TestState};
use crate::model::event::TestEvent;
use crate::model::forecast::{Slower, Stalled};
use crate::model::past::TrackRecord;
use crate::model::{JobId, TestId};

/// What the data of a `test:*` message may say. Fields that no rule needs pass through unread.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestData {
    /// Which test.
    pub test_id: Option<TestId>,
    /// Which job runs it.
    pub job_id: Option<JobId>,
    /// `stress`, `command`, …
    pub test_type: Option<String>,
    /// Which attempt speaks.
    pub attempt: Option<u32>,
    /// 0 to 100.
    pub progress: Option<f64>,
    /// Test cases that ended.
    pub completed: Option<u64>,
    /// Test cases in all.
    pub total: Option<u64>,
    /// Test cases by outcome.
    pub counts: Option<Counts>,
    /// Test cases that run now.
    pub current: Option<Vec<String>>,
    /// Whatever the runner measures.
    pub metrics: Option<Map<String, Value>>,
    /// The first failures.
    pub failures: Option<Vec<Failure>>,
    /// A line for people.
    pub message: Option<String>,
    /// When it will probably end.
    pub eta_ms: Option<EtaMs>,
    /// It takes longer than nearly all of its runs before.
    pub slower: Option<Slower>,
    /// It is alive, and makes no progress.
    pub stalled: Option<Stalled>,
    /// How it did in the runs before this one.
    pub history: Option<TrackRecord>,
    /// What the runner found.
    pub results: Option<Value>,
    /// Why it failed.
    pub error: Option<TestError>,
    /// Whether another attempt follows this failure.
    pub will_retry: Option<bool>,
    /// When the attempt began.
    pub started_at: Option<i64>,
    /// When the attempt ended.
    pub completed_at: Option<i64>,
}

/// Why a `test:*` message has no place in a test's story.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A newer attempt owns the test.
    #[error("attempt {attempt} is over: attempt {current} owns the test")]
    StaleAttempt {
        /// The attempt of the message.
        attempt: u32,
        /// The newest attempt.
        current: u32,
    },
    /// The attempt has told of its end before.
    #[error("attempt {attempt} has ended ({})", state.name())]
    Ended {
        /// The attempt of the message.
        attempt: u32,
        /// How it ended.
        state: TestState,
    },
    /// A job runs the test: its worker alone tells of beginnings and ends.
    #[error("job {job} runs this test: only its worker may tell that it, or another attempt, starts or ends")]
    Owned {
        /// The job.
        job: JobId,
    },
    /// The data is not what the event promises.
    #[error("{0}")]
    Data(String),
}

impl TestData {
    /// Reads the data of `event`, or says which field is wrong.
    pub fn parse(event: TestEvent, data: &RawValue) -> Result<Self, Refused> {
        // serde also takes an array of a struct's fields in their order.
        if !data.get().trim_start().starts_with('{') {
            return Err(Refused::Data(format!("the data of {} is an object", event.name())));
        }
        let data: Self = serde_json::from_str(data.get())
            .map_err(|e| Refused::Data(format!("the data of {}: {e}", event.name())))?;
        if let Some(progress) = data.progress
            && !(0.0..=100.0).contains(&progress)
        {
            return Err(Refused::Data(format!("progress is between 0 and 100, not {progress}")));
        }
        if data.attempt == Some(0) {
            return Err(Refused::Data("attempts are numbered from 1".to_owned()));
        }
        Ok(data)
    }
}
