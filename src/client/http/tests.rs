use axum::Router;
use axum::body::Body;
use axum::extract::Request as Asked;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn echo(asked: Asked) -> axum::Json<Value> {
    let (parts, body) = asked.into_parts();
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (method, path) = (parts.method.to_string(), parts.uri.to_string());
    let (authorization, content_type) = (header(AUTHORIZATION), header(CONTENT_TYPE));
    let body = axum::body::to_bytes(body, 1024).await.expect("a body");
    axum::Json(json!({
        "method": method, "path": path, "authorization": authorization, "contentType": content_type,
        "body": serde_json::from_slice::<Value>(&body).unwrap_or_default(),
    }))
}

#[tokio::test]
async fn a_request_carries_its_path_body_and_token() {
    let url = serve(Router::new().fallback(echo)).await;
    let client = HttpClient::new(&format!("{url}/"), Some("secret")).expect("a client");
    let seen: Value = client.get("/api/v1/jobs?limit=5").await.expect("an answer");
    assert_eq!(seen["method"], "GET");
    assert_eq!(seen["path"], "/api/v1/jobs?limit=5");
    assert_eq!(seen["authorization"], "Bearer secret");
    let seen: Value = client.post("/x", &json!({"a": 1})).await.expect("an answer");
    assert_eq!((&seen["contentType"], &seen["body"]), (&json!("application/json"), &json!({"a": 1})));
    let seen: Value = client.delete("/x").await.expect("an answer");
    assert_eq!(seen["method"], "DELETE");
    assert!(!format!("{client:?}").contains("secret"), "a token must not reach a log");
}

#[tokio::test]
async fn a_problem_document_becomes_a_typed_error() {
    let refuse = || async {
        let body = r#"{"type":"about:blank","title":"Not found","status":404,"code":"no_job","detail":"no job `x`"}"#;
        (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    };
    let url = serve(Router::new().route("/job", any(refuse))).await;
    let client = HttpClient::new(&url, None).expect("a client");
    match client.get::<Value>("/job").await {
        Err(ClientError::Problem { status: 404, code, detail }) => {
            assert_eq!((code.as_str(), detail.as_str()), ("no_job", "no job `x`"));
        }
        other => panic!("{other:?}"),
    }
    match client.get::<Value>("/elsewhere").await {
        Err(ClientError::Problem { status: 404, code, .. }) => assert_eq!(code, "http_404"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_empty_answer_is_null_and_a_wrong_one_is_named() {
    let routes = Router::new()
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .route("/text", get(|| async { "hello" }));
    let client = HttpClient::new(&serve(routes).await, None).expect("a client");
    assert_eq!(client.get::<Value>("/empty").await.expect("nothing"), Value::Null);
    let error = client.get::<Value>("/text").await.expect_err("no JSON").to_string();
    assert!(error.starts_with("the answer to GET /text: "), "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let endless = || async {
        let chunk = || async { Some((Ok::<_, io::Error>(Bytes::from(vec![b' '; 1 << 20])), ())) };
        Body::from_stream(futures_util::stream::unfold((), move |()| chunk()))
    };
    let client =
        HttpClient::new(&serve(Router::new().route("/", get(endless))).await, None).expect("a client");
    let error = client.get::<Value>("/").await.expect_err("too long").to_string();
    assert!(error.contains("longer than 32 MiB"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_in_plain_words() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = HttpClient::new(&url, None).expect("a client").get::<Value>("/").await.expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!("cannot reach {url}: connection refused; is `tidings serve` running?")
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let never = || async { std::future::pending::<()>().await };
    let client = HttpClient::new(&serve(Router::new().route("/", get(never))).await, None)
        .expect("a client")
        .with_timeout(Duration::from_millis(50));
    let error = client.get::<Value>("/").await.expect_err("no answer").to_string();
    assert_eq!(error, "no answer to GET / within 50ms");
}
