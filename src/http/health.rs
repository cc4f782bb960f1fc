//! What operators look at: liveness, readiness and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use super::extract::Caller;
use super::problem::Problem;
use super::{HttpState, MetricsState};
use crate::auth::METRICS;
use crate::broker::Broker;
use crate::metrics as gauges;
use crate::queue::Queue;

/// How long the store may take to answer before the server counts as not ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process is alive.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the server wants requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    /// `ok`, `draining` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// What was looked at, by name: `server`, `store`.
    checks: BTreeMap<&'static str, Check>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Check {
    /// Whether it is as it should be.
    ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Check {
    fn of(outcome: Result<(), String>) -> Self {
        Self { ok: outcome.is_ok(), detail: outcome.err() }
    }
}

/// Is the process alive?
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "server",
    responses((status = 200, description = "It is", body = Health))
)]
pub(super) async fn healthz() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(Health { status: "ok" }))
}

/// Does the server want requests? Not while it is going away, nor while its store does not answer.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "server",
    responses(
        (status = 200, description = "It does", body = Ready),
        (status = 503, description = "It does not; the checks say why", body = Ready),
    )
)]
pub(super) async fn readyz(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    state.ready.note_asked();
    let (jobs, messages) = tokio::join!(job_counts(&*state.queue), messages_ready(&*state.broker));
    let store = jobs.and(messages);
    let draining = state.ready.is_draining();
    let status = match (&store, draining) {
        (Err(_), _) => "unavailable",
        (Ok(()), true) => "draining",
        (Ok(()), false) => "ok",
    };
    let server = if draining { Err("the server is going away".to_owned()) } else { Ok(()) };
    let checks = BTreeMap::from([("server", Check::of(server)), ("store", Check::of(store))]);
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(Ready { status, checks }))
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "server",
    responses((
        status = 200,
        description = "All metrics, in the text format of Prometheus",
        body = String,
        content_type = "text/plain"
    ))
)]
pub(super) async fn metrics(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
) -> Result<impl IntoResponse, Problem> {
    state.rights.has_role(&caller.0, &[METRICS], "reading metrics")?;
    Ok(scrape(&*state.queue, &*state.broker, &state.metrics).await)
}

/// The same for a listener that has nothing else.
pub(super) async fn metrics_alone(State(state): State<MetricsState>) -> impl IntoResponse {
    scrape(&*state.queue, &*state.broker, &state.metrics).await
}

async fn scrape(
    queue: &dyn Queue,
    broker: &dyn Broker,
    metrics: &PrometheusHandle,
) -> impl IntoResponse + use<> {
    gauges::collect_process();
    let (counts, ready) = tokio::join!(job_counts(queue), messages_ready(broker));
    gauges::broker_up(counts.is_ok() && ready.is_ok());
    // Without an answer the gauges stay as they were, and `tidings_broker_up` says so.
    for (name, n) in counts.unwrap_or_default() {
        gauges::jobs(name, n);
    }
    let headers = [
        (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, gauges::render(metrics))
}

/// The cheapest question that only a working store can answer.
async fn job_counts(queue: &dyn Queue) -> Result<BTreeMap<&'static str, u64>, String> {
    match tokio::time::timeout(PATIENCE, queue.counts()).await {
        Ok(counts) => counts.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} s", PATIENCE.as_secs())),
    }
}

/// Whether messages can be appended, and those of other servers are heard.
async fn messages_ready(broker: &dyn Broker) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, broker.ready()).await {
        Ok(ready) => ready.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the message store did not answer within {} s", PATIENCE.as_secs())),
    }
}
