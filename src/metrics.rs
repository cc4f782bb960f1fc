//! Every metric, in one place: its name, its help, its labels and how it is recorded.
//!
//! Labels are namespaces, priorities, outcomes, reasons and states, never a channel, user, test or job id, so
//! the number of series is bounded by the configuration. All are registered at start, so that they exist at 0.

mod counters;
mod distribution;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::model::{Priority, TestState};
use counters::{ByNamespace, Counters, head};
use distribution::Distribution;
pub use totals::Totals;

/// From the acceptance of a message to its hand-over, in seconds: timestamps are whole milliseconds, and the batch
/// window of 100 ms is where most of what waits ends.
const DELIVERY_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.12, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Commits and scripts, in seconds: from a tenth of a millisecond to ten seconds.
const APPEND_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Answers of the HTTP edge, in seconds.
const HTTP_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Waiting and running times of jobs, in seconds: from a millisecond to a day.
const JOB_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
/// Messages per flush.
const BATCH_MESSAGES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// The reasons why something is refused; the label of `tidings_rejected_total`.
pub const REJECTED_REASONS: [&str; 27] = [
    "unknown_channel",
    "forbidden",
    "unknown_event",
    "invalid",
    "too_large",
    "stale_attempt",
    "limit",
    "unavailable",
    "connections",
    "address_connections",
    "connect_rate",
    "handshakes",
    "user_connections",
    "rooms",
    "event_rate",
    "flood",
    "publish_rate",
    "notification_rate",
    "job_rate",
    "idle",
    "timeout",
    "keep_alive",
    "heartbeat",
    "write_deadline",
    "unauthorized",
    "origin",
    "host",
];
/// How an attempt or a job can end; the label of the job metrics.
pub const OUTCOMES: [&str; 4] = ["passed", "failed", "cancelled", "retried"];
/// How a join with a position can end; the label of `tidings_recoveries_total`.
const RECOVERIES: [&str; 2] = ["recovered", "reset"];

/// What becomes of a reload of the configuration; the label of `tidings_reloads_total`.
pub const RELOADS: [&str; 2] = ["applied", "refused"];

// Without a recorder nothing is counted, neither by it nor here: `benches/callgrind --metrics` compares the two.
static RECORDING: AtomicBool = AtomicBool::new(false);
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Installs the recorder of this process; its handle renders `/metrics`. Later calls return the same one.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("tidings_broker_append_seconds".to_owned()), APPEND_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("tidings_http_request_seconds".to_owned()), HTTP_SECONDS)?
        .set_buckets_for_metric(Matcher::Prefix("tidings_job".to_owned()), JOB_SECONDS)?
        .install_recorder()?;
    describe();
    LazyLock::force(&HOT);
    register();
    RECORDING.store(true, Ordering::Relaxed);
    *installed = Some(handle.clone());
    Ok(handle)
}

/// Sums up what was measured since the last call. Where nobody reads the metrics, somebody has to call this
/// now and then: until then every single measurement is kept.
pub fn sum_up() {
    let installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        handle.run_upkeep();
    }
}

/// All metrics of this process, in the text format of Prometheus.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    PUBLICATIONS.render(&mut text);
    DELIVERIES.render(&mut text);
    head(&mut text, "tidings_delivery_latency_seconds", LATENCY_HELP, "histogram");
    for (priority, latency) in Priority::ALL.iter().zip(&LATENCY) {
        let labels = format!("priority=\"{}\"", priority.name());
        latency.render(&mut text, "tidings_delivery_latency_seconds", &labels);
    }
    head(&mut text, "tidings_batch_messages", BATCH_HELP, "histogram");
    BATCH.render(&mut text, "tidings_batch_messages", "");
    for one in [&CONFLATED, &SLOW, &REPLAYED] {
        one.render(&mut text);
    }
    RECOVERED.render(&mut text);
    text
}

/// Makes the series of these namespaces exist before their first message.
pub fn register_namespaces<'a>(names: impl IntoIterator<Item = &'a str>) {
    names.into_iter().for_each(|name| PUBLICATIONS.add(name, 0, 0));
}

/// Makes the series of these routes exist before their first request.
pub fn register_routes<'a>(routes: impl IntoIterator<Item = &'a str>) {
    for route in routes {
        let _ = histogram!("tidings_http_request_seconds", "route" => route.to_owned());
    }
}

fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("tidings_connections", "Open connections: Socket.IO and streams");
    describe_gauge!("tidings_subscriptions", "Rooms joined, over all connections");
    describe_gauge!("tidings_channels", "Channels with at least one subscriber on this node");
    describe_counter!(
        "tidings_rejected_total",
        "Requests and messages refused, and connections ended by a limit, by reason"
    );
    describe_gauge!("tidings_jobs", "Jobs, by state");
    describe_histogram!("tidings_job_wait_seconds", Unit::Seconds, "From a job's due time to its start");
    describe_histogram!("tidings_job_duration_seconds", Unit::Seconds, "How long attempts ran, by outcome");
    describe_counter!("tidings_job_attempts_total", "Attempts that ended, by outcome");
    describe_gauge!("tidings_workers", "Workers that take jobs");
    describe_counter!(
        "tidings_jobs_stalled_total",
        "Attempts that were ended because their worker went silent"
    );
    describe_gauge!("tidings_broker_up", "Whether the message store can be used");
    describe_counter!(
        "tidings_broker_reconnects_total",
        "Times that the connection to the store was made anew"
    );
    describe_histogram!(
        "tidings_broker_append_seconds",
        Unit::Seconds,
        "How long a group of changes took to be stored"
    );
    describe_gauge!("tidings_inbox_unread", "Notifications that nobody has read yet");
    describe_counter!("tidings_reloads_total", "Reloads of the configuration, by outcome");
    describe_gauge!("tidings_connections_limit", "Connections that this node takes at most");
    describe_gauge!("tidings_build_info", "Always 1; its label is the version that runs");
    describe_histogram!(
        "tidings_http_request_seconds",
        Unit::Seconds,
        "From an HTTP request to the head of its answer, by route"
    );
    describe_counter!("tidings_http_requests_total", "HTTP requests, by route, method and status");
    metrics_process::Collector::default().describe();
}

fn register() {
    for reason in REJECTED_REASONS {
        counter!("tidings_rejected_total", "reason" => reason).absolute(0);
    }
    for outcome in RELOADS {
        counter!("tidings_reloads_total", "outcome" => outcome).absolute(0);
    }
    for outcome in OUTCOMES {
        counter!("tidings_job_attempts_total", "outcome" => outcome).absolute(0);
        let _ = histogram!("tidings_job_duration_seconds", "outcome" => outcome);
    }
    for state in TestState::ALL {
        gauge!("tidings_jobs", "state" => state.name()).set(0.0);
    }
    for name in [
        "tidings_connections",
        "tidings_connections_limit",
        "tidings_subscriptions",
        "tidings_channels",
        "tidings_workers",
    ] {
        gauge!(name).set(0.0);
    }
    gauge!("tidings_inbox_unread").set(0.0);
    gauge!("tidings_broker_up").set(1.0);
    for name in ["tidings_broker_reconnects_total", "tidings_jobs_stalled_total"] {
        counter!(name).absolute(0);
    }
    gauge!("tidings_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let _ = histogram!("tidings_job_wait_seconds");
    // Of the requests at least the one that reads this.
    requests("/metrics", "GET", 200).absolute(0);
}

/// Handles that the hot paths use without looking them up.
struct Hot {
    append: Histogram,
    connections: Gauge,
    subscriptions: Gauge,
    channels: Gauge,
}

static HOT: LazyLock<Hot> = LazyLock::new(|| Hot {
    append: histogram!("tidings_broker_append_seconds"),
    connections: gauge!("tidings_connections"),
    subscriptions: gauge!("tidings_subscriptions"),
    channels: gauge!("tidings_channels"),
});

// What is measured with each message is counted here, and not kept for the recorder.
const PRIORITIES: [&str; 4] = ["low", "normal", "high", "critical"];
static PUBLICATIONS: ByNamespace<4> = ByNamespace::new(
    "priority",
    PRIORITIES,
    "tidings_publications_total",
    "Messages appended, by namespace and priority",
);
static DELIVERIES: Counters<4> = Counters::by(
    "priority",
    PRIORITIES,
    "tidings_deliveries_total",
    "Messages handed to sockets, by priority",
);
static LATENCY: [Distribution; 4] = [const { Distribution::new(DELIVERY_SECONDS, 1000.0) }; 4];
const LATENCY_HELP: &str = "From the acceptance of a live message to its hand-over to a socket, by priority";
static BATCH: Distribution = Distribution::new(BATCH_MESSAGES, 1.0);
const BATCH_HELP: &str = "Messages that left a connection's outbox at once";
static CONFLATED: Counters<1> = Counters::single(
    "tidings_conflated_total",
    "Messages that receivers were spared because a newer one with the same key stands for them",
);
static SLOW: Counters<1> =
    Counters::single("tidings_slow_consumers_total", "Times that a receiver fell behind its bound");
static REPLAYED: Counters<1> =
    Counters::single("tidings_replayed_total", "Messages replayed from history for those who came back");
static RECOVERED: Counters<2> =
    Counters::by("outcome", RECOVERIES, "tidings_recoveries_total", "Joins with a position, by outcome");

fn slot(priority: Priority) -> usize {
    usize::from(priority.number()) - 1
}

// What was told last of the workers: the recorder's gauges can be read only as text.
static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// How many workers take jobs, as was told last.
#[must_use]
pub fn workers_told() -> usize {
    WORKERS.load(Ordering::Relaxed)
}

/// A group of changes was stored.
pub fn append_seconds(took: Duration) {
    HOT.append.record(took);
}

/// `n` messages were appended to channels of `namespace`.
pub fn published(namespace: &str, priority: Priority, n: u64) {
    if !RECORDING.load(Ordering::Relaxed) {
        return;
    }
    PUBLICATIONS.add(namespace, slot(priority), n);
}

/// `n` messages were handed to sockets; live ones `latency_ms` after they were accepted, others from history.
pub fn delivered(priority: Priority, latency_ms: Option<i64>, n: usize) {
    if !RECORDING.load(Ordering::Relaxed) {
        return;
    }
    DELIVERIES.add(slot(priority), n as u64);
    if let Some(latency_ms) = latency_ms {
        LATENCY[slot(priority)].record(u64::try_from(latency_ms).unwrap_or(0), n as u64);
    }
}

/// `messages` left an outbox at once, and as many another, `n` in all.
pub fn flushed(messages: usize, n: usize) {
    if !RECORDING.load(Ordering::Relaxed) {
        return;
    }
    BATCH.record(messages as u64, n as u64);
}

/// Receivers were spared `n` messages, and told so.
pub fn conflated(n: u64) {
    CONFLATED.add(0, n);
}

/// A receiver fell behind its bound.
pub fn slow_consumer() {
    SLOW.add(0, 1);
}

/// Connections came (`+1`) or went (`-1`).
pub fn connections(change: f64) {
    HOT.connections.increment(change);
}

/// Rooms were joined or left.
pub fn subscriptions(change: f64) {
    HOT.subscriptions.increment(change);
}

/// Channels got their first subscriber, or lost their last.
pub fn channels(change: f64) {
    HOT.channels.increment(change);
}

/// Something was refused; `reason` is one of [`REJECTED_REASONS`].
pub fn rejected(reason: &'static str) {
    counter!("tidings_rejected_total", "reason" => reason).increment(1);
}

/// A join with a position was recovered, or told to start over, and is replayed `messages`.
pub fn recovery(recovered: bool, messages: u64) {
    RECOVERED.add(usize::from(!recovered), 1);
    REPLAYED.add(0, messages);
}

/// `n` attempts were ended because their worker went silent.
pub fn stalled(n: usize) {
    counter!("tidings_jobs_stalled_total").increment(n as u64);
}

/// How many connections this node takes at most.
pub fn connections_limit(n: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!("tidings_connections_limit").set(n as f64);
}

/// How many jobs are in `state`.
pub fn jobs(state: &'static str, n: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!("tidings_jobs", "state" => state).set(n as f64);
}

/// A job began `wait_ms` after it was due.
pub fn job_wait(wait_ms: i64) {
    histogram!("tidings_job_wait_seconds").record(seconds(wait_ms));
}

/// An attempt ended as `outcome`, one of [`OUTCOMES`].
pub fn attempt(outcome: &'static str, ran_ms: i64) {
    counter!("tidings_job_attempts_total", "outcome" => outcome).increment(1);
    histogram!("tidings_job_duration_seconds", "outcome" => outcome).record(seconds(ran_ms));
}

/// The configuration was read again, with an outcome of [`RELOADS`].
pub fn reloaded(outcome: &'static str) {
    counter!("tidings_reloads_total", "outcome" => outcome).increment(1);
}

/// How many workers take jobs.
pub fn workers(n: usize) {
    WORKERS.store(n, Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!("tidings_workers").set(n as f64);
}

/// The connection to the message store was made anew.
pub fn broker_reconnected() {
    counter!("tidings_broker_reconnects_total").increment(1);
}

/// Whether the message store can be used.
pub fn broker_up(up: bool) {
    gauge!("tidings_broker_up").set(if up { 1.0 } else { 0.0 });
}

/// How many notifications are unread.
pub fn inbox_unread(n: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!("tidings_inbox_unread").set(n as f64);
}

/// The head of an answer to an HTTP request was made, `took` after the request came.
pub fn http_request(route: &str, method: &'static str, status: u16, took: Duration) {
    requests(route, method, status).increment(1);
    histogram!("tidings_http_request_seconds", "route" => route.to_owned()).record(took);
}

fn requests(route: &str, method: &'static str, status: u16) -> Counter {
    counter!(
        "tidings_http_requests_total",
        "route" => route.to_owned(), "method" => method, "status" => status.to_string()
    )
}

/// Brings the metrics of the process itself up to date; called before they are read.
pub fn collect_process() {
    metrics_process::Collector::default().collect();
}

fn seconds(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a latency has no 53 bits of milliseconds")]
    let seconds = ms.max(0) as f64 / 1000.0;
    seconds
}
