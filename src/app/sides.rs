//! A listener of its own for what only administrators do.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::settings::Settings;
use crate::http::{self, HttpState, Routes};
use crate::listener::door::Door;
use crate::listener::{ListenError, Listener, serve};
use crate::tasks::Tasks;

/// Where administrators ask, if not where everybody does.
pub(super) struct Sides {
    admin: Option<Listener>,
}

impl Sides {
    /// Listens where the settings say; whoever comes has to pass `door`.
    pub(super) fn bind(settings: &Settings, door: &Arc<Door>) -> Result<Self, ListenError> {
        let bind = |address| Listener::bind(address, door.clone());
        Ok(Self { admin: settings.admin.listen.map(bind).transpose()? })
    }

    /// Serves there until `stop`; what is left for the main listener.
    pub(super) fn serve(self, state: &HttpState, stop: &CancellationToken, tasks: &Tasks) -> Routes {
        let Some(listener) = self.admin else { return Routes::ALL };
        if let Ok(address) = listener.address() {
            tracing::info!(%address, "administrators are answered at an address of their own");
        }
        let router = http::router(state.clone(), Routes::Admin);
        tasks.spawn("admin", serve::serve(listener, router, stop.clone()));
        Routes::Main { admin_apart: true }
    }
}
