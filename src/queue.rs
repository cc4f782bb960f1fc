//! The queue: jobs, their attempts, and the leases under which workers run them.
//!
//! This file holds the promises; [`embedded`] keeps them on one machine, [`mod@redis`] on many, [`events`] says which
//! messages tell of each change.

mod control;
pub mod embedded;
pub mod events;
mod hold;
pub mod redis;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::fault::{Cause, Fault};
use crate::model::job::series;
use crate::model::past::{Past, Run, Verdict};
use crate::model::test::TestError;
use crate::model::trace::TraceContext;
use crate::model::{EventName, Job, JobId, JobState, Pause, Priority, Scope, TestId, UserId, WorkerId};

/// The code of a failure that says that the tests ran and found something.
pub const TESTS_FAILED: &str = "tests_failed";
/// How many series have a past.
pub const MAX_SERIES: usize = 2000;
/// How many ticks of a schedule are known as fired.
pub const FIRED_KEPT: usize = 256;
/// For how long they are, in ms; the newest one always is.
pub const FIRED_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

pub use control::{MAX_PAUSES, Resumed, SuiteLimits};
use control::{Waits, explain};
pub use hold::{CancelWish, Held, Holder, NewHold, WORKER_LOST};

/// How jobs are treated.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Attempts in all, where the submitter does not say.
    pub max_attempts: u32,
    /// How long a lease lasts without being renewed.
    pub lease: Duration,
    /// The delay before the second attempt; it doubles for each further one.
    pub backoff_base: Duration,
    /// The longest such delay.
    pub backoff_max: Duration,
    /// How long ended jobs and tests are kept.
    pub retention: Duration,
    /// How many ended jobs are kept.
    pub max_jobs_kept: u64,
}

/// A job as its submitter wants it.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Which runner handles it.
    pub test_type: String,
    /// What its runs have in common.
    pub name: Option<String>,
    /// What the runner is told.
    pub config: Map<String, Value>,
    /// The name of the test, if the submitter wants to choose it.
    pub test_id: Option<TestId>,
    /// Higher ones run first.
    pub priority: Priority,
    /// Not before this time, in ms since the Unix epoch.
    pub run_at: Option<i64>,
    /// Attempts in all; the queue's default if absent.
    pub max_attempts: Option<u32>,
    /// How long an attempt may take.
    pub timeout_ms: Option<u64>,
    /// A second submission with the same key returns the first job, for as long as that is kept.
    pub dedupe_key: Option<String>,
    /// The team that it belongs to.
    pub team_id: Option<String>,
    /// Who submits it.
    pub user_id: Option<UserId>,
    /// The trace that it belongs to.
    pub traceparent: Option<TraceContext>,
}

impl NewJob {
    /// What [`Job::series`] will say of it, as a job of `test`.
    fn series(&self, test: &str, held: bool) -> String {
        series(self.name.as_deref(), &self.test_type, &self.config, test, held)
    }
}

/// The answer to a submission.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// The dedupe key was known: this is the job that has had it.
    pub existing: bool,
}

/// The right to run one attempt and to speak for it. It ends when it is not renewed in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which job.
    pub job_id: JobId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The fencing token: a later claim of the job has a higher one, and this one then counts for nothing.
    pub fence: i64,
    /// Who holds it, where that is no worker.
    pub holder: Option<Holder>,
}

/// A job that a worker may run now.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job, as it is from now on.
    pub job: Job,
    /// The right to run it.
    pub lease: Lease,
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStatus {
    /// It goes on.
    Held,
    /// It goes on, but somebody asked to cancel the attempt.
    CancelRequested,
    /// Somebody else owns the job now, or it has ended.
    Lost,
}

/// How a worker says that an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Everything passed.
    Passed {
        /// What the runner found.
        results: Map<String, Value>,
    },
    /// It failed; the queue decides whether another attempt follows.
    Failed {
        /// Why. `tests_failed` is never retried.
        error: TestError,
        /// What there is of results.
        results: Map<String, Value>,
    },
    /// It was cancelled as asked.
    Cancelled,
}

/// What a running attempt tells.
#[derive(Debug, Clone)]
pub enum Report {
    /// Its whole state; `percent` stands for it in the job's own events.
    Progress {
        /// 0 to 100.
        percent: f64,
        /// The data of `test:progress` without `testId` and `attempt`, a JSON object.
        data: Box<RawValue>,
    },
    /// Lines of output.
    Log {
        /// The number of the first line.
        first_line: u64,
        /// The lines.
        lines: Vec<String>,
    },
    /// Whatever else the test's own channel carries.
    Custom {
        /// `custom:…`
        event: EventName,
        /// The data without `testId` and `attempt`, a JSON object.
        data: Box<RawValue>,
    },
    /// One with a name of the reporter's choice: the job tells each name once, however often it is reported.
    Named {
        /// `[A-Za-z0-9_.:-]{1,64}`
        name: String,
        /// What is told.
        report: Box<Report>,
    },
}

/// A page of jobs.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Jobs that may run now.
    pub promoted: usize,
    /// Attempts whose lease had ended.
    pub reaped: usize,
    /// There is more to do at once.
    pub more: bool,
    /// When the next job is due, in ms since the Unix epoch.
    pub next_due: Option<i64>,
}

/// Why the queue did not do what it was asked. Nothing was changed, unless said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// There is no such job.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// Another job of the test has not ended.
    #[error("test {test} is still run by job {job}; cancel that one, or choose another testId")]
    TestActive {
        /// The test.
        test: TestId,
        /// The job that runs it.
        job: JobId,
    },
    /// The job has ended.
    #[error("job {job} has ended already ({})", state.name())]
    Ended {
        /// The job.
        job: JobId,
        /// How.
        state: JobState,
    },
    /// The job has not ended.
    #[error("job {job} has not ended ({}); only an ended job can be retried", state.name())]
    NotEnded {
        /// The job.
        job: JobId,
        /// Where it is.
        state: JobState,
    },
    /// The job does not wait any more.
    #[error("job {job} does not wait ({}); only a waiting job has a turn to be changed", state.name())]
    NotWaiting {
        /// The job.
        job: JobId,
        /// Where it is.
        state: JobState,
    },
    /// So many parts of the queue are paused that no other can be.
    #[error("{MAX_PAUSES} parts of the queue are paused already; resume some, or pause the whole queue")]
    TooManyPauses,
    /// It runs outside of all workers.
    #[error("job {0} runs outside of all workers: whoever runs its test starts it again")]
    Outside(JobId),
    /// The lease counts for nothing any more.
    #[error(
        "the lease of attempt {attempt} of job {job} has ended: another attempt owns the job, or it is over"
    )]
    LeaseLost {
        /// The job.
        job: JobId,
        /// The attempt that spoke too late.
        attempt: u32,
    },
    /// There is no room for more.
    #[error("no room for new jobs: {0}")]
    Full(Cause),
    /// The store cannot be reached; it is unknown whether the change was made.
    #[error("the job store is unavailable: {0}")]
    Unavailable(Cause),
}

impl From<Fault> for QueueError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(cause) => Self::Full(cause),
            Fault::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

/// The store of jobs.
///
/// - A change of a job's state and the messages that tell of it are one: never is there one without the other, each
///   message comes once, those of one job in the order of its changes. A call is answered after its messages were
///   appended, but for [`Queue::claim`], which may be answered earlier: nobody but its worker sees that it is, and what the
///   worker tells comes after them. Where the broker is away meanwhile, or its node dies, they follow as soon as it is back.
/// - Of all jobs that may run, one of the highest priority is claimed first; among those, the oldest, by its submission.
/// - What may not run ([`Queue::pause`], [`Queue::limit_suites`]) stands in nobody's way: the others are claimed as if it were
///   not there, and a claim does no more work for a hundred thousand that are held back than for one.
/// - At most one lease of a job counts at any time. Whoever holds an older one gets
///   [`QueueError::LeaseLost`] and has changed nothing.
/// - A job ends exactly once, unless somebody retries it by hand.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds a job, or finds the one that has its dedupe key.
    async fn submit(&self, job: NewJob) -> Result<Submitted, QueueError>;

    /// Makes known which test types `worker` handles; it is forgotten by [`Queue::leave`].
    async fn join(&self, worker: &WorkerId, test_types: &[String]) -> Result<(), QueueError>;

    /// Takes up to `max` jobs of `test_types` for `worker`: their attempts begin now.
    async fn claim(
        &self,
        worker: &WorkerId,
        test_types: &[String],
        max: usize,
    ) -> Result<Vec<Claim>, QueueError>;

    /// Resolves when there may be something to claim; spurious wake-ups happen, lost ones do not, except that
    /// a caller should also look now and then.
    async fn wait_for_jobs(&self);

    /// Prolongs leases; the answer has one status per lease, in order.
    async fn renew(&self, leases: Vec<Lease>) -> Result<Vec<LeaseStatus>, QueueError>;

    /// Publishes what a running attempt tells, in order, and prolongs the lease; the answer says if somebody wants
    /// the attempt to be cancelled. Reporting nothing is a sign of life.
    async fn report(&self, lease: &Lease, reports: Vec<Report>) -> Result<Option<CancelWish>, QueueError>;

    /// Ends the attempt, after it told `last`, in order. After `Unavailable` it may have been ended: the same call
    /// again then answers `LeaseLost`, or, where the lease has a [`Holder`], the job as it ended. The end is taken
    /// even where there is no room for `last`.
    async fn finish(&self, lease: &Lease, last: Vec<Report>, ending: Ending) -> Result<Job, QueueError>;

    /// Adds a job whose only attempt begins at once, held by somebody outside of all workers: no worker ever claims
    /// it. Its lease has a [`Holder`] and is prolonged by reports; once it has run out, a sweep ends the job as
    /// [`WORKER_LOST`].
    ///
    /// A known dedupe key answers with the job that has it and its newest lease, whether that still counts or not;
    /// the job of somebody else is `TestActive`.
    async fn hold(&self, hold: NewHold) -> Result<Held, QueueError>;

    /// Goes on where `lease`, which has a [`Holder`], left off. While it counts it is prolonged. Once it has run out,
    /// the job's next attempt begins under another lease, and this one counts for nothing, but that to resume it again
    /// is answered with that attempt, while it runs: the first answer may have been lost. What has ended otherwise is
    /// `LeaseLost`; a test that another job runs meanwhile is `TestActive`.
    async fn resume(&self, lease: &Lease) -> Result<Held, QueueError>;

    /// Gives everything that `worker` holds back to the queue and forgets the worker. The attempts do not
    /// count: they begin anew under the next number, but never because of this is a job out of attempts.
    async fn leave(&self, worker: &WorkerId) -> Result<usize, QueueError>;

    /// Cancels a job: one that waits ends now, a running one as soon as its worker has stopped it.
    async fn cancel(
        &self,
        job: &JobId,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<Job, QueueError>;

    /// Hears of running jobs that are to be cancelled. Who lags may miss some: [`Queue::renew`] tells as well.
    fn cancellations(&self) -> broadcast::Receiver<JobId>;

    /// Puts an ended job back into the queue, with as many attempts as it had in the beginning. One that was held
    /// outside is `Outside`.
    async fn retry(&self, job: &JobId) -> Result<Job, QueueError>;

    /// Holds the jobs of `scope` back: once this is answered none of them begins an attempt, by whichever node, until the
    /// scope is resumed; a restart changes nothing. They are submitted, cancelled and put into another order as ever, and
    /// what runs goes on; a retry begins after the pause. What is held outside is not held back. A scope that is paused
    /// stays as it was paused first. A job waits while any scope that it belongs to is paused.
    ///
    /// `queue-updates` is told ([`crate::model::event::QUEUE_PAUSED`]), once, with or soon after the change. The answer is
    /// the pause that holds, and whether it began now.
    async fn pause(
        &self,
        scope: &Scope,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<(Pause, bool), QueueError>;

    /// Lets the jobs of `scope` go again, at once, and wakes who waits for them; `queue-updates` is told. Nothing where
    /// it was not paused. Other scopes stay as they are.
    async fn unpause(&self, scope: &Scope, by: Option<UserId>) -> Result<Option<Resumed>, QueueError>;

    /// What is held back, by its scope.
    async fn pauses(&self) -> Result<Vec<Pause>, QueueError>;

    /// From now on at most so many attempts of each of these suites are claimed at once, by all nodes together; what runs
    /// already goes on. An attempt counts from its claim to its end: as ended, given back, or lost with its lease.
    /// What is held outside does not count. Of nodes that say different things of a suite, the last one counts.
    async fn limit_suites(&self, limits: &SuiteLimits) -> Result<(), QueueError>;

    /// Gives a job that waits (`scheduled`, `queued` or `retrying`) another priority. Among those of its new priority it
    /// stands where its submission puts it. Its watchers are told; where it has that priority already, nothing happens.
    async fn prioritise(&self, job: &JobId, priority: Priority) -> Result<Job, QueueError>;

    /// The ticks of a schedule that were fired, oldest first: the newest [`FIRED_KEPT`], of the last
    /// [`FIRED_KEPT_MS`]; the newest one however old it is.
    async fn fired(&self, schedule: &str) -> Result<Vec<i64>, QueueError>;

    /// Notes that a tick of a schedule was fired; a second time changes nothing.
    async fn note_fired(&self, schedule: &str, tick_ms: i64) -> Result<(), QueueError>;

    /// One job; while it is queued it says why it does not start, where that is not plain waiting for its turn.
    async fn get(&self, job: &JobId) -> Result<Option<Job>, QueueError>;

    /// Jobs, newest first, in `state` if one is given, before `cursor` if one is given.
    async fn list(
        &self,
        state: Option<JobState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<JobPage, QueueError>;

    /// The latest runs of a series ([`Job::series`]): those that a worker or holder ended as passed or failed for
    /// good, in their order, the latest [`crate::model::past::MAX_RUNS`]. Of more than [`MAX_SERIES`] series those
    /// are forgotten that had no run for the longest time.
    async fn past(&self, series: &str) -> Result<Past, QueueError>;

    /// How many jobs are in each state.
    async fn counts(&self) -> Result<BTreeMap<&'static str, u64>, QueueError>;

    /// Resolves when a job may have become due earlier than the last sweep said.
    async fn wait_for_due(&self);

    /// Lets due jobs into the queue and ends attempts whose lease has run out, a bounded number per call.
    async fn sweep(&self) -> Result<Sweep, QueueError>;

    /// Removes ended jobs and tests that are too old or too many, a bounded number per call; whether there is
    /// more to remove.
    async fn retain(&self) -> Result<bool, QueueError>;
}

/// The run that an attempt was which ends with `ending` after `ms`; none that says nothing of the next ones.
fn run_of(ending: &Ending, ms: u64) -> Option<Run> {
    let (verdict, results) = match ending {
        Ending::Passed { results } => (Verdict::Passed, results),
        Ending::Failed { error, results } if error.code == TESTS_FAILED => (Verdict::TestsFailed, results),
        Ending::Failed { results, .. } => (Verdict::Broken, results),
        Ending::Cancelled => return None,
    };
    Some(Run::new(ms, verdict, results))
}

/// How long a holder says that its attempt took.
fn measured_ms(ending: &Ending) -> Option<u64> {
    match ending {
        Ending::Passed { results } | Ending::Failed { results, .. } => results.get("durationMs")?.as_u64(),
        Ending::Cancelled => None,
    }
}
