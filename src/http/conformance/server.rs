//! What operators look at.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::Server;

#[tokio::test]
async fn a_living_server_is_healthy_even_without_its_store() {
    let server = Server::start().await;
    let answer = server.get("/healthz").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ok"})));
    server.store.close().await;
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_server_is_ready_until_it_goes_away() {
    let server = Server::start().await;
    let answer = server.get("/readyz").await;
    let ready = json!({"status": "ok", "checks": {"server": {"ok": true}, "store": {"ok": true}}});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, ready));
    server.ready.drain();
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (503, &json!("draining")));
    assert_eq!(answer.json()["checks"]["server"]["ok"], false);
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_server_is_not_ready_without_its_store() {
    let server = Server::start().await;
    server.store.close().await;
    let answer = server.get("/readyz").await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["status"]), (503, &json!("unavailable")));
    assert!(body["checks"]["store"]["detail"].as_str().unwrap().contains("closed"), "{body}");
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus_and_count_requests_by_their_route() {
    let server = Server::start().await;
    server.get("/api/v1/jobs/job_none").await;
    server.get("/nowhere/at-all").await;
    server.send(Request::builder().method("BREW").uri("/healthz").body(Body::empty()).unwrap()).await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for (route, method, status) in
        [("/api/v1/jobs/{jobId}", "GET", 404), ("unmatched", "GET", 404), ("/healthz", "other", 405)]
    {
        let labels = format!(r#"route="{route}",method="{method}",status="{status}""#);
        assert!(answer.text.contains(&format!("tidings_http_requests_total{{{labels}}}")), "{labels}");
    }
    for line in ["tidings_broker_up ", "tidings_jobs{state=\"queued\"} ", "process_"] {
        assert!(answer.text.contains(line), "{line}");
    }
    assert!(!answer.text.contains("job_none"), "no id is ever a label");
}

#[tokio::test]
async fn the_page_is_html_that_may_run_nothing_from_elsewhere() {
    let server = Server::start().await;
    let answer = server.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(answer.text.to_ascii_lowercase().starts_with("<!doctype html>"));
    let head = server.send(Request::head("/").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_the_server_could_not_do_is_logged_once_and_what_the_caller_did_wrong_is_not() {
    let server = Server::start().await;
    server.store.close().await;
    // What is logged for the first time while a subscriber is made may be taken for what nobody wants, and stay so: a
    // test beside this one may log the same.
    server.get("/api/v1/jobs?limit=1").await.problem(503, "unavailable");
    // And where there is one subscriber only, whoever has interests counted anew, as a changed log level does, counts
    // what its own thread wants: that is nothing in the tests beside this one.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    server.get("/api/v1/jobs?limit=1").await.problem(503, "unavailable");
    server.get("/api/v1/jobs?limit=0").await.problem(400, "invalid_query");
    server.get("/readyz").await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in
        ["ERROR", "route=\"/api/v1/jobs\"", "status=503", "code=\"unavailable\"", "the store is closed"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}
