//! Arrivals at a rate, users, and the difference between the two.

use super::*;

fn latency(results: &Map<String, Value>, name: &str) -> f64 {
    results["latencyMs"][name].as_f64().unwrap()
}

fn count(results: &Map<String, Value>, name: &str) -> u64 {
    results[name].as_u64().unwrap()
}

#[tokio::test]
async fn a_rate_is_kept_with_few_connections() {
    let server = serve(Manner::Answers("200 OK")).await;
    let (_, outcome) = run(json!({"url": server.url, "durationMs": 1000, "rate": 200})).await;
    let results = passed(outcome);
    assert_eq!((count(&results, "requests"), count(&results, "dropped")), (200, 0), "{results:?}");
    assert_eq!(server.seen().len(), 200, "each request once");
    // The last used connection goes first, so the other 999 are not opened.
    assert!(server.connections() < 150);
}

#[tokio::test]
async fn a_stall_shows_in_the_latencies_of_a_rate_and_hides_in_those_of_users() {
    let stall = || Manner::Stalls { after: Duration::from_millis(500), time: Duration::from_secs(1) };
    let (server, other) = (serve(stall()).await, serve(stall()).await);
    let (open, closed) = tokio::join!(
        run(json!({"url": server.url, "durationMs": 2000, "rate": 100})),
        run(json!({"url": other.url, "durationMs": 2000, "concurrency": 2})),
    );
    // 100 of the 200 requests were due while nothing was answered; they waited for 1 s down to nothing.
    let open = passed(open.1);
    assert_eq!(count(&open, "requests"), 200, "{open:?}");
    assert!(latency(&open, "p99") >= 900.0 && latency(&open, "p90") >= 700.0, "{open:?}");
    let waited = server.seen().iter().filter(|seen| (500..1500).contains(&seen.at.as_millis())).count();
    assert!((60..=140).contains(&waited), "the load went on while the server stalled: {waited}");
    // The users waited: two slow requests among all, and none that says how many were not sent.
    let closed = passed(closed.1);
    assert!(latency(&closed, "max") >= 900.0, "{closed:?}");
    assert!(count(&closed, "requests") > 300 && latency(&closed, "p99") < 500.0, "{closed:?}");
}

#[tokio::test]
async fn what_is_due_while_too_many_are_under_way_is_dropped_and_counted() {
    let server = serve(Manner::Never).await;
    let config = json!({"url": server.url, "durationMs": 500, "rate": 100, "concurrency": 3, "timeoutMs": 10_000,
        "thresholds": [{"threshold": "dropped <= 40", "abortOnFail": true}]});
    let (attempt, outcome) = run(config).await;
    let (_, message, results) = failed(outcome);
    assert!(message.contains("`dropped <= 40` does not hold"), "{message}");
    assert_eq!((server.seen().len(), &results["aborted"]), (3, &json!(true)));
    assert_eq!(
        (count(&results, "requests"), count(&results, "interrupted")),
        (0, 3),
        "each stands in one count"
    );
    assert!(count(&results, "dropped") > 40 && count(&results, "dropped") <= 47, "{results:?}");
    let state = attempt.progress.state();
    assert_eq!(state.metrics["inFlight"], 3);
    assert!(state.message.is_some_and(|message| message.ends_with(" dropped")));
}

#[tokio::test]
async fn a_ramp_sends_what_is_below_its_line_each_request_once() {
    let server = serve(Manner::Answers("200 OK")).await;
    // 0 → 200 in 1 s, 200 for 0.5 s, a jump to 40 for 0.5 s.
    let stages = json!([{"durationMs": 1000, "rate": 200}, {"durationMs": 500, "rate": 200},
        {"durationMs": 0, "rate": 40}, {"durationMs": 500, "rate": 40}]);
    let results = passed(run(json!({"url": server.url, "stages": stages})).await.1);
    let seen = server.seen();
    assert_eq!((count(&results, "requests"), count(&results, "dropped"), seen.len()), (220, 0, 220));
    // By the areas below the line: 100 t², 200 t and 40 t. None comes early, and what a machine under load sends late is
    // caught up with.
    let due = |i: f64| match i {
        ..100.0 => (i / 100.0).sqrt(),
        100.0..200.0 => 1.0 + (i - 100.0) / 200.0,
        _ => 1.5 + (i - 200.0) / 40.0,
    };
    let late = |(i, seen): (u32, &server::Seen)| seen.at.as_secs_f64() - due(f64::from(i));
    let mut late: Vec<f64> = (0..).zip(&seen).map(late).collect();
    assert!(late.iter().all(|late| *late > -0.1), "{late:?}");
    late.sort_by(f64::total_cmp);
    assert!(late[110] < 0.1, "{late:?}");
}

#[tokio::test]
async fn users_come_and_go_by_stages() {
    let server = serve(Manner::Answers("200 OK")).await;
    let stages = json!([{"durationMs": 300, "vus": 6}, {"durationMs": 300, "vus": 6},
        {"durationMs": 0, "vus": 1}, {"durationMs": 300, "vus": 1}]);
    let (attempt, outcome) = run(json!({"url": server.url, "stages": stages})).await;
    assert_eq!(passed(outcome)["failed"], 0);
    // Each has one, or takes the one that another left.
    assert!((3..=6).contains(&server.connections()), "{}", server.connections());
    assert_eq!(attempt.progress.state().metrics["vus"], 1.0);
}

#[tokio::test]
async fn a_warm_up_is_sent_and_not_counted() {
    let server = serve(Manner::Stalls { after: Duration::ZERO, time: Duration::from_millis(400) }).await;
    let config = json!({"url": server.url, "durationMs": 1000, "warmUpMs": 500, "rate": 100,
        "thresholds": ["p50 < 300", "requests >= 50", "requests <= 50"]});
    let results = passed(run(config).await.1);
    assert_eq!((count(&results, "requests"), server.seen().len()), (50, 100));
    assert!((500..1500).contains(&count(&results, "measuredMs")), "{results:?}");
}

#[tokio::test]
async fn a_threshold_may_end_the_test_early() {
    let server = serve(Manner::Answers("500 No")).await;
    let abort = json!({"threshold": "error_rate < 0.5", "abortOnFail": true, "delayAbortMs": 300});
    let config =
        json!({"url": server.url, "durationMs": 60_000, "rate": 50, "thresholds": ["p99 < 5000", abort]});
    let started = Instant::now();
    let (code, message, results) = failed(run(config).await.1);
    assert!((300..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(code == "tests_failed" && message.starts_with("ended after "), "{message}");
    assert!(message.ends_with("`error_rate < 0.5` does not hold: it is 1.000"), "{message}");
    assert_eq!(results["thresholds"][0]["ok"], true);
    assert_eq!(results["thresholds"][1], json!({"threshold": "error_rate < 0.5", "value": 1.0, "ok": false}));
}

#[tokio::test]
async fn a_threshold_that_could_not_be_measured_is_not_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let config = json!({"url": url, "durationMs": 200, "thresholds": ["p99 < 5000", "error_rate <= 1"]});
    let (_, message, _) = failed(run(config).await.1);
    assert_eq!(message, "`p99 < 5000` cannot be told: no request was answered");
}

#[tokio::test]
async fn results_of_several_workers_merge() {
    let server = serve(Manner::Answers("200 OK")).await;
    let share = || run(json!({"url": server.url, "durationMs": 300, "rate": 100}));
    let (a, b) = tokio::join!(share(), share());
    let (a, b) = (passed(a.1), passed(b.1));
    let merged = merge(&[a.clone(), b.clone()]).unwrap();
    assert_eq!((count(&merged, "requests"), &merged["statuses"]["2xx"]), (60, &json!(60)));
    assert_eq!(count(&merged, "interrupted"), 0, "all were waited for");
    let highest = latency(&a, "max").max(latency(&b, "max"));
    assert!((latency(&merged, "max") - highest).abs() <= highest * 0.001 + 0.001);
}
