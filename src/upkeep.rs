//! Upkeep: what has to be done now and then on every node that has a store.
//!
//! Due jobs enter the queue and dead leases end; old messages and jobs are removed; gauges are brought up to
//! date. A fault of the store is logged and tried again: upkeep never ends before the process does.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::Broker;
use crate::inbox::Inbox;
use crate::metrics;
use crate::model::now_ms;
use crate::queue::Queue;
use crate::sync::SyncState;
use crate::tasks::Tasks;

/// The longest pause between two looks at due jobs and leases.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The pause between two rounds of retention.
const RETAIN_EVERY: Duration = Duration::from_secs(30);
/// The pause between two steps of one round, which is the writers' turn.
const RETAIN_STEP: Duration = Duration::from_millis(20);
/// The pause between two looks at what is only shown.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);

/// Starts the upkeep of `queue`, `broker`, `sync` and `inbox`.
pub fn start(
    queue: &Arc<dyn Queue>,
    broker: &Arc<dyn Broker>,
    sync: &Arc<dyn SyncState>,
    inbox: &Arc<dyn Inbox>,
    tasks: &Tasks,
) {
    start_sweeping(queue, tasks);
    tasks.spawn("retention", retain(queue.clone(), broker.clone(), sync.clone(), inbox.clone()));
    start_observing(queue, broker, Some(inbox), tasks);
}

/// Starts what keeps gauges up to date.
pub fn start_observing(
    queue: &Arc<dyn Queue>,
    broker: &Arc<dyn Broker>,
    inbox: Option<&Arc<dyn Inbox>>,
    tasks: &Tasks,
) {
    tasks.spawn("observation", observe(queue.clone(), broker.clone(), inbox.cloned()));
}

/// Starts what `queue` alone needs: it goes on without a server.
pub fn start_sweeping(queue: &Arc<dyn Queue>, tasks: &Tasks) {
    tasks.spawn("queue-sweep", sweep(queue.clone()));
}

async fn sweep(queue: Arc<dyn Queue>) {
    loop {
        let pause = match queue.sweep().await {
            Ok(swept) => {
                metrics::stalled(swept.reaped);
                let next = swept.next_due.map_or(SWEEP_EVERY, until).min(SWEEP_EVERY);
                if swept.more { Duration::ZERO } else { next }
            }
            Err(error) => {
                tracing::warn!(%error, "due jobs could not be looked for; trying again");
                SWEEP_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = queue.wait_for_due() => {}
        }
    }
}

fn until(at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms - now_ms()).unwrap_or(0))
}

async fn retain(
    queue: Arc<dyn Queue>,
    broker: Arc<dyn Broker>,
    sync: Arc<dyn SyncState>,
    inbox: Arc<dyn Inbox>,
) {
    loop {
        let jobs = queue.retain().await.inspect_err(|error| {
            tracing::warn!(%error, "old jobs could not be removed; trying again");
        });
        let messages = broker.retain().await.inspect_err(|error| {
            tracing::warn!(%error, "old messages could not be removed; trying again");
        });
        let places = sync.retain().await.inspect_err(|error| {
            tracing::warn!(%error, "old places of devices could not be removed; trying again");
        });
        let notifications = inbox.retain().await.inspect_err(|error| {
            tracing::warn!(%error, "old notifications could not be removed; trying again");
        });
        let more = [jobs.ok(), messages.ok(), places.ok(), notifications.ok()].contains(&Some(true));
        tokio::time::sleep(if more { RETAIN_STEP } else { RETAIN_EVERY }).await;
    }
}

async fn observe(queue: Arc<dyn Queue>, broker: Arc<dyn Broker>, inbox: Option<Arc<dyn Inbox>>) {
    loop {
        let (counts, ready) = (queue.counts().await, broker.ready().await);
        metrics::broker_up(counts.is_ok() && ready.is_ok());
        match counts {
            Ok(counts) => counts.into_iter().for_each(|(state, n)| metrics::jobs(state, n)),
            Err(error) => tracing::warn!(%error, "the store cannot be read"),
        }
        if let Err(error) = ready {
            tracing::warn!(%error, "messages cannot be appended, or are not heard");
        }
        // A fault of the store was told of above.
        if let Some(inbox) = &inbox
            && let Ok(unread) = inbox.unread_in_all().await
        {
            metrics::inbox_unread(unread);
        }
        metrics::sum_up();
        tokio::time::sleep(OBSERVE_EVERY).await;
    }
}
