//! Running tests again: all of them, or only what failed, with a real runner.

mod live;

use serde_json::{Value, json};
use tidings::client::ClientError;

use super::{Server, Site, tidings};

/// Tests that note that they ran, and fail until `fixed` is there. Their names are what nobody should choose.
const TESTS: &str = r#"
const test = require("node:test");
const fs = require("node:fs");
const ran = (name) => fs.appendFileSync("ran", name + "\n");
const broken = () => { if (!fs.existsSync("fixed")) throw new Error("not fixed"); };
test("fine", () => ran("fine"));
test("--inspect-brk=0.0.0.0", () => { ran("--inspect-brk=0.0.0.0"); broken(); });
test("a (b) $(touch owned) [c] | d", () => { ran("a (b) $(touch owned) [c] | d"); broken(); });
test("a", () => ran("a"));
"#;

const SUITES: &str = r#"
[suites.node]
command = ["node", "--test", "--test-reporter=tap", "t.test.js"]
rerun = ["node", "--test", "--test-reporter=tap", "--test-name-pattern=^({pattern})$", "t.test.js"]
cwd = "."

[suites.words]
command = ["sh", "-c", "echo '1..2'; echo 'not ok 1 - --version'; echo 'ok 2 - b'"]
rerun = ["echo", "{cases}"]

[suites.gone]
command = ["sh", "-c", "echo '1..1'; echo 'not ok 1 - gone'"]
rerun = ["echo", "nothing is called", "{cases}"]

[suites.many]
command = ["sh", "-c", "for i in $(seq 1 60); do echo \"not ok $i - case $i\"; done; echo 1..60"]
rerun = ["echo", "{cases}"]

[suites.plain]
command = ["sh", "-c", "echo '1..1'; echo 'not ok 1 - a'"]

[suites.good]
command = ["sh", "-c", "echo '1..1'; echo 'ok 1 - a'"]
rerun = ["echo", "{cases}"]
"#;

async fn rerun(server: &Server, job: &str, body: &Value) -> Result<Value, ClientError> {
    server.http.post(&format!("/api/v1/jobs/{job}/rerun"), body).await
}

/// The cases that ran since this was asked last.
fn ran(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.path("ran")).unwrap_or_default();
    let _ = std::fs::remove_file(site.path("ran"));
    let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn only_what_failed_runs_again_whatever_it_is_called() {
    let site = Site::new(SUITES);
    site.write("t.test.js", TESTS);
    let server = site.start();
    let first = server.submit_suite("node", "first").await;
    server.wait_for_job(&first, "failed").await;
    assert_eq!(ran(&site).len(), 4);
    site.write("fixed", "");
    let output =
        tidings(&["rerun", &first, "--failed", "--test-id", "second", "--wait", "--server", &server.url]);
    let output = tokio::process::Command::from(output).output().await.expect("it runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(ran(&site), ["--inspect-brk=0.0.0.0", "a (b) $(touch owned) [c] | d"]);
    assert!(!site.path("owned").exists());
    let second = server.get("/api/v1/tests/second").await;
    assert_eq!((&second["state"], &second["counts"]["passed"]), (&json!("completed"), &json!(2)), "{second}");
    let job = server.job(second["jobId"].as_str().expect("a job")).await;
    assert_eq!(job["config"]["only"].as_array().map(Vec::len), Some(2), "{job}");
    // All of it, also of what ran a part.
    let all =
        rerun(&server, second["jobId"].as_str().expect("a job"), &json!({})).await.expect("it is taken");
    server.wait_for_job(all["jobId"].as_str().expect("a job"), "completed").await;
    assert_eq!(ran(&site).len(), 4);
    // Another new job, and the old one is as it was.
    let all = rerun(&server, &first, &json!({ "testId": "third" })).await.expect("it is taken");
    server.wait_for_job(all["jobId"].as_str().expect("a job"), "completed").await;
    assert_eq!(ran(&site).len(), 4);
    assert_eq!(server.job(&first).await["state"], "failed");
}

#[tokio::test]
async fn what_cannot_run_alone_is_refused_with_what_to_do_instead() {
    let site = Site::new(SUITES);
    let server = site.start();
    for (suite, state, code, says) in [
        ("good", "completed", "nothing_failed", "no case of job"),
        ("plain", "failed", "rerun_unsupported", "no `rerun`"),
        ("words", "failed", "rerun_unsupported", "would make an option of it"),
        ("many", "failed", "failures_unknown", "60 cases failed, and only 50 of them are known"),
    ] {
        let job = server.submit_suite(suite, suite).await;
        server.wait_for_job(&job, state).await;
        let refused =
            rerun(&server, &job, &json!({ "failedOnly": true })).await.expect_err(suite).to_string();
        assert!(refused.contains(code) && refused.contains(says), "{suite}: {refused}");
        assert!(refused.contains("all of it") || refused.contains("all of the suite"), "{refused}");
        // Its test is now that of another job.
        let again = rerun(&server, &job, &json!({ "testId": suite })).await.expect("all of it runs");
        server.wait_for_job(again["jobId"].as_str().expect("a job"), state).await;
        let refused =
            rerun(&server, &job, &json!({ "failedOnly": true })).await.expect_err(suite).to_string();
        assert!(refused.contains("failures_unknown"), "{suite}: {refused}");
    }
    let waits = json!({ "testType": "command", "config": { "suite": "good" }, "delayMs": 3_600_000 });
    let waits = server.post("/api/v1/jobs", &waits).await["jobId"].as_str().expect("a job").to_owned();
    let held = server.post("/api/v1/tests", &json!({ "testId": "held" })).await["jobId"]
        .as_str()
        .expect("a job")
        .to_owned();
    for (job, code) in
        [(waits.as_str(), "job_not_ended"), (&held, "job_is_external"), ("job_none", "job_not_found")]
    {
        let refused = rerun(&server, job, &json!({})).await.expect_err(code).to_string();
        assert!(refused.contains(code), "{refused}");
    }
    // Nobody else says which.
    let job = json!({ "testType": "command", "config": { "suite": "words", "only": ["b"] } });
    let refused = server.http.post::<_, Value>("/api/v1/jobs", &job).await.expect_err("refused").to_string();
    assert!(refused.contains("config.only cannot be submitted"), "{refused}");
}

#[tokio::test]
async fn a_rerun_that_finds_none_of_its_cases_has_not_passed() {
    let site = Site::new(SUITES);
    let server = site.start();
    let job = server.submit_suite("gone", "gone").await;
    server.wait_for_job(&job, "failed").await;
    let again = rerun(&server, &job, &json!({ "failedOnly": true })).await.expect("it is taken");
    let ended = server.wait_for_job(again["jobId"].as_str().expect("a job"), "failed").await;
    assert!(
        ended["error"]["message"].as_str().is_some_and(|why| why.starts_with("none of the 1 cases ran")),
        "{ended}"
    );
}
