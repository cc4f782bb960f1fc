//! Answers that are worth it are compressed for those who accept it.

use std::io::Read as _;

use axum::body::Body;
use axum::http::Request;
use flate2::read::GzDecoder;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Server;

const PATH: &str = "/api/v1/channels/test-progress-t/messages";

/// A server with some history in one channel.
async fn server_with_history() -> Server {
    let server = Server::start().await;
    let message =
        |n| json!({"channel": "test-progress-t", "event": "custom:n", "data": {"note": "same", "n": n}});
    let sent: Vec<Value> = (1..=super::PUBLISH_BATCH).map(message).collect();
    assert_eq!(server.post("/api/v1/events", Value::from(sent)).await.status, 200);
    server
}

/// Asks for `path` as a client that accepts gzip: the encoding and the bytes of the answer.
async fn get_gzip(server: &Server, path: &str) -> (String, Vec<u8>) {
    let request = Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let encoding = response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (encoding.unwrap_or_default(), bytes.to_vec())
}

#[tokio::test]
async fn history_is_compressed_for_those_who_accept_it_and_is_the_same() {
    let server = server_with_history().await;
    let plain = server.get(PATH).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    let (encoding, bytes) = get_gzip(&server, PATH).await;
    assert_eq!(encoding, "gzip");
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text);
    println!("{} bytes as {}", text.len(), bytes.len());
    assert!(bytes.len() * 5 < text.len(), "{} bytes as {}", text.len(), bytes.len());
}

#[tokio::test]
async fn a_short_answer_is_not_compressed() {
    let server = server_with_history().await;
    let (encoding, bytes) = get_gzip(&server, &format!("{PATH}?limit=1")).await;
    assert_eq!(encoding, "");
    assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
}

#[tokio::test]
async fn other_long_json_is_compressed_as_well() {
    let server = Server::start().await;
    assert_eq!(get_gzip(&server, "/api/openapi.json").await.0, "gzip");
}
