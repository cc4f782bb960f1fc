//! One attempt: from its claim to its end.
//!
//! The runner works in a task of its own. Beside it the attempt publishes what the runner tells, watches the
//! clock and the wish to cancel, and at the end writes the outcome, again and again until the store takes it
//! or says that the lease is lost.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Map;
use tokio::sync::OnceCell;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::progress::{Progress, ProgressState};
use super::runner::{self, Outcome, Runner};
use crate::model::forecast::Outlook;
use crate::model::now_ms;
use crate::model::past::Past;
use crate::model::test::TestError;
use crate::queue::{Claim, Ending, Lease, Queue, QueueError, Report};
use crate::traces::{self, Kind, Span};

/// The pace of progress: at most one message per tick.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// A watcher hears at least so often from a running test, even when nothing changes.
pub(crate) const KEEP_TELLING: Duration = Duration::from_millis(500);
/// Lines and bytes of one `test:log`.
pub(crate) const LOG_LINES: usize = 200;
pub(crate) const LOG_BYTES: usize = 32 * 1024;
/// How long a runner may take to stop what it started.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// The pauses between tries to write the outcome.
const FINISH_RETRY_FIRST: Duration = Duration::from_millis(100);
const FINISH_RETRY_MAX: Duration = Duration::from_secs(10);

/// The test type whose runner is told how long it runs.
const STRESS: &str = "stress";

/// Why an attempt has to end before its runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// Another attempt owns the job.
    LeaseLost,
    /// This worker shuts down; the queue gets the job back.
    Shutdown,
}

/// Asks a running attempt to end. The first reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct StopSwitch {
    token: CancellationToken,
    reason: Arc<std::sync::OnceLock<Stop>>,
}

impl StopSwitch {
    pub(super) fn press(&self, reason: Stop) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }
}

/// What an attempt works with.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) claim: Claim,
    pub(super) timeout: Duration,
    pub(super) stop: StopSwitch,
}

impl Attempt {
    /// Runs the attempt and writes its end.
    pub(super) async fn run(self, runner: Arc<dyn Runner>) {
        let (lease, began) = (self.claim.lease.clone(), SystemTime::now());
        let progress = Progress::new();
        // The runner's own token: a timeout stops the runner without being a wish of anybody.
        let cancel = CancellationToken::new();
        let given = runner::Attempt {
            job: Arc::new(self.claim.job.clone()),
            progress: progress.clone(),
            cancel: cancel.clone(),
        };
        let mut run = tokio::spawn(async move { runner.run(given).await });
        let past = OnceCell::new();
        let ended = self.watch(&mut run, &progress, &past).await;
        if ended.is_none() {
            cancel.cancel();
            if tokio::time::timeout(STOP_PATIENCE, &mut run).await.is_err() {
                tracing::warn!(job = %lease.job_id, "a runner did not stop in time and was dropped");
                run.abort();
            }
        }
        let mut ending = self.ending(ended);
        if let Some(Ending::Failed { results, .. }) = &mut ending {
            past.get_or_init(async || self.past().await).await.mark(results);
        }
        self.trace(began, ending.as_ref());
        let Some(ending) = ending else { return };
        finish(&*self.queue, &lease, last_reports(&progress), ending).await;
    }

    /// The past of its series; without one, nothing is foreseen.
    async fn past(&self) -> Past {
        match self.queue.past(&self.claim.job.series()).await {
            Ok(past) => past,
            Err(error) => {
                tracing::debug!(job = %self.claim.job.job_id, %error, "the past of a test cannot be read");
                Past::default()
            }
        }
    }

    /// Its span, below that of the submission.
    fn trace(&self, began: SystemTime, ending: Option<&Ending>) {
        let job = &self.claim.job;
        let (Some(submitted), Some(context), true) = (job.traceparent, job.trace(), traces::wanted()) else {
            return;
        };
        let failure = match ending {
            Some(Ending::Passed { .. }) => None,
            Some(Ending::Failed { error, .. }) => Some(format!("{}: {}", error.code, error.message)),
            Some(Ending::Cancelled) => Some("cancelled".to_owned()),
            None => Some("handed back, or taken over by another worker".to_owned()),
        };
        traces::record(Span {
            name: format!("attempt {}", job.test_type),
            kind: Kind::Consumer,
            context,
            parent: submitted.span_id,
            began,
            ended: SystemTime::now(),
            failure,
            attributes: vec![
                ("tidings.job_id", job.job_id.to_string()),
                ("tidings.test_id", job.test_id.to_string()),
                ("tidings.attempt", job.attempt.to_string()),
            ],
        });
    }

    /// Publishes what the runner tells until it ends; `None` if it has to be stopped.
    async fn watch(
        &self,
        run: &mut JoinHandle<Outcome>,
        progress: &Progress,
        past: &OnceCell<Past>,
    ) -> Option<Result<Outcome, JoinError>> {
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told_at = Instant::now();
        let mut outlook = None;
        loop {
            tokio::select! {
                outcome = &mut *run => return Some(outcome),
                () = &mut deadline => return None,
                () = self.stop.token.cancelled() => return None,
                _ = ticks.tick() => {
                    let due = told_at.elapsed() >= KEEP_TELLING;
                    let state = if due { Some(progress.state()) } else { progress.take_changed() };
                    let mut reports = log_reports(progress, 1);
                    // Most short attempts end before anybody needs their past.
                    if outlook.is_none() && told_at.elapsed() >= TICK {
                        let past = past.get_or_init(async || self.past().await).await;
                        let began_ms = self.claim.job.started_at.unwrap_or_else(now_ms);
                        outlook = Some(Outlook::new(past, began_ms, now_ms()));
                    }
                    let state = state.map(|state| match &mut outlook {
                        Some(outlook) => state.foreseen(outlook, self.claim.job.test_type == STRESS),
                        None => state,
                    });
                    reports.extend(state.as_ref().and_then(progress_report));
                    if state.is_some() {
                        told_at = Instant::now();
                    }
                    self.report(reports).await;
                }
            }
        }
    }

    async fn report(&self, reports: Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        match self.queue.report(&self.claim.lease, reports).await {
            // The wish to cancel reaches the pool by its renewals.
            Ok(_) => {}
            Err(QueueError::LeaseLost { .. }) => self.stop.press(Stop::LeaseLost),
            // The next state stands for this one; lines of output are lost, and their numbers show it.
            Err(error) => {
                tracing::warn!(job = %self.claim.lease.job_id, %error, "progress could not be told")
            }
        }
    }

    /// How the queue is told of the end; `None` where nobody asks any more, or the queue is told otherwise.
    fn ending(&self, ended: Option<Result<Outcome, JoinError>>) -> Option<Ending> {
        match ended {
            Some(Ok(Outcome::Passed { results })) => Some(Ending::Passed { results }),
            Some(Ok(Outcome::Failed { error, results })) => Some(Ending::Failed { error, results }),
            Some(Err(error)) => {
                tracing::error!(job = %self.claim.lease.job_id, %error, "a runner broke off");
                Some(failed("runner_error", format!("the runner broke off: {error}")))
            }
            None => match self.stop.reason.get() {
                None => Some(failed("timeout", format!("the attempt took longer than {:?}", self.timeout))),
                Some(Stop::Cancelled) => Some(Ending::Cancelled),
                Some(Stop::LeaseLost | Stop::Shutdown) => None,
            },
        }
    }
}

fn failed(code: &str, message: String) -> Ending {
    Ending::Failed { error: TestError { code: code.to_owned(), message }, results: Map::new() }
}

fn progress_report(state: &ProgressState) -> Option<Report> {
    let (percent, data) = state.told()?;
    Some(Report::Progress { percent, data })
}

fn log_reports(progress: &Progress, chunks: usize) -> Vec<Report> {
    let lines = std::iter::from_fn(|| progress.take_log(LOG_LINES, LOG_BYTES));
    let report =
        |chunk: super::progress::LogChunk| Report::Log { first_line: chunk.first_line, lines: chunk.lines };
    lines.take(chunks).map(report).collect()
}

/// What is told with the end: the last state, and the tail of the output.
fn last_reports(progress: &Progress) -> Vec<Report> {
    let mut reports = log_reports(progress, usize::MAX);
    reports.extend(progress_report(&progress.state()));
    reports
}

/// Writes the outcome until the store takes it or the lease is lost: a result is never dropped.
async fn finish(queue: &dyn Queue, lease: &Lease, last: Vec<Report>, ending: Ending) {
    let mut pause = FINISH_RETRY_FIRST;
    loop {
        match queue.finish(lease, last.clone(), ending.clone()).await {
            Ok(job) => {
                tracing::info!(job = %job.job_id, test = %job.test_id, attempt = job.attempt, state = job.state.name(), "an attempt ended");
                return;
            }
            Err(QueueError::Full(error) | QueueError::Unavailable(error)) => {
                tracing::warn!(job = %lease.job_id, %error, "an outcome could not be stored; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FINISH_RETRY_MAX);
            }
            Err(error) => {
                tracing::warn!(job = %lease.job_id, %error, "an outcome came too late");
                return;
            }
        }
    }
}
