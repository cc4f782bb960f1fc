//! Submitting, reading and controlling jobs.

use axum::http::Request;
use serde_json::{Value, json};

use super::Server;
use crate::model::now_ms;
use crate::queue::{Ending, Queue};

const JOBS: &str = "/api/v1/jobs";

fn job() -> Value {
    json!({"testType": "command", "config": {"suite": "unit"}})
}

fn job_with(field: &str, value: impl Into<Value>) -> Value {
    let mut job = job();
    job[field] = value.into();
    job
}

#[tokio::test]
async fn a_submitted_job_is_answered_with_201_and_its_location() {
    let server = Server::start().await;
    let answer = server.post(JOBS, job_with("testId", "nightly-1")).await;
    assert_eq!(answer.status, 201);
    let accepted = answer.json();
    assert_eq!(accepted["testId"], "nightly-1");
    assert_eq!((&accepted["state"], &accepted["existing"]), (&json!("queued"), &json!(false)));
    let location = format!("{JOBS}/{}", accepted["jobId"].as_str().unwrap());
    assert_eq!(answer.header("location"), location);
    let read = server.get(&location).await;
    assert_eq!((read.status.as_u16(), &read.json()["config"]), (200, &json!({"suite": "unit"})));
    let test = server.get("/api/v1/tests/nightly-1").await;
    assert_eq!((test.status.as_u16(), &test.json()["state"]), (200, &json!("queued")));
}

#[tokio::test]
async fn every_wish_of_the_submitter_is_kept() {
    let server = Server::start().await;
    let wish = json!({"testType": "command", "config": {"suite": "unit"}, "testId": "t.1", "priority": 4,
        "delayMs": 60_000, "maxAttempts": 7, "timeoutMs": 5, "dedupeKey": "k", "teamId": "team"});
    let answer = server.post_as(Some("ann"), JOBS, wish).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (201, &json!("scheduled")));
    let read = server.get(answer.header("location")).await.json();
    for (field, value) in [
        ("priority", json!(4)),
        ("maxAttempts", json!(7)),
        ("timeoutMs", json!(5)),
        ("dedupeKey", json!("k")),
        ("teamId", json!("team")),
        ("userId", json!("ann")),
    ] {
        assert_eq!(read[field], value, "{field}");
    }
    let start = read["runAt"].as_i64().unwrap();
    assert!((now_ms()..=now_ms() + 60_000).contains(&start), "{start}");
}

#[tokio::test]
async fn a_start_in_the_past_means_at_once() {
    let server = Server::start().await;
    let answer = server.post(JOBS, job_with("runAt", 1)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (201, &json!("queued")));
    let answer = server.post(JOBS, job_with("runAt", now_ms() + 3_600_000)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (201, &json!("scheduled")));
}

#[tokio::test]
async fn a_known_dedupe_key_returns_the_first_job_with_200() {
    let server = Server::start().await;
    let first = server.post(JOBS, job_with("dedupeKey", "build-7")).await;
    let second = server.post(JOBS, job_with("dedupeKey", "build-7")).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 200));
    let (first, second) = (first.json(), second.json());
    assert_eq!((&second["existing"], &second["jobId"]), (&json!(true), &first["jobId"]));
    assert_eq!(second["testId"], first["testId"]);
}

#[tokio::test]
async fn a_config_is_checked_by_the_runner_that_is_known_here() {
    let server = Server::start().await;
    let refused = server.post(JOBS, json!({"testType": "command", "config": {}})).await;
    refused.problem_saying(400, "invalid_config", "config.suite is missing");
    let other = server.submit(json!({"testType": "somebody-elses", "config": {}})).await;
    let read = server.get(&format!("{JOBS}/{other}")).await.json();
    assert!(read["waiting"].as_str().unwrap().contains("`somebody-elses`"), "{read}");
}

#[tokio::test]
async fn a_wrong_submission_is_refused_with_the_field_that_is_wrong() {
    let server = Server::start().await;
    let mut both = job_with("delayMs", 5);
    both["runAt"] = json!(5);
    for (body, part) in [
        (json!({"config": {}}), "missing field `testType`"),
        (json!({"testType": "command"}), "missing field `config`"),
        (job_with("testTyp", "x"), "unknown field `testTyp`"),
        (job_with("testType", 7), "testType: invalid type"),
        (job_with("testType", "a b"), "testType: a test type is made of"),
        (job_with("config", 7), "config: invalid type"),
        (job_with("testId", "a/b"), "testId: a test id"),
        (job_with("testId", ""), "testId: a test id may not be empty"),
        (job_with("priority", 0), "priority: a priority is 1 (low)"),
        (job_with("priority", 5), "priority: a priority is 1 (low)"),
        (job_with("priority", "high"), "priority: invalid type"),
        (both, "delayMs or runAt, not both"),
        (job_with("delayMs", -1), "delayMs: invalid value"),
        (job_with("delayMs", u64::MAX), "delayMs is at most"),
        (job_with("runAt", -1), "runAt is in ms"),
        (job_with("runAt", i64::MAX), "runAt is in ms"),
        (job_with("maxAttempts", 0), "maxAttempts is from 1 to 100"),
        (job_with("maxAttempts", 101), "maxAttempts is from 1 to 100"),
        (job_with("timeoutMs", 0), "timeoutMs is from 1"),
        (job_with("timeoutMs", 7 * 24 * 3600 * 1000 + 1), "timeoutMs is from 1"),
        (job_with("dedupeKey", ""), "dedupeKey has 1 to 256"),
        (job_with("dedupeKey", "k".repeat(257)), "dedupeKey has 1 to 256"),
        (job_with("dedupeKey", "schedule:nightly:1795828200000"), "dedupeKey begins with `schedule:`"),
        (
            job_with("config", json!({"suite": "unit", "only": ["/tmp/x.py::t"]})),
            "config.only cannot be submitted",
        ),
        (job_with("teamId", "a team"), "teamId: a team id is made of"),
        (json!([]), "has to be a JSON object"),
        (json!(["command", {}, null, null, null, null, null, null, null, null]), "has to be a JSON object"),
    ] {
        server.post(JOBS, body).await.problem_saying(400, "invalid", part);
    }
    server.post(JOBS, "{\"testType\": }").await.problem_saying(400, "invalid_json", "line 1 column 14");
    server.post(JOBS, "").await.problem(400, "invalid_json");
    server.post_as(Some("not a user"), JOBS, job()).await.problem_saying(400, "invalid_user", "a user id");
    assert_eq!(server.get(JOBS).await.json(), json!({"jobs": []}), "nothing of this was accepted");
}

#[tokio::test]
async fn the_limits_of_a_submission_are_within_what_is_allowed() {
    let server = Server::start().await;
    for body in [
        job_with("maxAttempts", 100),
        job_with("timeoutMs", 7 * 24 * 3600 * 1000),
        job_with("dedupeKey", "ü".repeat(256)),
        job_with("testId", "x".repeat(128)),
        job_with("delayMs", 0),
        job_with("teamId", Value::Null),
    ] {
        assert_eq!(server.post(JOBS, &body).await.status, 201, "{body}");
    }
}

#[tokio::test]
async fn a_test_that_is_run_by_another_job_is_refused_with_409() {
    let server = Server::start().await;
    server.submit(job_with("testId", "t")).await;
    server.post(JOBS, job_with("testId", "t")).await.problem_saying(409, "test_active", "another testId");
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_at_once_and_cannot_be_cancelled_twice() {
    let server = Server::start().await;
    let id = server.submit(job_with("testId", "t")).await;
    let cancel = format!("{JOBS}/{id}/cancel");
    let answer = server.post_as(Some("ann"), &cancel, json!({"reason": "wrong branch"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("cancelled")));
    let told = server.get("/api/v1/channels/test-progress-t/messages").await.json();
    let data = &told["messages"].as_array().unwrap().last().unwrap()["data"];
    assert_eq!((&data["reason"], &data["cancelledBy"]), (&json!("wrong branch"), &json!("ann")));
    server.post_nothing(&cancel).await.problem(409, "job_ended");
}

#[tokio::test]
async fn a_job_that_runs_is_told_to_stop_and_answered_with_202() {
    let server = Server::start().await;
    let id = server.submit(job()).await;
    let claim = server.claim().await;
    let cancel = format!("{JOBS}/{id}/cancel");
    let answer = server.post_nothing(&cancel).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["cancelRequested"]), (202, &json!(true)));
    server.queue.finish(&claim.lease, Vec::new(), Ending::Cancelled).await.unwrap();
    server.post(&cancel, json!({})).await.problem(409, "job_ended");
}

#[tokio::test]
async fn a_wrong_cancellation_is_refused() {
    let server = Server::start().await;
    let id = server.submit(job()).await;
    let cancel = format!("{JOBS}/{id}/cancel");
    server.post(&cancel, json!({"why": "x"})).await.problem_saying(400, "invalid", "unknown field `why`");
    server.post(&cancel, json!({"reason": "x".repeat(1001)})).await.problem(400, "invalid");
    server.post(&cancel, json!(["x"])).await.problem(400, "invalid");
    server.post(&cancel, "{").await.problem(400, "invalid_json");
    let plain = Request::post(&cancel).body("{}".into()).unwrap();
    server.send(plain).await.problem(415, "unsupported_media_type");
    let state = server.get(&format!("{JOBS}/{id}")).await.json()["state"].clone();
    assert_eq!(state, "queued");
}

#[tokio::test]
async fn an_ended_job_can_be_retried_and_another_cannot() {
    let server = Server::start().await;
    let id = server.submit(job_with("testId", "t")).await;
    let retry = format!("{JOBS}/{id}/retry");
    server.post_nothing(&retry).await.problem(409, "job_not_ended");
    server.post_nothing(&format!("{JOBS}/{id}/cancel")).await;
    let answer = server.post_nothing(&retry).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("queued")));
    server.post_nothing(&format!("{JOBS}/{id}/cancel")).await;
    server.submit(job_with("testId", "t")).await;
    server.post_nothing(&retry).await.problem(409, "test_active");
}

#[tokio::test]
async fn a_job_that_does_not_exist_is_answered_with_404() {
    let server = Server::start().await;
    server.get(&format!("{JOBS}/job_none")).await.problem(404, "job_not_found");
    server.post_nothing(&format!("{JOBS}/job_none/cancel")).await.problem(404, "job_not_found");
    server.post_nothing(&format!("{JOBS}/job_none/retry")).await.problem(404, "job_not_found");
    server.get(&format!("{JOBS}/a%20b")).await.problem_saying(400, "invalid_path", "a job id");
    server.get(&format!("{JOBS}/%ff")).await.problem(400, "invalid_path");
}
