//! Control: what is held back, and what a waiting job says of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::pause::Pause;
use crate::model::{Job, JobState, Scope, UserId};

/// How many parts of the queue may be paused at once.
pub const MAX_PAUSES: usize = 1000;
/// How many attempts of each suite may run at once over all nodes; `None`: as many as there are workers for.
pub type SuiteLimits = BTreeMap<String, Option<u32>>;

/// A part of the queue that is not held back any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// How it was held back.
    pub pause: Pause,
    /// Who resumed it.
    pub by: Option<UserId>,
}

/// Why jobs wait that some worker could run.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    /// What is held back.
    pub(super) pauses: Vec<Pause>,
    /// Of suites with a limit: how many attempts run, and how many may.
    pub(super) suites: BTreeMap<String, (u64, u64)>,
}

impl Waits {
    fn reason(&self, job: &Job) -> Option<String> {
        let suite = job.suite();
        let holds = |pause: &&Pause| match pause.scope() {
            Scope::All => true,
            Scope::TestType(test_type) => test_type == job.test_type,
            Scope::Suite(paused) => suite == Some(paused.as_str()),
        };
        if let Some(pause) = self.pauses.iter().find(holds) {
            return Some(told(pause));
        }
        let (suite, (running, most)) = suite.and_then(|suite| Some((suite, self.suites.get(suite)?)))?;
        (running >= most)
            .then(|| format!("the suite `{suite}` runs {running} of at most {most} at once (`concurrency`)"))
    }
}

/// `the suite `unit` has been paused since …, by ada: the database is being moved`.
fn told(pause: &Pause) -> String {
    let since = UNIX_EPOCH + Duration::from_millis(u64::try_from(pause.since).unwrap_or(0));
    let since = humantime::format_rfc3339_seconds(since.min(SystemTime::now()));
    let by = pause.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    let reason = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} has been paused since {since}{by}{reason}", pause.scope())
}

/// Says of a queued job why it does not start, where that is not plain waiting: no worker handles its type, or it is
/// held back.
pub(super) fn explain(mut job: Job, handled: impl FnOnce() -> BTreeSet<String>, waits: &Waits) -> Job {
    if job.state != JobState::Queued {
        return job;
    }
    let handled = handled();
    if !handled.contains(&job.test_type) {
        let known = handled.into_iter().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() {
            "no worker is running".to_owned()
        } else {
            format!("handled are: {known}")
        };
        job.waiting = Some(format!("no worker handles the test type `{}`; {known}", job.test_type));
    }
    // What people did comes before what is missing: it says who to ask.
    if let Some(reason) = waits.reason(&job) {
        job.waiting = Some(reason);
    }
    job
}
