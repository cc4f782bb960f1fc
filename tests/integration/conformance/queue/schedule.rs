//! Which job comes next, and when.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidings::model::{JobState, Priority, now_ms};
use tidings::queue::{NewJob, QueueOptions};

use super::{claim, claim_when_due, failed, get, job, submit, sweep, types, worker};
use crate::conformance::{Backend, for_each_backend, options};
use crate::support::{in_time, rules, wait_until};

for_each_backend!(a cluster too:
    the_highest_priority_comes_first_and_then_the_oldest,
    a_job_of_another_type_is_left_alone,
    a_delayed_job_starts_when_it_is_due_and_not_before,
    who_sweeps_is_told_of_an_earlier_due_time,
    no_job_is_claimed_twice_by_many_workers_at_once,
    a_failed_attempt_is_tried_again_until_there_are_no_more,
    failed_tests_are_not_tried_again,
    the_back_off_doubles_up_to_its_bound_with_a_jitter_of_one_half,
);

async fn the_highest_priority_comes_first_and_then_the_oldest(backend: &dyn Backend) {
    let node = backend.start().await;
    let mut expected = Vec::new();
    for priority in [2, 4, 1, 3, 2, 4, 1, 3] {
        let priority = Priority::from_number(priority).expect("a priority");
        let made = submit(&node, NewJob { priority, ..job("command") }).await;
        expected.push((priority, made.job_id));
    }
    // Stable: jobs of one priority stay in the order of their submission.
    expected.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let mut claimed = Vec::new();
    for max in [1, 3, 10] {
        let claims = node.queue.claim(&worker("w"), &types(), max).await.expect("a claim");
        claimed.extend(claims.into_iter().map(|c| (c.job.priority, c.job.job_id)));
    }
    assert_eq!(claimed, expected);
}

async fn a_job_of_another_type_is_left_alone(backend: &dyn Backend) {
    let node = backend.start().await;
    let urgent = submit(&node, NewJob { priority: Priority::Critical, ..job("stress") }).await;
    let plain = submit(&node, job("command")).await;
    assert_eq!(claim(&node, "w").await.job.job_id, plain.job_id);
    let both = ["command".to_owned(), "stress".to_owned()];
    let claims = node.queue.claim(&worker("w"), &both, 5).await.expect("a claim");
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].job.job_id, urgent.job_id);
    assert!(node.queue.claim(&worker("w"), &[], 5).await.expect("a claim").is_empty());
}

async fn a_delayed_job_starts_when_it_is_due_and_not_before(backend: &dyn Backend) {
    let node = backend.start().await;
    let due = now_ms() + 300;
    let made = submit(&node, NewJob { run_at: Some(due), ..job("command") }).await;
    assert_eq!(made.state, JobState::Scheduled);
    let past = submit(&node, NewJob { run_at: Some(now_ms() - 5), ..job("command") }).await;
    assert_eq!((past.state, past.run_at), (JobState::Queued, None));
    assert_eq!(claim(&node, "w").await.job.job_id, past.job_id);
    assert_eq!(node.queue.sweep().await.expect("a sweep").next_due, Some(due));
    let claimed = claim_when_due(&node, "w").await;
    assert!(now_ms() >= due, "claimed {} ms too early", due - now_ms());
    assert_eq!(claimed.job.job_id, made.job_id);
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!(snapshot.state, JobState::Running);
}

async fn who_sweeps_is_told_of_an_earlier_due_time(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    in_time("the first due time is told", node.queue.wait_for_due()).await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.queue.wait_for_due().await }
    });
    let soon = now_ms() + 60_000;
    submit(&node, NewJob { run_at: Some(soon), ..job("command") }).await;
    in_time("an earlier due time is told", waiting).await.expect("the sweeper ends");
    assert_eq!(node.queue.sweep().await.expect("a sweep").next_due, Some(soon));
}

async fn no_job_is_claimed_twice_by_many_workers_at_once(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    for _ in 0..60 {
        submit(&node, job("command")).await;
    }
    let workers = (0..12).map(|n| {
        let node = node.clone();
        tokio::spawn(async move {
            let mut own = Vec::new();
            loop {
                let claims = node.queue.claim(&worker(&format!("w{n}")), &types(), 2).await.expect("a claim");
                assert!(claims.len() <= 2);
                if claims.is_empty() {
                    return own;
                }
                own.extend(claims.into_iter().map(|c| c.job.job_id));
            }
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("a worker ends"));
    }
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (60, 60));
}

async fn a_failed_attempt_is_tried_again_until_there_are_no_more(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    for attempt in 1..=3 {
        let claimed = claim_when_due(&node, "w").await;
        assert_eq!((claimed.job.attempt, claimed.lease.attempt), (attempt, attempt));
        let ended = node.queue.finish(&claimed.lease, Vec::new(), failed("timeout")).await.expect("an end");
        let expected = if attempt < 3 { JobState::Retrying } else { JobState::Failed };
        assert_eq!(ended.state, expected, "after attempt {attempt}");
        assert_eq!(ended.error.expect("a reason").code, "timeout");
    }
    sweep(&*node.queue).await;
    assert_eq!(get(&node, &made.job_id).await.state, JobState::Failed);
}

async fn failed_tests_are_not_tried_again(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, NewJob { max_attempts: Some(9), ..job("command") }).await;
    let claimed = claim(&node, "w").await;
    let ended = node.queue.finish(&claimed.lease, Vec::new(), failed("tests_failed")).await.expect("an end");
    assert_eq!((ended.state, ended.attempt), (JobState::Failed, 1));
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!(snapshot.error.expect("a reason").code, "tests_failed");
}

async fn the_back_off_doubles_up_to_its_bound_with_a_jitter_of_one_half(backend: &dyn Backend) {
    let (base, most) = (Duration::from_millis(40), Duration::from_millis(100));
    let options = QueueOptions { backoff_base: base, backoff_max: most, max_attempts: 5, ..options() };
    let node = backend.open(rules(), options).await;
    let mut delays = vec![Vec::new(); 4];
    for _ in 0..12 {
        submit(&node, job("command")).await;
    }
    wait_until("all jobs have failed for good", async || {
        sweep(&*node.queue).await;
        for claim in node.queue.claim(&worker("w"), &types(), 50).await.expect("a claim") {
            let before = now_ms();
            let ended = node.queue.finish(&claim.lease, Vec::new(), failed("timeout")).await.expect("an end");
            if ended.state == JobState::Retrying {
                let run_at = ended.run_at.expect("a due time");
                delays[claim.lease.attempt as usize - 1].push((run_at - now_ms(), run_at - before));
            }
        }
        node.queue.counts().await.expect("counts")["failed"] == 12
    })
    .await;
    for (attempt, most) in [40, 80, 100, 100].into_iter().enumerate() {
        assert_eq!(delays[attempt].len(), 12);
        for (at_most, at_least) in &delays[attempt] {
            // Both sides of the call were timed, so neither bound depends on how long it took.
            assert!(*at_most <= most && *at_least >= most / 2, "{at_most}..{at_least} after {}", attempt + 1);
        }
    }
    assert!(delays[3].iter().any(|d| d.0 != delays[3][0].0), "no jitter: {:?}", delays[3]);
}
