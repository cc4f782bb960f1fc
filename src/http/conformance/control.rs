//! Pauses, priorities, and who may.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::Server;
use crate::model::Scope;
use crate::queue::Queue;

const QUEUE: &str = "/api/v1/queue";
const PAUSE: &str = "/api/v1/queue/pause";
const RESUME: &str = "/api/v1/queue/resume";

async fn submit(server: &Server) -> String {
    let wish = json!({"testType": "command", "config": {"suite": "unit"}});
    let answer = server.post("/api/v1/jobs", wish).await;
    answer.json()["jobId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pause_is_shown_wherever_one_looks_until_it_is_resumed() {
    let server = Server::start().await;
    let job = submit(&server).await;
    assert_eq!(server.get(QUEUE).await.json(), json!({"paused": []}));
    let wish = json!({"suite": "unit", "reason": "the database is moved"});
    let answer = server.post_as(Some("ann"), PAUSE, wish).await;
    assert_eq!(answer.status, 200);
    let paused = answer.json()["paused"].clone();
    let since = paused[0]["since"].clone();
    assert_eq!(
        paused,
        json!([{"testType": "command", "suite": "unit", "since": since, "by": "ann",
            "reason": "the database is moved"}])
    );
    assert_eq!(server.get(QUEUE).await.json()["paused"], paused);
    assert_eq!(server.get("/api/v1/stats").await.json()["paused"], paused);
    let waiting = server.get(&format!("/api/v1/jobs/{job}")).await.json()["waiting"].clone();
    let waiting = waiting.as_str().unwrap();
    assert!(waiting.starts_with("the suite `unit` has been paused since "), "{waiting}");
    assert!(waiting.ends_with("Z, by ann: the database is moved"), "{waiting}");
    // Again: as it was.
    assert_eq!(
        server.post(PAUSE, json!({"testType": "command", "suite": "unit"})).await.json()["paused"],
        paused
    );
    // Another scope is another pause.
    assert_eq!(server.post(RESUME, json!({})).await.json()["paused"], paused);
    for _ in 0..2 {
        let answer = server.post(RESUME, json!({"suite": "unit"})).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"paused": []})));
    }
}

#[tokio::test]
async fn without_a_body_it_is_the_whole_queue() {
    let server = Server::start().await;
    for (path, paused) in [(PAUSE, 1), (RESUME, 0)] {
        let request = Request::builder().method("POST").uri(path);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(server.queue.pauses().await.unwrap().len(), paused);
    }
    server.post(PAUSE, json!({})).await;
    assert_eq!(server.queue.pauses().await.unwrap()[0].scope(), Scope::All);
}

#[tokio::test]
async fn what_cannot_be_paused_is_refused_with_what_is_wrong() {
    let server = Server::start().await;
    for (body, detail) in [
        (json!({"testType": ""}), "testType: "),
        (json!({"testType": "*"}), "testType: "),
        (json!({"testType": "a/b"}), "testType: "),
        (json!({"testType": "stress", "suite": "unit"}), "suite: only jobs of the test type `command`"),
        (json!({"suite": ""}), "suite has 1 to 256 bytes"),
        (json!({"suite": "x".repeat(257)}), "suite has 1 to 256 bytes"),
        (json!({"reason": "x".repeat(1001)}), "reason has at most 1000"),
    ] {
        let answer = server.post(PAUSE, body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("invalid")), "{body}");
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(detail), "{body}: {answer:?}");
    }
    for body in [json!({"testtype": "a"}), json!({"suite": 1}), json!([1]), json!({"since": 1})] {
        for path in [PAUSE, RESUME] {
            let answer = server.post(path, body.clone()).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("invalid")), "{body}");
        }
    }
    assert!(server.queue.pauses().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_that_waits_gets_another_priority_and_no_other_does() {
    let server = Server::start().await;
    let job = submit(&server).await;
    let path = format!("/api/v1/jobs/{job}/priority");
    let answer = server.post(&path, json!({"priority": 4})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["priority"]), (200, &json!(4)), "{answer:?}");
    for body in [
        json!({}),
        json!({"priority": 0}),
        json!({"priority": 5}),
        json!({"priority": "high"}),
        json!(3),
        json!({"priority": 2, "more": 1}),
        Value::Null,
    ] {
        let answer = server.post(&path, body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("invalid")), "{body}");
    }
    server.claim().await;
    let answer = server.post(&path, json!({"priority": 1})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (409, &json!("job_not_waiting")));
    assert!(answer.json()["detail"].as_str().unwrap().contains("(running)"), "{answer:?}");
    let answer = server.post("/api/v1/jobs/job_x/priority", json!({"priority": 1})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (404, &json!("job_not_found")));
}
