//! What no route answers for itself.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{BODY_BYTES, Server};

#[tokio::test]
async fn an_unknown_path_is_a_problem_with_404() {
    let server = Server::start().await;
    for path in ["/nothing", "/api/v1", "/api/v1/jobs/", "/api/v1/jobs/j/x", "/healthz/"] {
        server.get(path).await.problem_saying(404, "not_found", path);
    }
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_with_405_that_says_which_are_right() {
    let server = Server::start().await;
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/jobs", "GET,HEAD,POST"),
        ("PUT", "/api/v1/jobs/j", "GET,HEAD"),
        ("GET", "/api/v1/events", "POST"),
        ("BREW", "/healthz", "GET,HEAD"),
    ] {
        let answer =
            server.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        answer.problem_saying(405, "method_not_allowed", method);
        let mut allow: Vec<_> = answer.header("allow").split(',').collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_problem_with_413() {
    let server = Server::start().await;
    let large = json!({"testType": "command", "config": {"suite": "x".repeat(BODY_BYTES)}});
    for path in ["/api/v1/jobs", "/api/v1/events", "/api/v1/jobs/j/cancel"] {
        server.post(path, &large).await.problem(413, "body_too_large");
    }
}

#[tokio::test]
async fn a_body_that_is_not_said_to_be_json_is_a_problem_with_415() {
    let server = Server::start().await;
    for path in ["/api/v1/jobs", "/api/v1/events"] {
        server.post_nothing(path).await.problem(415, "unsupported_media_type");
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"] {
            let request = Request::post(path).header("content-type", kind).body(Body::from("{}")).unwrap();
            server.send(request).await.problem_saying(415, "unsupported_media_type", "application/json");
        }
    }
}

#[tokio::test]
async fn what_calls_itself_a_kind_of_json_is_read_as_json() {
    let server = Server::start().await;
    for kind in ["Application/JSON", "application/cloudevents+json;v=1"] {
        let body = r#"{"channel":"test-progress-t","event":"custom:x","data":1}"#;
        let request = Request::post("/api/v1/events").header("content-type", kind).body(body.into()).unwrap();
        assert_eq!(server.send(request).await.status, 201, "{kind}");
    }
}

#[tokio::test]
async fn a_user_who_is_named_twice_is_refused() {
    let server = Server::start().await;
    let request = Request::post("/api/v1/events")
        .header("content-type", "application/json")
        .header("x-user-id", "ann")
        .header("x-user-id", "bob")
        .body(Body::from("[]"))
        .unwrap();
    server.send(request).await.problem_saying(400, "invalid_user", "twice");
}

#[tokio::test]
async fn a_request_keeps_the_id_that_its_caller_gave_it() {
    let server = Server::start().await;
    let ask = |id| {
        server.send(Request::get("/api/v1/jobs/none").header("x-request-id", id).body(Body::empty()).unwrap())
    };
    let answer = ask("mine-1").await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    answer.problem(404, "job_not_found");
    let replaced = ask("not a name").await;
    assert!(replaced.header("x-request-id").starts_with("req_"), "{replaced:?}");
}
