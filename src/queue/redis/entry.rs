//! Entries: what of one job goes into a call of a script that changes many.

use serde_json::{Map, Value};

use super::row::{News, Stored};
use crate::model::job::suite;
use crate::model::{Job, JobId, JobState, TestId, UserId};
use crate::queue::{CancelWish, Ending, Lease, NewJob, Report, TESTS_FAILED, measured_ms, run_of};

/// The arguments that tell a script of one job.
#[derive(Debug, Clone)]
pub(super) struct Entry(pub(super) Vec<String>);

impl Entry {
    /// A job that is to be added.
    pub(super) fn new_job(id: &JobId, test: &TestId, new: &NewJob, max_attempts: u32) -> Self {
        let mut args = vec![
            id.to_string(),
            test.to_string(),
            new.test_type.clone(),
            new.priority.number().to_string(),
            new.run_at.map(|at| at.to_string()).unwrap_or_default(),
            new.dedupe_key.clone().unwrap_or_default(),
            String::new(),
        ];
        let first = args.len();
        let mut field = |name: &str, value: String| args.extend([name.to_owned(), value]);
        field("max", max_attempts.to_string());
        field("config", object(&new.config));
        if let Some(key) = &new.dedupe_key {
            field("key", key.clone());
        }
        args.extend(fields(new));
        args.extend(series(new, test.as_str(), false));
        // The last one: the script looks for it there.
        if let Some(suite) = suite(&new.test_type, &new.config) {
            args.extend(["lane".to_owned(), suite.to_owned()]);
        }
        args[first - 1] = ((args.len() - first) / 2).to_string();
        Self(args)
    }

    /// What a running attempt tells.
    pub(super) fn report(lease: &Lease, reports: &[Report]) -> Self {
        let mut args = named(lease).to_vec();
        args.push(reports.len().to_string());
        args.extend(reports.iter().flat_map(told));
        Self(args)
    }

    /// The end of an attempt, and what it tells last.
    pub(super) fn end(lease: &Lease, last: &[Report], ending: &Ending) -> Self {
        let (outcome, error, is_final, results) = match ending {
            Ending::Passed { results } => ("passed", String::new(), "0", object(results)),
            Ending::Failed { error, results } => {
                let is_final = if error.code == TESTS_FAILED { "1" } else { "0" };
                ("failed", serde_json::to_string(error).unwrap_or_default(), is_final, object(results))
            }
            Ending::Cancelled => ("cancelled", String::new(), "0", String::new()),
        };
        let mut args = named(lease).to_vec();
        args.extend([outcome.to_owned(), error, is_final.to_owned(), results]);
        args.push(measured_ms(ending).map(|ms| ms.to_string()).unwrap_or_default());
        args.push(run_of(ending, 0).map(|run| run.tail()).unwrap_or_default());
        args.push(last.len().to_string());
        args.extend(last.iter().flat_map(told));
        Self(args)
    }
}

/// What the script says of a job that it added.
#[derive(Debug, Clone)]
pub(super) struct Added {
    pub(super) seq: i64,
    pub(super) now_ms: i64,
    /// The number of the change.
    pub(super) change: i64,
    pub(super) state: JobState,
    /// How many jobs wait now, and what else its note says there.
    pub(super) depth: String,
    /// Since when it waits.
    pub(super) queued_ms: i64,
}

impl Added {
    /// The job as it lies in Redis from now on, with its first change.
    pub(super) fn stored(self, id: JobId, test: TestId, new: NewJob, max_attempts: u32) -> Stored {
        let job = Job {
            job_id: id,
            test_id: test,
            test_type: new.test_type,
            name: new.name,
            lease_ms: None,
            config: new.config,
            state: self.state,
            priority: new.priority,
            attempt: 0,
            max_attempts,
            timeout_ms: new.timeout_ms,
            dedupe_key: new.dedupe_key,
            team_id: new.team_id,
            user_id: new.user_id,
            traceparent: new.traceparent,
            created_at: self.now_ms,
            run_at: new.run_at.filter(|_| self.state == JobState::Scheduled),
            started_at: None,
            ended_at: None,
            worker_id: None,
            cancel_requested: false,
            error: None,
            waiting: None,
        };
        let news = News {
            seq: self.change,
            kind: "added".to_owned(),
            now_ms: self.now_ms,
            job: job.clone(),
            payload: self.queued_ms.to_string(),
            extra: self.depth,
        };
        let wish = CancelWish { reason: None, by: None };
        Stored { job, seq: self.seq, fence: 0, secret: None, wish, untold: vec![news] }
    }
}

pub(super) fn object(map: &Map<String, Value>) -> String {
    // Keys are texts, so that it always serialises.
    serde_json::to_string(map).unwrap_or_default()
}

/// A lease as a script takes it: job, fence, and the test and secret of a holder outside.
pub(super) fn named(lease: &Lease) -> [String; 4] {
    let holder = lease.holder.as_ref();
    let test = holder.map(|holder| holder.test_id.to_string()).unwrap_or_default();
    let secret = holder.map(|holder| holder.secret.clone()).unwrap_or_default();
    [lease.job_id.to_string(), lease.fence.to_string(), test, secret]
}

/// Fields of a new job that it may lack, each with its name before it.
pub(super) fn fields(new: &NewJob) -> impl Iterator<Item = String> {
    let fields = [
        ("name", new.name.clone()),
        ("timeout", new.timeout_ms.map(|ms| ms.to_string())),
        ("team", new.team_id.clone()),
        ("trace", new.traceparent.map(|trace| trace.to_string())),
        ("user", new.user_id.as_ref().map(UserId::to_string)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten()
}

/// The field that names the series of a new job.
pub(super) fn series(new: &NewJob, test: &str, held: bool) -> [String; 2] {
    ["series".to_owned(), new.series(test, held)]
}

/// What a report is to a script: kind, payload and percent. A name that it has stands behind the kind.
fn told(report: &Report) -> [String; 3] {
    match report {
        Report::Progress { percent, data } => {
            ["progress".to_owned(), data.get().to_owned(), percent.to_string()]
        }
        Report::Log { first_line, lines } => {
            let data = serde_json::json!({ "firstLine": first_line, "lines": lines });
            ["log".to_owned(), data.to_string(), String::new()]
        }
        Report::Custom { event, data } => [event.to_string(), data.get().to_owned(), String::new()],
        Report::Named { name, report } => {
            let [kind, payload, extra] = told(report);
            [format!("{kind}#{name}"), payload, extra]
        }
    }
}
