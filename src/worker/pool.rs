//! The pool: apalis' worker over our queue, with so many attempts at once.
//!
//! Beside the worker run: the renewal of leases, which has to go on while the worker itself is busy or drains,
//! and the ear for cancellations. Should the worker ever end by itself, it is started anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apalis::prelude::{BoxDynError, Data, WorkerBuilder, WorkerBuilderExt};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Stop, StopSwitch};
use super::runner::RunnerSet;
use super::source::{Assigned, JobBackend, JobSource};
use crate::model::{JobId, WorkerId};
use crate::queue::{Lease, LeaseStatus, Queue};
use crate::tasks::Tasks;

/// The pause before a worker that ended by itself is started anew.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How a pool works.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// So many attempts at once.
    pub concurrency: usize,
    /// How long a lease lasts; it is renewed three times in that time.
    pub lease: Duration,
    /// How long an attempt may take, where neither the job nor its runner says.
    pub default_timeout: Duration,
}

/// A pool of attempts.
pub struct Pool {
    queue: Arc<dyn Queue>,
    runners: Arc<RunnerSet>,
    options: PoolOptions,
    worker: WorkerId,
    slots: Arc<Semaphore>,
    running: Mutex<HashMap<JobId, Running>>,
    // No more jobs are taken.
    stop: CancellationToken,
    // Those that run are handed back.
    hand_back: CancellationToken,
    drained: CancellationToken,
}

struct Running {
    lease: Lease,
    stop: StopSwitch,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts a pool that runs jobs of the test types of `runners`.
    #[must_use]
    pub fn start(
        queue: Arc<dyn Queue>,
        runners: Arc<RunnerSet>,
        options: PoolOptions,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let slots = options.concurrency.max(1);
        let pool = Arc::new(Self {
            slots: Arc::new(Semaphore::new(slots)),
            queue,
            runners,
            options,
            worker: WorkerId::generate(),
            running: Mutex::default(),
            stop: CancellationToken::new(),
            hand_back: CancellationToken::new(),
            drained: CancellationToken::new(),
        });
        tasks.spawn("worker", pool.clone().work());
        tasks.spawn("lease-renewal", pool.clone().renew());
        tasks.spawn("cancellations", pool.clone().listen());
        pool
    }

    /// The name under which it takes jobs.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.worker
    }

    /// Takes no more jobs, gives the attempts that run `grace` to end by themselves, stops those that have not, and
    /// gives their jobs back to the queue.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(grace, self.drained.cancelled()).await.is_err() {
            self.hand_back.cancel();
            for running in self.running().values() {
                running.stop.press(Stop::Shutdown);
            }
            self.drained.cancelled().await;
        }
        match self.queue.leave(&self.worker).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "running jobs were given back to the queue"),
            // Their leases run out, and the queue notices.
            Err(error) => tracing::warn!(%error, "running jobs could not be given back"),
        }
    }

    async fn work(self: Arc<Self>) {
        for round in 0_u64.. {
            let source = JobSource {
                queue: self.queue.clone(),
                worker: self.worker.clone(),
                test_types: self.runners.types().into(),
                stop: self.stop.clone(),
                slots: self.slots.clone(),
                claimed: Arc::default(),
            };
            // A fresh name each time: apalis takes one that it knows for a double.
            let worker = WorkerBuilder::new(format!("{}-{round}", self.worker))
                .backend(JobBackend::new(source))
                .data(self.clone())
                .concurrency(self.options.concurrency.max(1))
                .build(run_claim);
            let stop = self.stop.clone();
            let stopped = async move {
                stop.cancelled().await;
                Ok::<_, std::io::Error>(())
            };
            let ended = worker.run_until(stopped).await;
            if self.stop.is_cancelled() {
                break;
            }
            tracing::error!(?ended, "the worker ended by itself and is started anew");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        self.drained.cancel();
    }

    async fn run(self: Arc<Self>, assigned: Assigned) {
        let Assigned { claim, slot } = assigned;
        let job = &claim.job;
        let Some(runner) = self.runners.get(&job.test_type).cloned() else {
            // Only jobs of our types are claimed; the lease runs out and somebody else gets this one.
            tracing::error!(job = %job.job_id, test_type = job.test_type, "a job without a runner was claimed");
            return;
        };
        let timeout = job.timeout_ms.map(Duration::from_millis);
        let timeout = timeout.or_else(|| runner.timeout(&job.config)).unwrap_or(self.options.default_timeout);
        let stop = StopSwitch::default();
        let running = Running { lease: claim.lease.clone(), stop: stop.clone() };
        self.running().insert(job.job_id.clone(), running);
        if self.hand_back.is_cancelled() {
            stop.press(Stop::Shutdown);
        }
        // Cancelled between its claim and here, it was not in the list of those to be told.
        if job.cancel_requested {
            stop.press(Stop::Cancelled);
        }
        let (job_id, fence) = (job.job_id.clone(), claim.lease.fence);
        tracing::info!(job = %job_id, test = %job.test_id, attempt = job.attempt, "an attempt began");
        Attempt { queue: self.queue.clone(), claim, timeout, stop }.run(runner).await;
        let mut running = self.running();
        // A newer attempt of the same job may run here already.
        if running.get(&job_id).is_some_and(|r| r.lease.fence == fence) {
            running.remove(&job_id);
        }
        drop(running);
        drop(slot);
    }

    async fn renew(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.options.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let leases: Vec<Lease> = self.running().values().map(|r| r.lease.clone()).collect();
            if leases.is_empty() {
                continue;
            }
            match self.queue.renew(leases.clone()).await {
                Ok(statuses) => {
                    for (lease, status) in leases.iter().zip(statuses) {
                        self.heed(lease, status);
                    }
                }
                Err(error) => tracing::warn!(%error, "leases could not be renewed; trying again"),
            }
        }
    }

    fn heed(&self, lease: &Lease, status: LeaseStatus) {
        let reason = match status {
            LeaseStatus::Held => return,
            LeaseStatus::CancelRequested => Stop::Cancelled,
            LeaseStatus::Lost => Stop::LeaseLost,
        };
        let running = self.running();
        if let Some(running) = running.get(&lease.job_id).filter(|r| r.lease == *lease) {
            running.stop.press(reason);
        }
    }

    async fn listen(self: Arc<Self>) {
        let mut cancellations = self.queue.cancellations();
        loop {
            match cancellations.recv().await {
                Ok(job) => {
                    if let Some(running) = self.running().get(&job) {
                        running.stop.press(Stop::Cancelled);
                    }
                }
                // The next renewal tells of those that were missed.
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "cancellations came too fast"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// apalis' handler. The attempt gets a task of its own, because all of apalis' handlers share one.
async fn run_claim(assigned: Assigned, pool: Data<Arc<Pool>>) -> Result<(), BoxDynError> {
    let pool = Arc::clone(&pool);
    // A panic is one of ours, not the runner's, which has its own task: let the worker log it and go on.
    Ok(tokio::spawn(pool.run(assigned)).await?)
}
