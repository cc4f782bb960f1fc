//! Tasks: every background task has a name, is watched, and ends in order.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The background tasks of one server.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends by itself or [`Tasks::stop`] is called. An end by a panic is logged under
    /// `name`, with the panic's message from the panic hook before it.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Runs `task` until it ends by itself: it watches [`Tasks::stopping`], and has something to finish then.
    pub fn spawn_draining(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        self.tracker.spawn(async move {
            let guarded = std::panic::AssertUnwindSafe(task);
            if futures_util::FutureExt::catch_unwind(guarded).await.is_err() {
                tracing::error!(task = name, "a background task ended by a panic");
            }
        });
    }

    /// Cancelled when the tasks are to end; for those that have to do something before.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends all tasks and waits for them, at most `patience` long; whether all have ended.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}
