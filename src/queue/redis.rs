//! The queue of many machines: jobs in Redis, one script per change.
//!
//! A script changes a job's state and notes, in the same job, what is to be told of the change. The node that
//! called it tells it through the broker and then has the note forgotten; where a node dies in between, whoever
//! changes the job next, or sweeps, is handed what is left. So a change and its messages are one: the messages
//! come once, in their order, and never without the change, but for a moment later than it.
//!
//! `link` has the scripts (`redis/*.lua`), `entry` writes what goes into those that change many jobs and `grouped` brings
//! together what comes at once; `row` and `answer` read what they answer, `story` says which messages a change becomes,
//! `teller` tells them, `control` is what people ask for beside jobs, `ear` hears of what other nodes do, `inner` is what all of them share.

mod answer;
mod control;
mod ear;
mod entry;
mod grouped;
mod inner;
mod link;
mod outside;
mod row;
mod story;
mod teller;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ::redis::Value;
use async_trait::async_trait;
use tokio::sync::{Notify, broadcast};

use super::hold::{new_secret, next_secret};
use super::{
    CancelWish, Claim, Ending, FIRED_KEPT, FIRED_KEPT_MS, Held, JobPage, Lease, LeaseStatus, NewHold, NewJob,
    Queue, QueueError, QueueOptions, Report, Resumed, Submitted, SuiteLimits, Sweep, Waits, explain,
};
use crate::broker::Broker;
use crate::config::channels::Rules;
use crate::fault::Cause;
use crate::metrics;
use crate::model::past::{Past, Run};
use crate::model::test::TestError;
use crate::model::{Epoch, Job, JobId, JobState, Pause, Priority, Scope, TestId, UserId, WorkerId, now_ms};
use crate::redis::Redis;
use crate::tasks::Tasks;
use answer::{added, answer, broken, handled, parsed, state_of, stretch, unexpected};
use entry::Entry;
use inner::{Calls, Inner, Signals};
use link::Link;
pub use row::Unreadable;
use row::{Stored, list, number, text};
use teller::Teller;

/// How many cancellations a lagging worker may miss before it has to learn of them by its renewals.
const CANCELLATIONS: usize = 1024;
/// How many jobs one script handles at most: Redis does nothing else meanwhile.
const STEP: usize = 100;
/// How many ended jobs one call removes at most.
const RETAIN_MAX: usize = 500;
/// How many changes of one job may be untold before its worker has to wait.
const UNTOLD_MAX: usize = 1000;
/// How long a change may be untold before whoever sweeps tells it.
const UNTOLD_FOR_MS: u64 = 2000;
/// A node's clock may differ from Redis' by so much before due times are corrected by it.
const CLOCKS_AGREE_MS: i64 = 50;

/// Jobs in Redis.
#[derive(Debug, Clone)]
pub struct RedisQueue {
    inner: Arc<Inner>,
}

impl RedisQueue {
    /// The queue in `redis`, which tells of every change through `broker`.
    pub async fn start(
        redis: Redis,
        broker: Arc<dyn Broker>,
        rules: Arc<Rules>,
        options: QueueOptions,
        tasks: &Tasks,
    ) -> Self {
        let link = Link::new(redis.clone());
        let inner = Arc::new(Inner {
            calls: Calls::start(&link, &options, tasks),
            teller: Teller::start(link.clone(), broker.clone(), rules.clone(), tasks),
            broker,
            rules,
            limits: Mutex::default(),
            link,
            options,
            signals: Signals {
                ready: Notify::new(),
                due: Notify::new(),
                cancellations: broadcast::Sender::new(CANCELLATIONS),
            },
            workers: Mutex::default(),
            unsure: Mutex::default(),
            past: Mutex::default(),
        });
        ear::start(&redis, &inner, tasks).await;
        Self { inner }
    }
}

fn untold_of(job: &JobId) -> QueueError {
    QueueError::Unavailable(Cause::new(format!("{UNTOLD_MAX} changes of job {job} have not been told yet")))
}

fn lost(lease: &Lease) -> QueueError {
    QueueError::LeaseLost { job: lease.job_id.clone(), attempt: lease.attempt }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn submit(&self, job: NewJob) -> Result<Submitted, QueueError> {
        let inner = &self.inner;
        let test_id = job.test_id.clone().unwrap_or_else(|| TestId::generate(&job.test_type));
        let max_attempts = job.max_attempts.unwrap_or(inner.options.max_attempts).max(1);
        let (id, asked_at) = (JobId::generate(), Instant::now());
        let answered = inner.calls.submit.call(Entry::new_job(&id, &test_id, &job, max_attempts)).await?;
        let (word, mut rest) = answer(answered)?;
        let first = rest.next().unwrap_or_default();
        match word.as_str() {
            "added" => {
                let added = added(first, rest)?;
                let job = inner.made(added.stored(id, test_id, job, max_attempts), asked_at).await;
                Ok(Submitted { job: inner.explained(job), existing: false })
            }
            "again" => {
                let job = inner.made(Stored::read(first)?, asked_at).await;
                Ok(Submitted { job: inner.explained(job), existing: false })
            }
            // What another node has not told yet of it is that node's to tell.
            "existing" => {
                let job = Stored::read(first)?.job;
                Ok(Submitted { job: inner.explained(job), existing: true })
            }
            "active" => Err(QueueError::TestActive { test: test_id, job: parsed(&first, JobId::parse)? }),
            "broken" => Err(broken(Some(first))),
            word => Err(unexpected(word)),
        }
    }

    async fn join(&self, worker: &WorkerId, test_types: &[String]) -> Result<(), QueueError> {
        self.inner.workers().insert(worker.clone(), test_types.to_vec());
        self.inner.announce().await
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        test_types: &[String],
        max: usize,
    ) -> Result<Vec<Claim>, QueueError> {
        let inner = &self.inner;
        let (name, asked_at) = (inner.claim_name(worker), Instant::now());
        let claimed = inner.link.claim(worker, test_types, max.min(STEP), &name, &inner.options).await;
        let claimed = row::jobs(claimed.inspect_err(|_| inner.unsure_of(worker, name))?)?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        // There may be more, and somebody else who waits.
        inner.signals.ready.notify_one();
        let fences: Vec<i64> = claimed.iter().map(|stored| stored.fence).collect();
        let (jobs, untold) = inner.parted(claimed);
        // They run meanwhile; whatever else they tell comes behind it.
        inner.teller.hand_over_beginnings(untold, asked_at).await;
        let claims = jobs.into_iter().zip(fences).map(|(job, fence)| {
            let began = job.started_at.unwrap_or(job.created_at);
            metrics::job_wait(began - job.run_at.unwrap_or(job.created_at));
            let lease = Lease { job_id: job.job_id.clone(), attempt: job.attempt, fence, holder: None };
            Claim { job, lease }
        });
        Ok(claims.collect())
    }

    async fn wait_for_jobs(&self) {
        self.inner.signals.ready.notified().await;
    }

    async fn renew(&self, leases: Vec<Lease>) -> Result<Vec<LeaseStatus>, QueueError> {
        let mut statuses = Vec::with_capacity(leases.len());
        for leases in leases.chunks(STEP) {
            let renewed = list(self.inner.link.renew(leases, &self.inner.options).await?)?;
            for (lease, status) in leases.iter().zip(renewed) {
                let status = text(&status)?;
                statuses.push(match status.as_str() {
                    "held" => LeaseStatus::Held,
                    "cancel" => LeaseStatus::CancelRequested,
                    "lost" => LeaseStatus::Lost,
                    word => {
                        let why = word.strip_prefix("broken ").ok_or_else(|| unexpected(word))?;
                        tracing::error!(job = %lease.job_id, why, "a job that runs cannot be read: its attempt is given up");
                        LeaseStatus::Lost
                    }
                });
            }
        }
        Ok(statuses)
    }

    async fn report(&self, lease: &Lease, reports: Vec<Report>) -> Result<Option<CancelWish>, QueueError> {
        let (inner, asked_at) = (&self.inner, Instant::now());
        let answered = inner.calls.report.call(Entry::report(lease, &reports)).await?;
        let (word, mut rest) = answer(answered)?;
        match word.as_str() {
            "ok" => {
                let stored = Stored::read(rest.next().unwrap_or_default())?;
                inner.teller.tell(stored.untold, asked_at).await;
                Ok(stored.job.cancel_requested.then_some(stored.wish))
            }
            "lost" => Err(lost(lease)),
            "full" => Err(untold_of(&lease.job_id)),
            "broken" => Err(broken(rest.next())),
            word => Err(unexpected(word)),
        }
    }

    async fn finish(&self, lease: &Lease, last: Vec<Report>, ending: Ending) -> Result<Job, QueueError> {
        let (inner, asked_at) = (&self.inner, Instant::now());
        let answered = inner.calls.finish.call(Entry::end(lease, &last, &ending)).await?;
        let (word, mut rest) = answer(answered)?;
        match word.as_str() {
            "ok" => {
                let job = inner.made(Stored::read(rest.next().unwrap_or_default())?, asked_at).await;
                count_attempt(&job);
                Ok(job)
            }
            "told" => Ok(Stored::read(rest.next().unwrap_or_default())?.job),
            "lost" => Err(lost(lease)),
            "broken" => Err(broken(rest.next())),
            word => Err(unexpected(word)),
        }
    }

    async fn hold(&self, hold: NewHold) -> Result<Held, QueueError> {
        let (inner, asked_at) = (&self.inner, Instant::now());
        let new = &hold.job;
        let test = new.test_id.clone().unwrap_or_else(|| TestId::generate(&new.test_type));
        let answered = inner.link.hold(&JobId::generate(), test.as_str(), &hold, new_secret()?).await?;
        self.held(answered, &test, None, asked_at).await
    }

    async fn resume(&self, lease: &Lease) -> Result<Held, QueueError> {
        let Some(holder) = &lease.holder else { return Err(lost(lease)) };
        let asked_at = Instant::now();
        let answered = self.inner.link.resume(lease, next_secret(lease, holder)).await?;
        self.held(answered, &holder.test_id, Some(lease), asked_at).await
    }

    async fn leave(&self, worker: &WorkerId) -> Result<usize, QueueError> {
        self.inner.forget(worker);
        let error = TestError {
            code: "worker_stopped".to_owned(),
            message: "the worker was stopped; the test begins anew".to_owned(),
        };
        let error = serde_json::to_string(&error).unwrap_or_default();
        let mut given = 0;
        loop {
            let asked_at = Instant::now();
            let left = list(self.inner.link.leave(worker, error.clone(), STEP).await?)?;
            if left.is_empty() {
                return Ok(given);
            }
            let jobs = row::jobs(Value::Array(left))?;
            given += jobs.len();
            self.inner.all_made(jobs, asked_at).await.iter().for_each(count_attempt);
        }
    }

    async fn cancel(
        &self,
        job: &JobId,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<Job, QueueError> {
        let asked_at = Instant::now();
        let (word, mut rest) = answer(self.inner.link.cancel(job, reason, by.as_ref()).await?)?;
        let first = rest.next().unwrap_or_default();
        match word.as_str() {
            "ok" => Ok(self.inner.made(Stored::read(first)?, asked_at).await),
            "missing" => Err(QueueError::NotFound(job.clone())),
            "ended" => Err(QueueError::Ended { job: job.clone(), state: state_of(&first)? }),
            word => Err(unexpected(word)),
        }
    }

    fn cancellations(&self) -> broadcast::Receiver<JobId> {
        self.inner.signals.cancellations.subscribe()
    }

    async fn retry(&self, job: &JobId) -> Result<Job, QueueError> {
        let asked_at = Instant::now();
        let (word, mut rest) = answer(self.inner.link.retry(job).await?)?;
        let (first, second) = (rest.next().unwrap_or_default(), rest.next());
        match word.as_str() {
            "ok" => {
                let job = self.inner.made(Stored::read(first)?, asked_at).await;
                let handled = handled(second)?;
                Ok(explain(job, || handled, &Waits::default()))
            }
            "missing" => Err(QueueError::NotFound(job.clone())),
            "outside" => Err(QueueError::Outside(job.clone())),
            "alive" => Err(QueueError::NotEnded { job: job.clone(), state: state_of(&first)? }),
            "active" => Err(QueueError::TestActive {
                test: parsed(&second.unwrap_or_default(), TestId::parse)?,
                job: parsed(&first, JobId::parse)?,
            }),
            word => Err(unexpected(word)),
        }
    }

    async fn pause(
        &self,
        scope: &Scope,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<(Pause, bool), QueueError> {
        self.hold_back(scope, reason, by).await
    }

    async fn unpause(&self, scope: &Scope, by: Option<UserId>) -> Result<Option<Resumed>, QueueError> {
        self.let_go(scope, by).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, QueueError> {
        self.held_back().await
    }

    async fn limit_suites(&self, limits: &SuiteLimits) -> Result<(), QueueError> {
        self.limit(limits).await
    }

    async fn prioritise(&self, job: &JobId, priority: Priority) -> Result<Job, QueueError> {
        self.reorder(job, priority).await
    }

    async fn fired(&self, schedule: &str) -> Result<Vec<i64>, QueueError> {
        self.inner.link.fired(schedule, FIRED_KEPT).await
    }

    async fn note_fired(&self, schedule: &str, tick_ms: i64) -> Result<(), QueueError> {
        self.inner.link.note_fired(schedule, tick_ms, FIRED_KEPT, FIRED_KEPT_MS).await
    }

    async fn get(&self, job: &JobId) -> Result<Option<Job>, QueueError> {
        answer::one(self.inner.link.get(job).await?)
    }

    async fn list(
        &self,
        state: Option<JobState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<JobPage, QueueError> {
        let mut jobs: Vec<(i64, Job)> = Vec::new();
        let mut before = cursor;
        // In steps, because Redis does nothing else while it reads a page.
        while jobs.len() <= limit {
            let most = (limit + 1 - jobs.len()).min(STEP);
            let step = stretch(self.inner.link.list(state, before, most).await?)?;
            jobs.extend(step.jobs);
            before = step.last;
            if step.seen < most {
                break;
            }
        }
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let next = jobs.last().filter(|_| more).map(|(seq, _)| *seq);
        Ok(JobPage { jobs: jobs.into_iter().map(|(_, job)| job).collect(), next })
    }

    async fn past(&self, series: &str) -> Result<Past, QueueError> {
        let runs = self.inner.link.past(series).await?;
        Ok(Past::new(runs.iter().rev().filter_map(|run| Run::read(run)).collect()))
    }

    async fn counts(&self) -> Result<BTreeMap<&'static str, u64>, QueueError> {
        let counted = list(self.inner.link.counts().await?)?;
        let mut counts = BTreeMap::new();
        for (state, n) in JobState::ALL.into_iter().zip(&counted) {
            counts.insert(state.name(), u64::try_from(number(n)?).unwrap_or(0));
        }
        Ok(counts)
    }

    async fn wait_for_due(&self) {
        self.inner.signals.due.notified().await;
    }

    async fn sweep(&self) -> Result<Sweep, QueueError> {
        let (inner, asked_at) = (&self.inner, Instant::now());
        let born = Epoch::generate().to_string();
        let swept =
            list(inner.link.sweep(STEP, UNTOLD_FOR_MS, born, inner.limits_known(), &inner.options).await?)?;
        let [now, reaped, promoted, untold, due, born, newest, limited, workers, changed, pauses] =
            <[Value; 11]>::try_from(swept).map_err(|_| unexpected("too little"))?;
        let count = |value: &Value| number(value).map(|n| usize::try_from(n).unwrap_or(0));
        let (reaped, promoted, untold) = (count(&reaped)?, count(&promoted)?, count(&untold)?);
        inner.look_back(text(&born)?, number(&newest)?);
        inner.limited(number(&limited)?);
        metrics::workers(count(&workers)?);
        inner.tell_pauses(pauses, number(&now)?).await?;
        // By the clock of whoever waits for it.
        let ahead = now_ms() - number(&now)?;
        let ahead = if ahead.abs() > CLOCKS_AGREE_MS { ahead } else { 0 };
        let next_due = Some(due).filter(|due| text(due).is_ok_and(|t| !t.is_empty()));
        let next_due = next_due.map(|due| number(&due)).transpose()?.map(|due| due + ahead);
        let jobs = inner.all_made(row::jobs(changed)?, asked_at).await;
        for job in jobs.iter().take(reaped) {
            tracing::warn!(job = %job.job_id, test = %job.test_id, attempt = job.attempt, "an attempt lost its worker");
            count_attempt(job);
        }
        Ok(Sweep { promoted, reaped, more: [reaped, promoted, untold].contains(&STEP), next_due })
    }

    async fn retain(&self) -> Result<bool, QueueError> {
        let inner = &self.inner;
        let mut removed = 0;
        // In steps, because Redis does nothing else meanwhile.
        while removed < RETAIN_MAX {
            let answered = list(inner.link.retain(STEP, &inner.options).await?)?;
            let [step, unreadable] =
                <[Value; 2]>::try_from(answered).map_err(|_| unexpected("too little"))?;
            // They are logged.
            row::jobs(unreadable)?;
            let step = usize::try_from(number(&step)?).unwrap_or(0);
            removed += step;
            if step < STEP {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn count_attempt(job: &Job) {
    let outcome = match job.state {
        JobState::Completed => "passed",
        JobState::Cancelled => "cancelled",
        JobState::Retrying => "retried",
        _ => "failed",
    };
    let started = job.started_at.unwrap_or_default();
    metrics::attempt(outcome, (now_ms() - started).max(0));
}
