//! External tests, as any program with an HTTP client runs them.

use std::process::Command;

use serde_json::{Value, json};

use super::{Server, Site, wait_until};

const DOCUMENT: &str = include_str!("../../../docs/external.md");
const TESTS: &str = "/api/v1/tests";

async fn register(server: &Server, body: Value) -> Value {
    server.post(TESTS, &body).await
}

async fn report(server: &Server, held: &Value, events: Value) -> Result<Value, String> {
    let path = format!("{TESTS}/{}/reports", held["testId"].as_str().expect("a test id"));
    let body = json!({ "attempt": held["attempt"], "lease": held["lease"], "events": events });
    server.http.post(&path, &body).await.map_err(|error| error.to_string())
}

/// The commands of the document, one after the other.
fn walk_through(url: &str) -> String {
    let (_, rest) = DOCUMENT.split_once("```sh\n").expect("the document has commands");
    let (commands, _) = rest.split_once("```").expect("they end");
    assert!(commands.contains("http://localhost:8080"), "{commands}");
    format!("set -eu\n{}", commands.replace("http://localhost:8080", url))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_walks_through_the_document() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("no curl here: the document's commands were not run");
        return;
    }
    let site = Site::new("");
    let server = site.start();
    let script = walk_through(&server.url);
    let directory = tempfile::tempdir().expect("a directory");
    let output = tokio::task::spawn_blocking(move || {
        Command::new("sh")
            .args(["-c", &script])
            .current_dir(directory.path())
            .env("NO_PROXY", "*")
            .output()
            .expect("a shell")
    });
    let output = output.await.expect("it ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(r#"{"state":"failed"}"#), "{text}");
    let history = server.history("test-progress-home-1").await;
    history.assert_unbroken();
    let events: Vec<_> = history.messages.iter().map(|m| m["event"].as_str().expect("an event")).collect();
    let expected = ["test:started", "test:progress", "test:progress", "test:log", "test:failed"];
    assert_eq!(events, expected);
    let snapshot = server.get(&format!("{TESTS}/home-1")).await;
    assert_eq!(
        (&snapshot["counts"]["passed"], &snapshot["failures"][0]["name"]),
        (&json!(3), &json!("sorts"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_goes_on_after_the_server_was_killed_and_one_that_falls_silent_is_lost() {
    let site = Site::new("");
    let server = site.start();
    let alive = register(&server, json!({ "testId": "alive", "leaseMs": 5000 })).await;
    let silent = register(&server, json!({ "testId": "silent", "leaseMs": 5000 })).await;
    report(&server, &alive, json!([{ "id": "1", "event": "progress", "data": { "progress": 10 } }]))
        .await
        .expect("it is told");
    server.kill();
    let server = site.start();
    let again = json!([{ "id": "1", "event": "progress", "data": { "progress": 10 } },
        { "id": "2", "event": "progress", "data": { "progress": 20 } }]);
    report(&server, &alive, again).await.expect("the lease outlived the server");
    wait_until("the silent one is lost", async || {
        report(&server, &alive, json!([])).await.expect("a sign of life");
        server.get(&format!("{TESTS}/silent")).await["state"] == "failed"
    })
    .await;
    let lost = server.get(&format!("{TESTS}/silent")).await;
    assert_eq!(lost["error"]["code"], "worker_lost", "{lost}");
    let refused = report(&server, &silent, json!([])).await.expect_err("it came too late");
    assert!(refused.contains("stale_attempt") || refused.contains("counts no more"), "{refused}");
    let history = server.history("test-progress-alive").await;
    assert_eq!(history.count("test:progress"), 2, "{history:?}");
    assert_eq!(server.get(&format!("{TESTS}/alive")).await["state"], "running");
}
