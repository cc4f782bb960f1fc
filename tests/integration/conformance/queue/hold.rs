//! Holds: attempts that somebody outside of all workers runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidings::model::JobState;
use tidings::model::event::test_progress_channel;
use tidings::queue::{
    CancelWish, Ending, Held, Holder, Lease, LeaseStatus, NewHold, NewJob, QueueError, QueueOptions, Report,
};

use super::{
    claim, failed, get, job, job_of, lose_worker, passed, progress, submit, sweep, types, view, worker,
};
use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{history, raw, read, rules, wait_until};

for_each_backend!(a cluster too:
    a_held_test_runs_at_once_and_is_never_claimed,
    a_hold_tells_what_a_claimed_job_tells,
    reports_prolong_a_hold_and_tell_of_a_wish_to_cancel,
    a_silent_holder_is_lost_and_its_test_fails_for_good,
    whoever_does_not_know_the_secret_does_not_speak_for_a_held_test,
    a_test_is_held_once_at_a_time,
    a_known_key_answers_with_the_same_lease,
    an_end_that_is_told_again_is_answered_again,
    a_lost_holder_that_comes_back_begins_the_next_attempt,
    a_resumption_whose_answer_was_lost_is_asked_for_again,
    what_has_a_name_is_told_once,
    a_held_job_is_not_retried_by_the_queue,
);

/// A holder outlives the process that keeps the store.
mod alone {
    use super::a_hold_survives_a_restart;
    crate::conformance::for_each_backend!(embedded only: a_hold_survives_a_restart);
}

const LONG: Duration = Duration::from_secs(60);

async fn start(backend: &dyn Backend) -> Arc<Node> {
    // The queue's own lease is not that of a hold.
    let lease = Duration::from_millis(5);
    Arc::new(backend.open(rules(), QueueOptions { lease, ..options() }).await)
}

fn new_hold(test: &str, lease: Duration) -> NewHold {
    let job = NewJob { name: Some("nightly".to_owned()), ..job_of(test) };
    NewHold { job, holder: worker("outside"), lease, started_at: None }
}

async fn hold(node: &Node, test: &str, lease: Duration) -> Held {
    node.queue.hold(new_hold(test, lease)).await.expect("a hold")
}

async fn told(node: &Node, test: &str) -> Vec<Value> {
    let channel = test_progress_channel(&test.parse().expect("a test id"));
    history(&*node.broker, &channel).await.iter().map(|message| read(message)).collect()
}

fn events(told: &[Value]) -> Vec<&str> {
    told.iter().map(|message| message["event"].as_str().expect("an event")).collect()
}

async fn a_held_test_runs_at_once_and_is_never_claimed(backend: &dyn Backend) {
    let node = start(backend).await;
    let began = tidings::model::now_ms() - 5000;
    let wanted = NewHold { started_at: Some(began), ..new_hold("t", LONG) };
    let Held { claim, existing } = node.queue.hold(wanted).await.expect("a hold");
    assert!(!existing);
    let job = get(&node, &claim.job.job_id).await;
    assert_eq!(job, claim.job);
    assert_eq!((job.state, job.attempt, job.max_attempts), (JobState::Running, 1, 1));
    assert_eq!(
        (job.lease_ms, job.name.as_deref(), job.started_at),
        (Some(60_000), Some("nightly"), Some(began))
    );
    assert_eq!(job.worker_id, Some(worker("outside")));
    sweep(&*node.queue).await;
    assert!(node.queue.claim(&worker("w"), &types(), 9).await.expect("a claim").is_empty());
    assert_eq!(node.queue.counts().await.expect("counts")["running"], 1);
    let ended = node.queue.finish(&claim.lease, Vec::new(), passed()).await.expect("an end");
    assert_eq!(ended.state, JobState::Completed);
    assert_eq!(node.queue.counts().await.expect("counts")["running"], 0);
}

async fn a_hold_tells_what_a_claimed_job_tells(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    let custom = Report::Custom {
        event: "custom:build".to_owned().try_into().expect("an event"),
        data: raw(&json!({"n": 1})),
    };
    node.queue.report(&held.lease, vec![progress(50.0), super::log("one"), custom]).await.expect("a report");
    let results = json!({ "durationMs": 77, "counts": { "passed": 3, "failed": 1, "skipped": 0 } });
    let results = results.as_object().expect("an object").clone();
    let error = tidings::model::test::TestError { code: "tests_failed".into(), message: "1 failed".into() };
    node.queue
        .finish(&held.lease, vec![progress(75.0)], Ending::Failed { error, results })
        .await
        .expect("an end");
    let told = told(&node, "t").await;
    let expected =
        ["test:started", "test:progress", "test:log", "custom:build", "test:progress", "test:failed"];
    assert_eq!(events(&told), expected);
    for message in &told {
        assert_eq!(
            (&message["data"]["testId"], &message["data"]["attempt"]),
            (&json!("t"), &json!(1)),
            "{message}"
        );
    }
    let last = &told.last().expect("an end")["data"];
    assert_eq!((&last["willRetry"], &last["durationMs"]), (&json!(false), &json!(77)));
    let snapshot = node.broker.snapshot(&held.job.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.state, snapshot.counts.passed, snapshot.counts.failed), (JobState::Failed, 3, 1));
    let of_job = history(&*node.broker, &format!("job-status-{}", held.job.job_id)).await;
    let of_job: Vec<Value> = of_job.iter().map(|message| read(message)).collect();
    let expected = [
        "queue:job:added",
        "queue:job:started",
        "queue:job:progress",
        "queue:job:progress",
        "queue:job:failed",
    ];
    assert_eq!(events(&of_job), expected);
}

async fn reports_prolong_a_hold_and_tell_of_a_wish_to_cancel(backend: &dyn Backend) {
    let node = start(backend).await;
    let short = Duration::from_millis(150);
    let silent = hold(&node, "silent", short).await.claim;
    let told = hold(&node, "told", short).await.claim;
    // The silent one ends first, however slow the machine is: it is older, and nothing prolongs it.
    let mut wish = None;
    wait_until("the silent one is lost", async || {
        wish = node.queue.report(&told.lease, Vec::new()).await.expect("a sign of life");
        sweep(&*node.queue).await;
        get(&node, &silent.job.job_id).await.state == JobState::Failed
    })
    .await;
    assert_eq!(wish, None);
    let by = "ada".parse().ok();
    node.queue.cancel(&told.job.job_id, Some("enough".to_owned()), by).await.expect("a wish");
    let wish = node.queue.report(&told.lease, Vec::new()).await.expect("a sign of life");
    assert_eq!(wish, Some(CancelWish { reason: Some("enough".to_owned()), by: "ada".parse().ok() }));
    let ended = node.queue.finish(&told.lease, Vec::new(), Ending::Cancelled).await.expect("an end");
    assert_eq!(ended.state, JobState::Cancelled);
}

async fn a_silent_holder_is_lost_and_its_test_fails_for_good(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", Duration::from_millis(5)).await.claim;
    lose_worker(&node, &held.job.job_id).await;
    let job = get(&node, &held.job.job_id).await;
    assert_eq!((job.state, job.error.expect("a reason").code.as_str()), (JobState::Failed, "worker_lost"));
    let told = told(&node, "t").await;
    assert_eq!(events(&told), ["test:started", "test:failed"]);
    assert_eq!(
        (&told[1]["data"]["error"]["code"], &told[1]["data"]["willRetry"]),
        (&json!("worker_lost"), &json!(false))
    );
    let before = view(&node, &held.job.job_id).await;
    for late in [
        node.queue.report(&held.lease, vec![progress(1.0)]).await.map(drop),
        node.queue.finish(&held.lease, Vec::new(), passed()).await.map(drop),
        node.queue.finish(&held.lease, Vec::new(), failed("worker_lost")).await.map(drop),
    ] {
        assert!(matches!(late, Err(QueueError::LeaseLost { attempt: 1, .. })), "{late:?}");
    }
    assert_eq!(view(&node, &held.job.job_id).await, before);
}

async fn whoever_does_not_know_the_secret_does_not_speak_for_a_held_test(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    let other = hold(&node, "other", LONG).await.claim;
    let before = view(&node, &held.job.job_id).await;
    let holder = held.lease.holder.clone().expect("a holder");
    for wrong in [
        Lease { holder: None, ..held.lease.clone() },
        Lease { fence: held.lease.fence + 1, ..held.lease.clone() },
        Lease { holder: Some(Holder { secret: String::new(), ..holder.clone() }), ..held.lease.clone() },
        Lease { holder: other.lease.holder.clone(), ..held.lease.clone() },
        Lease {
            holder: Some(Holder { test_id: other.job.test_id.clone(), ..holder.clone() }),
            ..held.lease.clone()
        },
    ] {
        let lost = |answer: Result<(), QueueError>| {
            assert!(matches!(answer, Err(QueueError::LeaseLost { .. })), "{answer:?} for {wrong:?}");
        };
        lost(node.queue.report(&wrong, vec![progress(9.0)]).await.map(drop));
        lost(node.queue.report(&wrong, Vec::new()).await.map(drop));
        lost(node.queue.finish(&wrong, Vec::new(), passed()).await.map(drop));
        lost(node.queue.resume(&wrong).await.map(drop));
        assert_eq!(node.queue.renew(vec![wrong]).await.expect("an answer"), [LeaseStatus::Lost]);
    }
    assert_eq!(view(&node, &held.job.job_id).await, before);
    // Nor is the lease of a worker one that somebody outside goes on with.
    submit(&node, job("command")).await;
    let claimed = claim(&node, "w").await;
    let refused = node.queue.resume(&claimed.lease).await;
    assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?}");
}

async fn a_test_is_held_once_at_a_time(backend: &dyn Backend) {
    let node = start(backend).await;
    let first = hold(&node, "t", LONG).await.claim;
    let (node, new) = (&node, || new_hold("t", LONG));
    let refused = node.queue.hold(new()).await;
    assert!(
        matches!(&refused, Err(QueueError::TestActive { job, .. }) if *job == first.job.job_id),
        "{refused:?}"
    );
    assert!(matches!(node.queue.submit(job_of("t")).await, Err(QueueError::TestActive { .. })));
    node.queue.finish(&first.lease, Vec::new(), passed()).await.expect("an end");
    let holds = futures_util::future::join_all((0..8).map(|_| node.queue.hold(new()))).await;
    let (won, lost): (Vec<_>, Vec<_>) = holds.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7), "of eight at once one holds it");
    let again = won.into_iter().next().and_then(Result::ok).expect("a hold").claim;
    assert_ne!(again.job.job_id, first.job.job_id);
    let snapshot = node.broker.snapshot(&again.job.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.state, snapshot.job_id), (JobState::Running, Some(again.job.job_id)));
    let late = node.queue.report(&first.lease, vec![progress(1.0)]).await;
    assert!(matches!(late, Err(QueueError::LeaseLost { .. })), "{late:?}");
}

async fn a_known_key_answers_with_the_same_lease(backend: &dyn Backend) {
    let node = start(backend).await;
    let keyed = |test: &str| {
        let mut hold = new_hold(test, LONG);
        hold.job.dedupe_key = Some("key".to_owned());
        hold
    };
    let first = node.queue.hold(keyed("t")).await.expect("a hold");
    let again = node.queue.hold(keyed("another")).await.expect("the same hold");
    assert_eq!((first.existing, again.existing), (false, true));
    assert_eq!((&again.claim.lease, &again.claim.job), (&first.claim.lease, &first.claim.job));
    node.queue.finish(&again.claim.lease, Vec::new(), passed()).await.expect("an end");
    let ended = node.queue.hold(keyed("t")).await.expect("the same hold");
    assert_eq!((ended.existing, ended.claim.job.state), (true, JobState::Completed));
    // A job that nobody outside holds has no lease to give.
    let plain = NewJob { dedupe_key: Some("plain".to_owned()), ..job("command") };
    submit(&node, plain.clone()).await;
    let refused = node.queue.hold(NewHold { job: plain, ..new_hold("x", LONG) }).await;
    assert!(matches!(refused, Err(QueueError::TestActive { .. })), "{refused:?}");
}

async fn an_end_that_is_told_again_is_answered_again(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    let ended = node.queue.finish(&held.lease, vec![progress(100.0)], passed()).await.expect("an end");
    let before = view(&node, &held.job.job_id).await;
    for ending in [passed(), failed("tests_failed")] {
        let again =
            node.queue.finish(&held.lease, vec![progress(100.0)], ending).await.expect("the same end");
        assert_eq!(again, ended);
    }
    assert_eq!(view(&node, &held.job.job_id).await, before);
    let late = node.queue.report(&held.lease, vec![progress(1.0)]).await;
    assert!(matches!(late, Err(QueueError::LeaseLost { .. })), "{late:?}");
    let late = node.queue.resume(&held.lease).await;
    assert!(matches!(late, Err(QueueError::LeaseLost { .. })), "{late:?}");
}

async fn a_lost_holder_that_comes_back_begins_the_next_attempt(backend: &dyn Backend) {
    let node = start(backend).await;
    let first = hold(&node, "t", Duration::from_millis(300)).await.claim;
    let goes_on = node.queue.resume(&first.lease).await.expect("it still counts");
    assert_eq!((goes_on.existing, &goes_on.claim.lease), (true, &first.lease));
    node.queue.report(&first.lease, vec![progress(40.0)]).await.expect("a report");
    lose_worker(&node, &first.job.job_id).await;
    let second = node.queue.resume(&first.lease).await.expect("the next attempt");
    assert_eq!((second.existing, second.claim.lease.attempt), (false, 2));
    assert_eq!(second.claim.job.job_id, first.job.job_id);
    assert!(second.claim.lease.fence > first.lease.fence);
    assert_ne!(second.claim.lease.holder, first.lease.holder);
    for late in [
        node.queue.report(&first.lease, Vec::new()).await.map(drop),
        node.queue.finish(&first.lease, Vec::new(), passed()).await.map(drop),
    ] {
        assert!(matches!(late, Err(QueueError::LeaseLost { attempt: 1, .. })), "{late:?}");
    }
    let snapshot = node.broker.snapshot(&first.job.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.state, snapshot.attempt, snapshot.progress), (JobState::Running, 2, 0.0));
    node.queue.finish(&second.claim.lease, Vec::new(), passed()).await.expect("an end");
    let told = told(&node, "t").await;
    let expected = ["test:started", "test:progress", "test:failed", "test:started", "test:completed"];
    assert_eq!(events(&told), expected);
    // Meanwhile somebody else may have begun the test.
    let lost = hold(&node, "u", Duration::from_millis(5)).await.claim;
    lose_worker(&node, &lost.job.job_id).await;
    hold(&node, "u", LONG).await;
    let refused = node.queue.resume(&lost.lease).await;
    assert!(matches!(refused, Err(QueueError::TestActive { .. })), "{refused:?}");
}

async fn a_resumption_whose_answer_was_lost_is_asked_for_again(backend: &dyn Backend) {
    let node = start(backend).await;
    // Nothing ends in between: only `sweep` ends what is silent, and it is called where it should.
    let first = hold(&node, "t", Duration::from_millis(5)).await.claim;
    lose_worker(&node, &first.job.job_id).await;
    let begun = node.queue.resume(&first.lease).await.expect("the next attempt");
    assert_eq!((begun.existing, begun.claim.lease.attempt), (false, 2));
    let before = told(&node, "t").await;
    for _ in 0..3 {
        let again = node.queue.resume(&first.lease).await.expect("the attempt that it began");
        assert_eq!((again.existing, &again.claim.lease), (true, &begun.claim.lease));
    }
    assert_eq!(told(&node, "t").await, before, "nothing began again");
    // It takes the old secret to be told the new one, and all of the lease.
    let holder = first.lease.holder.clone().expect("a holder");
    for wrong in [
        Lease { holder: Some(Holder { secret: "0".repeat(40), ..holder.clone() }), ..first.lease.clone() },
        Lease { holder: Some(Holder { secret: String::new(), ..holder.clone() }), ..first.lease.clone() },
        Lease {
            holder: Some(Holder { test_id: "u".parse().expect("a test"), ..holder }),
            ..first.lease.clone()
        },
        Lease { fence: first.lease.fence + 1, ..first.lease.clone() },
        Lease { attempt: first.lease.attempt + 1, ..first.lease.clone() },
        Lease { holder: None, ..first.lease.clone() },
    ] {
        let refused = node.queue.resume(&wrong).await;
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?} for {wrong:?}");
    }
    // It is the newest attempt alone that is found again.
    lose_worker(&node, &first.job.job_id).await;
    let refused = node.queue.resume(&first.lease).await;
    assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "it was lost too: {refused:?}");
    let third = node.queue.resume(&begun.claim.lease).await.expect("the next attempt").claim;
    assert_eq!(third.lease.attempt, 3);
    let refused = node.queue.resume(&first.lease).await;
    assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?}");
    let again = node.queue.resume(&begun.claim.lease).await.expect("the attempt that it began");
    assert_eq!(again.claim.lease, third.lease);
    node.queue.finish(&third.lease, Vec::new(), passed()).await.expect("an end");
    for ended in [&first.lease, &begun.claim.lease, &third.lease] {
        let refused = node.queue.resume(ended).await;
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?}");
    }
}

async fn what_has_a_name_is_told_once(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    let other = hold(&node, "u", LONG).await.claim;
    let named = |name: &str, report| Report::Named { name: name.to_owned(), report: Box::new(report) };
    let batch =
        || vec![named("1", progress(10.0)), named("2", super::log("a line")), named("3", progress(20.0))];
    for _ in 0..3 {
        node.queue.report(&held.lease, batch()).await.expect("a report");
        node.queue.report(&other.lease, batch()).await.expect("a report of another test");
    }
    node.queue.finish(&held.lease, batch(), passed()).await.expect("an end");
    let told = told(&node, "t").await;
    let expected = ["test:started", "test:progress", "test:log", "test:progress", "test:completed"];
    assert_eq!(events(&told), expected);
    assert_eq!((&told[1]["data"]["progress"], &told[3]["data"]["progress"]), (&json!(10.0), &json!(20.0)));
    let all = history(&*node.broker, "test-updates").await;
    let of_both =
        all.iter().map(|message| read(message)).filter(|message| message["event"] == "test:progress").count();
    assert_eq!(of_both, 4, "two of each test");
}

async fn a_held_job_is_not_retried_by_the_queue(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    node.queue.finish(&held.lease, Vec::new(), passed()).await.expect("an end");
    let before = view(&node, &held.job.job_id).await;
    let refused = node.queue.retry(&held.job.job_id).await;
    assert!(matches!(refused, Err(QueueError::Outside(_))), "{refused:?}");
    assert_eq!(view(&node, &held.job.job_id).await, before);
}

async fn a_hold_survives_a_restart(backend: &dyn Backend) {
    let node = start(backend).await;
    let held = hold(&node, "t", LONG).await.claim;
    drop(node);
    let node = start(backend).await;
    sweep(&*node.queue).await;
    node.queue.report(&held.lease, vec![progress(50.0)]).await.expect("it goes on");
    node.queue.finish(&held.lease, Vec::new(), passed()).await.expect("an end");
}
