//! Snapshots: the fold of a test's messages, at the position that they name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tidings::auth::Identity;
use tidings::model::event::TestEvent;
use tidings::model::test::TestData;
use tidings::model::{Published, Snapshot, TestId, TestState};

use crate::conformance::{Backend, Node, for_each_backend};
use crate::support::{channel, history, incoming, raw, read, seed};

for_each_backend!(a cluster too:
    a_snapshot_is_the_fold_of_the_messages_up_to_its_position,
    the_top_and_its_snapshot_are_of_one_moment,
    the_snapshot_of_a_channel_without_a_test_is_none,
    a_test_that_reports_from_outside_may_name_a_job_and_still_end,
    tests_are_listed_newest_first_and_each_once,
);

/// The state of a test by hand: what a reader of its channel makes of it.
fn fold(test: &str, messages: &[Arc<Published>]) -> Option<Snapshot> {
    let first = messages.first()?;
    let id = TestId::parse(test).expect("a test id");
    let mut snapshot = Snapshot::new(id, "external", TestState::Running, first.position.epoch.clone());
    for message in messages {
        if let Some(event) = TestEvent::from_name(message.event.as_str()) {
            let mut data = TestData::parse(event, &raw(&read(message)["data"])).expect("it was accepted");
            // Only the queue says which job owns a test.
            data.job_id = None;
            snapshot.fold(event, data, message.timestamp_ms).expect("it was accepted");
        }
        snapshot.offset = message.position.offset;
    }
    Some(snapshot)
}

fn story() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let attempt = 1..4_u32;
    let step =
        (0..9_u8, attempt, 0..=110_u32, any::<bool>()).prop_map(|(kind, attempt, n, flag)| match kind {
            0 => ("test:started", json!({"attempt": attempt, "testType": "load"})),
            1 | 2 => {
                let failures: Vec<_> = (0..n).map(|i| json!({"name": format!("f{i}")})).collect();
                let counts = json!({"passed": n, "failed": failures.len(), "skipped": 1});
                let more = if flag { json!(["now"]) } else { json!([]) };
                (
                    "test:progress",
                    json!({"attempt": attempt, "progress": n, "counts": counts, "failures": failures,
                "current": more, "metrics": {"n": n}, "message": "on"}),
                )
            }
            3 => ("test:progress", json!({"progress": n, "completed": n, "total": 100})),
            4 => ("test:log", json!({"attempt": attempt, "firstLine": n, "lines": ["x"]})),
            5 => ("custom:thing", json!({ "n": n })),
            6 => (
                "test:failed",
                json!({"attempt": attempt, "willRetry": flag,
            "error": {"code": "timeout", "message": "too long"}}),
            ),
            7 if n > 70 => ("test:completed", json!({"attempt": attempt, "results": {"n": n}})),
            _ if n > 90 => ("test:cancelled", json!({"attempt": attempt, "reason": "enough"})),
            _ => ("test:progress", json!({"attempt": attempt, "progress": "not a number"})),
        });
    prop::collection::vec(step, 1..25)
}

async fn a_snapshot_is_the_fold_of_the_messages_up_to_its_position(backend: &dyn Backend) {
    let node = backend.start().await;
    let mut bytes = [0; 32];
    fastrand::Rng::with_seed(seed()).fill(&mut bytes);
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let (mut refused, mut accepted) = (0, 0);
    for case in 0..60 {
        let steps = story().new_tree(&mut runner).expect("a story").current();
        let (test, name) = (format!("t{case}"), format!("test-progress-t{case}"));
        let mut told = Vec::new();
        for (event, data) in &steps {
            let answer = node
                .publisher
                .publish(Identity::server(), vec![incoming(&name, event, data)])
                .await
                .remove(0);
            told.push(answer.is_ok());
            let (yes, no) = if answer.is_ok() { (1, 0) } else { (0, 1) };
            (accepted, refused) = (accepted + yes, refused + no);
            let top = node.broker.top(&channel(&name)).await.expect("a top");
            let messages = history(&*node.broker, &name).await;
            assert_eq!(messages.len() as u64, top.position.offset);
            // A custom message may come first: it tells nothing of the test.
            let expected = fold(&test, &messages).filter(|_| knows_test(&messages));
            assert_eq!(top.snapshot, expected, "{steps:?}, accepted: {told:?}");
        }
    }
    assert!(refused > 50 && accepted > 50, "{refused} refused, {accepted} accepted: nothing was tried");
}

fn knows_test(messages: &[Arc<Published>]) -> bool {
    messages.iter().any(|m| TestEvent::from_name(m.event.as_str()).is_some())
}

async fn the_top_and_its_snapshot_are_of_one_moment(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..3).map(|_| {
        let (node, done) = (node.clone(), done.clone());
        tokio::spawn(async move {
            for n in 0..80 {
                let data = json!({"attempt": 1, "progress": f64::from(n), "metrics": {"n": n}});
                let progress = incoming("test-progress-t", "test:progress", &data);
                node.publisher.publish(Identity::server(), vec![progress]).await.remove(0).expect("accepted");
            }
            done.store(true, Ordering::Release);
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut looks = Vec::new();
    while !done.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
        looks.push(node.broker.top(&channel("test-progress-t")).await.expect("a top"));
    }
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let messages = history(&*node.broker, "test-progress-t").await;
    assert_eq!(messages.len(), 240);
    // Folding a long past takes its time; some of the looks say as much as all of them.
    let step = looks.len().div_ceil(60);
    for top in looks.into_iter().step_by(step) {
        let upto = usize::try_from(top.position.offset).expect("a small offset");
        assert_eq!(top.snapshot, fold("t", &messages[..upto]), "at {}", top.position);
    }
}

async fn the_snapshot_of_a_channel_without_a_test_is_none(backend: &dyn Backend) {
    let node = backend.start().await;
    for name in ["plain-1", "test-progress-nobody", "queue-updates"] {
        let top = node.broker.top(&channel(name)).await.expect("a top");
        assert!(top.snapshot.is_none(), "{name}");
    }
    let nobody = TestId::parse("nobody").expect("an id");
    assert!(node.broker.snapshot(&nobody).await.expect("a look").is_none());
}

async fn a_test_that_reports_from_outside_may_name_a_job_and_still_end(backend: &dyn Backend) {
    let node = backend.start().await;
    for (event, data) in [
        ("test:started", json!({"attempt": 1, "jobId": "ci-77", "testType": "ci"})),
        ("test:progress", json!({"attempt": 1, "progress": 50})),
        ("test:completed", json!({"attempt": 1, "results": {}})),
    ] {
        let answer = node
            .publisher
            .publish(Identity::server(), vec![incoming("test-progress-t", event, &data)])
            .await
            .remove(0);
        assert!(answer.is_ok(), "{event}: {answer:?}");
    }
    let test = TestId::parse("t").expect("an id");
    let snapshot = node.broker.snapshot(&test).await.expect("a look").expect("a test");
    assert_eq!(snapshot.state, TestState::Completed);
}

async fn start(node: &Node, test: &str) {
    let started = incoming(&format!("test-progress-{test}"), "test:started", &json!({"attempt": 1}));
    node.publisher.publish(Identity::server(), vec![started]).await.remove(0).expect("accepted");
}

async fn tests_are_listed_newest_first_and_each_once(backend: &dyn Backend) {
    let node = backend.start().await;
    for n in 0..25 {
        start(&node, &format!("t{n}")).await;
    }
    let end = incoming("test-progress-t7", "test:completed", &json!({"attempt": 1}));
    node.publisher.publish(Identity::server(), vec![end]).await.remove(0).expect("accepted");
    let (mut seen, mut cursor, mut late) = (Vec::new(), None, 100);
    loop {
        let page = node.broker.tests(None, cursor, 4).await.expect("a page");
        seen.extend(page.tests.iter().map(|t| t.test_id.to_string()));
        // What begins meanwhile is newer than every page that follows.
        start(&node, &format!("t{late}")).await;
        late += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..25).rev().map(|n| format!("t{n}")).collect();
    assert_eq!(seen, expected);
    let ended = node.broker.tests(Some(TestState::Completed), None, 10).await.expect("a page");
    let ended: Vec<_> = ended.tests.iter().map(|t| t.test_id.as_str()).collect();
    assert_eq!(ended, ["t7"]);
    let running = node.broker.tests(Some(TestState::Running), None, 1000).await.expect("a page");
    assert_eq!((running.tests.len(), running.next), (24 + late - 100, None));
}
