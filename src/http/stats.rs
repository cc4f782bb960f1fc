//! Statistics: what the server has at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::runtime::Handle;

use super::HttpState;
use super::problem::{Problem, ReadErrors};
use crate::metrics::{self, Totals};
use crate::model::{Pause, Priority};
use crate::presence::{Counts, NodeCounts};

/// What the server has now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    /// Open connections.
    connections: usize,
    /// Users that are online.
    users: usize,
    /// Rooms with somebody in them.
    rooms: usize,
    /// Jobs, by state.
    jobs: BTreeMap<&'static str, u64>,
    /// What of the queue is held back.
    paused: Vec<Pause>,
    /// Workers that take jobs.
    workers: usize,
    /// Inboxes.
    inbox: InboxStats,
    /// Tasks that are alive in the process that answers.
    tasks: usize,
    /// What the processes did since they began.
    #[serde(flatten)]
    work: Work,
    /// What each node has of this, where several share a Redis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeStats>,
}

/// What one node has now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct NodeStats {
    /// Names it.
    node: String,
    /// Its open connections.
    connections: usize,
    /// What it did since its process began.
    #[serde(flatten)]
    work: Work,
}

/// What was done since the process began: the numbers of `/metrics`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Work {
    /// Messages that were appended.
    publications: u64,
    /// Messages that were handed to sockets.
    deliveries: u64,
    /// Both, by priority.
    by_priority: BTreeMap<&'static str, Passed>,
    /// From the acceptance of a live message to its hand-over; absent before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_latency_ms: Option<Latency>,
    /// Messages that left a connection at once; absent before the first ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Batches>,
    /// Messages that receivers were spared, because a newer one stands for them.
    conflated: u64,
    /// Times that a receiver fell behind its bound and was read on from history.
    slow_consumers: u64,
    /// Joins with a position.
    recoveries: Recoveries,
}

/// Messages of one priority.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Passed {
    /// Appended.
    publications: u64,
    /// Handed to sockets.
    deliveries: u64,
}

/// Milliseconds that so many in a hundred kept below, as closely as the buckets of `/metrics` tell.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
}

/// How full flushes are, in messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Batches {
    mean: f64,
    p99: f64,
}

/// How joins with a position ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Recoveries {
    /// They got what they had missed.
    recovered: u64,
    /// They were told to start over.
    reset: u64,
    /// Messages that were replayed to them.
    replayed: u64,
}

/// What is in all inboxes together.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct InboxStats {
    /// Notifications that are unread.
    unread: u64,
}

impl NodeStats {
    fn of(counts: NodeCounts) -> Option<Self> {
        let NodeCounts { node, connections, totals } = counts;
        node.map(|node| Self { node, connections, work: Work::of(&totals) })
    }
}

impl Work {
    fn of(totals: &Totals) -> Self {
        let passed = Priority::ALL.into_iter().zip(totals.publications.into_iter().zip(totals.deliveries));
        let ms = |quantile| totals.latency(quantile).map(|s| rounded(s * 1000.0));
        let latency = || Some(Latency { p50: ms(0.5)?, p90: ms(0.9)?, p99: ms(0.99)? });
        let batch =
            || Some(Batches { mean: rounded(totals.batch_mean()?), p99: rounded(totals.batch(0.99)?) });
        Self {
            publications: totals.publications.iter().sum(),
            deliveries: totals.deliveries.iter().sum(),
            by_priority: passed
                .map(|(priority, (publications, deliveries))| {
                    (priority.name(), Passed { publications, deliveries })
                })
                .collect(),
            delivery_latency_ms: latency(),
            batch: batch(),
            conflated: totals.conflated,
            slow_consumers: totals.slow,
            recoveries: Recoveries {
                recovered: totals.recovered,
                reset: totals.reset,
                replayed: totals.replayed,
            },
        }
    }
}

/// Two decimals: more would pretend to be exact.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Count what there is.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    operation_id = "getStats",
    tag = "server",
    responses((status = 200, description = "The counts of this moment", body = Stats), ReadErrors)
)]
pub(super) async fn stats(State(state): State<Arc<HttpState>>) -> Result<Json<Stats>, Problem> {
    let jobs = state.queue.counts().await?;
    let unread = state.notifier.inbox().unread_in_all().await?;
    let Counts { connections, users, rooms } = state.presence.counts().await?;
    let nodes = state.presence.nodes().await?;
    let mut totals = Totals::default();
    nodes.iter().for_each(|node| totals.add(&node.totals));
    Ok(Json(Stats {
        connections,
        users,
        rooms,
        jobs: jobs.into_iter().collect(),
        paused: state.queue.pauses().await?,
        workers: metrics::workers_told(),
        inbox: InboxStats { unread },
        tasks: Handle::current().metrics().num_alive_tasks(),
        work: Work::of(&totals),
        nodes: nodes.into_iter().filter_map(NodeStats::of).collect(),
    }))
}
