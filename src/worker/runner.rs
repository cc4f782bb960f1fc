//! Runners: what a test type has to offer so that jobs of that type can run.

pub mod command;
pub mod guard;
pub mod parse;
pub mod stress;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::model::Job;
use crate::model::test::TestError;

/// One attempt to run a job, as its runner sees it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The job; `job.attempt` says which attempt this is.
    pub job: Arc<Job>,
    /// Where the runner tells how far it is.
    pub progress: Progress,
    /// Cancelled when the attempt has to end: cancel, timeout or shutdown. The runner then stops what it
    /// started and returns soon; what it returns does not matter any more.
    pub cancel: CancellationToken,
}

/// How an attempt ended, as far as the runner can tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Everything passed.
    Passed {
        /// Anything worth keeping, a JSON object.
        results: Map<String, Value>,
    },
    /// It did not pass. The code `tests_failed` is never retried by itself; every other one is.
    Failed {
        /// Why.
        error: TestError,
        /// What there is of results.
        results: Map<String, Value>,
    },
}

impl Outcome {
    /// The test ran and found something: never retried by itself.
    #[must_use]
    pub fn tests_failed(message: impl Into<String>, results: Map<String, Value>) -> Self {
        let error = TestError { code: "tests_failed".to_owned(), message: message.into() };
        Self::Failed { error, results }
    }

    /// The test could not be run as it should.
    #[must_use]
    pub fn runner_error(message: impl Into<String>) -> Self {
        let error = TestError { code: "runner_error".to_owned(), message: message.into() };
        Self::Failed { error, results: Map::new() }
    }
}

/// Runs the jobs of one test type.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// The `testType` of the jobs that it handles.
    fn test_type(&self) -> &str;

    /// Checks a job's `config` before the job is accepted. The error says which field is wrong, and what to
    /// do; it goes to the submitter.
    fn check(&self, config: &Map<String, Value>) -> Result<(), String>;

    /// The longest time that an attempt of this job may take, where the job itself does not say.
    fn timeout(&self, _config: &Map<String, Value>) -> Option<std::time::Duration> {
        None
    }

    /// Runs one attempt. Returns soon after `attempt.cancel` was cancelled, and then leaves nothing running.
    async fn run(&self, attempt: Attempt) -> Outcome;
}

/// The runners of this process, by test type.
#[derive(Default)]
pub struct RunnerSet(BTreeMap<String, Arc<dyn Runner>>);

impl std::fmt::Debug for RunnerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl RunnerSet {
    /// The runners given; of two for one test type the later counts.
    #[must_use]
    pub fn new(runners: impl IntoIterator<Item = Arc<dyn Runner>>) -> Self {
        Self(runners.into_iter().map(|runner| (runner.test_type().to_owned(), runner)).collect())
    }

    /// The runner for `test_type`.
    #[must_use]
    pub fn get(&self, test_type: &str) -> Option<Arc<dyn Runner>> {
        self.0.get(test_type).cloned()
    }

    /// The test types, in alphabetical order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
