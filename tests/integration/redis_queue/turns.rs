//! A test whose jobs follow each other, each told by whoever can: of every job all is told, before the next one begins.

use std::time::Duration;

use serde_json::Value;
use tidings::model::{Job, JobState, TestId};
use tidings::queue::{NewHold, NewJob, Queue, QueueError, QueueOptions};

use super::random::whose;
use super::{Channels, Node, job, options, passed, worker};
use crate::support::redis::{connect, shared_url};
use crate::support::{history, in_time, read, wait_until};

/// What the test's own channel tells, each event with the job that it is of.
async fn turns(channels: &Channels, test: &TestId) -> Vec<(String, String)> {
    let own = history(&*channels.broker, &format!("test-progress-{test}")).await;
    let turn = |message: &Value| {
        (message["event"].as_str().expect("an event").to_owned(), whose(message).to_owned())
    };
    own.iter().map(|message| turn(&read(message))).collect()
}

/// What is told of jobs that begin and pass.
fn passes(jobs: &[&Job]) -> Vec<(String, String)> {
    let told = |job: &&Job| {
        ["test:started", "test:completed"].map(|event| (event.to_owned(), job.job_id.to_string()))
    };
    jobs.iter().flat_map(told).collect()
}

fn again(test: &TestId) -> NewJob {
    NewJob { test_id: Some(test.clone()), ..job() }
}

/// A job of `test`, from its submission to its end.
async fn one_turn(node: &Node, test: &TestId) -> Job {
    let made = node.submit(again(test)).await;
    let lease = node.claim("w").await.expect("it is there at once").lease;
    node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    made
}

/// An attempt of `test` that somebody outside runs, from its beginning to its end.
async fn one_turn_outside(node: &Node, test: &TestId) -> Job {
    let lease = Duration::from_secs(30);
    let hold = NewHold { job: again(test), holder: worker("outside"), lease, started_at: None };
    let held = node.queue.hold(hold).await.expect("it is held");
    node.queue.finish(&held.claim.lease, Vec::new(), passed()).await.expect("an end");
    held.claim.job
}

/// Jobs of several nodes, two of which cannot tell of them, and how each is told by whoever can. `known` is whether the
/// test was told of before.
async fn follow_each_other(url: &str, channels: &Channels, test: &TestId, known: bool) {
    let silent = [Node::start(url, channels).await, Node::start(url, channels).await];
    let speaking = Node::start(url, channels).await;
    let mut made = Vec::new();
    if known {
        made.push(one_turn(&speaking, test).await);
    }
    // Nobody has told anything of these, neither of their beginnings nor of their ends.
    for node in &silent {
        node.lose_broker(true);
        made.push(one_turn(node, test).await);
        made.push(one_turn_outside(node, test).await);
    }
    let last = silent[0].submit(again(test)).await;
    // That one is told of by a node that did not submit it, and knows none of the others.
    let lease = speaking.claim("w").await.expect("it is there at once").lease;
    let mut over: Vec<_> = made.iter().collect();
    let mut expected = passes(&over);
    expected.push(("test:started".to_owned(), last.job_id.to_string()));
    assert_eq!(turns(channels, test).await, expected);
    for node in &silent {
        node.lose_broker(false);
        node.queue.sweep().await.expect("a sweep");
    }
    assert_eq!(turns(channels, test).await, expected, "nor is any of it told twice");
    speaking.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    over.push(&last);
    expected = passes(&over);
    // And once more the first of them, behind all others, which nobody tells of; then another one from outside.
    silent[0].lose_broker(true);
    silent[0].queue.retry(&over[0].job_id).await.expect("once more");
    let lease = silent[0].claim("w").await.expect("it is there at once").lease;
    silent[0].queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    let outside = one_turn_outside(&speaking, test).await;
    expected.extend(passes(&[over[0], &outside]));
    assert_eq!(turns(channels, test).await, expected);
    let snapshot = channels.broker_snapshot(&outside).await.expect("a test");
    assert_eq!((snapshot.job_id, snapshot.state), (Some(outside.job_id), JobState::Completed));
}

async fn all_untold(url: &str) -> i64 {
    let (redis, _tasks) = connect(url).await;
    redis.query(::redis::cmd("ZCARD").arg(redis.key("q", ":out"))).await.expect("a look")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_gets_another_job_before_its_end_was_told_is_told_of_both() {
    for known in [true, false] {
        let (url, test) = (shared_url(), TestId::parse("again").expect("an id"));
        follow_each_other(&url, &Channels::new(), &test, known).await;
        let url = shared_url();
        follow_each_other(&url, &Channels::in_redis(&url).await, &test, known).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_test_and_its_next_job_on_another_node_cross_and_both_are_told() {
    const ROUNDS: usize = 100;
    let url = shared_url();
    let channels = Channels::in_redis(&url).await;
    let nodes = [Node::start(&url, &channels).await, Node::start(&url, &channels).await];
    let test = TestId::parse("again").expect("an id");
    let mut jobs = vec![nodes[0].submit(again(&test)).await];
    for round in 0..ROUNDS {
        let (here, there) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        let lease = here.claim("w").await.expect("it is there at once").lease;
        let next = async {
            loop {
                match there.queue.submit(again(&test)).await {
                    // As long as the test has a job that has not ended.
                    Err(QueueError::TestActive { .. }) => {}
                    submitted => break submitted,
                }
            }
        };
        let crossing = async { tokio::try_join!(here.queue.finish(&lease, Vec::new(), passed()), next) };
        let (_, next) = in_time("both are answered", crossing).await.expect("an end, and a job");
        jobs.push(next.job);
    }
    let last = jobs.pop().expect("some");
    wait_until("all is told", async || all_untold(&url).await == 0).await;
    assert_eq!(turns(&channels, &test).await, passes(&jobs.iter().collect::<Vec<_>>()));
    let snapshot = channels.broker_snapshot(&last).await.expect("a test");
    assert_eq!((snapshot.job_id, snapshot.state), (Some(last.job_id), JobState::Queued));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_jobs_of_one_test_than_are_looked_at_at_once_are_told_one_after_the_other() {
    let (url, channels) = (shared_url(), Channels::new());
    let node = Node::start(&url, &channels).await;
    let test = TestId::parse("again").expect("an id");
    node.lose_broker(true);
    let mut jobs = Vec::new();
    for _ in 0..250 {
        jobs.push(one_turn(&node, &test).await);
    }
    node.lose_broker(false);
    wait_until("all is told", async || {
        node.queue.sweep().await.expect("a sweep");
        all_untold(&url).await == 0
    })
    .await;
    assert_eq!(turns(&channels, &test).await, passes(&jobs.iter().collect::<Vec<_>>()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_clock_was_ahead_keeps_no_later_one_from_its_test() {
    let url = shared_url();
    for channels in [Channels::new(), Channels::in_redis(&url).await] {
        let node = Node::start(&url, &channels).await;
        let test = TestId::parse(if channels.in_redis { "in-redis" } else { "beside" }).expect("an id");
        let first = one_turn(&node, &test).await;
        // As if its Redis had been another one, whose clock was an hour ahead: its test begins then.
        let (redis, _tasks) = connect(&url).await;
        let mut ahead = ::redis::cmd("HSET");
        ahead.arg(redis.key("q", &format!(":j:{}", first.job_id))).arg("queued");
        ahead.arg(tidings::model::now_ms() + 3_600_000);
        redis.query::<i64>(&ahead).await.expect("it is written");
        node.queue.retry(&first.job_id).await.expect("once more");
        let lease = node.claim("w").await.expect("it is there at once").lease;
        node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
        let next = one_turn(&node, &test).await;
        let snapshot = channels.broker_snapshot(&next).await.expect("a test");
        assert_eq!((snapshot.job_id, snapshot.state), (Some(next.job_id), JobState::Completed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_is_remembered_for_as_long_as_its_newest_job() {
    let (url, channels) = (shared_url(), Channels::new());
    let node = Node::start_with(&url, &channels, QueueOptions { max_jobs_kept: 1, ..options() }).await;
    let (redis, _tasks) = connect(&url).await;
    let remembered = async || -> Vec<(String, String)> {
        wait_until("all is told", async || all_untold(&url).await == 0).await;
        node.queue.retain().await.expect("a look at what is old");
        redis.query(::redis::cmd("HGETALL").arg(redis.key("q", ":active"))).await.expect("a look")
    };
    let (first, second) = (TestId::parse("first").expect("an id"), TestId::parse("second").expect("an id"));
    one_turn(&node, &first).await;
    let newest = one_turn(&node, &first).await;
    let of = |job: &Job| (job.test_id.to_string(), job.job_id.to_string());
    assert_eq!(remembered().await, [of(&newest)], "the older one took nothing along");
    let other = one_turn(&node, &second).await;
    assert_eq!(remembered().await, [of(&other)]);
}
