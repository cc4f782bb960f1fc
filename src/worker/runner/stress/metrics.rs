//! What a stress test measures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::worker::runner::latencies::Latencies;
use crate::worker::runner::parse::cut;

/// `rps` looks back this far.
const RPS_WINDOW: Duration = Duration::from_secs(1);
/// The longest reason of an error that is kept, in bytes.
const MAX_REASON_BYTES: usize = 300;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer of this status, whose body had this many bytes.
    Answered { status: u16, bytes: u64, as_expected: bool },
    /// There was no complete answer in time.
    TimedOut,
    /// No connection could be opened.
    NotConnected,
    /// The server's certificate is not to be trusted.
    Distrusted,
    /// The TLS handshake failed for another reason.
    NotEncrypted,
    /// The connection broke, or the answer was not HTTP.
    Broken,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    failed: u64,
    dropped: u64,
    bytes: u64,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    // The first reason of each kind of error.
    reasons: BTreeMap<&'static str, String>,
    first_error: Option<&'static str>,
    latencies: Latencies,
}

#[derive(Debug)]
struct Inner {
    counts: Counts,
    in_flight: u64,
    // How many requests had ended when, within the window of `rps`.
    recent: VecDeque<(Instant, u64)>,
}

/// The measurements so far, shared by all requests.
#[derive(Debug)]
pub(super) struct Metrics {
    counted_from: Instant,
    /// When the load ends; answers come later, too.
    load_until: Instant,
    inner: Mutex<Inner>,
}

/// The measurements at the end, or at a moment before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
    pub(super) latencies: Latencies,
    /// How long was counted: not the time after the load in which the last answers came, or one that hangs would make every
    /// rate low.
    pub(super) elapsed: Duration,
    /// Why the first request that failed did so.
    pub(super) first_error: Option<String>,
    pub(super) bytes: u64,
    pub(super) statuses: BTreeMap<String, u64>,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) reasons: BTreeMap<String, String>,
}

impl Ended {
    /// The kind of error that it is, if it is one.
    fn error(self) -> Option<&'static str> {
        Some(match self {
            Self::Answered { as_expected: true, .. } => return None,
            Self::Answered { .. } => "status",
            Self::TimedOut => "timeout",
            Self::NotConnected => "connect",
            Self::Distrusted => "certificate",
            Self::NotEncrypted => "tls",
            Self::Broken => "broken",
        })
    }

    /// A request that never reached the server says nothing about how fast the server is.
    fn has_latency(self) -> bool {
        matches!(self, Self::Answered { .. } | Self::TimedOut)
    }

    /// Whether there was nothing to send the request on.
    pub(super) fn is_without_connection(self) -> bool {
        matches!(self, Self::NotConnected | Self::Distrusted | Self::NotEncrypted)
    }
}

impl Metrics {
    /// Measurements of requests that are due from `counted_from` on, and before `load_until`.
    pub(super) fn new(counted_from: Instant, load_until: Instant) -> Self {
        let inner = Inner { counts: Counts::default(), in_flight: 0, recent: VecDeque::new() };
        Self { counted_from, load_until, inner: Mutex::new(inner) }
    }

    /// A request goes out.
    pub(super) fn begin(&self) {
        self.lock().in_flight += 1;
    }

    /// A request that was meant to start at `intended` ended now; `reason` says why, of an error.
    pub(super) fn end(&self, intended: Instant, ended: Ended, reason: Option<String>) {
        let latency = intended.elapsed();
        let mut inner = self.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        if intended < self.counted_from {
            return;
        }
        let counts = &mut inner.counts;
        counts.requests += 1;
        if let Some(kind) = ended.error() {
            counts.failed += 1;
            *counts.errors.entry(kind).or_default() += 1;
            counts.first_error.get_or_insert(kind);
            let reason = || cut(&reason.unwrap_or_default(), MAX_REASON_BYTES).to_owned();
            counts.reasons.entry(kind).or_insert_with(reason);
        }
        if ended.has_latency() {
            counts.latencies.record(latency);
        }
        if let Ended::Answered { status, bytes, .. } = ended {
            counts.bytes += bytes;
            *counts.statuses.entry(status / 100).or_default() += 1;
        }
    }

    /// A request that was due at `intended` could not be sent.
    pub(super) fn dropped(&self, intended: Instant) {
        if intended >= self.counted_from {
            self.lock().counts.dropped += 1;
        }
    }

    /// What is shown while the test runs; `target` is the level that the schedule asks for, and its name.
    pub(super) fn show(&self, now: Instant, target: (&str, f64)) -> Map<String, Value> {
        let mut inner = self.lock();
        let requests = inner.counts.requests;
        inner.recent.push_back((now, requests));
        // The newest sample from before the window is its beginning.
        while inner.recent.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RPS_WINDOW) {
            inner.recent.pop_front();
        }
        let (since, before) = inner.recent.front().copied().unwrap_or((now, 0));
        let counts = &inner.counts;
        let metrics = [
            ("requests", json!(requests)),
            ("rps", json!(rounded(rate(requests - before, now.duration_since(since))))),
            (target.0, json!(rounded(target.1))),
            ("errorRate", json!(rounded(share(counts.failed, requests)))),
            ("inFlight", json!(inner.in_flight)),
            ("dropped", json!(counts.dropped)),
            ("statuses", json!(classes(&counts.statuses))),
            ("errors", json!(counts.errors)),
        ];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into_iter();
        metrics.chain(summary(&counts.latencies)).collect()
    }

    /// What there is so far.
    pub(super) fn totals(&self, now: Instant) -> Totals {
        let counts = self.lock().counts.clone();
        let named =
            |map: BTreeMap<&'static str, u64>| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Totals {
            requests: counts.requests,
            failed: counts.failed,
            dropped: counts.dropped,
            latencies: counts.latencies,
            elapsed: now.min(self.load_until).saturating_duration_since(self.counted_from),
            first_error: counts.first_error.and_then(|kind| counts.reasons.get(kind).cloned()),
            bytes: counts.bytes,
            statuses: classes(&counts.statuses),
            errors: named(counts.errors),
            reasons: counts.reasons.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be half changed in a way that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    /// The share of the requests that failed, 0 to 1.
    pub(super) fn error_rate(&self) -> f64 {
        share(self.failed, self.requests)
    }

    /// Requests that ended, per second.
    pub(super) fn rps(&self) -> f64 {
        rate(self.requests, self.elapsed)
    }

    /// Requests that were answered as expected, per second.
    pub(super) fn throughput(&self) -> f64 {
        rate(self.requests - self.failed, self.elapsed)
    }

    /// The results that are kept.
    pub(super) fn results(&self) -> Map<String, Value> {
        let mut latencies: Map<String, Value> = summary(&self.latencies).collect();
        latencies.insert("min".to_owned(), json!(self.latencies.min()));
        latencies.insert("mean".to_owned(), json!(self.latencies.mean()));
        let results = [
            ("requests", json!(self.requests)),
            ("failed", json!(self.failed)),
            ("dropped", json!(self.dropped)),
            ("statuses", json!(self.statuses)),
            ("errors", json!(self.errors)),
            ("firstErrors", json!(self.reasons)),
            ("rps", json!(rounded(self.rps()))),
            ("throughput", json!(rounded(self.throughput()))),
            ("errorRate", json!(rounded(self.error_rate()))),
            ("latencyMs", Value::Object(latencies)),
            ("histogram", json!(self.latencies.encode())),
            ("bytes", json!(self.bytes)),
            ("measuredMs", json!(u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX))),
        ];
        results.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }
}

/// The percentiles that are shown.
fn summary(latencies: &Latencies) -> impl Iterator<Item = (String, Value)> + use<> {
    let named = [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0)];
    let percentiles = named.map(|(name, percent)| (name.to_owned(), json!(latencies.percentile(percent))));
    percentiles.into_iter().chain([("max".to_owned(), json!(latencies.max()))])
}

fn classes(statuses: &BTreeMap<u16, u64>) -> BTreeMap<String, u64> {
    statuses.iter().map(|(class, n)| (format!("{class}xx"), *n)).collect()
}

/// `count` per second.
fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let count = count as f64;
    count / time.as_secs_f64()
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

    const OK: Ended = Ended::Answered { status: 200, bytes: 3, as_expected: true };

    #[tokio::test(start_paused = true)]
    async fn rps_looks_back_one_second() {
        let metrics = Metrics::new(Instant::now(), Instant::now() + Duration::from_secs(60));
        for round in 0..30u64 {
            for _ in 0..if round < 15 { 10 } else { 20 } {
                metrics.begin();
                metrics.end(Instant::now(), OK, None);
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
        metrics.end(start, Ended::Answered { status: 200, bytes: 10, as_expected: true }, None);
        let broken = Ended::Answered { status: 503, bytes: 5, as_expected: false };
        metrics.end(start, broken, Some("503".to_owned()));
        metrics.end(start, Ended::NotConnected, Some("refused".to_owned()));
        metrics.end(start, Ended::TimedOut, Some("slow".to_owned()));
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
        (0..999).for_each(|_| metrics.end(Instant::now(), OK, None));
        tokio::time::advance(Duration::from_secs(11)).await;
        metrics.end(start + Duration::from_secs(9), OK, None);
        let totals = metrics.totals(Instant::now());
        assert_eq!((totals.rps(), totals.throughput()), (100.0, 100.0));
        assert_eq!(totals.results()["measuredMs"], 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_before_the_count_begins_is_not_counted() {
        let start = Instant::now();
        let metrics = Metrics::new(start + Duration::from_secs(1), start + Duration::from_secs(60));
        metrics.begin();
        metrics.dropped(start);
        tokio::time::advance(Duration::from_secs(2)).await;
        metrics.end(start, OK, None);
        metrics.begin();
        metrics.end(start + Duration::from_secs(1), OK, None);
        let totals = metrics.totals(Instant::now());
        assert_eq!((totals.requests, totals.dropped, totals.bytes), (1, 0, 3));
        assert_eq!(totals.elapsed, Duration::from_secs(1));
        assert!((totals.latencies.max() - 1000.0).abs() < 1.0);
    }
}
