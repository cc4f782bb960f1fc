//! What every [`tidings::queue::Queue`] promises.

mod control;
mod fired;
mod hold;
mod lanes;
mod lease;
mod life;
mod list;
mod past;
pub(crate) mod random;
mod schedule;
mod submit;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidings::model::event::{job_status_channel, test_progress_channel};
use tidings::model::test::TestError;
use tidings::model::{Job, JobId, JobState, Priority, TestId, WorkerId};
use tidings::queue::{Claim, Ending, NewJob, Queue, Report};

use super::Node;
use crate::support::{channel, raw, wait_until};

/// A job that asks for nothing in particular.
pub(crate) fn job(test_type: &str) -> NewJob {
    NewJob {
        test_type: test_type.to_owned(),
        name: None,
        config: Map::new(),
        test_id: None,
        priority: Priority::Normal,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: None,
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

/// The same for a test whose name is chosen.
fn job_of(test: &str) -> NewJob {
    NewJob { test_id: Some(TestId::parse(test).expect("a test id")), ..job("command") }
}

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).expect("a worker id")
}

fn types() -> [String; 1] {
    ["command".to_owned()]
}

pub(crate) async fn submit(node: &Node, job: NewJob) -> Job {
    node.queue.submit(job).await.expect("a job is accepted").job
}

/// Claims the next job of the usual type, which has to be there.
pub(crate) async fn claim(node: &Node, by: &str) -> Claim {
    let mut claims = node.queue.claim(&worker(by), &types(), 1).await.expect("a claim");
    assert_eq!(claims.len(), 1, "there is a job to claim");
    told_of(node, claims.remove(0)).await
}

/// Sweeps until a job can be claimed.
async fn claim_when_due(node: &Node, by: &str) -> Claim {
    let mut claims = Vec::new();
    wait_until("a job is due", async || {
        sweep(&*node.queue).await;
        claims = node.queue.claim(&worker(by), &types(), 1).await.expect("a claim");
        !claims.is_empty()
    })
    .await;
    told_of(node, claims.remove(0)).await
}

/// The claim, once its messages were appended: those of a report come after them.
async fn told_of(node: &Node, claim: Claim) -> Claim {
    node.queue.report(&claim.lease, Vec::new()).await.expect("a sign of life");
    claim
}

async fn sweep(queue: &dyn Queue) {
    while queue.sweep().await.expect("a sweep").more {}
}

pub(crate) async fn get(node: &Node, job: &JobId) -> Job {
    node.queue.get(job).await.expect("a look").expect("the job is there")
}

/// Lets leases run out that nobody renews, until `job` does not run any more.
async fn lose_worker(node: &Node, job: &JobId) {
    wait_until("the lease ends", async || {
        sweep(&*node.queue).await;
        get(node, job).await.state != JobState::Running
    })
    .await;
}

fn passed() -> Ending {
    Ending::Passed { results: Map::new() }
}

pub(crate) fn failed(code: &str) -> Ending {
    let error = TestError { code: code.to_owned(), message: "for a reason".to_owned() };
    Ending::Failed { error, results: Map::new() }
}

pub(crate) fn progress(percent: f64) -> Report {
    Report::Progress { percent, data: raw(&json!({ "progress": percent, "metrics": {} })) }
}

pub(crate) fn log(line: &str) -> Report {
    Report::Log { first_line: 1, lines: vec![line.to_owned()] }
}

/// The channels that tell of `job`, beside those of all tests.
fn channels_of(job: &Job) -> [String; 5] {
    [
        test_progress_channel(&job.test_id),
        job_status_channel(&job.job_id),
        "queue-updates".to_owned(),
        "test-updates".to_owned(),
        "test-history-updates".to_owned(),
    ]
}

/// Everything that can be seen of `job`, so that before and after can be compared.
async fn view(node: &Arc<Node>, job: &JobId) -> Value {
    let job = get(node, job).await;
    let mut tops = Vec::new();
    for name in channels_of(&job) {
        tops.push(node.broker.top(&channel(&name)).await.expect("a top").position.to_string());
    }
    let snapshot = node.broker.snapshot(&job.test_id).await.expect("a look");
    let counts = node.queue.counts().await.expect("counts");
    json!({ "job": job, "tops": tops, "snapshot": snapshot, "counts": counts, "heard": node.heard.all().len() })
}
