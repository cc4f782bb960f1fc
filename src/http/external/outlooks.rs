//! What can be said of the future of external tests, while they are told of here.
//!
//! An attempt's past is read with its first report; where another node is told next, that one reads it, too.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::model::event::TestEvent;
use crate::model::forecast::{Outlook, Stage};
use crate::model::past::Past;
use crate::model::test::TestData;
use crate::model::{JobId, now_ms};
use crate::queue::{CancelWish, Lease, Queue, QueueError, Report};

/// How many attempts are known at most; beyond it all are forgotten, and read again.
const MOST: usize = 4096;
/// How many names of progress are known of an attempt: as many as are told at once, because the newest are sent again.
const MOST_NAMES: usize = 1000;

/// A whole lease: whoever makes up a secret meets nothing that is kept for another one.
type Key = (JobId, u32, i64, Option<String>);
type Known = HashMap<Key, Shared>;
type Shared = Arc<Mutex<Attempt>>;

/// The attempts that are told of here. What is kept of a report is kept once the queue took it, which knows what leases
/// count.
#[derive(Debug, Default)]
pub(in crate::http) struct Outlooks {
    known: Mutex<Known>,
}

#[derive(Debug, Clone)]
struct Attempt {
    outlook: Outlook,
    past: Arc<Past>,
    /// What was told last.
    last: Option<Arc<(f64, Map<String, Value>)>>,
    /// Hashes of the names under which progress was told, the newest at the end.
    names: VecDeque<u64>,
}

impl Outlooks {
    /// Tells `reports` under `lease`, and with them what can be said of the future; a test that is alive and makes no
    /// progress is told to be stalled.
    pub(super) async fn report(
        &self,
        queue: &dyn Queue,
        lease: &Lease,
        reports: Vec<Report>,
    ) -> Result<Option<CancelWish>, QueueError> {
        self.report_at(queue, lease, reports, now()).await
    }

    /// The same as if it was `now`.
    pub(in crate::http) async fn report_at(
        &self,
        queue: &dyn Queue,
        lease: &Lease,
        mut reports: Vec<Report>,
        now: i64,
    ) -> Result<Option<CancelWish>, QueueError> {
        let told = async {
            let Some(shared) = self.attempt(queue, lease).await? else {
                return queue.report(lease, reports).await;
            };
            let mut attempt = lock(&shared).clone();
            attempt.foresee(&mut reports, now);
            let wanted = queue.report(lease, reports).await?;
            *lock(&shared) = attempt;
            Ok(wanted)
        };
        let told = told.await;
        if matches!(told, Err(QueueError::LeaseLost { .. })) {
            self.forget(lease);
        }
        told
    }

    /// The past of the attempt that is to end.
    pub(super) async fn past(&self, queue: &dyn Queue, lease: &Lease) -> Option<Arc<Past>> {
        let known = lock(&self.known).get(&key(lease)).cloned();
        if let Some(known) = known {
            return Some(lock(&known).past.clone());
        }
        let job = queue.get(&lease.job_id).await.ok()??;
        queue.past(&job.series()).await.ok().map(Arc::new)
    }

    /// Forgets an attempt that has ended, or lost its lease.
    pub(super) fn forget(&self, lease: &Lease) {
        lock(&self.known).remove(&key(lease));
    }

    /// How many attempts are known.
    #[cfg(test)]
    pub(in crate::http) fn len(&self) -> usize {
        lock(&self.known).len()
    }

    /// What is known of an attempt whose lease counts, or did a moment ago. None of a job that does not exist.
    async fn attempt(&self, queue: &dyn Queue, lease: &Lease) -> Result<Option<Shared>, QueueError> {
        if let Some(known) = lock(&self.known).get(&key(lease)) {
            return Ok(Some(known.clone()));
        }
        // A sign of life, which the queue refuses where the lease counts for nothing.
        queue.report(lease, Vec::new()).await?;
        let Some(job) = queue.get(&lease.job_id).await? else { return Ok(None) };
        let past = Arc::new(queue.past(&job.series()).await?);
        let outlook = Outlook::new(&past, job.started_at.unwrap_or_else(now_ms), now_ms());
        let attempt = Attempt { outlook, past, last: None, names: VecDeque::new() };
        let mut known = lock(&self.known);
        if known.len() >= MOST {
            known.clear();
        }
        // Another report may have been faster.
        Ok(Some(known.entry(key(lease)).or_insert_with(|| Arc::new(Mutex::new(attempt))).clone()))
    }
}

#[cfg(test)]
tokio::task_local! {
    /// How far ahead of the clock a test asks.
    pub(in crate::http) static AHEAD_MS: i64;
}

#[cfg(test)]
fn now() -> i64 {
    now_ms() + AHEAD_MS.try_with(|ahead| *ahead).unwrap_or_default()
}

#[cfg(not(test))]
fn now() -> i64 {
    now_ms()
}

fn key(lease: &Lease) -> Key {
    let Lease { job_id, attempt, fence, holder } = lease;
    (job_id.clone(), *attempt, *fence, holder.as_ref().map(|holder| holder.secret.clone()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attempt {
    fn foresee(&mut self, reports: &mut Vec<Report>, now: i64) {
        let mut has_progress = false;
        for report in reports.iter_mut() {
            has_progress |= self.foresee_one(report, now);
        }
        if !has_progress
            && let Some(stalled) = self.outlook.stalled(now)
            && let Some(last) = &self.last
        {
            let (percent, mut data) = (last.0, last.1.clone());
            data.insert("stalled".to_owned(), json!(stalled));
            reports.extend(to_raw_value(&data).ok().map(|data| Report::Progress { percent, data }));
        }
    }

    /// Whether `report` is progress that was not told before, which then says what can be foreseen.
    fn foresee_one(&mut self, report: &mut Report, now: i64) -> bool {
        match report {
            Report::Progress { percent, data } => {
                if let Some(foreseen) = self.foreseen(*percent, data, now) {
                    *data = foreseen;
                }
                true
            }
            Report::Named { name, report } if matches!(**report, Report::Progress { .. }) => {
                // The queue does not tell it again; it is older than what was told since.
                self.is_new(name) && self.foresee_one(report, now)
            }
            Report::Named { .. } | Report::Log { .. } | Report::Custom { .. } => false,
        }
    }

    fn is_new(&mut self, name: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        if self.names.contains(&hash) {
            return false;
        }
        if self.names.len() == MOST_NAMES {
            self.names.pop_front();
        }
        self.names.push_back(hash);
        true
    }

    fn foreseen(&mut self, percent: f64, data: &RawValue, now: i64) -> Option<Box<RawValue>> {
        let told = TestData::parse(TestEvent::Progress, data).ok()?;
        let mut fields: Map<String, Value> = serde_json::from_str(data.get()).ok()?;
        // What the server says, nobody else does.
        for key in ["slower", "stalled"] {
            fields.remove(key);
        }
        self.last = Some(Arc::new((percent, fields.clone())));
        let mut counts = told.counts.unwrap_or_default();
        counts.passed = counts.passed.max(told.completed.unwrap_or_default());
        let current = told.current.unwrap_or_default();
        let stage = Stage { progress: percent, counts, current: &current };
        let prospect = self.outlook.look(stage, told.eta_ms, false, now);
        if let Some(eta) = prospect.eta_ms {
            fields.insert("etaMs".to_owned(), json!(eta));
        }
        if let Some(slower) = prospect.slower {
            fields.insert("slower".to_owned(), json!(slower));
        }
        if let Some(stalled) = prospect.stalled {
            fields.insert("stalled".to_owned(), json!(stalled));
        }
        to_raw_value(&fields).ok()
    }
}
