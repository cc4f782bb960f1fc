//! What the parts of the queue share: the way to Redis, the teller, who waits in this process, and what was seen.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast};

use super::grouped::Grouped;
use super::link::{ClaimName, Link};
use super::row::{News, Stored, list, number};
use super::teller::Teller;
use super::{UNTOLD_MAX, answer};
use crate::broker::Broker;
use crate::config::channels::Rules;
use crate::metrics;
use crate::model::{Job, JobId, JobState, WorkerId};
use crate::queue::{QueueError, QueueOptions, SuiteLimits, Waits, explain};
use crate::tasks::Tasks;

pub(super) struct Inner {
    pub(super) link: Link,
    pub(super) calls: Calls,
    pub(super) options: QueueOptions,
    pub(super) teller: Teller,
    pub(super) signals: Signals,
    /// The workers of this process, and what they handle.
    pub(super) workers: Mutex<HashMap<WorkerId, Vec<String>>>,
    /// Claims of workers whose answer was lost.
    pub(super) unsure: Mutex<HashMap<WorkerId, String>>,
    pub(super) past: Mutex<Past>,
    /// What this process says of suites.
    pub(super) limits: Mutex<SuiteLimits>,
    /// Where pauses are told of, and by which rules; `teller` tells of jobs.
    pub(super) broker: Arc<dyn Broker>,
    pub(super) rules: Arc<Rules>,
}

/// The scripts that change many jobs in one call.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) submit: Grouped,
    pub(super) report: Grouped,
    pub(super) finish: Grouped,
    /// What the workers of all nodes handle, as the last submission saw it.
    handled: Arc<Mutex<BTreeSet<String>>>,
}

impl Calls {
    pub(super) fn start(link: &Link, options: &QueueOptions, tasks: &Tasks) -> Self {
        let handled: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (seen, to) = (handled.clone(), link.clone());
        let submit = Grouped::start("queue-submit", tasks, move |jobs| {
            let (link, seen) = (to.clone(), seen.clone());
            async move {
                let mut parts = list(link.submit(jobs).await?)?.into_iter();
                let types = answer::handled(parts.next())?;
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = types;
                Ok(parts.next().unwrap_or_default())
            }
        });
        let (to, with) = (link.clone(), options.clone());
        let report = Grouped::start("queue-report", tasks, move |reports| {
            let (link, options) = (to.clone(), with.clone());
            async move { link.report(reports, UNTOLD_MAX, &options).await }
        });
        let (to, with) = (link.clone(), options.clone());
        let finish = Grouped::start("queue-finish", tasks, move |ends| {
            let (link, options) = (to.clone(), with.clone());
            async move { link.finish(ends, UNTOLD_MAX, &options).await }
        });
        Self { submit, report, finish, handled }
    }
}

/// Wakes those who wait in this process.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) ready: Notify,
    pub(super) due: Notify,
    pub(super) cancellations: broadcast::Sender<JobId>,
}

impl Signals {
    pub(super) fn ready(&self) {
        // Whoever waits, because the job may be of a type that the first of them does not handle; and whoever is
        // about to wait, having looked in vain.
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// Wakes whoever has to act on a job that got into `state`.
    pub(super) fn wake(&self, state: JobState) {
        match state {
            JobState::Queued => self.ready(),
            JobState::Scheduled | JobState::Retrying => self.due.notify_one(),
            _ => {}
        }
    }
}

/// What this node has seen of the queue: its past may get lost with Redis' memory.
#[derive(Debug, Default)]
pub(super) struct Past {
    born: Option<String>,
    newest: i64,
    /// When limits of suites were set last.
    limited_at: i64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn limits(&self) -> std::sync::MutexGuard<'_, SuiteLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn workers(&self) -> std::sync::MutexGuard<'_, HashMap<WorkerId, Vec<String>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the next claim of `worker`: that of the last one, if nobody knows what that one took.
    pub(super) fn claim_name(&self, worker: &WorkerId) -> ClaimName {
        let unsure = self.unsure.lock().unwrap_or_else(PoisonError::into_inner).remove(worker);
        let again = unsure.is_some();
        ClaimName { text: unsure.unwrap_or_else(|| format!("{:x}", fastrand::u64(..))), again }
    }

    /// The answer of a claim was lost. Whoever never claims again lets its jobs run out.
    pub(super) fn unsure_of(&self, worker: &WorkerId, name: ClaimName) {
        if self.workers().contains_key(worker) {
            self.unsure.lock().unwrap_or_else(PoisonError::into_inner).insert(worker.clone(), name.text);
        }
    }

    /// The worker takes no more.
    pub(super) fn forget(&self, worker: &WorkerId) {
        self.workers().remove(worker);
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).remove(worker);
    }

    /// Tells of a change that was asked for at `asked_at` and was made, and wakes who has to act on it. Whether it was told
    /// now or will be later, the change stands.
    pub(super) async fn made(&self, stored: Stored, asked_at: Instant) -> Job {
        self.signals.wake(stored.job.state);
        self.teller.tell(stored.untold, asked_at).await;
        stored.job
    }

    /// The same for several changes.
    pub(super) async fn all_made(&self, changed: Vec<Stored>, asked_at: Instant) -> Vec<Job> {
        let (jobs, untold) = self.parted(changed);
        self.teller.tell(untold, asked_at).await;
        jobs
    }

    /// Jobs and what is to be told of them; who has to act on them is woken.
    pub(super) fn parted(&self, changed: Vec<Stored>) -> (Vec<Job>, Vec<News>) {
        let (mut jobs, mut untold) = (Vec::with_capacity(changed.len()), Vec::new());
        for stored in changed {
            self.signals.wake(stored.job.state);
            untold.extend(stored.untold);
            jobs.push(stored.job);
        }
        (jobs, untold)
    }

    /// A job that was submitted just now, which says why it waits.
    pub(super) fn explained(&self, job: Job) -> Job {
        let handled = &self.calls.handled;
        explain(job, || handled.lock().unwrap_or_else(PoisonError::into_inner).clone(), &Waits::default())
    }

    /// Makes the workers of this process known for a while.
    pub(super) async fn announce(&self) -> Result<(), QueueError> {
        let known: Vec<String> = {
            let workers = self.workers();
            let known = |(worker, types): (&WorkerId, &Vec<String>)| {
                [worker.to_string(), serde_json::Value::from(types.as_slice()).to_string()]
            };
            workers.iter().flat_map(known).collect()
        };
        if known.is_empty() {
            return Ok(());
        }
        let seen_for = self.options.lease.max(Duration::from_secs(10));
        let workers = number(&self.link.join(seen_for.as_millis(), known).await?)?;
        metrics::workers(usize::try_from(workers).unwrap_or(0));
        Ok(())
    }

    /// Which past of the queue was seen last, if any, and when limits were set last in it.
    pub(super) fn seen(&self) -> (String, i64) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.born.clone().unwrap_or_default(), past.limited_at)
    }

    /// Limits of suites were set, by somebody.
    pub(super) fn limited(&self, at: i64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.limited_at = past.limited_at.max(at);
    }

    /// Compares what there is with what was seen before, and says it if something is gone.
    pub(super) fn look_back(&self, born: String, newest: i64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        match &past.born {
            Some(known) if *known != born => {
                tracing::error!(
                    "Redis has lost the queue and came back with another: the jobs in it are gone, and so are the leases of running ones; submit again what has not ended"
                );
            }
            Some(_) if newest < past.newest => {
                let gone = past.newest - newest;
                tracing::error!(
                    gone,
                    "Redis has lost its newest changes: jobs that were submitted last are gone; submit them again"
                );
            }
            _ => {}
        }
        (past.born, past.newest) = (Some(born), newest);
    }
}
