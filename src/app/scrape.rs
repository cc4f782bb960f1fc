//! The listener of metrics, where `metrics.listen` asks for one.

use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::StartError;
use crate::broker::Broker;
use crate::http::{self, MetricsState};
use crate::queue::Queue;
use crate::tasks::Tasks;

/// Answers at `address`, if there is one, until the tasks end.
pub(super) async fn start(
    address: Option<SocketAddr>,
    queue: &Arc<dyn Queue>,
    broker: &Arc<dyn Broker>,
    metrics: &PrometheusHandle,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let Some(address) = address else { return Ok(()) };
    let refused = |error| StartError::Scrape { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    // With port 0 this is the only place that tells it.
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(%address, "metrics are answered");
    let state = MetricsState { queue: queue.clone(), broker: broker.clone(), metrics: metrics.clone() };
    let server = axum::serve(listener, http::metrics_router(state));
    tasks.spawn("metrics", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "metrics are answered no more");
        }
    });
    Ok(())
}
