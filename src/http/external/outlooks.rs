//! What can be said of the future of external tests, while they are told of here.
//!
//! An attempt's past is read with its first report; where another node is told next, that one reads it, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::model::event::TestEvent;
use crate::model::forecast::{Outlook, Stage};
use crate::model::past::Past;
use crate::model::test::TestData;
use crate::model::{JobId, now_ms};
use crate::queue::{Lease, Queue, QueueError, Report};

/// How many attempts are known at most; beyond it all are forgotten, and read again.
const MOST: usize = 4096;

type Shared = Arc<Mutex<Attempt>>;
type Known = HashMap<(JobId, u32), Shared>;

/// The attempts that are told of here.
#[derive(Debug, Default)]
pub(in crate::http) struct Outlooks {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Attempt {
    outlook: Outlook,
    past: Past,
    /// What was told last.
    last: Option<(f64, Map<String, Value>)>,
}

impl Outlooks {
    /// Adds to `reports`, which are told under `lease`, what can be said of the future; a test that is alive and makes
    /// no progress is told to be stalled.
    pub(super) async fn foresee(
        &self,
        queue: &dyn Queue,
        lease: &Lease,
        reports: &mut Vec<Report>,
    ) -> Result<(), QueueError> {
        let Some(attempt) = self.attempt(queue, lease).await? else { return Ok(()) };
        let now = now_ms();
        let mut attempt = attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_progress = false;
        for report in reports.iter_mut() {
            has_progress |= attempt.foresee(report, now);
        }
        if !has_progress
            && let Some(stalled) = attempt.outlook.stalled(now)
            && let Some((percent, mut data)) = attempt.last.clone()
        {
            data.insert("stalled".to_owned(), json!(stalled));
            reports.extend(to_raw_value(&data).ok().map(|data| Report::Progress { percent, data }));
        }
        Ok(())
    }

    /// The past of the attempt that ends, which is forgotten here.
    pub(super) async fn end(&self, queue: &dyn Queue, lease: &Lease) -> Option<Past> {
        let attempt = self.attempt(queue, lease).await.ok()??;
        self.lock().remove(&(lease.job_id.clone(), lease.attempt));
        let attempt = attempt.lock().unwrap_or_else(PoisonError::into_inner);
        Some(attempt.past.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None of a job that does not exist.
    async fn attempt(&self, queue: &dyn Queue, lease: &Lease) -> Result<Option<Shared>, QueueError> {
        let key = (lease.job_id.clone(), lease.attempt);
        if let Some(known) = self.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(job) = queue.get(&lease.job_id).await? else { return Ok(None) };
        let past = queue.past(&job.series()).await?;
        let outlook = Outlook::new(&past, job.started_at.unwrap_or_else(now_ms), now_ms());
        let attempt = Arc::new(Mutex::new(Attempt { outlook, past, last: None }));
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, attempt.clone());
        Ok(Some(attempt))
    }
}

impl Attempt {
    /// Whether `report` is progress, which then says what can be foreseen.
    fn foresee(&mut self, report: &mut Report, now: i64) -> bool {
        match report {
            Report::Progress { percent, data } => {
                if let Some(foreseen) = self.foreseen(*percent, data, now) {
                    *data = foreseen;
                }
                true
            }
            Report::Named { report, .. } => self.foresee(report, now),
            Report::Log { .. } | Report::Custom { .. } => false,
        }
    }

    fn foreseen(&mut self, percent: f64, data: &RawValue, now: i64) -> Option<Box<RawValue>> {
        let told = TestData::parse(TestEvent::Progress, data).ok()?;
        let mut fields: Map<String, Value> = serde_json::from_str(data.get()).ok()?;
        // What the server says, nobody else does.
        for key in ["slower", "stalled"] {
            fields.remove(key);
        }
        self.last = Some((percent, fields.clone()));
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
