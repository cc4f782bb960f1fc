//! What the parts of the queue share: the way to Redis, the teller, who waits in this process, and what was seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use super::link::{ClaimName, Link};
use super::row::{Stored, number};
use super::teller::Teller;
use crate::metrics;
use crate::model::{Job, JobId, JobState, WorkerId};
use crate::queue::{QueueError, QueueOptions};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) link: Link,
    pub(super) options: QueueOptions,
    pub(super) teller: Teller,
    pub(super) signals: Signals,
    /// The workers of this process, and what they handle.
    pub(super) workers: Mutex<HashMap<WorkerId, Vec<String>>>,
    /// Claims of workers whose answer was lost.
    pub(super) unsure: Mutex<HashMap<WorkerId, String>>,
    pub(super) past: Mutex<Past>,
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
}

impl Inner {
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

    /// Tells of a change that was made, and wakes who has to act on it. Whether it was told now or will be later,
    /// the change stands.
    pub(super) async fn made(&self, stored: Stored) -> Job {
        self.signals.wake(stored.job.state);
        self.teller.tell(stored.untold).await;
        stored.job
    }

    /// The same for several changes.
    pub(super) async fn all_made(&self, changed: Vec<Stored>) -> Vec<Job> {
        let (mut jobs, mut untold) = (Vec::with_capacity(changed.len()), Vec::new());
        for stored in changed {
            self.signals.wake(stored.job.state);
            untold.extend(stored.untold);
            jobs.push(stored.job);
        }
        self.teller.tell(untold).await;
        jobs
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
        *past = Past { born: Some(born), newest };
    }
}
