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

/// One whole run of `name`, in which these cases fail; the snapshot while it was at its half, and the one at its end.
async fn run(server: &Server, name: &str, n: usize, failures: &[&str]) -> (Value, Value) {
    let held = register(server, json!({ "testId": format!("{name}-{n}"), "name": name })).await;
    let half = json!([{ "event": "progress", "data": { "progress": 50, "completed": 1, "total": 2 } }]);
    report(server, &held, half).await.expect("it is told");
    let path = format!("{TESTS}/{name}-{n}");
    let during = server.get(&path).await;
    let failures: Vec<_> = failures.iter().map(|name| json!({ "name": name })).collect();
    let outcome = if failures.is_empty() { "passed" } else { "failed" };
    let end = json!({ "attempt": 1, "lease": held["lease"], "outcome": outcome, "failures": failures, "durationMs": 60_000 });
    server.post(&format!("{path}/end"), &end).await;
    (during, server.get(&path).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_of_a_series_says_when_it_ends_and_what_is_flaky() {
    let site = Site::new("");
    let server = site.start();
    for (n, failures) in [&[][..], &["sorts"], &[], &["sorts"]].into_iter().enumerate() {
        let (during, _) = run(&server, "home", n, failures).await;
        assert_eq!(during["etaMs"].is_null(), n < 3, "{during}");
    }
    // Not even over a restart is it forgotten.
    server.kill();
    let server = site.start();
    let (during, ended) = run(&server, "home", 4, &["sorts", "new"]).await;
    let eta =
        (during["etaMs"]["low"].as_u64().expect("low"), during["etaMs"]["high"].as_u64().expect("high"));
    assert!(eta.0 <= 60_000 && (30_000..120_000).contains(&eta.1), "{eta:?}");
    assert_eq!(ended["history"], json!({ "runs": 4, "failed": 2, "flaky": true }));
    assert_eq!(ended["failures"][0]["history"], json!({ "runs": 4, "failed": 2, "flaky": true }));
    assert_eq!(ended["failures"][1]["history"], json!({ "runs": 4, "failed": 0, "flaky": false }));
    let told = server.history("test-progress-home-4").await;
    let failed = told.messages.iter().find(|m| m["event"] == "test:failed").expect("an end");
    assert_eq!(failed["data"]["history"]["flaky"], true, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suite_of_a_worker_has_a_past_too() {
    let site = Site::new("[suites.one]\ncommand = [\"sh\", \"one.sh\"]\ncwd = \".\"\nformat = \"tap\"\n");
    site.write(
        "one.sh",
        "echo 1..2\necho ok 1\nsleep 0.7\n[ -e broken ] && echo not ok 2 - sorts || echo ok 2 - sorts\n",
    );
    let server = site.start();
    let mut eta = Value::Null;
    for n in 0..4 {
        let job = server.submit_suite("one", &format!("one-{n}")).await;
        server.wait_for_job(&job, "completed").await;
        let told = server.history(&format!("test-progress-one-{n}")).await;
        eta = told
            .messages
            .iter()
            .map(|m| m["data"]["etaMs"].clone())
            .find(|eta| !eta.is_null())
            .unwrap_or_default();
    }
    // Half of the cases pass at once; by their rate it would be over within some ms.
    assert!(eta["high"].as_u64().expect("a forecast") > 300, "{eta}");
    site.write("broken", "");
    let job = server.submit_suite("one", "one-4").await;
    server.wait_for_job(&job, "failed").await;
    let ended = server.get(&format!("{TESTS}/one-4")).await;
    assert_eq!(ended["failures"][0]["history"], json!({ "runs": 4, "failed": 0, "flaky": false }), "{ended}");
}
