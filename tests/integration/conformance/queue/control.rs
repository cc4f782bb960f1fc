//! Control by people: cancel and retry, in every state.

use std::sync::Arc;

use serde_json::Value;
use tidings::model::{Job, JobState, now_ms};
use tidings::queue::{Ending, LeaseStatus, NewJob, QueueError};

use super::{
    channels_of, claim, claim_when_due, failed, get, job, passed, progress, submit, sweep, types, view,
    worker,
};
use crate::conformance::{Backend, Node, for_each_backend};
use crate::support::{history, in_time, read};

for_each_backend!(a cluster too:
    a_job_that_waits_is_cancelled_at_once,
    a_running_job_is_cancelled_when_its_worker_has_stopped_it,
    the_end_that_an_attempt_came_to_counts_more_than_the_wish,
    what_has_ended_cannot_be_cancelled,
    an_ended_job_can_be_retried_with_all_of_its_attempts,
    what_has_not_ended_cannot_be_retried,
    a_job_that_nobody_knows_is_not_found,
);

/// The newest message of the test's own channel.
async fn last_told(node: &Node, job: &Job) -> Value {
    let [own, ..] = channels_of(job);
    read(history(&*node.broker, &own).await.last().expect("something was told"))
}

async fn a_job_that_waits_is_cancelled_at_once(backend: &dyn Backend) {
    let node = backend.start().await;
    let scheduled = submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    let queued = submit(&node, NewJob { priority: tidings::model::Priority::Low, ..job("command") }).await;
    let retrying = submit(&node, job("command")).await;
    let claimed = claim(&node, "w").await;
    assert_eq!(claimed.job.job_id, retrying.job_id);
    node.queue.finish(&claimed.lease, Vec::new(), failed("timeout")).await.expect("an end");
    for (job, attempt) in [(scheduled, 1), (queued, 1), (retrying, 1)] {
        let by = Some("ada".parse().expect("a user id"));
        let ended = node.queue.cancel(&job.job_id, Some("enough".to_owned()), by).await.expect("a wish");
        assert_eq!(ended.state, JobState::Cancelled);
        assert_eq!(get(&node, &job.job_id).await.state, JobState::Cancelled);
        let told = last_told(&node, &job).await;
        assert_eq!((&told["event"], &told["data"]["attempt"]), (&"test:cancelled".into(), &attempt.into()));
        assert_eq!(
            (&told["data"]["reason"], &told["data"]["cancelledBy"]),
            (&"enough".into(), &"ada".into())
        );
        let snapshot = node.broker.snapshot(&job.test_id).await.expect("a look").expect("a test");
        assert_eq!(snapshot.state, JobState::Cancelled);
    }
    sweep(&*node.queue).await;
    assert!(node.queue.claim(&worker("w"), &types(), 9).await.expect("a claim").is_empty());
}

async fn a_running_job_is_cancelled_when_its_worker_has_stopped_it(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    let lease = claim(&node, "w").await.lease;
    let mut cancellations = node.queue.cancellations();
    let heard = node.heard.all().len();
    let wanted = node.queue.cancel(&made.job_id, Some("first".to_owned()), None).await.expect("a wish");
    assert_eq!((wanted.state, wanted.cancel_requested), (JobState::Running, true));
    assert_eq!(node.heard.all().len(), heard, "a wish is no end");
    let told = in_time("the worker is told", cancellations.recv()).await.expect("a cancellation");
    assert_eq!(told, made.job_id);
    node.queue.cancel(&made.job_id, Some("second".to_owned()), None).await.expect("the same wish");
    assert_eq!(
        node.queue.renew(vec![lease.clone()]).await.expect("a renewal"),
        [LeaseStatus::CancelRequested]
    );
    node.queue.report(&lease, vec![progress(50.0)]).await.expect("it still runs");
    node.queue.finish(&lease, Vec::new(), Ending::Cancelled).await.expect("an end");
    let told = last_told(&node, &made).await;
    assert_eq!((&told["event"], &told["data"]["reason"]), (&"test:cancelled".into(), &"first".into()));
}

async fn the_end_that_an_attempt_came_to_counts_more_than_the_wish(backend: &dyn Backend) {
    let node = backend.start().await;
    for (ending, expected) in [
        (passed(), JobState::Completed),
        (failed("tests_failed"), JobState::Failed),
        // Killed by the cancel, it fails somehow; that is no reason for another attempt.
        (failed("runner_error"), JobState::Cancelled),
        (Ending::Cancelled, JobState::Cancelled),
    ] {
        let made = submit(&node, job("command")).await;
        let lease = claim(&node, "w").await.lease;
        node.queue.cancel(&made.job_id, None, None).await.expect("a wish");
        let ended = node.queue.finish(&lease, Vec::new(), ending).await.expect("an end");
        assert_eq!(ended.state, expected);
    }
}

async fn what_has_ended_cannot_be_cancelled(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    for ending in [passed(), failed("tests_failed"), Ending::Cancelled] {
        let made = submit(&node, job("command")).await;
        let lease = claim(&node, "w").await.lease;
        let ended = node.queue.finish(&lease, Vec::new(), ending).await.expect("an end");
        let before = view(&node, &made.job_id).await;
        let refused = node.queue.cancel(&made.job_id, None, None).await.expect_err("it has ended");
        assert!(matches!(refused, QueueError::Ended { state, .. } if state == ended.state), "{refused}");
        assert_eq!(view(&node, &made.job_id).await, before);
    }
}

async fn an_ended_job_can_be_retried_with_all_of_its_attempts(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, NewJob { max_attempts: Some(2), ..job("command") }).await;
    for life in 0..3 {
        for (nth, expected) in [(1, JobState::Retrying), (2, JobState::Failed)] {
            let claimed = claim_when_due(&node, "w").await;
            assert_eq!(claimed.lease.attempt, life * 2 + nth, "attempts are numbered on");
            let ended =
                node.queue.finish(&claimed.lease, Vec::new(), failed("timeout")).await.expect("an end");
            assert_eq!(ended.state, expected);
        }
        let again = node.queue.retry(&made.job_id).await.expect("once more");
        assert_eq!((again.state, again.error, again.ended_at), (JobState::Queued, None, None));
        let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
        assert_eq!((snapshot.state, snapshot.error), (JobState::Queued, None));
    }
    // Cancelled before its first attempt, and back again.
    node.queue.cancel(&made.job_id, None, None).await.expect("it waits");
    node.queue.retry(&made.job_id).await.expect("once more");
    let claimed = claim(&node, "w").await;
    assert!(!claimed.job.cancel_requested, "the old wish is forgotten");
    let ended = node.queue.finish(&claimed.lease, Vec::new(), passed()).await.expect("an end");
    assert_eq!(ended.state, JobState::Completed);
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.state, snapshot.attempt), (JobState::Completed, ended.attempt));
}

async fn what_has_not_ended_cannot_be_retried(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    let queued = submit(&node, job("command")).await;
    let scheduled = submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    for round in 0..2 {
        for job in [&queued, &scheduled] {
            let before = view(&node, &job.job_id).await;
            let refused = node.queue.retry(&job.job_id).await.expect_err("it has not ended");
            assert!(matches!(refused, QueueError::NotEnded { .. }), "{refused}");
            assert_eq!(view(&node, &job.job_id).await, before);
        }
        if round == 0 {
            claim(&node, "w").await;
        }
    }
}

async fn a_job_that_nobody_knows_is_not_found(backend: &dyn Backend) {
    let node = backend.start().await;
    let nobody = "job_nobody".parse().expect("a job id");
    assert!(node.queue.get(&nobody).await.expect("a look").is_none());
    let cancelled = node.queue.cancel(&nobody, None, None).await;
    assert!(matches!(cancelled, Err(QueueError::NotFound(_))), "{cancelled:?}");
    let retried = node.queue.retry(&nobody).await;
    assert!(matches!(retried, Err(QueueError::NotFound(_))), "{retried:?}");
}
