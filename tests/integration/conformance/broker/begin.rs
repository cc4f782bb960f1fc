//! How a test begins before its first message.

use std::sync::Arc;

use serde_json::json;
use tidings::auth::Identity;
use tidings::model::{Epoch, JobId, Snapshot, TestId, TestState};

use crate::conformance::{Backend, Node, for_each_backend};
use crate::support::{channel, incoming};

for_each_backend!(a cluster too:
    a_test_that_begins_is_found_before_its_first_message,
    a_beginning_that_is_repeated_late_changes_nothing,
    a_test_that_begins_anew_forgets_what_it_was_but_not_its_messages,
);

fn begun(test: &str, job: &str, queued_at: i64) -> Snapshot {
    let test = TestId::parse(test).expect("a test id");
    let mut begun = Snapshot::new(test, "command", TestState::Queued, Epoch::new(""));
    begun.job_id = Some(JobId::parse(job).expect("a job id"));
    begun.queued_at = Some(queued_at);
    begun
}

async fn snapshot(node: &Node, test: &str) -> Snapshot {
    let test = TestId::parse(test).expect("a test id");
    node.broker.snapshot(&test).await.expect("a look").expect("the test has begun")
}

async fn a_test_that_begins_is_found_before_its_first_message(backend: &dyn Backend) {
    let node = backend.start().await;
    node.broker.begin(vec![begun("t", "a", 5), begun("u", "b", 5)]).await.expect("two begin");
    let found = snapshot(&node, "t").await;
    assert_eq!((found.state, found.attempt, found.offset), (TestState::Queued, 0, 0));
    let top = node.broker.top(&channel("test-progress-t")).await.expect("a top");
    assert_eq!((found.epoch.clone(), 0), (top.position.epoch, top.position.offset));
    assert_eq!(top.snapshot.expect("a snapshot"), found);
    let tests = node.broker.tests(Some(TestState::Queued), None, 10).await.expect("a page").tests;
    assert_eq!(tests.iter().map(|t| t.test_id.as_str()).collect::<Vec<_>>(), ["u", "t"]);
    assert!(node.heard.all().is_empty(), "no message tells of it");
}

async fn a_beginning_that_is_repeated_late_changes_nothing(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    node.broker.begin(vec![begun("t", "a", 5)]).await.expect("it begins");
    let told = incoming("test-progress-t", "test:progress", &json!({ "testId": "t", "progress": 40 }));
    node.publisher.publish_one(Identity::server(), told).await.expect_err("its job has not started");
    let before = snapshot(&node, "t").await;
    node.broker.begin(vec![begun("t", "a", 5), begun("t", "older", 4)]).await.expect("a repetition");
    assert_eq!(snapshot(&node, "t").await, before);
}

async fn a_test_that_begins_anew_forgets_what_it_was_but_not_its_messages(backend: &dyn Backend) {
    let node = backend.start().await;
    let told = incoming("test-progress-t", "test:progress", &json!({ "testId": "t", "progress": 40 }));
    node.publisher.publish_one(Identity::server(), told).await.expect("it reports from outside");
    assert_eq!(snapshot(&node, "t").await.progress, 40.0);
    node.broker.begin(vec![begun("t", "a", 5)]).await.expect("it begins");
    let found = snapshot(&node, "t").await;
    assert_eq!((found.state, found.progress, found.offset), (TestState::Queued, 0.0, 1));
}
