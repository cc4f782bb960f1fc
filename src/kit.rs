//! The worker kit: a worker of your own, in your own program.
//!
//! A server runs commands and load tests by itself. What else there is to run, you write as a function; this module makes a
//! worker of it, with all that the built-in ones have: leases that are renewed, retries, timeouts, cancellation,
//! progress that is told at most ten times a second however often it changes, and results that are told until they
//! are stored.
//!
//! ```no_run
//! use tidings::kit::{Failed, Worker};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     Worker::builder()
//!         .redis("redis://127.0.0.1")
//!         .handler("import-check", |job, progress| async move {
//!             let files = job.config["files"].as_u64().unwrap_or(100);
//!             for i in 0..files {
//!                 progress.set(i, files);
//!                 progress.message(format!("file {i}"));
//!                 // … the real work, which looks at `progress.is_cancelled()` now and then …
//!             }
//!             progress.metric("files", files);
//!             if files == 0 {
//!                 return Err(Failed::tests("there was nothing to check"));
//!             }
//!             Ok(())
//!         })
//!         .run()
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! Jobs of the type are submitted as any others: `tidings submit import-check --config '{"files":20}'`. On one machine
//! without a Redis the same program can be the server: [`Builder::embedded`]. `examples/worker.rs` is a
//! whole program.

mod builder;
mod progress;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::model::test::TestError;
use crate::worker::runner::{Attempt, Outcome, Runner};

pub use self::builder::{Builder, KitError, Running, Worker};
pub use self::progress::Progress;
pub use crate::model::Job;

/// What a handler found, as a JSON object.
pub type Results = Map<String, Value>;

/// Why a handler's test did not pass. Any error can be turned into one with `?`; the job is then tried again while it
/// has attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    error: TestError,
    results: Results,
}

impl Failed {
    /// The test ran and found something. It is not tried again by itself.
    #[must_use]
    pub fn tests(message: impl Into<String>) -> Self {
        Self::with_code("tests_failed", message)
    }

    /// Another reason, by a stable code of your own. The job is tried again while it has attempts.
    #[must_use]
    pub fn with_code(code: impl Into<String>, message: impl Into<String>) -> Self {
        let error = TestError { code: code.into(), message: message.into() };
        Self { error, results: Results::new() }
    }

    /// The same with what there is of results.
    #[must_use]
    pub fn with_results(mut self, results: Results) -> Self {
        self.results = results;
        self
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::with_code("runner_error", message)
    }
}

/// What a handler may return where its test passed: nothing, or results.
pub trait IntoResults {
    /// The results.
    fn into_results(self) -> Results;
}

impl IntoResults for () {
    fn into_results(self) -> Results {
        Results::new()
    }
}

impl IntoResults for Results {
    fn into_results(self) -> Results {
        self
    }
}

type Handle = dyn Fn(Job, Progress) -> BoxFuture<'static, Result<Results, Failed>> + Send + Sync;

/// A handler as the pool sees it.
struct Handler {
    test_type: String,
    handle: Box<Handle>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("test_type", &self.test_type).finish_non_exhaustive()
    }
}

impl Handler {
    fn new<F, Fut, R>(test_type: String, handler: F) -> Self
    where
        F: Fn(Job, Progress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failed>> + Send + 'static,
        R: IntoResults,
    {
        let handle = move |job, progress| {
            let run = handler(job, progress);
            async move { run.await.map(IntoResults::into_results) }.boxed()
        };
        Self { test_type, handle: Box::new(handle) }
    }
}

#[async_trait]
impl Runner for Handler {
    fn test_type(&self) -> &str {
        &self.test_type
    }

    fn check(&self, _config: &Map<String, Value>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, attempt: Attempt) -> Outcome {
        let Attempt { job, progress, cancel } = attempt;
        let progress = Progress::new(progress, cancel);
        match (self.handle)(Job::clone(&job), progress.clone()).await {
            Ok(results) => {
                progress.passed_all();
                Outcome::Passed { results }
            }
            Err(Failed { error, results }) => Outcome::Failed { error, results },
        }
    }
}

/// Handlers by their test type; the later one of two counts.
type Handlers = BTreeMap<String, Arc<Handler>>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::runner::testing::attempt;

    async fn run<F, Fut, R>(handler: F) -> (Outcome, crate::worker::progress::ProgressState)
    where
        F: Fn(Job, Progress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failed>> + Send + 'static,
        R: IntoResults,
    {
        let attempt = attempt("my-test", &json!({ "n": 3 }));
        let outcome = Handler::new("my-test".to_owned(), handler).run(attempt.clone()).await;
        (outcome, attempt.progress.state())
    }

    #[tokio::test]
    async fn a_handler_sees_its_job_and_what_it_tells_is_seen() {
        let (outcome, state) = run(|job: Job, progress: Progress| async move {
            let n = job.config["n"].as_u64().unwrap_or_default();
            progress.set(1, n);
            progress.metric("rps", 12.5);
            progress.failed("case 1", "is wrong");
            progress.passed("case 2");
            progress.message("on its way");
            Err::<(), _>(Failed::tests("1 of 3 failed"))
        })
        .await;
        let Outcome::Failed { error, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.code.as_str(), error.message.as_str()), ("tests_failed", "1 of 3 failed"));
        assert_eq!((state.counts.failed, state.counts.passed, state.counts.total), (1, 1, Some(3)));
        assert_eq!(state.metrics["rps"], json!(12.5));
        assert_eq!(state.failures[0].message, "is wrong");
        assert_eq!(state.message.as_deref(), Some("on its way"));
    }

    #[tokio::test]
    async fn any_error_is_a_failure_with_its_causes() {
        let (outcome, _) = run(|_, _| async {
            let _: u32 = "x".parse::<u32>()?;
            Ok(Results::new())
        })
        .await;
        let Outcome::Failed { error, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("runner_error", "invalid digit found in string")
        );
    }

    #[tokio::test]
    async fn what_passed_is_done_whatever_was_told_last() {
        let (outcome, state) = run(|_, progress: Progress| async move {
            progress.set(1, 10);
            Ok(())
        })
        .await;
        assert_eq!(outcome, Outcome::Passed { results: Results::new() });
        assert_eq!(state.progress, 100.0);
    }
}
