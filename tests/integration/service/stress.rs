//! Stress tests as their users run them: submitted, watched, and their results merged.

use serde_json::{Value, json};

use super::{Server, Site, tidings, wait_until};

async fn ended(server: &Server, test: &str) -> Value {
    let mut snapshot = Value::Null;
    wait_until("it ends", async || {
        snapshot = server.http.get(&format!("/api/v1/tests/{test}")).await.unwrap_or_default();
        matches!(snapshot["state"].as_str(), Some("completed" | "failed" | "cancelled"))
    })
    .await;
    snapshot
}

fn merge(server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let out = tidings(&["stress", "merge", "--server", &server.url]).args(args).output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code(), said)
}

#[tokio::test]
async fn results_of_tests_and_of_files_are_merged() {
    let site = Site::new("[suites.good]\ncommand = [\"true\"]\n");
    let server = site.start();
    let config = json!({"url": format!("{}/healthz", server.url), "rate": 100, "durationMs": 300,
        "thresholds": ["error_rate <= 0", "p99 < 60000"]});
    for test in ["a", "b"] {
        server.post("/api/v1/jobs", &json!({"testType": "stress", "testId": test, "config": config})).await;
    }
    let (a, b) = (ended(&server, "a").await, ended(&server, "b").await);
    assert_eq!((&a["state"], &a["results"]["requests"]), (&json!("completed"), &json!(30)), "{a}");
    assert_eq!(a["results"]["thresholds"][1]["ok"], true);
    let (code, said) = merge(&server, &["a", "b", "--json"]);
    let whole: Value = serde_json::from_str(&said).expect(&said);
    assert_eq!((code, &whole["requests"], &whole["statuses"]["2xx"]), (Some(0), &json!(60), &json!(60)));
    let max = |results: &Value| results["latencyMs"]["max"].as_f64().expect("a number");
    let highest = max(&a["results"]).max(max(&b["results"]));
    assert!((max(&whole) - highest).abs() <= highest * 0.001 + 0.001, "{whole} {a} {b}");
    // A file may hold several, as `submit --wait --json` prints them.
    site.write("both.json", &format!("{{\"jobId\":\"job_1\"}}\n{a}\n{b}\n"));
    let file = site.path("both.json").display().to_string();
    let (code, said) = merge(&server, &["--file", &file]);
    assert!(code == Some(0) && said.starts_with("2 tests: 60 requests, 0 failed, 0 dropped"), "{said}");
    assert!(!said.contains("interrupted"), "{said}");
    let mut cut_short = a.clone();
    cut_short["results"]["interrupted"] = json!(3);
    site.write("cut.json", &format!("{cut_short}\n{b}\n"));
    let file = site.path("cut.json").display().to_string();
    let (code, said) = merge(&server, &["--file", &file]);
    assert!(code == Some(0) && said.contains("0 failed, 0 dropped, 3 interrupted, "), "{said}");
    site.write("none.json", "{}");
    let file = site.path("none.json").display().to_string();
    let (code, said) = merge(&server, &["a", "--file", &file]);
    assert!(code == Some(1) && said.contains("none.json has no results of a stress test"), "{said}");
    server
        .post("/api/v1/jobs", &json!({"testType": "command", "testId": "c", "config": {"suite": "good"}}))
        .await;
    ended(&server, "c").await;
    let (code, said) = merge(&server, &["c"]);
    assert!(
        code == Some(1) && said.contains("`c` is completed and has no results of a stress test"),
        "{said}"
    );
}

#[tokio::test]
async fn a_threshold_that_makes_no_sense_is_refused_at_submission() {
    let site = Site::new("");
    let server = site.start();
    let config = json!({"url": server.url, "durationMs": 100, "thresholds": ["p99 < 200", "p99 ~ 3"]});
    let job = json!({"testType": "stress", "config": config});
    let refused =
        server.http.post::<_, Value>("/api/v1/jobs", &job).await.expect_err("no threshold").to_string();
    assert!(
        refused.contains("thresholds.1: `p99 ~ 3` has to look like") && refused.contains("invalid_config"),
        "{refused}"
    );
}
