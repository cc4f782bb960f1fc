//! The past: what ended jobs leave for the next ones of their series.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tidings::model::past::{MAX_RUNS, TrackRecord, Verdict};
use tidings::model::test::TestError;
use tidings::queue::{Ending, MAX_SERIES, NewHold, NewJob};

use super::{claim, claim_when_due, failed, job, job_of, passed, submit, types, worker};
use crate::conformance::{Backend, Node, for_each_backend};

for_each_backend!(a cluster too:
    a_series_keeps_how_its_latest_runs_went,
    only_what_a_worker_or_holder_ended_for_good_is_past,
    series_that_had_no_run_for_the_longest_time_are_forgotten,
);

fn named(name: &str) -> NewJob {
    NewJob { name: Some(name.to_owned()), ..job("command") }
}

async fn run(node: &Node, job: NewJob, ending: Ending) {
    submit(node, job).await;
    let claimed = claim(node, "w").await;
    node.queue.finish(&claimed.lease, Vec::new(), ending).await.expect("an end");
}

fn tests_failed(names: &[&str]) -> Ending {
    let failures: Vec<_> = names.iter().map(|name| json!({ "name": name, "message": "" })).collect();
    let results = json!({ "failures": failures }).as_object().expect("an object").clone();
    Ending::Failed { error: TestError { code: "tests_failed".into(), message: "some".into() }, results }
}

async fn a_series_keeps_how_its_latest_runs_went(backend: &dyn Backend) {
    let node = backend.start().await;
    assert_eq!(node.queue.past("command:n").await.expect("a past").runs(), []);
    run(&node, named("n"), passed()).await;
    run(&node, named("n"), tests_failed(&["a", "b"])).await;
    run(&node, named("n"), tests_failed(&["a"])).await;
    run(&node, named("n"), passed()).await;
    run(&node, named("other"), passed()).await;
    let past = node.queue.past("command:n").await.expect("a past");
    let verdicts: Vec<_> = past.runs().iter().map(|run| run.verdict).collect();
    assert_eq!(verdicts, [Verdict::Passed, Verdict::TestsFailed, Verdict::TestsFailed, Verdict::Passed]);
    assert_eq!(past.record_of("a"), Some(TrackRecord { runs: 4, failed: 2, flaky: true }));
    assert_eq!(past.record_of("b"), Some(TrackRecord { runs: 4, failed: 1, flaky: true }));
    for _ in 0..MAX_RUNS + 20 {
        run(&node, named("n"), passed()).await;
    }
    let past = node.queue.past("command:n").await.expect("a past");
    assert_eq!((past.runs().len(), past.record_of("a").expect("a record").failed), (MAX_RUNS, 0));
    // Whoever holds a test outside says how long it took.
    let job = NewJob { name: Some("held".to_owned()), ..job_of("t") };
    let hold = NewHold { job, holder: worker("h"), lease: Duration::from_secs(60), started_at: None };
    let lease = node.queue.hold(hold).await.expect("a hold").claim.lease;
    let results = json!({ "durationMs": 4321 }).as_object().expect("an object").clone();
    node.queue.finish(&lease, Vec::new(), Ending::Passed { results }).await.expect("an end");
    assert_eq!(node.queue.past("command:held").await.expect("a past").durations(), [4321]);
}

async fn only_what_a_worker_or_holder_ended_for_good_is_past(backend: &dyn Backend) {
    let node = backend.start().await;
    run(&node, named("n"), Ending::Cancelled).await;
    submit(&node, NewJob { max_attempts: Some(2), ..named("n") }).await;
    let first = claim(&node, "w").await;
    node.queue.finish(&first.lease, Vec::new(), failed("timeout")).await.expect("a first end");
    assert_eq!(node.queue.past("command:n").await.expect("a past").runs(), [], "another attempt follows");
    let second = claim_when_due(&node, "w").await;
    node.queue.finish(&second.lease, Vec::new(), failed("timeout")).await.expect("an end");
    let past = node.queue.past("command:n").await.expect("a past");
    assert_eq!(past.runs().iter().map(|run| run.verdict).collect::<Vec<_>>(), [Verdict::Broken]);
    assert!(past.durations().is_empty(), "it says nothing about how long a run takes");
    assert!(node.queue.finish(&second.lease, Vec::new(), passed()).await.is_err());
    assert_eq!(node.queue.past("command:n").await.expect("a past").runs().len(), 1);
}

async fn series_that_had_no_run_for_the_longest_time_are_forgotten(backend: &dyn Backend) {
    let node = backend.start().await;
    run(&node, named("first"), passed()).await;
    // The rest together, or it would take long.
    let submits = (0..MAX_SERIES).map(|n| node.queue.submit(named(&format!("n{n}"))));
    stream::iter(submits).buffered(100).for_each(async |made| drop(made.expect("a job"))).await;
    let mut ended = 0;
    while ended < MAX_SERIES {
        let claims = node.queue.claim(&worker("w"), &types(), 100).await.expect("claims");
        ended += claims.len();
        let ends = claims.iter().map(|claim| node.queue.finish(&claim.lease, Vec::new(), passed()));
        stream::iter(ends).buffered(100).for_each(async |ended| drop(ended.expect("an end"))).await;
    }
    while node.queue.retain().await.expect("a round of retention") {}
    assert_eq!(node.queue.past("command:first").await.expect("a past").runs(), []);
    let last = format!("command:n{}", MAX_SERIES - 1);
    assert_eq!(node.queue.past(&last).await.expect("a past").runs().len(), 1);
}
