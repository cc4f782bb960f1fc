//! Several nodes are one queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::model::{JobState, now_ms};
use tidings::queue::{NewJob, Queue, QueueError, QueueOptions};

use super::{Channels, Node, job, options, worker};
use crate::support::redis::{connect, shared_url};
use crate::support::{in_time, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_wakes_who_waits_on_another_node() {
    let (url, channels) = (shared_url(), Channels::new());
    let (one, other) = (Node::start(&url, &channels).await, Node::start(&url, &channels).await);
    for round in 0..20 {
        let waiting = other.queue.wait_for_jobs();
        let made = one.submit(job()).await;
        in_time("it is woken", waiting).await;
        let mut claimed = None;
        wait_until("the job is there", async || {
            claimed = other.claim("w").await;
            claimed.is_some()
        })
        .await;
        assert_eq!(claimed.expect("a job").job.job_id, made.job_id, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_time_wakes_who_sweeps_on_another_node() {
    let (url, channels) = (shared_url(), Channels::new());
    let (one, other) = (Node::start(&url, &channels).await, Node::start(&url, &channels).await);
    let due = now_ms() + 3_600_000;
    one.submit(NewJob { run_at: Some(due), ..job() }).await;
    in_time("it is woken", other.queue.wait_for_due()).await;
    assert_eq!(other.queue.sweep().await.expect("a sweep").next_due, Some(due));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_to_cancel_is_heard_on_another_node_even_if_its_publication_is_not() {
    let (url, channels) = (shared_url(), Channels::new());
    let (one, other) = (Node::start(&url, &channels).await, Node::start(&url, &channels).await);
    other.queue.join(&worker("w"), &["command".to_owned()]).await.expect("a worker joins");
    for published in [true, false] {
        let made = one.submit(job()).await;
        other.claim("w").await.expect("a job");
        let mut heard = other.queue.cancellations();
        let began = Instant::now();
        if published {
            one.queue.cancel(&made.job_id, None, None).await.expect("a wish");
        } else {
            // As if the publication had come while nobody listened.
            let (redis, _tasks) = connect(&url).await;
            let mut note = ::redis::cmd("ZADD");
            note.arg(redis.key("q", ":cancels")).arg(1).arg(made.job_id.as_str());
            redis.query::<i64>(&note).await.expect("it is noted");
        }
        wait_until("it is heard", async || heard.recv().await.is_ok_and(|job| job == made.job_id)).await;
        println!("heard after {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_workers_of_all_nodes_handle_is_known_until_they_are_gone() {
    let (url, channels) = (shared_url(), Channels::new());
    let (one, other) = (Node::start(&url, &channels).await, Node::start(&url, &channels).await);
    other.queue.join(&worker("w"), &["odd".to_owned()]).await.expect("a worker joins");
    let odd = one.submit(NewJob { test_type: "odd".to_owned(), ..job() }).await;
    assert_eq!(odd.waiting, None);
    let plain = one.submit(job()).await;
    assert!(plain.waiting.expect("a reason").contains("handled are: odd"));
    // Nobody heard of it for too long.
    let (redis, _tasks) = connect(&url).await;
    let mut forget = ::redis::cmd("ZADD");
    forget.arg(redis.key("q", ":seen")).arg(1).arg("w");
    drop(other);
    redis.query::<i64>(&forget).await.expect("time passes");
    one.queue.sweep().await.expect("a sweep");
    let found = one.queue.get(&odd.job_id).await.expect("a look").expect("it is there");
    assert!(found.waiting.expect("a reason").contains("no worker is running"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_and_one_test_are_accepted_once_by_all_nodes() {
    let (url, channels) = (shared_url(), Channels::new());
    let nodes = [Arc::new(Node::start(&url, &channels).await), Arc::new(Node::start(&url, &channels).await)];
    let submitters = (0..40).map(|n| {
        let node = nodes[n % 2].clone();
        let wanted = NewJob { dedupe_key: Some("k".to_owned()), ..job() };
        tokio::spawn(async move { node.queue.submit(wanted).await.expect("accepted or found") })
    });
    let mut jobs = HashSet::new();
    for submitter in submitters.collect::<Vec<_>>() {
        jobs.insert(submitter.await.expect("a submitter ends").job.job_id);
    }
    assert_eq!(jobs.len(), 1);
    let test = Some("t".parse().expect("a test id"));
    nodes[0].submit(NewJob { test_id: test.clone(), ..job() }).await;
    let refused = nodes[1].queue.submit(NewJob { test_id: test, ..job() }).await;
    assert!(matches!(refused, Err(QueueError::TestActive { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_due_jobs_are_promoted_in_bounded_steps() {
    let (url, channels) = (shared_url(), Channels::new());
    let node = Node::start(&url, &channels).await;
    let due = now_ms() + 1500;
    // Together, so that all of them come before they are due.
    let submissions = (0..250).map(|_| node.submit(NewJob { run_at: Some(due), ..job() }));
    let scheduled = futures_util::future::join_all(submissions).await;
    assert!(scheduled.iter().all(|job| job.state == JobState::Scheduled), "they came too late");
    wait_until("they are due", async || now_ms() > due).await;
    let mut steps = Vec::new();
    loop {
        let swept = node.queue.sweep().await.expect("a sweep");
        steps.push(swept.promoted);
        if !swept.more {
            break;
        }
    }
    assert_eq!(steps, [100, 100, 50]);
    let page = channels.broker.tests(Some(JobState::Queued), None, 1000).await.expect("a page");
    assert_eq!(page.tests.len(), 250, "their tests wait for a worker now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_paused_past_its_lease_is_refused() {
    let (url, channels) = (shared_url(), Channels::new());
    let short = QueueOptions { lease: Duration::from_millis(30), ..options() };
    let (paused, other) = (
        Node::start_with(&url, &channels, short.clone()).await,
        Node::start_with(&url, &channels, short).await,
    );
    let made = paused.submit(job()).await;
    let old = paused.claim("w").await.expect("a job").lease;
    let mut new = None;
    wait_until("another has it", async || {
        other.queue.sweep().await.expect("a sweep");
        new = other.claim("v").await;
        new.is_some()
    })
    .await;
    let new = new.expect("a job").lease;
    assert!(new.fence > old.fence && new.attempt == 2);
    let refused = paused.queue.report(&old, Vec::new()).await.expect_err("a late report");
    assert!(matches!(refused, QueueError::LeaseLost { attempt: 1, .. }), "{refused}");
    let told = channels.told(&made).await;
    assert_eq!(told, ["queue:job:added", "queue:job:started", "queue:job:retrying", "queue:job:started"]);
}
