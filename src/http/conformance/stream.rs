//! Streams of server-sent events.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{STREAMS, Server};

const PATH: &str = "/api/v1/channels/test-progress-t/stream";

async fn open(server: &Server, path: &str) -> axum::response::Response {
    server.router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_wrong_question_is_refused() {
    let server = Server::start().await;
    for (query, code) in [
        ("since=yesterday", "invalid_query"),
        ("since=1&since=2", "invalid_query"),
        ("lastEventId=7", "invalid_position"),
        ("lastEventId=e:", "invalid_position"),
        ("lastEventId=:7", "invalid_position"),
        ("lastEventId=e:-1", "invalid_position"),
        ("lastEventId=e:99999999999999999999", "invalid_position"),
    ] {
        server.get(&format!("{PATH}?{query}")).await.problem(400, code);
    }
    let request = Request::get(PATH).header("last-event-id", "nonsense").body(Body::empty()).unwrap();
    server.send(request).await.problem(400, "invalid_position");
    server.get("/api/v1/channels/nowhere/stream").await.problem_saying(404, "unknown_channel", "`nowhere`");
}

#[tokio::test]
async fn a_stream_is_not_stored_nor_held_back_nor_compressed_on_its_way() {
    let server = Server::start().await;
    let request = Request::get(PATH).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(response.status(), 200);
    assert_eq!(header("content-type"), Some("text/event-stream"));
    assert_eq!((header("cache-control"), header("x-accel-buffering")), (Some("no-store"), Some("no")));
    assert_eq!(header("content-encoding"), None);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_told_before_the_stream_begins() {
    let server = Server::start().await;
    server.store.close().await;
    server.get(PATH).await.problem(503, "unavailable");
}

#[tokio::test]
async fn more_streams_than_the_limit_are_refused_until_one_has_ended() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open(&server, PATH).await);
    }
    server.get(PATH).await.problem(429, "too_many_connections");
    streams.pop();
    let again = async {
        while open(&server, PATH).await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.expect("a slot is free again");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_goes_away() {
    let server = Server::start().await;
    let message = json!({"channel": "test-progress-t", "event": "custom:n", "data": 1});
    server.post("/api/v1/events", Value::from(vec![message])).await;
    let stream = open(&server, PATH).await;
    server.ready.close();
    let text = axum::body::to_bytes(stream.into_body(), usize::MAX).await.expect("the stream has an end");
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.starts_with("retry: 2000\n"), "{text}");
    assert!(text.contains("event: system:maintenance:start\n"), "{text}");
}
