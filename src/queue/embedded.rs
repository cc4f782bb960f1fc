//! The queue of one machine: jobs as a table of the embedded store.

mod attempt;
mod control;
mod fired;
mod hold;
mod lanes;
mod past;
mod rows;
mod submit;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{Notify, broadcast};

use super::hold::{new_secret, next_secret};
use super::{
    CancelWish, Claim, Ending, Held, JobPage, Lease, LeaseStatus, NewHold, NewJob, Queue, QueueError,
    QueueOptions, Report, Resumed, Submitted, SuiteLimits, Sweep, Waits, explain,
};
use crate::broker::AppendGroup;
use crate::broker::embedded::{Appender, Live, Told};
use crate::config::channels::Rules;
use crate::fault::Fault;
use crate::model::past::Past;
use crate::model::{Job, JobId, JobState, Pause, Priority, Scope, UserId, WorkerId};
use crate::store::{Store, StoreError, WriteTx};
use lanes::Limits;

/// How many cancellations a lagging worker may miss before it has to learn of them by its renewals.
const CANCELLATIONS: usize = 1024;

/// Jobs in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    rules: Arc<Rules>,
    live: Live,
    options: QueueOptions,
    signals: Arc<Signals>,
    cancellations: broadcast::Sender<JobId>,
    // There are no workers but those of this process.
    workers: Mutex<HashMap<WorkerId, Vec<String>>>,
    // Nor anybody else who would count.
    limits: Mutex<Limits>,
}

/// Wakes those who wait for work.
#[derive(Debug, Default)]
struct Signals {
    ready: Notify,
    due: Notify,
}

impl Signals {
    /// There may be something to claim.
    fn wake_all(&self) {
        // Whoever waits, because the job may be of a type that the first of them does not handle; and whoever is
        // about to wait, having looked in vain.
        self.ready.notify_waiters();
        self.ready.notify_one();
    }
}

impl EmbeddedQueue {
    /// The queue on `store`, which tells `live` of every change.
    ///
    /// The store belongs to this process alone, so a lease from before is one whose worker is gone: such
    /// attempts end at the first sweep. Who holds one outside could not give a sign of life meanwhile, and gets
    /// the time of a whole lease.
    pub async fn open(
        store: Store,
        rules: Arc<Rules>,
        live: Live,
        options: QueueOptions,
    ) -> Result<Self, QueueError> {
        store
            .write(|tx| {
                let leases = "UPDATE job SET lease_until = iif(lease_ms IS NULL, 0, ?1 + lease_ms) WHERE state = 'running'";
                tx.conn().execute(leases, [crate::model::now_ms()])
            })
            .await?;
        let inner = Inner {
            store,
            rules,
            live,
            options,
            signals: Arc::default(),
            cancellations: broadcast::Sender::new(CANCELLATIONS),
            workers: Mutex::new(HashMap::new()),
            limits: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn explain(&self, job: Job, waits: &Waits) -> Job {
        explain(job, || self.inner.handled_types(), waits)
    }
}

impl Inner {
    fn handled_types(&self) -> BTreeSet<String> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.values().flatten().cloned().collect()
    }

    fn limits(&self) -> Limits {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Appends what tells of a change, in its transaction.
    fn tell(
        &self,
        tx: &mut WriteTx<'_>,
        groups: impl IntoIterator<Item = Option<AppendGroup>>,
    ) -> rusqlite::Result<()> {
        let groups: Vec<_> = groups.into_iter().flatten().collect();
        let mut told = Told::default();
        let mut appender = Appender::new(tx);
        for group in &groups {
            if let Err(refused) = appender.append(group, &mut told)? {
                // The job's own state decides; its test was written to from outside in a way that does not fit.
                tracing::warn!(channel = %group.first.channel, event = %group.first.event, %refused, "a test's story does not fit its job");
            }
        }
        self.live.tell_after_commit(tx, told);
        Ok(())
    }
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn submit(&self, job: NewJob) -> Result<Submitted, QueueError> {
        let inner = self.inner.clone();
        let submitted = self.inner.store.write(move |tx| submit::submit(&inner, tx, &job)).await??;
        Ok(Submitted { job: self.explain(submitted.job, &Waits::default()), ..submitted })
    }

    async fn join(&self, worker: &WorkerId, test_types: &[String]) -> Result<(), QueueError> {
        let mut workers = self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.insert(worker.clone(), test_types.to_vec());
        crate::metrics::workers(workers.len());
        Ok(())
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        test_types: &[String],
        max: usize,
    ) -> Result<Vec<Claim>, QueueError> {
        let types = test_types.to_vec();
        // Most looks find nothing; those must not cost the writer a transaction.
        let (wanted, limits) = (types.clone(), self.inner.limits());
        if !self.inner.store.read(move |conn| lanes::any_ready(conn, &wanted, &limits)).await? {
            return Ok(Vec::new());
        }
        let (inner, worker) = (self.inner.clone(), worker.clone());
        let claims =
            self.inner.store.write(move |tx| attempt::claim(&inner, tx, &worker, &types, max)).await?;
        if !claims.is_empty() {
            // There may be more, and somebody else who waits.
            self.inner.signals.ready.notify_one();
        }
        Ok(claims)
    }

    async fn wait_for_jobs(&self) {
        self.inner.signals.ready.notified().await;
    }

    async fn renew(&self, leases: Vec<Lease>) -> Result<Vec<LeaseStatus>, QueueError> {
        let inner = self.inner.clone();
        Ok(self.inner.store.write(move |tx| attempt::renew(&inner, tx, &leases)).await?)
    }

    async fn report(&self, lease: &Lease, reports: Vec<Report>) -> Result<Option<CancelWish>, QueueError> {
        let (inner, lease) = (self.inner.clone(), lease.clone());
        self.inner.store.write(move |tx| attempt::report(&inner, tx, &lease, &reports)).await?
    }

    async fn finish(&self, lease: &Lease, last: Vec<Report>, ending: Ending) -> Result<Job, QueueError> {
        let (inner, lease) = (self.inner.clone(), lease.clone());
        self.inner.store.write(move |tx| attempt::finish(&inner, tx, &lease, &last, &ending)).await?
    }

    async fn hold(&self, hold: NewHold) -> Result<Held, QueueError> {
        let (inner, secret) = (self.inner.clone(), new_secret()?);
        self.inner.store.write(move |tx| hold::hold(&inner, tx, &hold, &secret)).await?
    }

    async fn resume(&self, lease: &Lease) -> Result<Held, QueueError> {
        let Some(holder) = &lease.holder else { return Err(attempt::lost(lease)) };
        let (inner, lease, secret) = (self.inner.clone(), lease.clone(), next_secret(lease, holder));
        self.inner.store.write(move |tx| hold::resume(&inner, tx, &lease, &secret)).await?
    }

    async fn leave(&self, worker: &WorkerId) -> Result<usize, QueueError> {
        {
            let mut workers = self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.remove(worker);
            crate::metrics::workers(workers.len());
        }
        let (inner, worker) = (self.inner.clone(), worker.clone());
        Ok(self.inner.store.write(move |tx| attempt::hand_back(&inner, tx, &worker)).await?)
    }

    async fn cancel(
        &self,
        job: &JobId,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<Job, QueueError> {
        let (inner, job) = (self.inner.clone(), job.clone());
        self.inner
            .store
            .write(move |tx| control::cancel(&inner, tx, &job, reason.as_deref(), by.as_ref()))
            .await?
    }

    fn cancellations(&self) -> broadcast::Receiver<JobId> {
        self.inner.cancellations.subscribe()
    }

    async fn retry(&self, job: &JobId) -> Result<Job, QueueError> {
        let (inner, job) = (self.inner.clone(), job.clone());
        let job = self.inner.store.write(move |tx| control::retry(&inner, tx, &job)).await??;
        Ok(self.explain(job, &Waits::default()))
    }

    async fn pause(
        &self,
        scope: &Scope,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<(Pause, bool), QueueError> {
        let (inner, scope) = (self.inner.clone(), scope.clone());
        let pause =
            move |tx: &mut WriteTx<'_>| control::pause(&inner, tx, &scope, reason.clone(), by.clone());
        self.inner.store.write(pause).await?
    }

    async fn unpause(&self, scope: &Scope, by: Option<UserId>) -> Result<Option<Resumed>, QueueError> {
        let (inner, scope) = (self.inner.clone(), scope.clone());
        Ok(self.inner.store.write(move |tx| control::unpause(&inner, tx, &scope, by.clone())).await?)
    }

    async fn pauses(&self) -> Result<Vec<Pause>, QueueError> {
        Ok(self.inner.store.read(lanes::pauses).await?)
    }

    async fn limit_suites(&self, limits: &SuiteLimits) -> Result<(), QueueError> {
        {
            let mut known = self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner);
            for (suite, limit) in limits {
                match limit {
                    Some(limit) => known.insert(suite.clone(), *limit),
                    None => known.remove(suite),
                };
            }
        }
        self.inner.signals.wake_all();
        Ok(())
    }

    async fn prioritise(&self, job: &JobId, priority: Priority) -> Result<Job, QueueError> {
        let (inner, job) = (self.inner.clone(), job.clone());
        self.inner.store.write(move |tx| control::prioritise(&inner, tx, &job, priority)).await?
    }

    async fn fired(&self, schedule: &str) -> Result<Vec<i64>, QueueError> {
        let schedule = schedule.to_owned();
        Ok(self.inner.store.read(move |conn| fired::read(conn, &schedule)).await?)
    }

    async fn note_fired(&self, schedule: &str, tick_ms: i64) -> Result<(), QueueError> {
        let schedule = schedule.to_owned();
        Ok(self.inner.store.write(move |tx| fired::note(tx.conn(), &schedule, tick_ms)).await?)
    }

    async fn get(&self, job: &JobId) -> Result<Option<Job>, QueueError> {
        let (id, limits) = (job.clone(), self.inner.limits());
        let look = move |conn: &Connection| Ok((rows::find(conn, &id)?, lanes::waits(conn, &limits)?));
        let (found, waits) = self.inner.store.read(look).await?;
        Ok(found.map(|row| self.explain(row.job, &waits)))
    }

    async fn list(
        &self,
        state: Option<JobState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<JobPage, QueueError> {
        let limits = self.inner.limits();
        let look = move |conn: &Connection| {
            Ok((rows::list(conn, state, cursor, limit)?, lanes::waits(conn, &limits)?))
        };
        let (mut page, waits) = self.inner.store.read(look).await?;
        page.jobs = page.jobs.into_iter().map(|job| self.explain(job, &waits)).collect();
        Ok(page)
    }

    async fn past(&self, series: &str) -> Result<Past, QueueError> {
        let series = series.to_owned();
        Ok(self.inner.store.read(move |conn| past::read(conn, &series)).await?)
    }

    async fn counts(&self) -> Result<BTreeMap<&'static str, u64>, QueueError> {
        Ok(self.inner.store.read(rows::counts).await?)
    }

    async fn wait_for_due(&self) {
        self.inner.signals.due.notified().await;
    }

    async fn sweep(&self) -> Result<Sweep, QueueError> {
        let now = crate::model::now_ms();
        let pending = self.inner.store.read(move |conn| sweep::pending(conn, now)).await?;
        if !pending.anything_now {
            return Ok(Sweep { next_due: pending.next_due, ..Sweep::default() });
        }
        let inner = self.inner.clone();
        Ok(self.inner.store.write(move |tx| sweep::sweep(&inner, tx)).await?)
    }

    async fn retain(&self) -> Result<bool, QueueError> {
        sweep::retain(&self.inner.store, &self.inner.options).await
    }
}
