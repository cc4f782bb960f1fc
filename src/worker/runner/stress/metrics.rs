//! What a stress test measures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
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
    // How long after it was due a request went out.
    delays: Latencies,
}

#[derive(Debug)]
struct Inner {
    counts: Counts,
    in_flight: u64,
    // Those of them that will count.
    counted_in_flight: u64,
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

/// How late requests went out, in ms: what this machine added to the latencies by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Delays {
    p50: f64,
    p99: f64,
    max: f64,
}

/// The measurements at the end, or at a moment before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
    /// Requests that were under way and will not be waited for.
    pub(super) interrupted: u64,
    pub(super) latencies: Latencies,
    pub(super) delays: Delays,
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

impl Delays {
    fn of(delays: &Latencies) -> Self {
        Self { p50: delays.percentile(50.0), p99: delays.percentile(99.0), max: delays.max() }
    }

    /// What is true of both together: no percentile of all is above the highest one of the parts.
    pub(super) fn at_most(self, other: Self) -> Self {
        Self { p50: self.p50.max(other.p50), p99: self.p99.max(other.p99), max: self.max.max(other.max) }
    }
}

impl Metrics {
    /// Measurements of requests that are due from `counted_from` on, and before `load_until`.
    pub(super) fn new(counted_from: Instant, load_until: Instant) -> Self {
        let inner =
            Inner { counts: Counts::default(), in_flight: 0, counted_in_flight: 0, recent: VecDeque::new() };
        Self { counted_from, load_until, inner: Mutex::new(inner) }
    }

    /// A request that is due at `intended` is to go out; from now on it is under way.
    pub(super) fn begin(&self, intended: Instant) {
        let mut inner = self.lock();
        inner.in_flight += 1;
        inner.counted_in_flight += u64::from(intended >= self.counted_from);
    }

    /// A request that was due at `intended` and went out at `sent` ended now; `reason` says why, of an error.
    pub(super) fn end(&self, intended: Instant, sent: Instant, ended: Ended, reason: Option<String>) {
        let latency = intended.elapsed();
        let mut inner = self.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        if intended < self.counted_from {
            return;
        }
        inner.counted_in_flight = inner.counted_in_flight.saturating_sub(1);
        let counts = &mut inner.counts;
        counts.delays.record(sent.saturating_duration_since(intended));
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
        let (counts, interrupted) = {
            let inner = self.lock();
            (inner.counts.clone(), inner.counted_in_flight)
        };
        let named =
            |map: BTreeMap<&'static str, u64>| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Totals {
            requests: counts.requests,
            failed: counts.failed,
            dropped: counts.dropped,
            interrupted,
            delays: Delays::of(&counts.delays),
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
            ("interrupted", json!(self.interrupted)),
            ("sendDelayMs", json!(self.delays)),
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
mod tests;
