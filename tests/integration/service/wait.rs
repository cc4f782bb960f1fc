//! `tidings submit --wait` ends as its test did, and `tidings watch -i` does what it is told.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{Server, Site, tidings, wait_until};
use crate::support::DEADLINE;

const SUITES: &str = "[suites.good]\ncommand = [\"sh\", \"-c\", \"echo 1..1; echo ok 1 - a\"]\n\
    [suites.bad]\ncommand = [\"sh\", \"-c\", \"echo 1..2; echo ok 1 - a; echo not ok 2 - b; echo '# why'; exit 1\"]\n\
    [suites.endless]\ncommand = [\"sleep\", \"600\"]\n";

fn submit(server: &Server, suite: &str, test: &str, more: &[&str]) -> tokio::process::Command {
    let config = format!("{{\"suite\":\"{suite}\"}}");
    let mut command = tidings(&["submit", "command", "--wait", "--server", &server.url, "--test-id", test]);
    command.args(["--config", &config]).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn interrupt(child: &tokio::process::Child) {
    let pid = i32::try_from(child.id().expect("it runs")).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT).expect("signalled");
}

#[tokio::test]
async fn the_exit_code_is_the_outcome() {
    let site = Site::new(SUITES);
    let server = site.start();
    let out = submit(&server, "good", "g", &[]).output().await.expect("it runs");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("g passed: 1 passed, 0 failed"), "{}", text(&out));
    let out = submit(&server, "bad", "b", &[]).output().await.expect("it runs");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(
        text(&out).contains("b failed: 1 passed, 1 failed\n  1 of 2 tests failed\n  ✗ b: why"),
        "{}",
        text(&out)
    );
    let out = submit(&server, "bad", "j", &["--json"]).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let test: Value = serde_json::from_str(said.lines().nth(1).expect("two lines")).expect("JSON");
    assert_eq!((&test["state"], &test["counts"]["failed"]), (&"failed".into(), &1.into()));
}

#[tokio::test]
async fn a_cancelled_test_is_no_success_and_an_interrupted_wait_leaves_it_alone() {
    let site = Site::new(SUITES);
    let server = site.start();
    let mut waits = Vec::new();
    for test in ["c", "i"] {
        waits.push(submit(&server, "endless", test, &[]).spawn().expect("it starts"));
    }
    let mut jobs = Vec::new();
    for test in ["c", "i"] {
        let mut job = String::new();
        wait_until("it runs", async || {
            let found: Value = server.http.get(&format!("/api/v1/tests/{test}")).await.unwrap_or_default();
            job = found["jobId"].as_str().unwrap_or_default().to_owned();
            found["state"] == "running"
        })
        .await;
        jobs.push(job);
    }
    let interrupted = waits.pop().expect("two");
    interrupt(&interrupted);
    let out = interrupted.wait_with_output().await.expect("it ends");
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    assert!(text(&out).contains(&format!("`tidings cancel {}` ends it", jobs[1])), "{}", text(&out));
    assert_eq!(server.job(&jobs[1]).await["state"], "running");
    server.post(&format!("/api/v1/jobs/{}/cancel", jobs[0]), &serde_json::json!({})).await;
    let out = waits.pop().expect("one").wait_with_output().await.expect("it ends");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("c cancelled"), "{}", text(&out));
}

#[tokio::test]
async fn who_submits_what_nobody_runs_is_told_so() {
    let site = Site::new(SUITES);
    let server = site.start();
    let said = async |args: &[&str]| {
        let out =
            tokio::process::Command::from(tidings(&[&["submit", "--server", &server.url], args].concat()));
        let out = { out }.output().await.expect("it runs");
        (out.status.code(), text(&out))
    };
    let (code, told) = said(&["bad"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("it waits: no worker handles the test type `bad`; handled are: command, stress"),
        "{told}"
    );
    let (code, told) = said(&["--suite", "bad", "--wait"]).await;
    assert!(code == Some(1) && told.contains("✗ b: why") && !told.contains("it waits"), "{told}");
    let (code, told) = said(&["command"]).await;
    assert!(
        code == Some(1) && told.contains("config.suite is missing; there is: bad, endless, good"),
        "{told}"
    );
    for usage in [&["command", "--suite", "bad"][..], &["command", "--config", "suite=bad"], &[]] {
        let (code, told) = said(usage).await;
        assert!(
            code == Some(2) && (told.contains("--suite") || told.contains("a JSON object is wanted")),
            "{told}"
        );
    }
    // Who paused the queue commands no terminal.
    let reason = serde_json::json!({ "reason": "moved \u{1b}]0;mine\u{7}\u{9b}2J" });
    server.post("/api/v1/queue/pause", &reason).await;
    let (code, told) = said(&["--suite", "good"]).await;
    assert!(code == Some(0) && told.contains("it waits:") && told.contains("\\u001b]0;mine"), "{told}");
    assert!(!told.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{told:?}");
}

#[tokio::test]
async fn the_reason_why_it_waits_commands_no_terminal() {
    let site = Site::new(SUITES);
    let server = site.start();
    let pause = serde_json::json!({ "reason": "\u{1b}]0;title\u{7}\u{9b}2J\u{202e}end" });
    server.post("/api/v1/queue/pause", &pause).await;
    let command = tidings(&["submit", "--server", &server.url, "--suite", "good"]);
    let out = tokio::process::Command::from(command).output().await.expect("it runs");
    let said = text(&out);
    assert!(
        said.contains("it waits: ") && said.contains("\\u001b]0;title\\u0007\\u009b2J\\u202eend"),
        "{said:?}"
    );
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{said:?}");
}

#[tokio::test]
async fn ctrl_c_is_heeded_while_the_server_says_nothing() {
    let (asked, mut asking) = tokio::sync::mpsc::channel(8);
    let job = serde_json::json!({ "jobId": "job_1", "testId": "t", "state": "queued", "existing": false });
    let silent = async move || {
        let _ = asked.send(()).await;
        std::future::pending::<()>().await;
    };
    let router = axum::Router::new()
        .route("/api/v1/jobs", axum::routing::post(async move || axum::Json(job)))
        .fallback(silent);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut command = tidings(&["submit", "command", "--wait", "--server", &url]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("it starts");
    asking.recv().await.expect("it asks why the job waits");
    interrupt(&child);
    let out = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let out = out.expect("it does not wait for the answer").expect("it ends");
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    assert!(text(&out).contains("`tidings cancel job_1` ends it"), "{}", text(&out));
}

#[tokio::test]
async fn the_prompt_does_what_it_is_told() {
    let site = Site::new("");
    let server = site.start();
    let mut command = tidings(&["watch", "-i", "--server", &server.url]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines = "help\nnonsense\njoin\npublish test-progress-x custom:note {\"a\":1}\nhistory test-progress-x\nwho\nleave y\nquit\n";
    stdin.write_all(lines.as_bytes()).await.expect("written");
    let out = child.wait_with_output().await.expect("it ends");
    let said = text(&out);
    assert!(out.status.success(), "{said}");
    for expected in [
        "join ROOM [start]",
        "there is no `nonsense`; there are: join,",
        "something is missing: join ROOM",
        ":1 custom:note {\"a\":1}",
        "msg_",
        "not in y; in: ",
    ] {
        assert!(said.contains(expected), "`{expected}` is missing in:\n{said}");
    }
}
