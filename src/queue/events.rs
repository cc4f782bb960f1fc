//! Which messages tell of a job's changes, and in which channels.
//!
//! Ids are derived from the job, the attempt and a number that rises with every change of the job, so that a
//! repeated write is recognised as the same message.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::broker::AppendGroup;
use crate::broker::append::{Append, Draft, Fold};
use crate::config::channels::Rules;
use crate::model::event::{
    JobEvent, QUEUE_PAUSED, QUEUE_RESUMED, QUEUE_UPDATES, TestEvent, job_status_channel, stress_test_channel,
    test_progress_channel,
};
use crate::model::test::{TestData, TestError};
use crate::model::trace::TRACEPARENT;
use crate::model::{EventName, Job, MessageId, Pause, Priority, TestState, UserId};
use crate::traces::{self, Kind, Span};

/// The test type whose progress has a channel of its own.
const STRESS: &str = "stress";

/// Writes the messages of one change of one job.
#[derive(Debug)]
pub struct Teller<'a> {
    /// Which channels there are.
    pub rules: &'a Rules,
    /// The job, as it is after the change.
    pub job: &'a Job,
    /// The number of the change.
    pub event_seq: i64,
    /// When it happens.
    pub now_ms: i64,
    /// What its reporter calls the change, where it has a name.
    pub named: Option<&'a str>,
}

/// What the data of a `queue:job:*` message says.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobData<'a> {
    /// Which job.
    job_id: &'a str,
    /// The test that it runs.
    test_id: &'a str,
    /// `stress`, `command`, …
    test_type: &'a str,
    /// Where the job is in its life.
    #[schema(value_type = TestState)]
    state: &'static str,
    /// The newest attempt, from 1; 0 before the first.
    attempt: u32,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    /// Why the newest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a TestError>,
    /// Its new priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    /// When it may start, in ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<i64>,
    /// How many jobs wait now.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_depth: Option<u64>,
}

impl Teller<'_> {
    /// A job event for the job's own channel and for `queue-updates`.
    #[must_use]
    pub fn job(
        &self,
        event: JobEvent,
        progress: Option<f64>,
        queue_depth: Option<u64>,
    ) -> Option<AppendGroup> {
        let job = self.job;
        let data = JobData {
            job_id: job.job_id.as_str(),
            test_id: job.test_id.as_str(),
            test_type: &job.test_type,
            state: job.state.name(),
            attempt: job.attempt,
            progress,
            error: job.error.as_ref(),
            priority: Some(job.priority).filter(|_| event == JobEvent::Updated),
            run_at: job.run_at.filter(|_| !job.state.is_terminal()),
            queue_depth,
        };
        let data = to_raw_value(&data).ok()?;
        let own = self.append(&job_status_channel(&job.job_id), event.into(), &data, None);
        let all = self.append(QUEUE_UPDATES, event.into(), &data, None);
        group(own.into_iter().chain(all))
    }

    /// A test event for the test's own channel and for those that tell of all tests. `data` lacks `testId`
    /// and `attempt`, which every test event has.
    #[must_use]
    pub fn test(&self, event: TestEvent, data: &RawValue) -> Option<AppendGroup> {
        let job = self.job;
        let data = self.with_subject(data)?;
        let parsed = TestData::parse(event, &data).ok()?;
        let will_retry = parsed.will_retry == Some(true);
        let fold =
            Fold { test_id: job.test_id.clone(), job_id: Some(job.job_id.clone()), event, data: parsed };
        let own = self.append(&test_progress_channel(&job.test_id), event.into(), &data, Some(fold));
        let mirrors = event.mirrors(will_retry).iter();
        let mirrors = mirrors.filter_map(|channel| self.append(channel, event.into(), &data, None));
        let stress = (event == TestEvent::Progress && job.test_type == STRESS)
            .then(|| self.append(&stress_test_channel(&job.test_id), event.into(), &data, None))
            .flatten();
        group(own.into_iter().chain(mirrors).chain(stress))
    }

    /// `test:started` of the newest attempt.
    #[must_use]
    pub fn test_started(&self) -> Option<AppendGroup> {
        let job = self.job;
        let mut data = Map::new();
        data.insert("jobId".to_owned(), job.job_id.as_str().into());
        data.insert("testType".to_owned(), job.test_type.as_str().into());
        if let Some(worker) = &job.worker_id {
            data.insert("workerId".to_owned(), worker.as_str().into());
        }
        data.insert("startedAt".to_owned(), job.started_at.unwrap_or(self.now_ms).into());
        if let Some(url) = job.config.get("url").filter(|url| url.is_string()) {
            data.insert("url".to_owned(), url.clone());
        }
        self.test(TestEvent::Started, &to_raw_value(&data).ok()?)
    }

    /// `test:completed` or `test:failed` of the newest attempt.
    #[must_use]
    pub fn test_ended(
        &self,
        error: Option<&TestError>,
        results: &Map<String, Value>,
        will_retry: bool,
    ) -> Option<AppendGroup> {
        let mut data = Map::new();
        let event = match error {
            None => {
                data.insert("status".to_owned(), "passed".into());
                data.insert("completedAt".to_owned(), self.now_ms.into());
                TestEvent::Completed
            }
            Some(error) => {
                data.insert("error".to_owned(), serde_json::to_value(error).ok()?);
                data.insert("willRetry".to_owned(), will_retry.into());
                TestEvent::Failed
            }
        };
        if error.is_none() || !results.is_empty() {
            data.insert("results".to_owned(), Value::Object(results.clone()));
        }
        // The snapshot shows these without a look into the runner's own results.
        for key in ["counts", "failures", "history"] {
            if let Some(value) = results.get(key) {
                data.insert(key.to_owned(), value.clone());
            }
        }
        let measured = results.get("durationMs").and_then(Value::as_u64);
        // Who ran it outside may tell late.
        let measured = measured.filter(|_| self.job.lease_ms.is_some());
        let duration = measured.map_or_else(|| self.duration_ms().into(), Value::from);
        data.insert("durationMs".to_owned(), duration);
        self.test(event, &to_raw_value(&data).ok()?)
    }

    /// A message of the reporter's own, for the test's own channel.
    #[must_use]
    pub fn custom(&self, event: &EventName, data: &RawValue) -> Option<AppendGroup> {
        let data = self.with_subject(data)?;
        let own = self.append(&test_progress_channel(&self.job.test_id), event.clone(), &data, None);
        group(own.into_iter())
    }

    /// `test:cancelled` of the newest attempt, or of a job that never began one.
    #[must_use]
    pub fn test_cancelled(&self, reason: &str, by: Option<&str>) -> Option<AppendGroup> {
        let mut data = Map::new();
        data.insert("reason".to_owned(), reason.into());
        if let Some(by) = by {
            data.insert("cancelledBy".to_owned(), by.into());
        }
        data.insert("durationMs".to_owned(), self.duration_ms().into());
        self.test(TestEvent::Cancelled, &to_raw_value(&data).ok()?)
    }

    fn duration_ms(&self) -> i64 {
        self.job.started_at.map_or(0, |started| (self.now_ms - started).max(0))
    }

    /// Puts `testId` and `attempt` at the front of an object.
    fn with_subject(&self, data: &RawValue) -> Option<Box<RawValue>> {
        let rest = data.get().trim().strip_prefix('{')?;
        let comma = if rest.trim_start() == "}" { "" } else { "," };
        // Cancelled before its first attempt, a test is still one that has been attempted once for its readers.
        let attempt = self.job.attempt.max(1);
        let text = format!(r#"{{"testId":"{}","attempt":{attempt}{comma}{rest}"#, self.job.test_id);
        RawValue::from_string(text).ok()
    }

    /// The trace of the message. A test's own channel has a span of its own; mirrors are below that of the attempt.
    fn traced(&self, event: &EventName, channel: &str, is_own: bool) -> Vec<(String, Box<RawValue>)> {
        let Some(attempt) = self.job.trace() else { return Vec::new() };
        let context =
            if is_own { attempt.derived(&format!("{channel}/{}", self.event_seq)) } else { attempt };
        if is_own && traces::wanted() {
            let moment = traces::moment(self.now_ms);
            traces::record(Span {
                name: format!("publish {event}"),
                kind: Kind::Producer,
                context,
                parent: attempt.span_id,
                began: moment,
                ended: moment,
                failure: None,
                attributes: vec![("messaging.destination.name", channel.to_owned())],
            });
        }
        // Digits and dashes are JSON once they are quoted.
        let value = RawValue::from_string(format!("\"{context}\"")).ok();
        value.map(|value| (TRACEPARENT.to_owned(), value)).into_iter().collect()
    }

    fn append(&self, channel: &str, event: EventName, data: &RawValue, fold: Option<Fold>) -> Option<Append> {
        let job = self.job;
        let id = match self.named {
            // Of the job, not of the attempt: what was told before the lease ran out is not told again after it.
            Some(name) => format!("{}.e.{name}", job.job_id),
            None => format!("{}.{}.{}", job.job_id, job.attempt, self.event_seq),
        };
        let id = MessageId::parse(&id);
        let counted = id.is_ok() && self.named.is_none();
        // A job id of the full length leaves no room for the numbers.
        let id = id.unwrap_or_else(|_| MessageId::generate());
        let user_id = job.user_id.as_ref();
        let (fresh, priority, timestamp_ms) = (false, None, self.now_ms);
        let extra = self.traced(&event, channel, fold.is_some());
        let draft = Draft { id, fresh, event, priority, timestamp_ms, user_id, data, extra: &extra };
        let append = Append::own(self.rules, channel, draft, fold)?;
        Some(if counted { append.counted() } else { append })
    }
}

/// What the data of `queue:paused` and `queue:resumed` says.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseData<'a> {
    /// Only the jobs of this test type; all of the queue if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    test_type: Option<&'a str>,
    /// Only those that run this suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    suite: Option<&'a str>,
    /// Since when it was held back, in ms since the Unix epoch.
    since: i64,
    /// Who paused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    /// Why it was paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Who resumed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_by: Option<&'a str>,
}

/// What tells of a part of the queue that is paused, or is resumed by somebody; under an `id`, so that it may be repeated.
pub(super) fn pause_changed(
    rules: &Rules,
    pause: &Pause,
    resumed: Option<Option<&UserId>>,
    id: MessageId,
    now_ms: i64,
) -> Option<AppendGroup> {
    let data = PauseData {
        test_type: pause.test_type.as_deref(),
        suite: pause.suite.as_deref(),
        since: pause.since,
        by: pause.by.as_ref().map(UserId::as_str),
        reason: pause.reason.as_deref(),
        resumed_by: resumed.flatten().map(UserId::as_str),
    };
    let data = to_raw_value(&data).ok()?;
    let event = EventName::parse(if resumed.is_some() { QUEUE_RESUMED } else { QUEUE_PAUSED }).ok()?;
    let (fresh, priority, user_id) = (false, None, None);
    let draft = Draft { id, fresh, event, priority, timestamp_ms: now_ms, user_id, data: &data, extra: &[] };
    group(Append::own(rules, QUEUE_UPDATES, draft, None).into_iter())
}

fn group(mut appends: impl Iterator<Item = Append>) -> Option<AppendGroup> {
    let first = appends.next()?;
    Some(AppendGroup { first, mirrors: appends.collect() })
}
