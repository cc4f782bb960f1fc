//! What a stress test measures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Latencies are kept in µs with three digits; this many are a day and a minute.
const MAX_LATENCY_US: u64 = 86_460_000_000;
/// `rps` looks back this far.
const RPS_WINDOW: Duration = Duration::from_secs(1);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer of this status, whose body had this many bytes.
    Answered { status: u16, bytes: u64 },
    /// There was no complete answer in time.
    TimedOut,
    /// No connection could be opened.
    NotConnected,
    /// The connection broke, or the answer was not HTTP.
    Broken,
}

#[derive(Debug)]
struct Inner {
    requests: u64,
    failed: u64,
    in_flight: u64,
    bytes: u64,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    latencies: Histogram<u64>,
    // How many requests had ended when, within the window of `rps`.
    recent: VecDeque<(Instant, u64)>,
    first_error: Option<String>,
}

/// The measurements so far, shared by all requests.
#[derive(Debug)]
pub(super) struct Metrics(Mutex<Inner>);

/// Latencies in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Latencies {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// The measurements at the end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) rps: f64,
    pub(super) latencies: Latencies,
    pub(super) first_error: Option<String>,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    bytes: u64,
}

impl Ended {
    /// Whether it counts as an error.
    fn is_error(self) -> bool {
        !matches!(self, Self::Answered { status: ..400, .. })
    }

    /// A request that never reached the server says nothing about how fast the server is.
    fn has_latency(self) -> bool {
        matches!(self, Self::Answered { .. } | Self::TimedOut)
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3);
        Self(Mutex::new(Inner {
            requests: 0,
            failed: 0,
            in_flight: 0,
            bytes: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            latencies: latencies.expect("the bounds are constants that a histogram accepts"),
            recent: VecDeque::new(),
            first_error: None,
        }))
    }

    /// A request goes out.
    pub(super) fn begin(&self) {
        self.lock().in_flight += 1;
    }

    /// A request ended, `latency` after it was meant to start; `reason` says why, of an error.
    pub(super) fn end(&self, ended: Ended, latency: Duration, reason: Option<String>) {
        let mut inner = self.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        inner.requests += 1;
        if ended.is_error() {
            inner.failed += 1;
            if inner.first_error.is_none() {
                inner.first_error = reason;
            }
        }
        if ended.has_latency() {
            let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            inner.latencies.saturating_record(us.max(1));
        }
        let kind = match ended {
            Ended::Answered { status, bytes } => {
                inner.bytes += bytes;
                *inner.statuses.entry(status / 100).or_default() += 1;
                return;
            }
            Ended::TimedOut => "timeout",
            Ended::NotConnected => "connect",
            Ended::Broken => "broken",
        };
        *inner.errors.entry(kind).or_default() += 1;
    }

    /// What is shown while the test runs.
    pub(super) fn show(&self, now: Instant) -> Map<String, Value> {
        let mut inner = self.lock();
        let requests = inner.requests;
        inner.recent.push_back((now, requests));
        // The newest sample from before the window is its beginning.
        while inner.recent.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RPS_WINDOW) {
            inner.recent.pop_front();
        }
        let (since, before) = inner.recent.front().copied().unwrap_or((now, 0));
        let latencies = inner.latencies();
        let metrics = [
            ("requests", json!(requests)),
            ("rps", json!(rate(requests - before, now.duration_since(since)))),
            ("errorRate", json!(rounded(share(inner.failed, requests)))),
            ("p50", json!(latencies.p50)),
            ("p90", json!(latencies.p90)),
            ("p99", json!(latencies.p99)),
            ("max", json!(latencies.max)),
            ("inFlight", json!(inner.in_flight)),
        ];
        metrics.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }

    /// What there is at the end, after `elapsed`.
    pub(super) fn totals(&self, elapsed: Duration) -> Totals {
        let inner = self.lock();
        Totals {
            requests: inner.requests,
            failed: inner.failed,
            rps: rate(inner.requests, elapsed),
            latencies: inner.latencies(),
            first_error: inner.first_error.clone(),
            statuses: inner.statuses.clone(),
            errors: inner.errors.clone(),
            bytes: inner.bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be half changed in a way that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn latencies(&self) -> Latencies {
        #[expect(clippy::cast_precision_loss, reason = "a day in µs fits into 53 bits")]
        let at = |q: f64| self.latencies.value_at_quantile(q).min(self.latencies.max()) as f64 / 1000.0;
        Latencies { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Totals {
    /// The share of the requests that failed, 0 to 1.
    pub(super) fn error_rate(&self) -> f64 {
        share(self.failed, self.requests)
    }

    /// The results that are kept.
    pub(super) fn results(&self) -> Map<String, Value> {
        let statuses: Map<String, Value> =
            self.statuses.iter().map(|(class, n)| (format!("{class}xx"), json!(n))).collect();
        let latencies = json!({"p50": self.latencies.p50, "p90": self.latencies.p90,
            "p99": self.latencies.p99, "max": self.latencies.max});
        let results = [
            ("requests", json!(self.requests)),
            ("failed", json!(self.failed)),
            ("statuses", Value::Object(statuses)),
            ("errors", json!(self.errors)),
            ("rps", json!(self.rps)),
            ("errorRate", json!(rounded(self.error_rate()))),
            ("latencyMs", latencies),
            ("bytes", json!(self.bytes)),
        ];
        results.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }
}

/// `count` per second.
fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    rounded(count as f64 / time.as_secs_f64())
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Three digits after the point are enough for people, and short on the wire.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rps_looks_back_one_second() {
        let metrics = Metrics::new();
        let ok = Ended::Answered { status: 200, bytes: 3 };
        for round in 0..30u64 {
            for _ in 0..if round < 15 { 10 } else { 20 } {
                metrics.begin();
                metrics.end(ok, Duration::from_millis(round), None);
            }
            tokio::time::advance(Duration::from_millis(100)).await;
            metrics.show(Instant::now());
        }
        let shown = metrics.show(Instant::now());
        assert_eq!(
            (&shown["rps"], &shown["requests"], &shown["inFlight"]),
            (&json!(200.0), &json!(450), &json!(0))
        );
    }

    #[test]
    fn errors_are_told_apart_and_only_answers_have_a_latency() {
        let metrics = Metrics::new();
        metrics.end(Ended::Answered { status: 200, bytes: 10 }, Duration::from_millis(2), None);
        metrics.end(
            Ended::Answered { status: 503, bytes: 5 },
            Duration::from_millis(4),
            Some("503".to_owned()),
        );
        metrics.end(Ended::NotConnected, Duration::ZERO, Some("refused".to_owned()));
        metrics.end(Ended::TimedOut, Duration::from_secs(10), Some("slow".to_owned()));
        let totals = metrics.totals(Duration::from_secs(2));
        assert_eq!((totals.requests, totals.failed, totals.rps, totals.error_rate()), (4, 3, 2.0, 0.75));
        assert_eq!(totals.first_error.as_deref(), Some("503"));
        let results = totals.results();
        assert_eq!(results["statuses"], json!({"2xx": 1, "5xx": 1}));
        assert_eq!(results["errors"], json!({"connect": 1, "timeout": 1}));
        assert_eq!((&results["bytes"], totals.latencies.p50 < 5.0), (&json!(15), true));
    }
}
