//! Stories: which messages a stored change becomes, whoever tells it and however often.
//!
//! Nothing here depends on when or where it is told: the ids are those of the change.

use serde_json::value::RawValue;

use super::row::News;
use crate::broker::AppendGroup;

use crate::config::channels::Rules;
use crate::model::event::{JobEvent, TestEvent};
use crate::model::{Epoch, EventName, Job, Priority, Snapshot};
use crate::queue::events::Teller;

/// What begins the names of events that are none of ours.
const CUSTOM: &str = "custom:";

/// What one change asks of the broker: at first the beginning of the test, then the groups in their order.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) begun: Option<Snapshot>,
    pub(super) groups: Vec<AppendGroup>,
}

pub(super) fn story(rules: &Rules, news: &News) -> Story {
    let (kind, named) = match news.kind.split_once('#') {
        Some((kind, name)) => (kind, Some(name)),
        None => (news.kind.as_str(), None),
    };
    let teller = Teller { rules, job: &news.job, event_seq: news.seq, now_ms: news.now_ms, named };
    let job = |event| teller.job(event, None, None);
    let (begun, groups) = match kind {
        "added" => (begun(news), vec![teller.job(JobEvent::Added, None, news.depth())]),
        "due" => (begun(news), Vec::new()),
        "started" => {
            let depth = news.extra.parse().ok();
            (None, vec![teller.test_started(), teller.job(JobEvent::Started, None, depth)])
        }
        "progress" => {
            let own = raw(&news.payload).and_then(|data| teller.test(TestEvent::Progress, &data));
            (None, vec![own, teller.job(JobEvent::Progress, news.extra.parse().ok(), None)])
        }
        "log" => (None, vec![raw(&news.payload).and_then(|data| teller.test(TestEvent::Log, &data))]),
        "retrying" => {
            let own = teller.test_ended(news.job.error.as_ref(), &news.object(), true);
            (None, vec![own, job(JobEvent::Retrying)])
        }
        "completed" => (None, vec![teller.test_ended(None, &news.object(), false), job(JobEvent::Completed)]),
        "failed" => {
            let own = teller.test_ended(news.job.error.as_ref(), &news.object(), false);
            (None, vec![own, job(JobEvent::Failed)])
        }
        "cancelled" => {
            let by = Some(news.extra.as_str()).filter(|by| !by.is_empty());
            (None, vec![teller.test_cancelled(&news.payload, by), job(JobEvent::Cancelled)])
        }
        "updated" => {
            // As it was right after the change: it may have changed again.
            let priority = news.payload.parse().ok().and_then(|n| Priority::from_number(n).ok());
            let then = Job { priority: priority.unwrap_or(news.job.priority), ..news.job.clone() };
            let teller = Teller { job: &then, ..teller };
            (None, vec![teller.job(JobEvent::Updated, None, None)])
        }
        event if event.starts_with(CUSTOM) => {
            let told = EventName::parse(event).ok().zip(raw(&news.payload));
            (None, vec![told.and_then(|(event, data)| teller.custom(&event, &data))])
        }
        unknown => {
            tracing::error!(job = %news.job.job_id, kind = unknown, "a change of a job cannot be told: a newer tidings wrote it");
            (None, Vec::new())
        }
    };
    Story { begun, groups: groups.into_iter().flatten().collect() }
}

/// The state of the test when its job has just been added, or has become due.
fn begun(news: &News) -> Option<Snapshot> {
    let job = &news.job;
    // The broker puts it in its place.
    let mut snapshot = Snapshot::new(job.test_id.clone(), &job.test_type, job.state, Epoch::new(""));
    snapshot.job_id = Some(job.job_id.clone());
    snapshot.attempt = job.attempt;
    snapshot.queued_at = Some(news.payload.parse().unwrap_or(news.now_ms));
    Some(snapshot)
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}
