use super::*;

const OK: Ended = Ended::Answered { status: 200, bytes: 3, as_expected: true };

#[tokio::test(start_paused = true)]
async fn rps_looks_back_one_second() {
    let metrics = Metrics::new(Instant::now(), Instant::now() + Duration::from_secs(60));
    for round in 0..30u64 {
        for _ in 0..if round < 15 { 10 } else { 20 } {
            metrics.begin(Instant::now());
            metrics.end(Instant::now(), Instant::now(), OK, None);
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        metrics.show(Instant::now(), ("vus", 1.0));
    }
    let shown = metrics.show(Instant::now(), ("vus", 1.0));
    assert_eq!(
        (&shown["rps"], &shown["requests"], &shown["inFlight"]),
        (&json!(200.0), &json!(450), &json!(0))
    );
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_apart_and_only_answers_have_a_latency() {
    let start = Instant::now();
    let metrics = Metrics::new(start, start + Duration::from_secs(60));
    tokio::time::advance(Duration::from_millis(2)).await;
    metrics.end(start, start, Ended::Answered { status: 200, bytes: 10, as_expected: true }, None);
    let broken = Ended::Answered { status: 503, bytes: 5, as_expected: false };
    metrics.end(start, start, broken, Some("503".to_owned()));
    metrics.end(start, start, Ended::NotConnected, Some("refused".to_owned()));
    metrics.end(start, start, Ended::TimedOut, Some("slow".to_owned()));
    metrics.dropped(start);
    let totals = metrics.totals(start + Duration::from_secs(2));
    assert_eq!((totals.requests, totals.failed, totals.dropped), (4, 3, 1));
    assert_eq!((totals.rps(), totals.throughput(), totals.error_rate()), (2.0, 0.5, 0.75));
    assert_eq!(totals.first_error.as_deref(), Some("503"));
    let results = totals.results();
    assert_eq!(results["statuses"], json!({"2xx": 1, "5xx": 1}));
    assert_eq!(results["errors"], json!({"connect": 1, "status": 1, "timeout": 1}));
    assert_eq!(results["firstErrors"]["connect"], "refused");
    assert_eq!((&results["bytes"], &results["latencyMs"]["p50"]), (&json!(15), &json!(2.0)));
}

#[tokio::test(start_paused = true)]
async fn rates_are_over_the_time_of_the_load_however_late_the_last_answer() {
    let start = Instant::now();
    let metrics = Metrics::new(start, start + Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(9)).await;
    (0..999).for_each(|_| metrics.end(Instant::now(), Instant::now(), OK, None));
    tokio::time::advance(Duration::from_secs(11)).await;
    metrics.end(start + Duration::from_secs(9), start + Duration::from_secs(9), OK, None);
    let totals = metrics.totals(Instant::now());
    assert_eq!((totals.rps(), totals.throughput()), (100.0, 100.0));
    assert_eq!(totals.results()["measuredMs"], 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_end_was_interrupted() {
    let start = Instant::now();
    let metrics = Metrics::new(start + Duration::from_secs(1), start + Duration::from_secs(60));
    // One of the warm-up, and three that count, of which one is answered.
    (0..4).for_each(|s| metrics.begin(start + Duration::from_secs(s)));
    metrics.end(start + Duration::from_secs(1), start + Duration::from_secs(1), OK, None);
    let totals = metrics.totals(Instant::now());
    assert_eq!((totals.requests, totals.interrupted), (1, 2));
    assert_eq!(totals.results()["interrupted"], 2);
}

#[tokio::test(start_paused = true)]
async fn how_late_requests_went_out_is_told_apart_from_how_long_they_took() {
    let start = Instant::now();
    let metrics = Metrics::new(start, start + Duration::from_secs(60));
    tokio::time::advance(Duration::from_millis(500)).await;
    for late in [1, 1, 200] {
        metrics.end(start, start + Duration::from_millis(late), OK, None);
    }
    let (delays, part) = (metrics.totals(Instant::now()).delays, Delays { p50: 3.0, p99: 3.0, max: 3.0 });
    assert_eq!(delays, Delays { p50: 1.0, p99: 200.063, max: 200.063 });
    assert_eq!(delays.at_most(part), Delays { p50: 3.0, p99: 200.063, max: 200.063 });
}

#[tokio::test(start_paused = true)]
async fn what_is_due_before_the_count_begins_is_not_counted() {
    let start = Instant::now();
    let metrics = Metrics::new(start + Duration::from_secs(1), start + Duration::from_secs(60));
    metrics.begin(start);
    metrics.dropped(start);
    tokio::time::advance(Duration::from_secs(2)).await;
    metrics.end(start, start, OK, None);
    metrics.begin(start + Duration::from_secs(1));
    metrics.end(start + Duration::from_secs(1), start + Duration::from_secs(1), OK, None);
    let totals = metrics.totals(Instant::now());
    assert_eq!((totals.requests, totals.dropped, totals.bytes), (1, 0, 3));
    assert_eq!(totals.elapsed, Duration::from_secs(1));
    assert!((totals.latencies.max() - 1000.0).abs() < 1.0);
}
