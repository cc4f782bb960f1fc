//! A reload as an operator sees it: in the log and in the metrics.

use std::sync::Arc;

use crate::config::reload::Reload;
use crate::config::settings::Sources;
use crate::metrics;

/// Reads `sources` again, and tells what became of it. A configuration with a mistake changes nothing.
pub async fn reload(reload: &Arc<Reload>, sources: &Sources) {
    let (again, sources) = (reload.clone(), sources.clone());
    // Files may lie on a disk that is slow to answer.
    let done = tokio::task::spawn_blocking(move || again.reload(&sources)).await;
    match done {
        Ok(Ok(reloaded)) => {
            metrics::reloaded("applied");
            metrics::register_namespaces(reload.rules().namespaces().iter().map(|n| n.name.as_str()));
            for warning in &reloaded.warnings {
                tracing::warn!("{warning}");
            }
            for key in &reloaded.need_restart {
                tracing::warn!(key, "`{key}` was changed, but is only read at the start: it takes a restart");
            }
            tracing::info!("the configuration was reloaded");
        }
        Ok(Err(mistakes)) => {
            metrics::reloaded("refused");
            for mistake in &mistakes {
                tracing::error!("{mistake}");
            }
            let n = mistakes.len();
            tracing::error!(mistakes = n, "the configuration was not reloaded: what held before holds on");
        }
        Err(error) => {
            metrics::reloaded("refused");
            tracing::error!(%error, "the configuration was not reloaded");
        }
    }
}
