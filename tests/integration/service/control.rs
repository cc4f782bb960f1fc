//! Control of running tests: cancel, and what becomes of their processes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Site, pids, runs, wait_until};

/// A command that starts a child of its own, is deaf to SIGTERM, and never ends by itself.
const STUBBORN: &str =
    "trap '' TERM\nsleep 600 &\necho $! >>pids\necho $$ >>pids\nwhile :; do sleep 600; done\n";

#[tokio::test]
async fn cancelling_a_running_command_ends_its_whole_process_group_within_a_second() {
    let site = Site::new("[suites.stubborn]\ncommand = [\"sh\", \"stubborn.sh\"]\ncwd = \".\"\n");
    site.write("stubborn.sh", STUBBORN);
    let server = site.start();
    let job = server.submit_suite("stubborn", "stubborn").await;
    let file = site.path("pids");
    wait_until("the command and its child run", async || pids(&file).len() == 2).await;
    let processes = pids(&file);
    assert!(processes.iter().all(|pid| runs(*pid)), "{processes:?}");

    let cancelled = Instant::now();
    let answer = server.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({ "reason": "enough" })).await;
    assert_eq!(answer["cancelRequested"], true, "{answer}");
    wait_until("both processes are gone", async || !processes.iter().any(|pid| runs(*pid))).await;
    let took = cancelled.elapsed();
    println!("cancel -> process group gone: {took:?}");
    assert!(took < Duration::from_secs(1), "the group ended only after {took:?}");

    server.wait_for_job(&job, "cancelled").await;
    let told = server.history("test-progress-stubborn").await;
    told.assert_unbroken();
    let last = told.messages.last().expect("messages");
    assert_eq!((&last["event"], &last["data"]["reason"]), (&json!("test:cancelled"), &json!("enough")));
    let status = server.history(&format!("job-status-{job}")).await;
    assert_eq!(status.count("queue:job:cancelled"), 1);
}

#[tokio::test]
async fn a_cancelled_job_can_be_retried_and_an_ended_one_cannot_be_cancelled() {
    let site = Site::new("[suites.quick]\ncommand = [\"true\"]\n");
    let server = site.start();
    let job = json!({ "testType": "command", "testId": "later", "config": { "suite": "quick" }, "delayMs": 3_600_000 });
    let job = server.post("/api/v1/jobs", &job).await["jobId"].as_str().expect("an id").to_owned();
    let cancelled = server.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await;
    assert_eq!(cancelled["state"], "cancelled");
    let retried = server.post(&format!("/api/v1/jobs/{job}/retry"), &json!({})).await;
    assert_eq!(retried["state"], "queued");
    server.wait_for_job(&job, "completed").await;
    let refused =
        server.http.post::<_, serde_json::Value>(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await;
    assert!(refused.expect_err("it has ended").to_string().contains("job_ended"));
}

#[tokio::test]
async fn a_job_ends_its_test_whatever_others_say_of_later_attempts() {
    let site = Site::new(
        "[suites.waiting]\ncommand = [\"sh\", \"-c\", \"while ! test -e go; do sleep 0.05; done\"]\ncwd = \".\"\n",
    );
    let server = site.start();
    let job = server.submit_suite("waiting", "owned").await;
    wait_until("it runs", async || server.job(&job).await["state"] == "running").await;
    let stray = json!({ "channel": "test-progress-owned", "event": "test:progress", "data": { "progress": 5, "attempt": 7 } });
    let refused = server.http.post::<_, serde_json::Value>("/api/v1/events", &stray).await;
    assert!(refused.expect_err("it is not theirs").to_string().contains("test_owned"));
    site.write("go", "");
    server.wait_for_job(&job, "completed").await;
    assert_eq!(server.get("/api/v1/tests/owned").await["state"], "completed");
    assert_eq!(server.history("test-progress-owned").await.count("test:completed"), 1);
}

#[tokio::test]
async fn a_config_that_would_swell_every_list_of_jobs_is_refused() {
    let site = Site::new("");
    let server = site.start();
    let job = json!({ "testType": "mine", "config": { "text": "x".repeat(70_000) } });
    let refused = server.http.post::<_, serde_json::Value>("/api/v1/jobs", &job).await;
    let said = refused.expect_err("it is too large").to_string();
    assert!(said.contains("config has 70011 bytes"), "{said}");
}
