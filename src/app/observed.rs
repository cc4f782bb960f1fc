//! What looks at this process from outside: the listener of metrics, where `metrics.listen` asks for one, and the
//! collector of traces, where `traces.endpoint` names one.

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::StartError;
use super::backend::Backend;
use crate::config::settings::Settings;
use crate::http::{self, MetricsState};
use crate::tasks::Tasks;
use crate::traces;

/// Starts what `settings` ask for in the process that is called `node`; it ends with the tasks.
pub(super) async fn start(
    settings: &Settings,
    node: &str,
    backend: &Backend,
    metrics: &PrometheusHandle,
    tasks: &Tasks,
) -> Result<(), StartError> {
    if let Some(endpoint) = &settings.traces.endpoint {
        traces::start(endpoint, node, tasks)?;
    }
    let Some(address) = settings.metrics.listen else { return Ok(()) };
    let refused = |error| StartError::Scrape { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    // With port 0 this is the only place that tells it.
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(%address, "metrics are answered");
    let (queue, broker) = (backend.queue.clone(), backend.broker.clone());
    let state = MetricsState { queue, broker, metrics: metrics.clone() };
    let server = axum::serve(listener, http::metrics_router(state));
    tasks.spawn("metrics", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "metrics are answered no more");
        }
    });
    Ok(())
}
