//! Submitting: keys, names, defaults, and who is woken.

use std::collections::HashSet;
use std::time::Duration;

use tidings::model::{JobState, now_ms};
use tidings::queue::{NewJob, QueueError};

use super::{claim, get, job, job_of, passed, submit, sweep, types, worker};
use crate::conformance::{Backend, for_each_backend};
use crate::support::in_time;

for_each_backend!(a cluster too:
    a_job_has_what_its_submitter_said_and_the_queues_defaults,
    a_known_key_finds_the_first_job_even_after_its_end,
    one_key_submitted_many_times_at_once_makes_one_job,
    a_test_is_run_by_one_job_at_a_time,
    one_test_submitted_many_times_at_once_is_accepted_once,
    a_job_that_nobody_handles_says_so,
    everybody_who_waits_is_woken_by_a_new_job,
    a_job_that_came_before_the_wait_ends_it,
    jobs_and_keys_outlive_the_process,
);

async fn a_job_has_what_its_submitter_said_and_the_queues_defaults(backend: &dyn Backend) {
    let node = backend.start().await;
    let mut wanted = job_of("mine");
    wanted.config.insert("suite".to_owned(), "unit".into());
    wanted.timeout_ms = Some(5);
    wanted.team_id = Some("red".to_owned());
    wanted.user_id = Some("ada".parse().expect("a user id"));
    let made = submit(&node, wanted).await;
    assert_eq!((made.state, made.attempt, made.max_attempts), (JobState::Queued, 0, 3));
    assert_eq!((made.timeout_ms, made.team_id.as_deref()), (Some(5), Some("red")));
    assert_eq!(made.config["suite"], "unit");
    assert_eq!(get(&node, &made.job_id).await, made);
    let zero = submit(&node, NewJob { max_attempts: Some(0), ..job("command") }).await;
    assert_eq!(zero.max_attempts, 1, "no job goes without an attempt");
    assert_ne!(zero.test_id, submit(&node, job("command")).await.test_id);
}

async fn a_known_key_finds_the_first_job_even_after_its_end(backend: &dyn Backend) {
    let node = backend.start().await;
    let keyed = || NewJob { dedupe_key: Some("k".to_owned()), ..job("command") };
    let first = node.queue.submit(keyed()).await.expect("accepted");
    assert!(!first.existing);
    let heard = node.heard.all().len();
    let second = node.queue.submit(keyed()).await.expect("found");
    assert!(second.existing);
    assert_eq!((second.job.job_id.clone(), node.heard.all().len()), (first.job.job_id.clone(), heard));
    let claimed = claim(&node, "w").await;
    node.queue.finish(&claimed.lease, Vec::new(), passed()).await.expect("an end");
    let third = node.queue.submit(keyed()).await.expect("found");
    assert_eq!((third.existing, third.job.state), (true, JobState::Completed));
    assert_eq!(third.job.job_id, first.job.job_id);
}

async fn one_key_submitted_many_times_at_once_makes_one_job(backend: &dyn Backend) {
    let node = backend.start().await;
    let submitters = (0..50).map(|n| {
        let queue = node.queue.clone();
        let wanted = NewJob { dedupe_key: Some("k".to_owned()), ..job_of(&format!("t{n}")) };
        tokio::spawn(async move { queue.submit(wanted).await.expect("accepted or found") })
    });
    let (mut ids, mut made) = (HashSet::new(), 0);
    for submitter in submitters.collect::<Vec<_>>() {
        let submitted = submitter.await.expect("a submitter ends");
        made += usize::from(!submitted.existing);
        ids.insert(submitted.job.job_id);
    }
    assert_eq!((ids.len(), made), (1, 1));
    assert_eq!(node.queue.counts().await.expect("counts")["queued"], 1);
    assert_eq!(node.heard.places().len(), 2, "one job:added in each of its channels");
}

async fn a_test_is_run_by_one_job_at_a_time(backend: &dyn Backend) {
    let node = backend.start().await;
    let first = submit(&node, job_of("t")).await;
    let second = node.queue.submit(job_of("t")).await;
    let Err(QueueError::TestActive { test, job }) = second else { panic!("it is active: {second:?}") };
    assert_eq!((test.as_str(), &job), ("t", &first.job_id));
    let claimed = claim(&node, "w").await;
    assert!(matches!(node.queue.submit(job_of("t")).await, Err(QueueError::TestActive { .. })));
    node.queue.finish(&claimed.lease, Vec::new(), passed()).await.expect("an end");
    let next = submit(&node, job_of("t")).await;
    let snapshot = node.broker.snapshot(&next.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.state, snapshot.attempt), (JobState::Queued, 0), "the test begins anew");
    assert_eq!(snapshot.job_id, Some(next.job_id));
    // The first job cannot come back while the second one has the test.
    let back = node.queue.retry(&first.job_id).await;
    assert!(matches!(back, Err(QueueError::TestActive { .. })), "{back:?}");
}

async fn one_test_submitted_many_times_at_once_is_accepted_once(backend: &dyn Backend) {
    let node = backend.start().await;
    let submitters = (0..30).map(|_| {
        let queue = node.queue.clone();
        tokio::spawn(async move { queue.submit(job_of("t")).await })
    });
    let mut accepted = 0;
    for submitter in submitters.collect::<Vec<_>>() {
        match submitter.await.expect("a submitter ends") {
            Ok(_) => accepted += 1,
            Err(QueueError::TestActive { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(accepted, 1);
}

async fn a_job_that_nobody_handles_says_so(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("odd")).await;
    assert!(made.waiting.expect("a reason").contains("no worker is running"));
    node.queue.join(&worker("w"), &types()).await.expect("a worker joins");
    let waiting = get(&node, &made.job_id).await.waiting.expect("a reason");
    assert!(waiting.contains("odd") && waiting.contains("command"), "{waiting}");
    assert!(submit(&node, job("command")).await.waiting.is_none());
    node.queue.leave(&worker("w")).await.expect("a worker leaves");
    assert!(get(&node, &made.job_id).await.waiting.expect("a reason").contains("no worker is running"));
}

async fn everybody_who_waits_is_woken_by_a_new_job(backend: &dyn Backend) {
    let node = backend.start().await;
    // Workers of several types wait at once; which of them a job is for shows only when they look.
    let mut waiting: Vec<_> = (0..3).map(|_| node.queue.wait_for_jobs()).collect();
    for wait in &mut waiting {
        let woken = tokio::time::timeout(Duration::ZERO, wait).await;
        assert!(woken.is_err(), "there is nothing to claim");
    }
    submit(&node, job("command")).await;
    for wait in waiting {
        in_time("a waiting worker is woken", wait).await;
    }
}

async fn a_job_that_came_before_the_wait_ends_it(backend: &dyn Backend) {
    let node = backend.start().await;
    submit(&node, job("command")).await;
    in_time("the job is told of", node.queue.wait_for_jobs()).await;
}

async fn jobs_and_keys_outlive_the_process(backend: &dyn Backend) {
    let node = backend.start().await;
    let later = now_ms() + 3_600_000;
    let keyed = || NewJob { dedupe_key: Some("k".to_owned()), ..job("command") };
    let queued = submit(&node, keyed()).await;
    let scheduled = submit(&node, NewJob { run_at: Some(later), ..job("command") }).await;
    node.stop().await;
    let node = backend.start().await;
    let found = node.queue.submit(keyed()).await.expect("found");
    assert_eq!((found.existing, found.job.job_id), (true, queued.job_id.clone()));
    assert_eq!(get(&node, &scheduled.job_id).await.run_at, Some(later));
    sweep(&*node.queue).await;
    assert_eq!(get(&node, &scheduled.job_id).await.state, JobState::Scheduled);
    assert_eq!(claim(&node, "w").await.job.job_id, queued.job_id);
}
