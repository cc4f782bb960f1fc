//! What the holders of external tests send, checked.

use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::super::HttpState;
use super::super::extract::Caller;
use super::super::problem::Problem;
use super::super::traced;
use super::pass::Pass;
use super::{holder, invalid};
use crate::model::event::TestEvent;
use crate::model::id::{MAX_ID_LEN, check};
use crate::model::test::{Failure, TestData, TestError};
use crate::model::{EventName, JobId, Priority, TestId, readable};
use crate::queue::{Ending, Lease, NewHold, NewJob, Report, TESTS_FAILED, WORKER_LOST};

const DEFAULT_TYPE: &str = "external";
const DEFAULT_LEASE_MS: u64 = 30_000;
const LEASE_MS: std::ops::RangeInclusive<u64> = 5_000..=300_000;
/// How far back a test may have begun: 7 days.
const MAX_PAST_MS: i64 = 7 * 24 * 3600 * 1000;
/// The longest name of an event or of a registration, in bytes: it stands in a message's id beside the job's.
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 256;
const MAX_URL: usize = 2048;
const MAX_MESSAGE: usize = 10_000;

/// A test that somebody outside runs. Fields that do not stand here are refused.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Register {
    /// The same `id` again, by the same user, is answered as the first time.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,64}$")]
    id: Option<String>,
    /// The name of the test, to choose it; one is made up otherwise. One that has ended begins anew.
    test_id: Option<TestId>,
    /// What kind of test it is; `external` unless told.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$", example = "external")]
    test_type: Option<String>,
    /// What its runs have in common: they share durations and outcomes.
    #[schema(min_length = 1, max_length = 256, example = "nightly regression")]
    name: Option<String>,
    /// The longest time between two reports, in ms; 30,000 unless told.
    #[schema(minimum = 5000, maximum = 300000)]
    lease_ms: Option<u64>,
    /// When it began, in ms since the Unix epoch; now unless told.
    #[schema(minimum = 0)]
    started_at: Option<i64>,
    /// How many test cases there will be.
    total: Option<u64>,
    /// Where more can be seen; http or https.
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// The team that it belongs to.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$")]
    team_id: Option<String>,
    /// Goes on with an attempt whose lease may have run out meanwhile. Its `testId` stands beside it.
    resume: Option<Resume>,
}

/// An attempt that was registered before.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Resume {
    /// Its job.
    job_id: JobId,
    /// The attempt.
    #[schema(minimum = 1)]
    attempt: u32,
    /// Its lease.
    lease: String,
}

/// What a registered test does.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Reports {
    /// The attempt that speaks.
    #[schema(minimum = 1)]
    pub(super) attempt: u32,
    /// Its lease.
    pub(super) lease: String,
    /// What happened, in order. None is a sign of life.
    #[schema(max_items = 1000)]
    pub(super) events: Vec<Happening>,
}

/// One thing that happened.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Happening {
    /// Names it within the job: what was told under this name before is not told again.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,64}$")]
    id: Option<String>,
    /// `progress`, `log` or `custom:…`
    #[schema(example = "progress")]
    event: String,
    /// As in `test:progress`, in `test:log`, or anything.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

/// How a test ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Verdict {
    /// Everything passed.
    Passed,
    /// Something failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// The end of a registered test.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct End {
    /// The attempt that ends.
    #[schema(minimum = 1)]
    pub(super) attempt: u32,
    /// Its lease.
    pub(super) lease: String,
    /// How.
    outcome: Verdict,
    /// What was found.
    results: Option<Map<String, Value>>,
    /// Why it failed, or was cancelled; `tests_failed` unless told.
    error: Option<TestError>,
    /// The test cases that failed.
    failures: Option<Vec<Failure>>,
    /// How long it took; the time since it began unless told.
    duration_ms: Option<u64>,
    /// What happened last.
    #[schema(max_items = 1000)]
    #[serde(default)]
    events: Vec<Happening>,
}

impl Register {
    /// What the queue is asked for; how many test cases there will be; the attempt to go on with.
    pub(super) fn read(
        self,
        caller: &Caller,
        now: i64,
    ) -> Result<(NewHold, Option<u64>, Option<Resume>), String> {
        let test_type = self.test_type.unwrap_or_else(|| DEFAULT_TYPE.to_owned());
        check("test type", &test_type, MAX_ID_LEN).map_err(|e| format!("testType: {e}"))?;
        if let Some(team) = &self.team_id {
            check("team id", team, MAX_ID_LEN).map_err(|e| format!("teamId: {e}"))?;
        }
        if self.name.as_ref().is_some_and(|name| !(1..=MAX_TEXT).contains(&name.chars().count())) {
            return Err(format!("name has 1 to {MAX_TEXT} characters"));
        }
        let lease_ms = self.lease_ms.unwrap_or(DEFAULT_LEASE_MS);
        if !LEASE_MS.contains(&lease_ms) {
            return Err(format!(
                "leaseMs is from {} to {}, not {lease_ms}",
                LEASE_MS.start(),
                LEASE_MS.end()
            ));
        }
        if let Some(at) = self.started_at
            && !(now - MAX_PAST_MS..=now + 60_000).contains(&at)
        {
            return Err(format!(
                "startedAt is in ms since the Unix epoch and within the last 7 days, not {at}"
            ));
        }
        if self.resume.is_some() && self.test_id.is_none() {
            return Err("resume needs the testId beside it".to_owned());
        }
        let mut config = Map::new();
        if let Some(url) = self.url {
            let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            if url.len() > MAX_URL || !matches!(scheme.as_deref(), Some("http" | "https")) {
                return Err(format!("url begins with http:// or https:// and has at most {MAX_URL} bytes"));
            }
            config.insert("url".to_owned(), url.into());
        }
        let dedupe_key = self.id.map(|id| key(&id, caller)).transpose()?;
        let job = NewJob {
            test_type,
            name: self.name,
            config,
            test_id: self.test_id,
            priority: Priority::default(),
            run_at: None,
            max_attempts: Some(1),
            timeout_ms: None,
            dedupe_key,
            team_id: self.team_id,
            user_id: caller.user().cloned(),
            traceparent: traced::current(),
        };
        let started_at = self.started_at.map(|at| at.min(now));
        let holder = holder(caller.user());
        let hold = NewHold { job, holder, lease: Duration::from_millis(lease_ms), started_at };
        Ok((hold, self.total, self.resume))
    }
}

/// The key against a second registration: another user's `id` is another one.
fn key(id: &str, caller: &Caller) -> Result<String, String> {
    check("id", id, MAX_NAME).map_err(|e| format!("id: {e}"))?;
    let user = caller.user().map_or("", |user| user.as_str());
    Ok(format!("external/{user}/{id}"))
}

impl Resume {
    /// The lease, if it is of the attempt that stands beside it.
    pub(super) fn lease(&self, test: Option<&TestId>) -> Option<Lease> {
        let lease = Pass::read(&self.lease, test?)?.lease;
        (lease.job_id == self.job_id && lease.attempt == self.attempt).then_some(lease)
    }
}

impl End {
    /// What is told last, the end, and why it was cancelled.
    pub(super) fn read(self, state: &HttpState) -> Result<(Vec<Report>, Ending, Option<String>), Problem> {
        if let Some(error) = &self.error {
            check("code", &error.code, MAX_NAME).map_err(|e| invalid(format!("error.code: {e}")))?;
            if error.code == WORKER_LOST {
                return Err(invalid(format!("error.code: {WORKER_LOST} is what the server says")));
            }
            if error.message.chars().count() > MAX_MESSAGE {
                return Err(invalid(format!("error.message has at most {MAX_MESSAGE} characters")));
            }
        }
        let last = reports(self.events, state)?;
        let mut results = self.results.unwrap_or_default();
        if let Some(failures) = &self.failures {
            results.insert("failures".to_owned(), json!(failures));
        }
        if let Some(ms) = self.duration_ms {
            results.insert("durationMs".to_owned(), ms.into());
        }
        checked("results", &json!(results).to_string(), state)?;
        check_shape(&results)?;
        let reason =
            self.error.as_ref().map(|error| error.message.clone()).filter(|reason| !reason.is_empty());
        let ending = match self.outcome {
            Verdict::Passed => Ending::Passed { results },
            Verdict::Cancelled => Ending::Cancelled,
            Verdict::Failed => {
                let n = self.failures.map_or(0, |failures| failures.len());
                let message = if n == 0 { "the test failed".to_owned() } else { format!("{n} failed") };
                let plain = TestError { code: TESTS_FAILED.to_owned(), message };
                Ending::Failed { error: self.error.unwrap_or(plain), results }
            }
        };
        Ok((last, ending, reason))
    }
}

/// What stands in the results and is shown by itself has to be what it is called.
fn check_shape(results: &Map<String, Value>) -> Result<(), Problem> {
    let shown: Map<String, Value> = ["counts", "failures"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), results.get(key)?.clone())))
        .collect();
    let shown = to_raw_value(&shown).map_err(|e| invalid(e.to_string()))?;
    TestData::parse(TestEvent::Completed, &shown).map_err(|e| invalid(format!("results: {e}")))?;
    Ok(())
}

/// Progress of a test that has just begun, and will have `total` cases.
pub(super) fn nothing_of(total: u64) -> Report {
    let data = to_raw_value(&json!({ "progress": 0, "completed": 0, "total": total, "metrics": {} }));
    Report::Progress { percent: 0.0, data: data.unwrap_or_default() }
}

/// Reads what is told, or says which event is wrong, and why.
pub(super) fn reports(events: Vec<Happening>, state: &HttpState) -> Result<Vec<Report>, Problem> {
    let most = state.limits.publish_batch;
    if events.len() > most {
        return Err(invalid(format!("events: at most {most} at once, not {}", events.len())));
    }
    let read = |(n, event)| report(event, state).map_err(|problem| problem.at(&format!("events[{n}]")));
    events.into_iter().enumerate().map(read).collect()
}

fn report(event: Happening, state: &HttpState) -> Result<Report, Problem> {
    let Happening { id, event, data } = event;
    checked("data", data.get(), state)?;
    readable::check(&data).map_err(|e| invalid(format!("data: {e}")))?;
    let told = match event.as_str() {
        "progress" => {
            let parsed = TestData::parse(TestEvent::Progress, &data).map_err(|e| invalid(e.to_string()))?;
            let percent = parsed.progress.ok_or_else(|| invalid("data: progress is missing".to_owned()))?;
            Report::Progress { percent, data: without_subject(&data)? }
        }
        "log" => {
            let Log { first_line, lines } =
                serde_json::from_str(data.get()).map_err(|e| invalid(format!("data: {e}")))?;
            Report::Log { first_line, lines }
        }
        custom if custom.starts_with("custom:") => {
            let event = EventName::parse(custom).map_err(|e| invalid(e.to_string()))?;
            Report::Custom { event, data: without_subject(&data)? }
        }
        other => {
            let detail = format!("event is `progress`, `log` or `custom:…`, not {:?}", shortened(other));
            return Err(Problem::bad_request("unknown_event", detail));
        }
    };
    let Some(name) = id else { return Ok(told) };
    check("id", &name, MAX_NAME).map_err(|e| invalid(format!("id: {e}")))?;
    Ok(Report::Named { name, report: Box::new(told) })
}

/// Lines of output.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    first_line: u64,
    lines: Vec<String>,
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

fn checked(what: &str, json: &str, state: &HttpState) -> Result<(), Problem> {
    let (bytes, most) = (json.len(), state.limits.message_bytes);
    if bytes > most {
        let detail =
            format!("{what} has {bytes} bytes, more than the {most} that are allowed (limits.message_bytes)");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    Ok(())
}

/// Which test and attempt it is, the lease says.
fn without_subject(data: &RawValue) -> Result<Box<RawValue>, Problem> {
    let mut fields: Map<String, Value> =
        serde_json::from_str(data.get()).map_err(|_| invalid("data is a JSON object".to_owned()))?;
    fields.remove("testId");
    fields.remove("attempt");
    to_raw_value(&fields).map_err(|e| invalid(e.to_string()))
}
