//! Lists, counts and what is kept of ended jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings::model::{JobId, JobState, now_ms};
use tidings::queue::{Ending, NewJob, QueueOptions};

use super::{claim, failed, job, passed, submit};
use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{rules, wait_until};

for_each_backend!(a cluster too:
    a_list_visits_each_job_once_while_new_ones_arrive,
    counts_are_those_of_the_list,
    the_oldest_of_too_many_ended_jobs_are_removed,
    ended_jobs_are_removed_when_they_are_too_old,
    retention_goes_on_while_some_are_too_old_and_others_too_many,
);

/// Elsewhere tests go with the keys of their channels.
mod with_their_tests {
    use super::ended_tests_are_removed_when_they_are_too_old;
    crate::conformance::for_each_backend!(embedded only: ended_tests_are_removed_when_they_are_too_old);
}

async fn ids(node: &Node, state: Option<JobState>, size: usize) -> Vec<JobId> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = node.queue.list(state, cursor, size).await.expect("a page");
        assert!(page.jobs.len() <= size);
        ids.extend(page.jobs.into_iter().map(|job| job.job_id));
        cursor = page.next;
        if cursor.is_none() {
            return ids;
        }
    }
}

async fn a_list_visits_each_job_once_while_new_ones_arrive(backend: &dyn Backend) {
    let node = backend.start().await;
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.insert(0, submit(&node, job("command")).await.job_id);
    }
    for size in [1, 3, 20] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        let there = expected.clone();
        loop {
            let page = node.queue.list(None, cursor, size).await.expect("a page");
            seen.extend(page.jobs.into_iter().map(|job| job.job_id));
            expected.insert(0, submit(&node, job("command")).await.job_id);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, there, "pages of {size}");
    }
    assert_eq!(ids(&node, None, 7).await, expected);
}

async fn counts_are_those_of_the_list(backend: &dyn Backend) {
    let node = backend.start().await;
    for ending in [passed(), failed("tests_failed"), failed("timeout"), Ending::Cancelled, passed()] {
        submit(&node, job("command")).await;
        let lease = claim(&node, "w").await.lease;
        node.queue.finish(&lease, Vec::new(), ending).await.expect("an end");
    }
    submit(&node, job("command")).await;
    claim(&node, "w").await;
    submit(&node, job("command")).await;
    submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    let mut listed = BTreeMap::new();
    for state in JobState::ALL {
        listed.insert(state.name(), ids(&node, Some(state), 1).await.len() as u64);
    }
    let counts = node.queue.counts().await.expect("counts");
    assert_eq!(counts, listed);
    assert_eq!((counts["completed"], counts.values().sum::<u64>()), (2, 8));
    drop(node);
    assert_eq!(backend.start().await.queue.counts().await.expect("counts"), counts);
}

async fn retain(node: &Node) -> usize {
    let mut calls = 1;
    while node.queue.retain().await.expect("retention") {
        calls += 1;
        assert!(calls < 50, "there is always more to remove");
    }
    calls
}

async fn the_oldest_of_too_many_ended_jobs_are_removed(backend: &dyn Backend) {
    let node = backend.open(rules(), QueueOptions { max_jobs_kept: 3, ..options() }).await;
    let mut ended = Vec::new();
    let keyed = NewJob { dedupe_key: Some("k".to_owned()), ..job("command") };
    for n in 0..6 {
        let wanted = if n == 0 { keyed.clone() } else { job("command") };
        submit(&node, wanted).await;
        let claimed = claim(&node, "w").await;
        node.queue.finish(&claimed.lease, Vec::new(), passed()).await.expect("an end");
        ended.insert(0, claimed.job.job_id);
    }
    let waits = submit(&node, job("command")).await;
    retain(&node).await;
    ended.truncate(3);
    assert_eq!(ids(&node, Some(JobState::Completed), 10).await, ended);
    assert!(node.queue.get(&waits.job_id).await.expect("a look").is_some());
    assert!(!node.queue.submit(keyed).await.expect("accepted").existing, "the key went with its job");
}

async fn ended_jobs_are_removed_when_they_are_too_old(backend: &dyn Backend) {
    let options = QueueOptions { retention: Duration::ZERO, ..options() };
    let node = backend.open(rules(), options).await;
    let running = submit(&node, job("command")).await;
    claim(&node, "w").await;
    for _ in 0..1_100 {
        let made = submit(&node, job("command")).await;
        node.queue.cancel(&made.job_id, None, None).await.expect("it waits");
    }
    let now = now_ms();
    wait_until("the clock has moved on", async || now_ms() > now).await;
    assert!(retain(&node).await > 1, "a bounded number per call");
    let left = ids(&node, None, 10).await;
    assert_eq!(left, std::slice::from_ref(&running.job_id));
    assert_eq!(node.queue.counts().await.expect("counts").values().sum::<u64>(), 1);
}

async fn retention_goes_on_while_some_are_too_old_and_others_too_many(backend: &dyn Backend) {
    let retention = Duration::from_millis(900);
    let node = backend.open(rules(), QueueOptions { retention, max_jobs_kept: 0, ..options() }).await;
    for n in 0..700 {
        if n == 300 {
            let old_from = now_ms() + 901;
            wait_until("the first ones are too old", async || now_ms() > old_from).await;
        }
        let made = submit(&node, job("command")).await;
        node.queue.cancel(&made.job_id, None, None).await.expect("it waits");
    }
    retain(&node).await;
    assert!(ids(&node, None, 1000).await.is_empty(), "it said that it was done");
}

async fn ended_tests_are_removed_when_they_are_too_old(backend: &dyn Backend) {
    let options = QueueOptions { retention: Duration::ZERO, ..options() };
    let node = backend.open(rules(), options).await;
    let running = submit(&node, job("command")).await;
    claim(&node, "w").await;
    for _ in 0..10 {
        let made = submit(&node, job("command")).await;
        node.queue.cancel(&made.job_id, None, None).await.expect("it waits");
    }
    let now = now_ms();
    wait_until("the clock has moved on", async || now_ms() > now).await;
    retain(&node).await;
    let tests = node.broker.tests(None, None, 10).await.expect("a page");
    assert!(tests.tests.iter().map(|t| &t.test_id).eq([&running.test_id]));
}
