//! What the configuration says of suites, told to the queue: at the start, and after every reload.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::reload::{Follower, PutInForce, Reload};
use crate::config::settings::Settings;
use crate::queue::{Queue, SuiteLimits};
use crate::tasks::Tasks;

/// The pause after a fault of the store.
const AFTER_FAULT: std::time::Duration = std::time::Duration::from_secs(1);

/// Limits hold when this returns, or else, with a store that takes no changes now, as soon as it does.
pub(super) async fn limit(settings: &Settings, reload: &Reload, queue: &Arc<dyn Queue>, tasks: &Tasks) {
    let limits = limits(settings);
    let held = queue.limit_suites(&limits).await;
    let (sender, mut changes) = watch::channel(limits);
    if let Err(error) = held {
        tracing::warn!(%error, "the limits of suites do not hold yet; trying again");
        changes.mark_changed();
    }
    reload.follow(Arc::new(Limits(sender)));
    tasks.spawn("suite-limits", follow(queue.clone(), changes));
}

fn limits(settings: &Settings) -> SuiteLimits {
    settings.suites.iter().map(|(name, suite)| (name.clone(), suite.concurrency)).collect()
}

struct Limits(watch::Sender<SuiteLimits>);

impl Follower for Limits {
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let (sender, limits) = (self.0.clone(), limits(settings));
        Ok(Box::new(move || {
            // It is followed for as long as the process lives.
            let _ = sender.send(limits);
        }))
    }
}

async fn follow(queue: Arc<dyn Queue>, mut changes: watch::Receiver<SuiteLimits>) {
    // Not marked as seen: it may have to be said again.
    let mut known = changes.borrow().clone();
    while changes.changed().await.is_ok() {
        let wanted = changes.borrow_and_update().clone();
        // A suite that is gone has no limit.
        let mut limits: SuiteLimits = known.keys().map(|suite| (suite.clone(), None)).collect();
        limits.extend(wanted.clone());
        while let Err(error) = queue.limit_suites(&limits).await {
            tracing::warn!(%error, "the new limits of suites do not hold yet; trying again");
            tokio::time::sleep(AFTER_FAULT).await;
        }
        known = wanted;
    }
}
