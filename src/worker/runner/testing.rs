//! What the tests of several runners need.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Outcome};
use crate::worker::progress::Progress;

/// The first attempt of a job with this config.
pub(crate) fn attempt(test_type: &str, config: &Value) -> Attempt {
    let job = json!({"jobId": "job_1", "testId": "test_1", "testType": test_type, "config": config,
        "state": "running", "priority": 2, "attempt": 1, "maxAttempts": 3, "createdAt": 0});
    Attempt {
        job: Arc::new(serde_json::from_value(job).expect("a job")),
        progress: Progress::new(),
        cancel: CancellationToken::new(),
    }
}

/// The config as a job carries it.
pub(crate) fn config(config: &Value) -> Map<String, Value> {
    config.as_object().expect("an object").clone()
}

/// The results of an outcome that passed.
pub(crate) fn passed(outcome: Outcome) -> Map<String, Value> {
    match outcome {
        Outcome::Passed { results } => results,
        Outcome::Failed { error, results } => panic!("{error:?} {results:?}"),
    }
}

/// The code, the message and the results of an outcome that failed.
pub(crate) fn failed(outcome: Outcome) -> (String, String, Map<String, Value>) {
    match outcome {
        Outcome::Failed { error, results } => (error.code, error.message, results),
        Outcome::Passed { results } => panic!("passed with {results:?}"),
    }
}
