//! The scripts of the queue, and the way they are called.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use ::redis::Value;

use super::entry::{Entry, fields, named, object, series};
use super::row::{self, News, Unreadable, list, text};
use crate::fault::{Cause, Fault};
use crate::model::past::MAX_RUNS;
use crate::model::{JobId, JobState, Priority, Scope, UserId, WorkerId};
use crate::queue::{Lease, NewHold, QueueError, QueueOptions};
use crate::redis::{Redis, Script};

/// The hash tag of everything that belongs to the queue.
const TAG: &str = "q";

/// A script with what all of them share before it. `allow-oom` for those that make room, keep what is there
/// alive, or hold it back.
macro_rules! script {
    ($name:ident, $file:literal) => {
        script!($name, $file, "#!lua\n");
    };
    ($name:ident, $file:literal, $head:literal) => {
        static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(
                $head,
                include_str!("common.lua"),
                include_str!("life.lua"),
                include_str!($file)
            ))
        });
    };
}
script!(SUBMIT, "submit.lua");
script!(HOLD, "hold.lua");
script!(RESUME, "resume.lua");
script!(CLAIM, "claim.lua");
script!(REPORT, "report.lua");
script!(RETRY, "retry.lua");
script!(PAUSE, "pause.lua", "#!lua flags=allow-oom\n");
script!(LIMIT, "limit.lua", "#!lua flags=allow-oom\n");
script!(FIRED, "fired.lua");
/// For how long the newest tick of a schedule is kept that fires no more, in ms: 500 days.
const NEWEST_TICK_KEPT_MS: i64 = 500 * 24 * 3600 * 1000;

script!(PRIORITISE, "prioritise.lua");
script!(JOIN, "join.lua");
script!(RENEW, "renew.lua", "#!lua flags=allow-oom\n");
script!(FINISH, "finish.lua", "#!lua flags=allow-oom\n");
script!(LEAVE, "leave.lua", "#!lua flags=allow-oom\n");
script!(CANCEL, "cancel.lua", "#!lua flags=allow-oom\n");
script!(SWEEP, "sweep.lua", "#!lua flags=allow-oom\n");
script!(TOLD, "told.lua", "#!lua flags=allow-oom\n");
script!(RETAIN, "retain.lua", "#!lua flags=allow-oom\n");
script!(UNTOLD, "untold.lua", "#!lua flags=no-writes\n");
script!(GET, "get.lua", "#!lua flags=no-writes\n");
script!(COUNTS, "counts.lua", "#!lua flags=no-writes\n");

impl From<Unreadable> for QueueError {
    fn from(error: Unreadable) -> Self {
        Self::Unavailable(Cause::new(error))
    }
}

/// What a claim is called: should its answer be lost, the next one asks under the same name for what it took.
#[derive(Debug)]
pub(super) struct ClaimName {
    pub(super) text: String,
    /// Its answer was lost before.
    pub(super) again: bool,
}

/// Lanes and limits for a Redis that has lost them.
#[derive(Debug)]
pub(super) struct KnownLimits {
    /// What was seen of Redis when it had them.
    pub(super) born: String,
    /// When limits were set last, by its clock; it rises with each time.
    pub(super) limited_at: i64,
    pub(super) limits: Vec<String>,
}

/// The way to the queue's keys.
#[derive(Debug, Clone)]
pub(super) struct Link {
    redis: Redis,
    root: String,
    publish: &'static str,
}

impl Link {
    pub(super) fn new(redis: Redis) -> Self {
        let publish = if redis.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
        Self { root: redis.key(TAG, ""), publish, redis }
    }

    /// The publication that wakes who waits.
    pub(super) fn publication(&self) -> String {
        format!("{}:p", self.root)
    }

    async fn run(&self, script: &Script, args: &[String]) -> Result<Value, QueueError> {
        let mut call = script.call(&[&self.root]);
        call.arg(self.publish);
        for arg in args {
            call.arg(arg);
        }
        Ok(self.redis.call(&call).await.map_err(Fault::from)?)
    }

    pub(super) async fn submit(&self, jobs: Vec<Entry>) -> Result<Value, QueueError> {
        self.run(&SUBMIT, &jobs.into_iter().flat_map(|job| job.0).collect::<Vec<_>>()).await
    }

    pub(super) async fn hold(
        &self,
        id: &JobId,
        test: &str,
        new: &NewHold,
        secret: String,
    ) -> Result<Value, QueueError> {
        let NewHold { job, holder, lease, started_at } = new;
        let mut args = vec![
            id.to_string(),
            test.to_owned(),
            job.test_type.clone(),
            job.priority.number().to_string(),
            holder.to_string(),
            ms(*lease),
            secret,
            started_at.map(|at| at.to_string()).unwrap_or_default(),
            job.dedupe_key.clone().unwrap_or_default(),
            object(&job.config),
        ];
        args.extend(fields(job));
        args.extend(series(job, test, true));
        self.run(&HOLD, &args).await
    }

    pub(super) async fn resume(&self, lease: &Lease, secret: String) -> Result<Value, QueueError> {
        let [job, fence, test, known] = named(lease);
        self.run(&RESUME, &[job, fence, test, known, secret]).await
    }

    pub(super) async fn claim(
        &self,
        worker: &WorkerId,
        types: &[String],
        most: usize,
        name: &ClaimName,
        options: &QueueOptions,
    ) -> Result<Value, QueueError> {
        let mut args = vec![worker.to_string(), ms(options.lease), most.to_string(), name.text.clone()];
        args.push(u8::from(name.again).to_string());
        args.extend_from_slice(types);
        self.run(&CLAIM, &args).await
    }

    pub(super) async fn renew(&self, leases: &[Lease], options: &QueueOptions) -> Result<Value, QueueError> {
        let mut args = vec![ms(options.lease)];
        args.extend(leases.iter().flat_map(|lease| [lease.job_id.to_string(), lease.fence.to_string()]));
        self.run(&RENEW, &args).await
    }

    pub(super) async fn report(
        &self,
        reports: Vec<Entry>,
        untold_max: usize,
        options: &QueueOptions,
    ) -> Result<Value, QueueError> {
        let mut args = vec![ms(options.lease), untold_max.to_string()];
        args.extend(reports.into_iter().flat_map(|report| report.0));
        self.run(&REPORT, &args).await
    }

    pub(super) async fn finish(
        &self,
        ends: Vec<Entry>,
        untold_max: usize,
        options: &QueueOptions,
    ) -> Result<Value, QueueError> {
        let mut args = vec![ms(options.backoff_base), ms(options.backoff_max), untold_max.to_string()];
        args.extend(ends.into_iter().flat_map(|end| end.0));
        self.run(&FINISH, &args).await
    }

    pub(super) async fn leave(
        &self,
        worker: &WorkerId,
        error: String,
        most: usize,
    ) -> Result<Value, QueueError> {
        self.run(&LEAVE, &[worker.to_string(), error, most.to_string()]).await
    }

    pub(super) async fn cancel(
        &self,
        job: &JobId,
        reason: Option<String>,
        by: Option<&UserId>,
    ) -> Result<Value, QueueError> {
        let by = by.map(UserId::to_string).unwrap_or_default();
        self.run(&CANCEL, &[job.to_string(), reason.unwrap_or_default(), by]).await
    }

    pub(super) async fn retry(&self, job: &JobId) -> Result<Value, QueueError> {
        self.run(&RETRY, &[job.to_string()]).await
    }

    pub(super) async fn get(&self, job: &JobId) -> Result<Value, QueueError> {
        self.run(&GET, &[String::new(), String::new(), String::new(), job.to_string()]).await
    }

    pub(super) async fn list(
        &self,
        state: Option<JobState>,
        before: Option<i64>,
        most: usize,
    ) -> Result<Value, QueueError> {
        let state = state.map(JobState::name).unwrap_or_default().to_owned();
        let before = before.map(|seq| seq.to_string()).unwrap_or_default();
        self.run(&GET, &[state, before, most.to_string()]).await
    }

    pub(super) async fn counts(&self) -> Result<Value, QueueError> {
        self.run(&COUNTS, &JobState::ALL.map(|state| state.name().to_owned())).await
    }

    pub(super) async fn sweep(
        &self,
        most: usize,
        untold_for_ms: u64,
        born: String,
        known: KnownLimits,
        options: &QueueOptions,
    ) -> Result<Value, QueueError> {
        let (base, max) = (ms(options.backoff_base), ms(options.backoff_max));
        let mut args = vec![most.to_string(), base, max, untold_for_ms.to_string(), born];
        args.extend([known.born, known.limited_at.to_string()]);
        args.extend(known.limits);
        self.run(&SWEEP, &args).await
    }

    /// `word`: whether `scope` is to be held back (`pause`) or let go (`resume`).
    pub(super) async fn pause(
        &self,
        word: &str,
        scope: &Scope,
        by: Option<&UserId>,
        reason: String,
        most: usize,
    ) -> Result<Value, QueueError> {
        let by = by.map(UserId::to_string).unwrap_or_default();
        self.run(&PAUSE, &[word.to_owned(), scope.key(), by, reason, most.to_string()]).await
    }

    /// What is held back: scopes, and what is known of each.
    pub(super) async fn pauses(&self) -> Result<HashMap<String, String>, QueueError> {
        let mut command = ::redis::cmd("HGETALL");
        command.arg(format!("{}:paused", self.root));
        Ok(self.redis.query(&command).await.map_err(Fault::from)?)
    }

    /// Forgets news of a pause.
    pub(super) async fn pause_told(&self, number: i64) -> Result<(), QueueError> {
        let mut command = ::redis::cmd("HDEL");
        command.arg(format!("{}:news", self.root)).arg(number);
        Ok(self.redis.query(&command).await.map_err(Fault::from)?)
    }

    pub(super) async fn limit(&self, limits: Vec<String>) -> Result<Value, QueueError> {
        self.run(&LIMIT, &limits).await
    }

    pub(super) async fn prioritise(
        &self,
        job: &JobId,
        priority: Priority,
        untold_max: usize,
    ) -> Result<Value, QueueError> {
        let args = [job.to_string(), priority.number().to_string(), untold_max.to_string()];
        self.run(&PRIORITISE, &args).await
    }

    pub(super) async fn retain(&self, most: usize, options: &QueueOptions) -> Result<Value, QueueError> {
        let mut args = vec![ms(options.retention), options.max_jobs_kept.to_string(), most.to_string()];
        args.extend(JobState::ALL.map(|state| state.name().to_owned()));
        self.run(&RETAIN, &args).await
    }

    pub(super) async fn join(&self, seen_ms: u128, workers: Vec<String>) -> Result<Value, QueueError> {
        let mut args = vec![seen_ms.to_string()];
        args.extend(workers);
        self.run(&JOIN, &args).await
    }

    /// The latest runs of a series, newest first.
    pub(super) async fn past(&self, series: &str) -> Result<Vec<String>, QueueError> {
        let mut command = ::redis::cmd("LRANGE");
        command.arg(format!("{}:past:{series}", self.root)).arg(0).arg(MAX_RUNS - 1);
        Ok(self.redis.query(&command).await.map_err(Fault::from)?)
    }

    /// The newest ticks of a schedule that were fired, oldest first.
    pub(super) async fn fired(&self, schedule: &str, most: usize) -> Result<Vec<i64>, QueueError> {
        let mut command = ::redis::cmd("ZRANGE");
        command.arg(format!("{}:fired:{schedule}", self.root)).arg(format!("-{most}")).arg(-1);
        Ok(self.redis.query(&command).await.map_err(Fault::from)?)
    }

    pub(super) async fn note_fired(
        &self,
        schedule: &str,
        tick_ms: i64,
        most: usize,
        kept_ms: i64,
    ) -> Result<(), QueueError> {
        let kept = [most.to_string(), kept_ms.to_string(), NEWEST_TICK_KEPT_MS.to_string()];
        let args = [schedule.to_owned(), tick_ms.to_string()].into_iter().chain(kept).collect::<Vec<_>>();
        self.run(&FIRED, &args).await.map(drop)
    }

    /// Running jobs that are to be cancelled; of very many, the oldest.
    pub(super) async fn cancels(&self) -> Result<Vec<JobId>, QueueError> {
        let mut command = ::redis::cmd("ZRANGE");
        command.arg(format!("{}:cancels", self.root)).arg(0).arg(999);
        let ids: Vec<String> = self.redis.query(&command).await.map_err(Fault::from)?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// What is untold of jobs, and of those that had their tests before: of each its changes, oldest first. Then those
    /// that were too many to look at.
    pub(super) async fn untold(
        &self,
        jobs: &[JobId],
        most: usize,
    ) -> Result<(HashMap<JobId, Vec<News>>, HashSet<JobId>), QueueError> {
        let args: Vec<_> =
            std::iter::once(most.to_string()).chain(jobs.iter().map(JobId::to_string)).collect();
        let mut parts = list(self.run(&UNTOLD, &args).await?)?.into_iter();
        let found = row::jobs(parts.next().unwrap_or_default())?;
        let left = list(parts.next().unwrap_or_default())?;
        let left = left.iter().filter_map(|id| JobId::parse(&text(id).ok()?).ok()).collect();
        Ok((found.into_iter().map(|stored| (stored.job.job_id, stored.untold)).collect(), left))
    }

    /// Forgets changes of jobs, by their numbers.
    pub(super) async fn told(&self, changes: &BTreeMap<JobId, Vec<i64>>) -> Result<Value, QueueError> {
        let mut args = vec![changes.len().to_string()];
        for (job, numbers) in changes {
            args.extend([job.to_string(), numbers.len().to_string()]);
            args.extend(numbers.iter().map(|number| format!("o:{number}")));
        }
        for (job, numbers) in changes {
            args.extend(numbers.iter().map(|number| format!("{job} {number}")));
        }
        self.run(&TOLD, &args).await
    }
}

fn ms(duration: std::time::Duration) -> String {
    duration.as_millis().to_string()
}
