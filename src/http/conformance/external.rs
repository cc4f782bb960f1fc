//! Tests that run outside of all workers: registered, told of, ended.

use serde_json::{Value, json};

use super::{Answer, MESSAGE_BYTES, PUBLISH_BATCH, Server};
use crate::http::external::{AHEAD_MS, Outlooks};
use crate::model::{JobId, TestId, now_ms};
use crate::queue::{Holder, Lease, Queue, QueueError, Report};

const TESTS: &str = "/api/v1/tests";

async fn register(server: &Server, body: Value) -> Value {
    let answer = server.post(TESTS, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let registered = answer.json();
    assert_eq!(answer.header("location"), format!("{TESTS}/{}", registered["testId"].as_str().unwrap()));
    registered
}

/// What speaks for the attempt, and `more`.
fn by(registered: &Value, more: &Value) -> Value {
    let mut body = json!({"attempt": registered["attempt"], "lease": registered["lease"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn report(server: &Server, registered: &Value, events: Value) -> Answer {
    let path = format!("{TESTS}/{}/reports", registered["testId"].as_str().unwrap());
    server.post(&path, by(registered, &json!({ "events": events }))).await
}

async fn end(server: &Server, registered: &Value, more: Value) -> Answer {
    let path = format!("{TESTS}/{}/end", registered["testId"].as_str().unwrap());
    server.post(&path, by(registered, &more)).await
}

async fn snapshot(server: &Server, test: &str) -> Value {
    server.get(&format!("{TESTS}/{test}")).await.json()
}

#[tokio::test]
async fn a_test_is_registered_told_of_and_ended() {
    let server = Server::start().await;
    let wish = json!({"testId": "nightly", "name": "nightly", "leaseMs": 5000, "total": 4, "url": "https://ci/1",
        "startedAt": now_ms() - 1000});
    let registered = register(&server, wish).await;
    assert_eq!(
        (&registered["testId"], &registered["attempt"], &registered["leaseMs"], &registered["state"]),
        (&json!("nightly"), &json!(1), &json!(5000), &json!("running"))
    );
    let now = snapshot(&server, "nightly").await;
    assert_eq!(
        (&now["state"], &now["counts"]["total"], &now["testType"]),
        (&json!("running"), &json!(4), &json!("external"))
    );
    let events = json!([
        {"id": "e1", "event": "progress", "data": {"progress": 50, "completed": 2, "total": 4, "current": ["sorts"],
            "counts": {"passed": 1, "failed": 1, "skipped": 0, "total": 4}, "testId": "other", "attempt": 9}},
        {"event": "log", "data": {"firstLine": 1, "lines": ["one", "two"]}},
        {"event": "custom:build", "data": {"n": 7}},
    ]);
    let taken = report(&server, &registered, events).await;
    assert_eq!((taken.status.as_u16(), taken.json()), (200, json!({"attempt": 1, "leaseMs": 5000})));
    let now = snapshot(&server, "nightly").await;
    assert_eq!(
        (&now["progress"], &now["current"], &now["counts"]["failed"]),
        (&json!(50.0), &json!(["sorts"]), &json!(1))
    );
    let answer = end(
        &server,
        &registered,
        json!({"outcome": "failed", "durationMs": 4321,
        "failures": [{"name": "sorts", "message": "1 < 0"}]}),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"state": "failed"})));
    let now = snapshot(&server, "nightly").await;
    assert_eq!((&now["state"], &now["failures"][0]["name"]), (&json!("failed"), &json!("sorts")));
    assert_eq!(now["error"], json!({"code": "tests_failed", "message": "1 failed"}));
    let told = server.get("/api/v1/channels/test-progress-nightly/messages").await.json();
    let told: Vec<_> =
        told["messages"].as_array().unwrap().iter().map(|m| m["event"].as_str().unwrap()).collect();
    let expected =
        ["test:started", "test:progress", "test:progress", "test:log", "custom:build", "test:failed"];
    assert_eq!(told, expected);
    let job = server.get(&format!("/api/v1/jobs/{}", registered["jobId"].as_str().unwrap())).await.json();
    assert_eq!((&job["leaseMs"], &job["name"]), (&json!(5000), &json!("nightly")));
    let secret = registered["lease"].as_str().unwrap().rsplit('~').next().unwrap();
    assert!(!job.to_string().contains(secret), "the secret is the holder's alone");
}

#[tokio::test]
async fn the_same_end_and_the_same_registration_are_answered_again() {
    let server = Server::start().await;
    let wish = json!({"id": "run-7", "testId": "t"});
    let registered = register(&server, wish.clone()).await;
    let again = server.post(TESTS, wish.clone()).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, registered.clone()));
    // What another user calls the same is something else.
    server.post_as(Some("ann"), TESTS, wish).await.problem(409, "test_is_running");
    for _ in 0..2 {
        let answer = end(&server, &registered, json!({"outcome": "passed", "results": {"n": 1}})).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"state": "completed"})));
    }
    report(&server, &registered, json!([])).await.problem(409, "stale_attempt");
}

#[tokio::test]
async fn a_test_that_has_ended_begins_anew_and_one_that_runs_does_not() {
    let server = Server::start().await;
    let first = register(&server, json!({"testId": "t"})).await;
    server.post(TESTS, json!({"testId": "t"})).await.problem_saying(409, "test_is_running", "test t");
    end(&server, &first, json!({"outcome": "passed"})).await;
    let second = register(&server, json!({"testId": "t"})).await;
    assert_ne!(second["lease"], first["lease"]);
    for answer in [
        report(&server, &first, json!([{"event": "progress", "data": {"progress": 1}}])).await,
        server.post(&format!("{TESTS}/t/reports"), by(&second, &json!({"attempt": 2, "events": []}))).await,
    ] {
        answer.problem(409, "stale_attempt");
    }
    let unnamed = register(&server, json!({})).await;
    assert!(unnamed["testId"].as_str().unwrap().starts_with("external_"), "{unnamed}");
    let job = format!("/api/v1/jobs/{}/retry", first["jobId"].as_str().unwrap());
    server.post_nothing(&job).await.problem(409, "job_is_external");
}

#[tokio::test]
async fn whoever_asks_for_a_cancellation_is_told_on_by_the_next_report() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    let cancel = format!("/api/v1/jobs/{}/cancel", registered["jobId"].as_str().unwrap());
    assert_eq!(server.post_as(Some("ann"), &cancel, json!({"reason": "wrong branch"})).await.status, 202);
    let taken = report(&server, &registered, json!([])).await.json();
    assert_eq!(taken["cancel"], json!({"reason": "wrong branch", "cancelledBy": "ann"}));
    let answer = end(&server, &registered, json!({"outcome": "cancelled"})).await;
    assert_eq!(answer.json(), json!({"state": "cancelled"}));
    // Whoever stops by itself says why.
    let registered = register(&server, json!({"testId": "u"})).await;
    end(
        &server,
        &registered,
        json!({"outcome": "cancelled", "error": {"code": "interrupted", "message": "Ctrl-C"}}),
    )
    .await;
    let told = server.get("/api/v1/channels/test-progress-u/messages").await.json();
    let last = told["messages"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["event"], &last["data"]["reason"]), (&json!("test:cancelled"), &json!("Ctrl-C")));
}

#[tokio::test]
async fn a_lease_is_resumed_while_it_counts_and_refused_when_it_is_another() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    let resume = |lease: &Value| json!({"testId": "t", "resume": {"jobId": registered["jobId"], "attempt": 1, "lease": lease}});
    let answer = server.post(TESTS, resume(&registered["lease"])).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, registered.clone()));
    server.post(TESTS, resume(&json!("guessed"))).await.problem(409, "stale_attempt");
    let mut nameless = resume(&registered["lease"]);
    nameless.as_object_mut().unwrap().remove("testId");
    server.post(TESTS, nameless).await.problem_saying(400, "invalid", "testId beside it");
    end(&server, &registered, json!({"outcome": "passed"})).await;
    server.post(TESTS, resume(&registered["lease"])).await.problem(409, "stale_attempt");
}

#[tokio::test]
async fn a_wrong_registration_is_refused_with_the_field_that_is_wrong() {
    let server = Server::start().await;
    for (body, part) in [
        (json!({"testType": "a b"}), "testType"),
        (json!({"testId": "a/b"}), "testId"),
        (json!({"testid": "a"}), "unknown field `testid`"),
        (json!({"name": ""}), "name has 1 to 256"),
        (json!({"name": "x".repeat(257)}), "name has 1 to 256"),
        (json!({"leaseMs": 4999}), "leaseMs is from 5000 to 300000"),
        (json!({"leaseMs": 300_001}), "leaseMs is from 5000 to 300000"),
        (json!({"leaseMs": -1}), "leaseMs"),
        (json!({"startedAt": 5}), "startedAt"),
        (json!({"startedAt": i64::MAX}), "startedAt"),
        (json!({"total": -1}), "total"),
        (json!({"url": "javascript:alert(1)"}), "url begins with"),
        (json!({"url": format!("http://{}", "x".repeat(2048))}), "at most 2048"),
        (json!({"id": "a b"}), "id: "),
        (json!({"id": "x".repeat(65)}), "id: "),
        (json!({"teamId": "a b"}), "teamId"),
        (json!({"resume": {"jobId": "j", "attempt": -1, "lease": ""}}), "resume.attempt"),
        (json!([]), "has to be a JSON object"),
    ] {
        server.post(TESTS, body).await.problem_saying(400, "invalid", part);
    }
    server.post(TESTS, "{").await.problem(400, "invalid_json");
    assert_eq!(server.get(TESTS).await.json(), json!({"tests": []}), "nothing of this was accepted");
}

#[tokio::test]
async fn a_wrong_report_is_refused_as_a_whole() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    let good = json!({"event": "progress", "data": {"progress": 5}});
    for (event, code, part) in [
        (json!({"event": "progress", "data": {}}), "invalid", "progress is missing"),
        (json!({"event": "progress", "data": {"progress": 101}}), "invalid", "between 0 and 100"),
        (json!({"event": "progress", "data": {"progress": "half"}}), "invalid", "progress"),
        (json!({"event": "progress", "data": [1]}), "invalid", "is an object"),
        (json!({"event": "log", "data": {"lines": ["x"]}}), "invalid", "firstLine"),
        (json!({"event": "log", "data": {"firstLine": 1, "lines": [7]}}), "invalid", "expected a string"),
        (json!({"event": "started", "data": {}}), "unknown_event", "not \"started\""),
        (json!({"event": "test:completed", "data": {}}), "unknown_event", "custom:"),
        (json!({"event": "custom:a b", "data": {}}), "invalid", "an event is"),
        (json!({"event": "custom:x", "data": 7}), "invalid", "data is a JSON object"),
        (json!({"event": "progress", "data": {"progress": 1}, "id": "a#b"}), "invalid", "id: "),
        (json!({"event": "progress", "data": {"progress": 1}, "id": ""}), "invalid", "id: "),
        (json!({"event": "progress"}), "invalid", "missing field `data`"),
    ] {
        report(&server, &registered, json!([good, event])).await.problem_saying(400, code, part);
    }
    let large = json!({"event": "custom:x", "data": {"text": "x".repeat(MESSAGE_BYTES)}});
    report(&server, &registered, json!([large])).await.problem_saying(413, "too_large", "events[0]");
    let many = vec![good; PUBLISH_BATCH + 1];
    report(&server, &registered, json!(many)).await.problem_saying(400, "invalid", "at most 100");
    let now = snapshot(&server, "t").await;
    assert_eq!((&now["progress"], &now["offset"]), (&json!(0.0), &json!(1)), "nothing of this was told");
    for (more, part) in [
        (json!({"outcome": "lost"}), "outcome"),
        (json!({}), "missing field `outcome`"),
        (json!({"outcome": "failed", "error": {"code": "worker_lost", "message": ""}}), "worker_lost"),
        (json!({"outcome": "failed", "error": {"code": "a b", "message": ""}}), "error.code"),
        (json!({"outcome": "failed", "results": {"counts": 7}}), "results"),
        (json!({"outcome": "failed", "failures": [{"message": "x"}]}), "missing field `name`"),
        (json!({"outcome": "passed", "events": [{"event": "x", "data": {}}]}), "events[0]"),
    ] {
        let code = if part == "events[0]" { "unknown_event" } else { "invalid" };
        end(&server, &registered, more).await.problem_saying(400, code, part);
    }
    assert_eq!(snapshot(&server, "t").await["state"], "running");
}

#[tokio::test]
async fn a_test_that_does_not_exist_is_answered_with_404_and_a_wrong_lease_with_409() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    for part in ["reports", "end"] {
        let more = if part == "end" { json!({"outcome": "passed"}) } else { json!({"events": []}) };
        let path = |test: &str| format!("{TESTS}/{test}/{part}");
        server.post(&path("none"), by(&registered, &more)).await.problem(404, "test_not_found");
        let mut guessed = by(&registered, &more);
        for lease in
            ["", "guess", &"~".repeat(9), &registered["lease"].as_str().unwrap().replace("~1~", "~2~")]
        {
            guessed["lease"] = json!(lease);
            server.post(&path("t"), &guessed).await.problem(409, "stale_attempt");
            server.post(&path("none"), &guessed).await.problem(404, "test_not_found");
        }
        server.post(&path("a%20b"), by(&registered, &more)).await.problem(400, "invalid_path");
    }
    let other = register(&server, json!({"testId": "u"})).await;
    let crossed = server.post(&format!("{TESTS}/u/reports"), by(&registered, &json!({"events": []}))).await;
    crossed.problem(409, "stale_attempt");
    assert_eq!(server.queue.counts().await.unwrap()["running"], 2);
    assert_eq!(report(&server, &other, json!([])).await.status, 200);
}

/// The lease of the test `t`, and the same of a stranger, who does not know its secret.
fn leases(registered: &Value) -> (Lease, Lease) {
    let parts: Vec<&str> = registered["lease"].as_str().unwrap().split('~').collect();
    let lease = |secret: &str| {
        let holder = Holder { test_id: TestId::parse("t").unwrap(), secret: secret.to_owned() };
        let job_id = JobId::parse(parts[0]).unwrap();
        let (attempt, fence) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        Lease { job_id, attempt, fence, holder: Some(holder) }
    };
    (lease(parts[4]), lease(&"0".repeat(40)))
}

fn progress(percent: u8, name: Option<&str>) -> Vec<Report> {
    let data = serde_json::value::to_raw_value(&json!({ "progress": percent })).unwrap();
    let told = Report::Progress { percent: f64::from(percent), data };
    vec![match name {
        Some(name) => Report::Named { name: name.to_owned(), report: Box::new(told) },
        None => told,
    }]
}

#[tokio::test]
async fn nothing_of_a_stranger_is_told_or_kept() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    let (own, strange) = leases(&registered);
    let mut guess = by(&registered, &json!({"events": [{"event": "progress", "data": {"progress": 77}}]}));
    guess["lease"] = json!(
        registered["lease"].as_str().unwrap().rsplit_once('~').unwrap().0.to_owned() + "~" + &"0".repeat(40)
    );
    let path = format!("{TESTS}/t/reports");
    server.post(&path, &guess).await.problem(409, "stale_attempt");
    // At any time that one likes.
    let (outlooks, now) = (Outlooks::default(), now_ms());
    let refused = async |percent, now| {
        let answer = outlooks.report_at(&server.queue, &strange, progress(percent, None), now).await;
        assert!(matches!(answer, Err(QueueError::LeaseLost { .. })), "{answer:?}");
    };
    refused(77, now).await;
    assert_eq!(outlooks.len(), 0, "kept of a stranger");
    outlooks.report_at(&server.queue, &own, Vec::new(), now + 61_000).await.unwrap();
    assert_eq!(snapshot(&server, "t").await["progress"], json!(0.0), "of the stranger");
    outlooks.report_at(&server.queue, &own, progress(10, None), now + 62_000).await.unwrap();
    refused(78, now + 63_000).await;
    outlooks.report_at(&server.queue, &own, Vec::new(), now + 123_000).await.unwrap();
    let seen = snapshot(&server, "t").await;
    assert_eq!((&seen["progress"], &seen["stalled"]), (&json!(10.0), &json!({"sinceMs": 61_000})));
    assert_eq!(outlooks.len(), 1);
    // By a wrong lease nothing of the holder's is forgotten, and by its own end all.
    let guess = json!({"attempt": 1, "lease": guess["lease"], "outcome": "passed"});
    server.post(&format!("{TESTS}/t/end"), guess).await.problem(409, "stale_attempt");
    assert_eq!(end(&server, &registered, json!({"outcome": "passed"})).await.status, 200);
    let lost = outlooks.report_at(&server.queue, &own, progress(11, None), now + 124_000).await;
    assert!(matches!(lost, Err(QueueError::LeaseLost { .. })), "{lost:?}");
    assert_eq!(outlooks.len(), 0, "kept of an attempt that has ended");
}

#[tokio::test]
async fn progress_that_is_sent_again_is_not_the_newest() {
    let server = Server::start().await;
    let (own, _) = leases(&register(&server, json!({"testId": "t"})).await);
    let (outlooks, now) = (Outlooks::default(), now_ms());
    for (reports, at) in [
        (progress(10, Some("p1")), 0),
        (progress(20, Some("p2")), 1_000),
        // Whose answer was lost sends it again.
        (progress(10, Some("p1")), 60_500),
        (Vec::new(), 61_000),
    ] {
        outlooks.report_at(&server.queue, &own, reports, now + at).await.unwrap();
    }
    let seen = snapshot(&server, "t").await;
    assert_eq!((&seen["progress"], &seen["stalled"]), (&json!(20.0), &json!({"sinceMs": 60_000})));
}

#[tokio::test]
async fn who_is_alive_without_progress_is_stalled_and_goes_on_as_soon_as_there_is_some() {
    let server = Server::start().await;
    let registered = register(&server, json!({"testId": "t"})).await;
    let tell = async |ahead_ms: i64, events: Value| {
        let answer = AHEAD_MS.scope(ahead_ms, report(&server, &registered, events)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        snapshot(&server, "t").await
    };
    let progress = |percent: u8| json!([{"event": "progress", "data": {"progress": percent}}]);
    assert_eq!(tell(0, progress(10)).await.get("stalled"), None);
    assert_eq!(tell(50_000, json!([])).await.get("stalled"), None);
    // The holder shows its lease, and nothing else.
    let seen = tell(61_000, json!([])).await;
    assert_eq!((&seen["state"], &seen["progress"]), (&json!("running"), &json!(10.0)), "{seen}");
    let since = seen["stalled"]["sinceMs"].as_u64().expect("it is stalled");
    assert!((60_000..70_000).contains(&since), "{since}");
    let log = json!([{"event": "log", "data": {"firstLine": 1, "lines": ["still here"]}}]);
    assert!(tell(62_000, log).await["stalled"].is_object(), "a log is no progress");
    let seen = tell(63_000, progress(20)).await;
    assert_eq!((seen.get("stalled"), &seen["progress"]), (None, &json!(20.0)), "{seen}");
    assert_eq!(end(&server, &registered, json!({"outcome": "passed"})).await.status, 200);
    assert_eq!(snapshot(&server, "t").await["state"], "completed");
}
