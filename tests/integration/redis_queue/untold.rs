//! A change and its messages are one, whoever dies between them.

use serde_json::json;
use tidings::model::JobState;
use tidings::queue::{NewJob, Queue, QueueError, Report};
use tokio::sync::Semaphore;

use super::{Channels, Node, job, passed, worker};
use crate::support::redis::{connect, shared_url};
use crate::support::{history, raw, wait_until};

fn progress(percent: f64) -> Report {
    Report::Progress { percent, data: raw(&json!({ "progress": percent })) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_left_untold_is_told_by_another_once_and_in_its_order() {
    let (url, channels) = (shared_url(), Channels::new());
    let dying = Node::start(&url, &channels).await;
    dying.lose_broker(true);
    let made = dying.submit(job()).await;
    let lease = dying.claim("w").await.expect("it is there at once").lease;
    dying.queue.report(&lease, vec![progress(10.0), progress(20.0)]).await.expect("the change stands");
    assert!(channels.told(&made).await.is_empty(), "nobody could tell of it");
    assert!(channels.broker_snapshot(&made).await.is_none());
    drop(dying);

    let nodes = [Node::start(&url, &channels).await, Node::start(&url, &channels).await];
    wait_until("the others tell of it", async || {
        for node in &nodes {
            node.queue.sweep().await.expect("a sweep");
        }
        channels.told(&made).await.len() >= 4
    })
    .await;
    let (added, started, progress) = ("queue:job:added", "queue:job:started", "queue:job:progress");
    assert_eq!(channels.told(&made).await, [added, started, progress, progress]);
    assert_eq!(channels.broker_snapshot(&made).await.expect("it has begun").progress, 20.0);
    // What was told is forgotten: nothing is left to be told again.
    let (redis, _tasks) = connect(&url).await;
    wait_until("it is forgotten", async || {
        let left: i64 = redis.query(::redis::cmd("ZCARD").arg(redis.key("q", ":out"))).await.expect("a look");
        left == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_a_job_next_tells_first_what_others_left_untold() {
    let (url, channels) = (shared_url(), Channels::new());
    let (first, second) = (Node::start(&url, &channels).await, Node::start(&url, &channels).await);
    first.lose_broker(true);
    let made = first.submit(job()).await;
    let lease = second.claim("w").await.expect("it is there at once").lease;
    assert_eq!(channels.told(&made).await, ["queue:job:added", "queue:job:started"]);
    first.queue.report(&lease, vec![progress(10.0)]).await.expect("the change stands");
    second.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    let told = channels.told(&made).await;
    assert_eq!(told[2..], ["queue:job:progress", "queue:job:completed"]);
    assert_eq!(channels.broker_snapshot(&made).await.expect("a test").state, JobState::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_tells_too_late_tells_nothing_twice() {
    let (url, channels) = (shared_url(), Channels::new());
    let slow = std::sync::Arc::new(Node::start(&url, &channels).await);
    // It may begin the test, and then stands still before its first message.
    slow.gate.pass.forget_permits(Semaphore::MAX_PERMITS);
    slow.gate.pass.add_permits(1);
    let submitting = tokio::spawn({
        let slow = slow.clone();
        async move { slow.submit(job()).await }
    });
    let quick = Node::start(&url, &channels).await;
    let mut claimed = None;
    wait_until("the job is there", async || {
        claimed = quick.claim("w").await;
        claimed.is_some()
    })
    .await;
    let claim = claimed.expect("a job");
    quick.queue.finish(&claim.lease, Vec::new(), passed()).await.expect("an end");
    let again = quick.queue.retry(&claim.job.job_id).await.expect("once more");
    let (told, all) = (channels.told(&again).await, channels.heard.all().len());
    assert_eq!(told.len(), 4);

    slow.gate.pass.add_permits(1000);
    submitting.await.expect("the submission is answered");
    assert_eq!(channels.told(&again).await, told);
    assert_eq!(channels.heard.all().len(), all, "nor anywhere else");
    let snapshot = channels.broker_snapshot(&again).await.expect("a test");
    assert_eq!((snapshot.state, snapshot.attempt), (JobState::Queued, 1), "nor does the test begin again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_told_does_not_grow_without_bound() {
    let (url, channels) = (shared_url(), Channels::new());
    let node = Node::start(&url, &channels).await;
    let made = node.submit(job()).await;
    let lease = node.claim("w").await.expect("a job").lease;
    node.lose_broker(true);
    let many = || (0..300).map(|_| progress(1.0)).collect::<Vec<_>>();
    let mut accepted = 0;
    let refused = loop {
        match node.queue.report(&lease, many()).await {
            Ok(_) => accepted += 300,
            Err(refused) => break refused,
        }
        assert!(accepted <= 1000);
    };
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("have not been told"), "{refused}");
    // The end is never refused for this, and nothing of what was accepted is lost.
    node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    node.lose_broker(false);
    wait_until("all of it is told", async || {
        node.queue.sweep().await.expect("a sweep");
        channels.told(&made).await.last().is_some_and(|event| event == "queue:job:completed")
    })
    .await;
    assert_eq!(channels.told(&made).await.len(), accepted + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_much_is_to_be_told_beginnings_are_told_all_the_same_in_their_order() {
    const JOBS: usize = 20;
    let (url, channels) = (shared_url(), Channels::new());
    let node = std::sync::Arc::new(Node::start(&url, &channels).await);
    node.gate.pass.forget_permits(Semaphore::MAX_PERMITS);
    let mut submitting = tokio::task::JoinSet::new();
    for _ in 0..JOBS {
        let node = node.clone();
        submitting.spawn(async move { node.submit(job()).await });
    }
    let (mut claims, types) = (Vec::new(), ["command".to_owned()]);
    wait_until("all of them wait to be told of, and run", async || {
        claims.extend(node.queue.claim(&worker("w"), &types, JOBS).await.expect("a look for jobs"));
        claims.len() == JOBS
    })
    .await;
    // One half ends before anything was told of it, the other half goes on.
    let (ended, running) = claims.split_at(JOBS / 2);
    let mut ending = tokio::task::JoinSet::new();
    for lease in ended.iter().map(|claim| claim.lease.clone()) {
        let node = node.clone();
        ending.spawn(async move { node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end") });
    }
    node.gate.pass.add_permits(1000);
    ending.join_all().await;
    submitting.join_all().await;
    for claim in ended {
        let told = channels.told(&claim.job).await;
        assert_eq!(told, ["queue:job:added", "queue:job:started", "queue:job:completed"]);
    }
    for claim in running {
        wait_until("its beginning is told", async || channels.told(&claim.job).await.len() == 2).await;
        assert_eq!(channels.told(&claim.job).await, ["queue:job:added", "queue:job:started"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_job_is_told_before_its_test_begins_anew_for_the_next_job() {
    let (url, channels) = (shared_url(), Channels::new());
    let node = std::sync::Arc::new(Node::start(&url, &channels).await);
    let made = node.submit(job()).await;
    let lease = node.claim("w").await.expect("it is there at once").lease;
    // Whoever tells of the test stands still, so that what comes now is told in one go.
    node.gate.pass.forget_permits(Semaphore::MAX_PERMITS);
    let on = node.clone();
    let reporting = tokio::spawn({
        let lease = lease.clone();
        async move { on.queue.report(&lease, vec![progress(10.0)]).await.expect("a report") }
    });
    let (redis, _tasks) = connect(&url).await;
    let untold = async || -> i64 {
        redis.query(::redis::cmd("ZCARD").arg(redis.key("q", ":out"))).await.expect("a look")
    };
    wait_until("it reports", async || untold().await == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let on = node.clone();
    let ending =
        tokio::spawn(async move { on.queue.finish(&lease, Vec::new(), passed()).await.expect("an end") });
    wait_until("the job has ended", async || untold().await == 2).await;
    let on = node.clone();
    let next = NewJob { test_id: Some(made.test_id.clone()), ..job() };
    let submitting = tokio::spawn(async move { on.submit(next).await });
    wait_until("the next one is there", async || untold().await == 3).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    node.gate.pass.add_permits(1000);
    reporting.await.expect("it is answered");
    ending.await.expect("it is answered");
    let next = submitting.await.expect("it is answered");
    let of_test = history(&*channels.broker, &format!("test-progress-{}", made.test_id)).await;
    let told: Vec<_> = of_test.iter().map(|message| message.event.to_string()).collect();
    assert_eq!(told, ["test:started", "test:progress", "test:completed"]);
    let snapshot = channels.broker_snapshot(&next).await.expect("a test");
    assert_eq!((snapshot.state, snapshot.job_id), (JobState::Queued, Some(next.job_id)));
}
