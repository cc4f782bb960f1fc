//! Runners: what a test type has to offer so that jobs of that type can run.

pub mod command;
pub mod guard;
pub(crate) mod latencies;
pub mod parse;
pub mod stress;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::fmt;
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

/// The runners that a process has, by test type.
#[derive(Clone, Default)]
pub struct RunnerSet(BTreeMap<String, Arc<dyn Runner>>);

impl RunnerSet {
    /// The runner of `test_type`.
    #[must_use]
    pub fn get(&self, test_type: &str) -> Option<&Arc<dyn Runner>> {
        self.0.get(test_type)
    }

    /// The test types that there are runners for, in order.
    #[must_use]
    pub fn types(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl FromIterator<Arc<dyn Runner>> for RunnerSet {
    /// Of two runners of the same test type the later one counts.
    fn from_iter<I: IntoIterator<Item = Arc<dyn Runner>>>(runners: I) -> Self {
        Self(runners.into_iter().map(|runner| (runner.test_type().to_owned(), runner)).collect())
    }
}

impl fmt::Debug for RunnerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    #[async_trait]
    impl Runner for Named {
        fn test_type(&self) -> &str {
            self.0
        }

        fn check(&self, _config: &Map<String, Value>) -> Result<(), String> {
            Ok(())
        }

        async fn run(&self, _attempt: Attempt) -> Outcome {
            Outcome::Passed { results: Map::new() }
        }
    }

    #[test]
    fn a_set_finds_runners_by_test_type_and_names_the_types_in_order() {
        let runners = ["stress", "command", "stress"].map(|name| Arc::new(Named(name)) as Arc<dyn Runner>);
        let set: RunnerSet = runners.into_iter().collect();
        assert_eq!(set.types(), ["command", "stress"]);
        assert_eq!(set.get("stress").map(|runner| runner.test_type()), Some("stress"));
        assert!(set.get("Stress").is_none());
    }
}
