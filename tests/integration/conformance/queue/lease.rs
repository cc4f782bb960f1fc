//! Leases: one that counts, and those that do not any more.

use std::sync::Arc;
use std::time::Duration;

use tidings::model::JobState;
use tidings::queue::{Lease, LeaseStatus, NewJob, QueueError, QueueOptions};

use super::{
    claim, claim_when_due, failed, get, job, lose_worker, passed, progress, submit, sweep, view, worker,
};
use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{rules, wait_until};

for_each_backend!(a cluster too:
    a_lost_worker_means_another_attempt_and_at_last_the_end,
    a_lease_that_is_renewed_or_reported_under_goes_on,
    renewing_tells_of_each_lease_what_became_of_it,
    a_stale_lease_is_refused_and_changes_nothing,
    a_lease_of_an_ended_job_is_refused_and_changes_nothing,
    a_cancelled_job_whose_worker_is_lost_is_cancelled,
    a_worker_that_leaves_hands_back_without_counting_the_attempts,
);

/// Its store belongs to one process alone; elsewhere a lease may be that of another, and has to run out.
mod alone {
    use super::a_restart_ends_what_ran_before_it;
    crate::conformance::for_each_backend!(embedded only: a_restart_ends_what_ran_before_it);
}

const SHORT: Duration = Duration::from_millis(60);

async fn start(backend: &dyn Backend, lease: Duration) -> Arc<Node> {
    Arc::new(backend.open(rules(), QueueOptions { lease, ..options() }).await)
}

async fn a_lost_worker_means_another_attempt_and_at_last_the_end(backend: &dyn Backend) {
    let node = start(backend, Duration::from_millis(5)).await;
    let made = submit(&node, NewJob { max_attempts: Some(2), ..job("command") }).await;
    for attempt in 1..=2 {
        let claimed = claim_when_due(&node, "w").await;
        assert_eq!(claimed.lease.attempt, attempt);
        lose_worker(&node, &made.job_id).await;
    }
    let ended = get(&node, &made.job_id).await;
    assert_eq!((ended.state, ended.attempt), (JobState::Failed, 2));
    assert_eq!(ended.error.expect("a reason").code, "worker_lost");
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!(
        (snapshot.state, snapshot.error.expect("a reason").code.as_str()),
        (JobState::Failed, "worker_lost")
    );
}

async fn a_lease_that_is_renewed_or_reported_under_goes_on(backend: &dyn Backend) {
    let node = start(backend, SHORT).await;
    submit(&node, job("command")).await;
    let renewed = claim(&node, "w").await.lease;
    submit(&node, job("command")).await;
    let reporting = claim(&node, "w").await.lease;
    submit(&node, job("command")).await;
    let silent = claim(&node, "w").await.lease;
    // Until the silent one has run out twice over.
    for _ in 0..2 {
        wait_until("the silent lease ends", async || {
            let statuses = node.queue.renew(vec![renewed.clone()]).await.expect("a renewal");
            assert_eq!(statuses, [LeaseStatus::Held]);
            node.queue.report(&reporting, vec![progress(1.0)]).await.expect("a report");
            sweep(&*node.queue).await;
            get(&node, &silent.job_id).await.state != JobState::Running
        })
        .await;
        tokio::time::sleep(SHORT / 4).await;
    }
    for lease in [renewed, reporting] {
        node.queue.finish(&lease, Vec::new(), passed()).await.expect("the lease counts to the end");
    }
}

async fn renewing_tells_of_each_lease_what_became_of_it(backend: &dyn Backend) {
    let node = start(backend, Duration::from_secs(30)).await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        submit(&node, job("command")).await;
        leases.push(claim(&node, "w").await.lease);
    }
    node.queue.cancel(&leases[1].job_id, None, None).await.expect("a wish");
    node.queue.finish(&leases[2], Vec::new(), passed()).await.expect("an end");
    let unknown = Lease { job_id: "job_nobody".parse().expect("an id"), attempt: 1, fence: 1, holder: None };
    leases.insert(0, unknown);
    let statuses = node.queue.renew(leases).await.expect("a renewal");
    use LeaseStatus::{CancelRequested, Held, Lost};
    assert_eq!(statuses, [Lost, Held, CancelRequested, Lost]);
    assert!(node.queue.renew(Vec::new()).await.expect("a renewal").is_empty());
}

/// Tries everything that a lease allows; all of it is refused, and afterwards everything is as before.
async fn assert_powerless(node: &Arc<Node>, stale: &Lease) {
    let before = view(node, &stale.job_id).await;
    let lost = |error: QueueError| {
        assert!(
            matches!(error, QueueError::LeaseLost { attempt, .. } if attempt == stale.attempt),
            "{error}"
        );
    };
    lost(node.queue.report(stale, vec![progress(99.0)]).await.expect_err("a late report"));
    lost(node.queue.report(stale, Vec::new()).await.expect_err("a late report of nothing"));
    for ending in [passed(), failed("timeout"), failed("tests_failed"), tidings::queue::Ending::Cancelled] {
        lost(node.queue.finish(stale, Vec::new(), ending).await.expect_err("a late end"));
    }
    assert_eq!(node.queue.renew(vec![stale.clone()]).await.expect("a renewal"), [LeaseStatus::Lost]);
    assert_eq!(view(node, &stale.job_id).await, before);
}

async fn a_stale_lease_is_refused_and_changes_nothing(backend: &dyn Backend) {
    let node = start(backend, Duration::from_millis(5)).await;
    let made = submit(&node, NewJob { max_attempts: Some(9), ..job("command") }).await;
    let first = claim(&node, "w").await.lease;
    lose_worker(&node, &made.job_id).await;
    assert_powerless(&node, &first).await;
    let second = claim_when_due(&node, "w").await.lease;
    assert!(second.fence > first.fence);
    assert_powerless(&node, &first).await;
    // Nor does it keep the new lease alive, or an attempt's number make it valid.
    let forged = Lease { attempt: second.attempt, ..first.clone() };
    assert_powerless(&node, &forged).await;
    lose_worker(&node, &made.job_id).await;
}

async fn a_lease_of_an_ended_job_is_refused_and_changes_nothing(backend: &dyn Backend) {
    let node = start(backend, Duration::from_secs(30)).await;
    let made = submit(&node, job("command")).await;
    let lease = claim(&node, "w").await.lease;
    node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    assert_powerless(&node, &lease).await;
    node.queue.retry(&made.job_id).await.expect("once more");
    assert_powerless(&node, &lease).await;
    let again = claim(&node, "w").await.lease;
    assert_eq!(again.attempt, 2);
    assert_powerless(&node, &lease).await;
    node.queue.finish(&again, Vec::new(), passed()).await.expect("an end");
}

async fn a_cancelled_job_whose_worker_is_lost_is_cancelled(backend: &dyn Backend) {
    let node = start(backend, Duration::from_millis(5)).await;
    let made = submit(&node, job("command")).await;
    claim(&node, "w").await;
    node.queue.cancel(&made.job_id, Some("enough".to_owned()), None).await.expect("a wish");
    lose_worker(&node, &made.job_id).await;
    assert_eq!(get(&node, &made.job_id).await.state, JobState::Cancelled);
}

async fn a_worker_that_leaves_hands_back_without_counting_the_attempts(backend: &dyn Backend) {
    let node = start(backend, Duration::from_secs(30)).await;
    let made = submit(&node, NewJob { max_attempts: Some(2), ..job("command") }).await;
    for round in 1..=4 {
        let leaving = claim_when_due(&node, "leaving").await;
        assert_eq!((leaving.job.job_id.clone(), leaving.lease.attempt), (made.job_id.clone(), round));
        assert_eq!(node.queue.leave(&worker("leaving")).await.expect("a leave"), 1);
        assert_powerless(&node, &leaving.lease).await;
    }
    assert_eq!(node.queue.leave(&worker("nobody")).await.expect("a leave"), 0);
    // It still has both of its own attempts.
    for expected in [JobState::Retrying, JobState::Failed] {
        let claimed = claim_when_due(&node, "w").await;
        assert_eq!(claimed.job.job_id, made.job_id);
        let ended = node.queue.finish(&claimed.lease, Vec::new(), failed("timeout")).await.expect("an end");
        assert_eq!(ended.state, expected);
    }
    let other = submit(&node, job("command")).await;
    // One that is to be cancelled does not begin anew.
    let claimed = claim(&node, "leaving").await;
    node.queue.cancel(&other.job_id, None, None).await.expect("a wish");
    node.queue.leave(&worker("leaving")).await.expect("a leave");
    assert_eq!(get(&node, &claimed.job.job_id).await.state, JobState::Cancelled);
}

async fn a_restart_ends_what_ran_before_it(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    let stale = claim(&node, "w").await.lease;
    drop(node);
    let node = Arc::new(backend.start().await);
    // A lease of thirty seconds, but its worker went with the process.
    lose_worker(&node, &made.job_id).await;
    assert_eq!(get(&node, &made.job_id).await.state, JobState::Retrying);
    assert_powerless(&node, &stale).await;
    let again = claim_when_due(&node, "w").await;
    assert_eq!(again.lease.attempt, 2);
    node.queue.finish(&again.lease, Vec::new(), passed()).await.expect("an end");
}
