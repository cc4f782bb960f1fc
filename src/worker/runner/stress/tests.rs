//! The runner against a small server of our own.

use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::worker::runner::testing::{attempt, config, failed, passed};

mod open;
mod server;
mod settings;

use server::{Manner, serve};

fn runner() -> StressRunner {
    StressRunner::new(&[]).unwrap()
}

async fn run(config: Value) -> (Attempt, Outcome) {
    let attempt = attempt("stress", &config);
    let outcome = timeout(Duration::from_secs(60), runner().run(attempt.clone())).await.expect("it ends");
    (attempt, outcome)
}

#[tokio::test]
async fn a_load_without_rate_keeps_its_connections() {
    let server = serve(Manner::Answers("200 OK")).await;
    let (attempt, outcome) =
        run(json!({"url": server.url, "durationMs": 400, "concurrency": 4, "thresholds": {"errorRate": 0}}))
            .await;
    let results = passed(outcome);
    let requests = results["requests"].as_u64().unwrap();
    assert!(requests > 50, "{results:?}");
    assert_eq!((&results["statuses"]["2xx"], &results["bytes"]), (&json!(requests), &json!(2 * requests)));
    assert_eq!(server.connections(), 4);
    let state = attempt.progress.state();
    assert_eq!((state.progress, &state.metrics["requests"]), (100.0, &json!(requests)));
    for name in ["rps", "errorRate", "p50", "p90", "p95", "p99", "max", "inFlight", "dropped", "vus"] {
        assert!(state.metrics[name].is_number(), "{name}");
    }
    assert_eq!(state.counts.done(), 0);
}

#[tokio::test]
async fn a_broken_threshold_is_named_with_its_measurement() {
    let server = serve(Manner::Answers("503 Service Unavailable")).await;
    let config = json!({"url": server.url, "durationMs": 200, "concurrency": 1,
        "thresholds": {"errorRate": 0.1, "minRps": 1e9, "p99Ms": 60_000}});
    let (code, message, results) = failed(run(config).await.1);
    assert_eq!(code, "tests_failed");
    assert!(
        message.starts_with("`error_rate <= 0.1` does not hold: it is 1.000; `rps >= 1000000000` "),
        "{message}"
    );
    assert!(!message.contains("p99"), "{message}");
    assert!(results["statuses"]["5xx"].as_u64() > Some(0));
}

#[tokio::test]
async fn without_thresholds_only_a_total_failure_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let (code, message, results) = failed(run(json!({"url": url, "durationMs": 200})).await.1);
    assert!(code == "tests_failed" && message.contains("requests failed, the first one with: "), "{message}");
    assert_eq!(results["errors"]["connect"], results["requests"]);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_no_error() {
    let server = serve(Manner::Closes).await;
    let results = passed(run(json!({"url": server.url, "durationMs": 600, "rate": 25})).await.1);
    assert_eq!(results["failed"], 0, "{results:?}");
    assert!(server.connections() > 2);
}

#[tokio::test]
async fn a_redirection_is_an_answer_and_is_not_followed() {
    let elsewhere = serve(Manner::Answers("200 OK")).await;
    let status = format!("302 Found\r\nLocation: {}", elsewhere.url).leak();
    let server = serve(Manner::Answers(status)).await;
    let results = passed(run(json!({"url": server.url, "durationMs": 200, "concurrency": 1})).await.1);
    assert_eq!(results["statuses"]["3xx"], results["requests"]);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_when_only_the_name_is_allowed() {
    let server = serve(Manner::Answers("200 OK")).await;
    let port = server.url.rsplit_once(':').unwrap().1;
    // Any name of this machine but `localhost` will do.
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let resolved = tokio::net::lookup_host((name.as_str(), 80)).await;
    if resolved.is_err() || resolved.is_ok_and(|mut found| found.any(|a| !a.ip().is_loopback())) {
        eprintln!("`{name}` does not lead to the loopback: not tried here");
        return;
    }
    let runner = StressRunner::new(std::slice::from_ref(&name)).unwrap();
    let attempt = attempt("stress", &json!({"url": format!("http://{name}:{port}"), "durationMs": 100}));
    let (code, message, _) = failed(runner.run(attempt).await);
    assert!(code == "runner_error" && message.contains("stress.allow does not name"), "{message}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_cancel_stops_at_once() {
    let server = serve(Manner::Never).await;
    let attempt = attempt("stress", &json!({"url": server.url, "durationMs": 60_000, "rate": 100}));
    let runner = runner();
    let cancel = async {
        while attempt.progress.state().metrics.get("inFlight").is_none_or(|n| n.as_u64() < Some(3)) {
            attempt.progress.changed().await;
        }
        let eta = attempt.progress.state().eta_ms.expect("the rest of the time is known");
        assert!(eta.low > 50_000 && eta.high >= eta.low, "{eta:?}");
        attempt.cancel.cancel();
        Instant::now()
    };
    let (_, cancelled) = tokio::join!(runner.run(attempt.clone()), cancel);
    assert!(cancelled.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_host_that_is_not_allowed_is_named_with_the_setting() {
    let error = |url: &str| runner().check(&config(&json!({"url": url, "durationMs": 1}))).unwrap_err();
    let message = error("http://example.org:8080/");
    assert!(message.contains("`example.org:8080`") && message.contains("stress.allow"), "{message}");
    let tls = json!({"url": "https://localhost/", "durationMs": 1, "tls": {"insecure": true, "serverName": "example.org"}});
    let message = runner().check(&config(&tls)).unwrap_err();
    assert!(message.starts_with("tls.serverName: `example.org:443` may not"), "{message}");
    let named = |host: &str| {
        let test = json!({"url": "http://localhost:8080/", "durationMs": 1, "headers": {"Host": host}});
        runner().check(&config(&test))
    };
    assert!(named("example.org").unwrap_err().starts_with("headers.Host: `example.org:80` may not"));
    assert!(named("a b").unwrap_err().starts_with("headers.Host: `a b` is no host"));
    for more in ["localhost/@example.org", "localhost?x", "localhost#x", "localhost/", "a@localhost"] {
        assert_eq!(named(more), Err(format!("headers.Host: `{more}` is no host")));
    }
    assert_eq!((named("127.0.0.1"), named("localhost:8080")), (Ok(()), Ok(())));
    let ok = config(&json!({"url": "http://127.0.0.1:1/", "durationMs": 1000}));
    assert_eq!((runner().check(&ok), runner().timeout(&ok)), (Ok(()), Some(Duration::from_secs(41))));
}
