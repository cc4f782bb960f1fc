//! Statistics: what the server has at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::runtime::Handle;

use super::HttpState;
use super::problem::{Problem, ReadErrors};
use crate::presence::{Counts, NodeCounts};

/// What the server has now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stats {
    /// Open connections.
    connections: usize,
    /// Users that are online.
    users: usize,
    /// Rooms with somebody in them.
    rooms: usize,
    /// Jobs, by state.
    jobs: BTreeMap<&'static str, u64>,
    /// Inboxes.
    inbox: InboxStats,
    /// Messages that were appended since the processes began.
    publications: u64,
    /// Messages that were handed to sockets since the processes began.
    deliveries: u64,
    /// Tasks that are alive in the process that answers.
    tasks: usize,
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
    /// Messages that it appended since its process began.
    publications: u64,
    /// Messages that it handed to sockets since its process began.
    deliveries: u64,
}

impl NodeStats {
    fn of(counts: NodeCounts) -> Option<Self> {
        let NodeCounts { node, connections, publications, deliveries } = counts;
        node.map(|node| Self { node, connections, publications, deliveries })
    }
}

/// What is in all inboxes together.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct InboxStats {
    /// Notifications that are unread.
    unread: u64,
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
    let publications = nodes.iter().map(|node| node.publications).sum();
    let deliveries = nodes.iter().map(|node| node.deliveries).sum();
    let nodes = nodes.into_iter().filter_map(NodeStats::of).collect();
    let jobs = jobs.into_iter().collect();
    let inbox = InboxStats { unread };
    let tasks = Handle::current().metrics().num_alive_tasks();
    Ok(Json(Stats { connections, users, rooms, jobs, inbox, publications, deliveries, tasks, nodes }))
}
