//! The queue as apalis sees it: a `Persistence` whose tasks are claims.
//!
//! What apalis offers beside that (acknowledgements, heartbeats by its own timer, events without a task id) is
//! not used: state and events are written by [`super::attempt`], under the lease of the claim, and leases are
//! kept alive by [`super::pool`]. An error from here would end the worker, so that faults of the store become
//! "nothing to do yet".

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::persistence::{Persisted, Persistence, TaskEvent};
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::layer::util::Identity;

use crate::model::WorkerId;
use crate::queue::{Claim, Queue};

/// How long a look for jobs waits at most before it looks again without having been woken.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How many jobs are claimed at once at most.
const CLAIM_MAX: usize = 64;
/// The pause after a fault of the store.
const AFTER_FAULT: Duration = Duration::from_secs(1);
/// How often apalis' own heartbeat runs; it keeps nothing alive here.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Where a pool takes its jobs from.
#[derive(Clone)]
pub(super) struct JobSource {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) worker: WorkerId,
    pub(super) test_types: Arc<[String]>,
    /// Cancelled when no more jobs are to be taken.
    pub(super) stop: CancellationToken,
    /// A permit for each attempt that may begin.
    pub(super) slots: Arc<Semaphore>,
    /// Claimed with the one before, and about to be run.
    pub(super) claimed: Arc<Mutex<VecDeque<Assigned>>>,
}

/// A claim with the slot that it is run in.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) claim: Claim,
    /// Free again when this is dropped.
    pub(super) slot: OwnedSemaphorePermit,
}

impl fmt::Debug for JobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSource").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl JobSource {
    /// Waits until there is a job and claims it. Nothing only once `stop` is cancelled.
    async fn next(&self) -> Option<Assigned> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            if let Some(assigned) = self.claimed().pop_front() {
                return Some(assigned);
            }
            let free = tokio::select! {
                free = self.free_slots() => free,
                () = self.stop.cancelled() => return None,
            };
            let pause = match self.queue.claim(&self.worker, &self.test_types, free.len()).await {
                Ok(claims) if !claims.is_empty() => {
                    let assign = |(claim, slot)| Assigned { claim, slot };
                    self.claimed().extend(claims.into_iter().zip(free).map(assign));
                    continue;
                }
                Ok(_) => LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "no job could be claimed; trying again");
                    AFTER_FAULT
                }
            };
            drop(free);
            tokio::select! {
                () = self.queue.wait_for_jobs() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Waits until an attempt may begin, and takes the slots that are free then.
    async fn free_slots(&self) -> Vec<OwnedSemaphorePermit> {
        // It is never closed.
        let Ok(first) = self.slots.clone().acquire_owned().await else { return std::future::pending().await };
        let more =
            std::iter::repeat_with(|| self.slots.clone().try_acquire_owned().ok()).map_while(|slot| slot);
        std::iter::once(first).chain(more).take(CLAIM_MAX).collect()
    }

    fn claimed(&self) -> MutexGuard<'_, VecDeque<Assigned>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persistence for JobSource {
    type Compact = Assigned;
    type Response = ();
    type Error = Infallible;

    async fn register(&mut self, _: &WorkerContext) -> Result<(), Infallible> {
        if let Err(error) = self.queue.join(&self.worker, &self.test_types).await {
            tracing::warn!(%error, "the worker could not make itself known");
        }
        Ok(())
    }

    async fn heartbeat(&mut self, _: &WorkerContext) -> Result<(), Infallible> {
        Ok(())
    }

    async fn fetch_next(&mut self, _: &WorkerContext) -> Result<Vec<Task<Assigned>>, Infallible> {
        let assigned = self.next().await;
        Ok(assigned.into_iter().map(task).collect())
    }

    // Claims are handed over one by one and run at once, so none is ever left in apalis' buffer.
    async fn reenqueue_abandoned(
        &mut self,
        _: Vec<Task<Assigned>>,
        _: &WorkerContext,
    ) -> Result<u64, Infallible> {
        Ok(0)
    }

    async fn handle_events(&mut self, _: Vec<TaskEvent<()>>, _: &WorkerContext) -> Result<(), Infallible> {
        Ok(())
    }

    // Jobs are submitted to the queue itself, which has to answer with their ids.
    async fn push_tasks(&mut self, _: Vec<Task<Assigned>>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn task(assigned: Assigned) -> Task<Assigned> {
    let id = TaskId::String(assigned.claim.lease.job_id.to_string());
    TaskBuilder::new(assigned).task_id(id).build()
}

/// apalis' back end over a [`JobSource`].
#[derive(Debug)]
pub(super) struct JobBackend(Persisted<JobSource>);

impl JobBackend {
    pub(super) fn new(source: JobSource) -> Self {
        Self(Persisted::new(source))
    }
}

impl Backend for JobBackend {
    type Task = Task<Assigned>;
    type Error = Infallible;

    fn poll_ready(&mut self, cx: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx, worker, HEARTBEAT)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Assigned>, Infallible>>> {
        self.0.poll_next(cx, worker)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.0.poll_close(cx, worker)
    }
}

impl BackendConfig for JobBackend {
    type Args = Assigned;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
