//! Control of running tests: cancel, and what becomes of their processes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::reload::reload;
use super::{Server, Site, pids, runs, tidings, wait_until};

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

/// What `tidings ARGS…` prints of `server`; it has to succeed.
async fn told(server: &Server, args: &[&str]) -> String {
    let mut command = tidings(args);
    command.args(["--server", &server.url]);
    let output = tokio::process::Command::from(command).output().await.expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn a_paused_suite_waits_over_a_crash_until_it_is_resumed() {
    let site = Site::new("[suites.quick]\ncommand = [\"true\"]\n[suites.other]\ncommand = [\"true\"]\n");
    let server = site.start();
    let said = told(&server, &["pause", "--suite", "quick", "--reason", "moving"]).await;
    assert!(
        said.starts_with("the suite `quick` is paused since 20") && said.ends_with(": moving\n"),
        "{said}"
    );
    let held = server.submit_suite("quick", "held").await;
    let first = server.submit_suite("quick", "first").await;
    let other = server.submit_suite("other", "other").await;
    server.wait_for_job(&other, "completed").await;
    server.kill();
    let server = site.start();
    let other = server.submit_suite("other", "other").await;
    server.wait_for_job(&other, "completed").await;
    for job in [&held, &first] {
        let job = server.job(job).await;
        assert_eq!(job["state"], "queued");
        assert!(job["waiting"].as_str().is_some_and(|why| why.ends_with(": moving")), "{job}");
    }
    let said = told(&server, &["priority", &first, "4"]).await;
    assert_eq!(said, format!("{first} is queued, with priority 4\n"));
    assert_eq!(told(&server, &["resume"]).await, told(&server, &["pause", "--suite", "quick"]).await);
    assert_eq!(
        told(&server, &["resume", "--type", "command", "--suite", "quick"]).await,
        "nothing is paused\n"
    );
    let (held, first) =
        (server.wait_for_job(&held, "completed").await, server.wait_for_job(&first, "completed").await);
    assert!(first["startedAt"].as_i64() <= held["startedAt"].as_i64(), "{first} before {held}");
    let all = server.history("queue-updates").await;
    let of_pauses: Vec<&str> = all.messages.iter().filter_map(|m| m["event"].as_str()).collect();
    let told = |event| of_pauses.iter().filter(|told| **told == event).count();
    assert_eq!((told("queue:paused"), told("queue:resumed"), told("queue:job:updated")), (1, 1, 1));
}

#[tokio::test]
async fn a_suite_runs_as_often_at_once_as_its_configuration_says_now() {
    let settings = |concurrency: &str| {
        format!(
            "[workers]\nconcurrency = 5\n[suites.quick]\ncommand = [\"true\"]\n\
             [suites.slow]\ncommand = [\"sh\", \"-c\", \"while ! test -e go; do sleep 0.05; done\"]\ncwd = \".\"\n{concurrency}"
        )
    };
    let site = Site::new(&settings("concurrency = 1\n"));
    let server = site.start();
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(server.submit_suite("slow", &format!("slow-{n}")).await);
    }
    let running = async |n: usize| {
        let waiting = || async {
            let all = server.get("/api/v1/jobs?limit=50").await["jobs"].as_array().expect("jobs").clone();
            all.into_iter()
                .filter(|job| job["config"]["suite"] == "slow" && job["state"] == "running")
                .count()
        };
        wait_until("as many run as may", async || waiting().await == n).await;
        // Another suite passes them, and whoever begins too many had the time for it.
        let quick = server.submit_suite("quick", "quick").await;
        server.wait_for_job(&quick, "completed").await;
        assert_eq!(waiting().await, n);
    };
    running(1).await;
    let last = server.job(&jobs[3]).await;
    assert_eq!(last["waiting"], "the suite `slow` runs 1 of at most 1 at once (`concurrency`)", "{last}");
    site.write("tidings.toml", &settings("concurrency = 3\n"));
    reload(&server, "applied", 1).await;
    running(3).await;
    site.write("tidings.toml", &settings(""));
    reload(&server, "applied", 2).await;
    running(4).await;
    site.write("go", "");
    for job in &jobs {
        server.wait_for_job(job, "completed").await;
    }
}
