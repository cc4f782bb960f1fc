//! What is told of a whole life, where, and in which order.

use serde_json::{Map, Value};
use tidings::model::{Job, JobState, now_ms};
use tidings::queue::{Ending, NewJob, QueueError};

use super::{channels_of, claim, claim_when_due, failed, get, job, log, passed, progress, submit, worker};
use crate::conformance::{Backend, Node, for_each_backend};
use crate::support::{history, id_of, read};

for_each_backend!(a cluster too:
    every_message_says_whose_it_is,
    a_report_is_told_in_its_order_and_all_at_once,
    what_is_told_with_an_end_comes_before_it,
    a_committed_state_has_its_events_even_after_a_hard_end,
);

/// In a cluster channels lie on different servers: each has its own order, and there is none between them.
mod in_one_order {
    use super::{
        a_life_that_ends_before_it_began_is_told, a_life_with_a_retry_is_told_as_the_contract_says,
        a_stress_test_tells_of_its_progress_in_its_own_channel_too,
    };

    crate::conformance::for_each_backend!(
        a_life_that_ends_before_it_began_is_told,
        a_life_with_a_retry_is_told_as_the_contract_says,
        a_stress_test_tells_of_its_progress_in_its_own_channel_too,
    );
}

/// `T` and `J` stand for the channels of the test and of the job, `Q`, `U` and `H` for those of all.
fn told(node: &Node, job: &Job) -> Vec<String> {
    let names = channels_of(job);
    let short = |channel: &str| {
        let index = names.iter().position(|name| name == channel);
        index.map_or_else(|| channel.to_owned(), |index| ["T", "J", "Q", "U", "H"][index].to_owned())
    };
    node.heard.places().iter().map(|(channel, event)| format!("{} {event}", short(channel))).collect()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|entry| entry.trim().to_owned()).collect()
}

async fn a_life_with_a_retry_is_told_as_the_contract_says(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    let first = claim(&node, "w").await.lease;
    node.queue.report(&first, vec![progress(10.0), log("a line")]).await.expect("a report");
    node.queue.finish(&first, Vec::new(), failed("timeout")).await.expect("an end");
    let second = claim_when_due(&node, "w").await.lease;
    node.queue.finish(&second, Vec::new(), passed()).await.expect("an end");
    let expected = list(
        "J queue:job:added, Q queue:job:added,
         T test:started, U test:started, J queue:job:started, Q queue:job:started,
         T test:progress, U test:progress, J queue:job:progress, Q queue:job:progress,
         T test:log,
         T test:failed, U test:failed, J queue:job:retrying, Q queue:job:retrying,
         T test:started, U test:started, J queue:job:started, Q queue:job:started,
         T test:completed, U test:completed, H test:completed, J queue:job:completed, Q queue:job:completed",
    );
    assert_eq!(told(&node, &made), expected);
    let ends = history(&*node.broker, &channels_of(&made)[0]).await;
    let failure = read(&ends[3]);
    assert_eq!(
        (&failure["data"]["willRetry"], &failure["data"]["error"]["code"]),
        (&true.into(), &"timeout".into())
    );
    let end = read(&ends[5]);
    assert_eq!((&end["data"]["status"], &end["data"]["attempt"]), (&"passed".into(), &2.into()));
}

async fn a_stress_test_tells_of_its_progress_in_its_own_channel_too(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("stress")).await;
    let claims = node.queue.claim(&worker("w"), &["stress".to_owned()], 1).await.expect("a claim");
    node.queue.report(&claims[0].lease, vec![progress(10.0)]).await.expect("a report");
    let own = format!("stress-test-{}", made.test_id);
    let told = told(&node, &made);
    let expected = format!(
        "T test:progress, U test:progress, {own} test:progress, J queue:job:progress, Q queue:job:progress"
    );
    assert_eq!(told[6..], list(&expected));
    assert_eq!(read(&history(&*node.broker, &own).await[0])["data"]["progress"], 10.0);
}

async fn a_life_that_ends_before_it_began_is_told(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    node.queue.cancel(&made.job_id, None, None).await.expect("it waits");
    node.queue.retry(&made.job_id).await.expect("once more");
    let lease = claim(&node, "w").await.lease;
    node.queue.finish(&lease, Vec::new(), failed("tests_failed")).await.expect("an end");
    let expected = list(
        "J queue:job:added, Q queue:job:added,
         T test:cancelled, U test:cancelled, H test:cancelled, J queue:job:cancelled, Q queue:job:cancelled,
         J queue:job:added, Q queue:job:added,
         T test:started, U test:started, J queue:job:started, Q queue:job:started,
         T test:failed, U test:failed, H test:failed, J queue:job:failed, Q queue:job:failed",
    );
    assert_eq!(told(&node, &made), expected);
}

async fn what_is_told_with_an_end_comes_before_it(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    let lease = claim(&node, "w").await.lease;
    let last = vec![log("the last line"), progress(99.0)];
    let ended = node.queue.finish(&lease, last.clone(), failed("tests_failed")).await.expect("an end");
    assert_eq!(ended.state, JobState::Failed);
    let late = node.queue.finish(&lease, last, passed()).await.expect_err("it has ended");
    assert!(matches!(late, QueueError::LeaseLost { .. }), "{late}");
    let [test, own, ..] = channels_of(&made);
    let told = async |channel: &str| -> Vec<String> {
        let messages = history(&*node.broker, channel).await;
        messages.iter().map(|message| message.event.to_string()).collect()
    };
    assert_eq!(told(&test).await, ["test:started", "test:log", "test:progress", "test:failed"]);
    let of_job = ["queue:job:added", "queue:job:started", "queue:job:progress", "queue:job:failed"];
    assert_eq!(told(&own).await, of_job);
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!((snapshot.progress, snapshot.state.name()), (99.0, "failed"));
}

async fn every_message_says_whose_it_is(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, NewJob { user_id: Some("ada".parse().expect("an id")), ..job("command") }).await;
    let lease = claim(&node, "w").await.lease;
    node.queue.report(&lease, vec![progress(10.0), log("x")]).await.expect("a report");
    let results: Map<String, Value> = serde_json::from_str(r#"{"counts": {"passed": 3}}"#).expect("JSON");
    node.queue.finish(&lease, Vec::new(), Ending::Passed { results }).await.expect("an end");
    let mut ids = std::collections::HashSet::new();
    for message in node.heard.all() {
        let text = read(&message);
        let data = &text["data"];
        assert_eq!(
            (&data["testId"], &text["userId"]),
            (&made.test_id.as_str().into(), &"ada".into()),
            "{text}"
        );
        assert!(data["attempt"].is_u64(), "{text}");
        if message.event.as_str().starts_with("queue:") {
            let own = (&data["jobId"], &data["testType"]);
            assert_eq!(own, (&made.job_id.as_str().into(), &"command".into()), "{text}");
            assert!(JobState::from_name(data["state"].as_str().expect("a state")).is_some(), "{text}");
        }
        assert!(ids.insert((message.channel.clone(), id_of(&message))), "an id stands twice: {text}");
    }
    let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
    assert_eq!(
        (snapshot.counts.passed, snapshot.results.expect("results")["counts"]["passed"].as_u64()),
        (3, Some(3))
    );
}

async fn a_report_is_told_in_its_order_and_all_at_once(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    let lease = claim(&node, "w").await.lease;
    let reports: Vec<_> = (1..=40).flat_map(|n| [log(&n.to_string()), progress(f64::from(n))]).collect();
    node.queue.report(&lease, reports).await.expect("a report");
    let own = history(&*node.broker, &channels_of(&made)[0]).await;
    assert_eq!(own.len(), 81);
    for (n, pair) in own[1..].chunks(2).enumerate() {
        assert_eq!(read(&pair[0])["data"]["lines"][0], (n + 1).to_string());
        #[expect(clippy::cast_precision_loss, reason = "forty fits")]
        let percent = (n + 1) as f64;
        assert_eq!(read(&pair[1])["data"]["progress"], percent);
    }
}

async fn a_committed_state_has_its_events_even_after_a_hard_end(backend: &dyn Backend) {
    let made = submit(&backend.start().await, job("command")).await;
    let mut lease = None;
    for step in ["look", "claim", "report", "fail", "claim", "pass", "retry", "cancel"] {
        let node = backend.start().await;
        match (step, lease.take()) {
            ("claim", _) => lease = Some(claim_when_due(&node, "w").await.lease),
            ("report", Some(held)) => {
                node.queue.report(&held, vec![progress(5.0)]).await.expect("a report");
                lease = Some(held);
            }
            ("fail", Some(held)) => {
                drop(node.queue.finish(&held, Vec::new(), failed("timeout")).await.expect("an end"))
            }
            ("pass", Some(held)) => {
                drop(node.queue.finish(&held, Vec::new(), passed()).await.expect("an end"))
            }
            ("retry", _) => drop(node.queue.retry(&made.job_id).await.expect("once more")),
            ("cancel", _) => drop(node.queue.cancel(&made.job_id, None, None).await.expect("it waits")),
            _ => assert_eq!(step, "look"),
        }
        let before = get(&node, &made.job_id).await;
        let told = node.heard.all().len();
        drop(node);

        let node = backend.start().await;
        let after = Job { waiting: None, ..get(&node, &made.job_id).await };
        assert_eq!(after, Job { waiting: None, ..before }, "after {step}");
        let events = history(&*node.broker, &channels_of(&made)[1]).await;
        let last = read(events.last().expect("events"));
        let state = (last["data"]["state"].as_str(), last["data"]["attempt"].as_u64());
        assert_eq!(state, (Some(after.state.name()), Some(after.attempt.into())), "after {step}");
        assert_eq!(told == 0, step == "look", "each change was told of");
        let snapshot = node.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
        assert_eq!(snapshot.state, after.state, "after {step}");
    }
}
