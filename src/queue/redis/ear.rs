//! The ear: hears of what other nodes do, and keeps the workers of this one known.
//!
//! A publication may be missed while the connection is made anew, so that whatever it says is found otherwise as
//! well: jobs by looking again, due times by the sweep, wishes to cancel by a look at the few there are.

use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use crate::queue::QueueError;
use crate::redis::Redis;
use crate::redis::subscriber::{Heard, Subscriber};
use crate::tasks::Tasks;

/// The pause between two looks at the wishes to cancel, which have to be heard of within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);

pub(super) async fn start(redis: &Redis, inner: &Arc<Inner>, tasks: &Tasks) {
    tasks.spawn("queue-workers", announce(inner.clone()));
    tasks.spawn("queue-cancellations", look(inner.clone()));
    let hearing = inner.clone();
    let hear = move |heard| {
        match heard {
            Heard::Message { payload, .. } => hear(&hearing, &String::from_utf8_lossy(&payload)),
            Heard::Missed => missed(&hearing),
        }
        true
    };
    let subscriber = Subscriber::start(redis, Arc::new(hear), tasks);
    // What was asked for once is listened to as soon as that is possible.
    if let Err(error) = subscriber.listen(redis, inner.link.publication()).await {
        tracing::warn!(%error, "news of the queue are not heard yet; jobs are looked for at intervals");
    }
    // It listens for as long as somebody has it.
    tasks.spawn("queue-ear", async move {
        let _subscriber = subscriber;
        std::future::pending::<()>().await;
    });
}

/// Whatever was said while nobody listened: look.
fn missed(inner: &Inner) {
    inner.signals.ready();
    inner.signals.due.notify_one();
}

async fn announce(inner: Arc<Inner>) {
    let every = (inner.options.lease / 3).max(Duration::from_secs(1));
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = inner.announce().await {
            tracing::debug!(%error, "the workers of this process could not be announced; trying again");
        }
    }
}

async fn look(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if inner.workers().is_empty() {
            continue;
        }
        if let Err(error) = cancellations(&inner).await {
            tracing::debug!(%error, "wishes to cancel could not be looked for; trying again");
        }
    }
}

async fn cancellations(inner: &Inner) -> Result<(), QueueError> {
    for job in inner.link.cancels().await? {
        // Nobody listens where no worker runs.
        let _ = inner.signals.cancellations.send(job);
    }
    Ok(())
}

/// Acts on what a script published.
fn hear(inner: &Inner, message: &str) {
    match message.split_once(' ').unwrap_or((message, "")) {
        ("ready", _) => inner.signals.ready(),
        ("due", _) => inner.signals.due.notify_one(),
        ("cancel", job) => {
            if let Ok(job) = job.parse() {
                let _ = inner.signals.cancellations.send(job);
            }
        }
        _ => tracing::debug!(message, "a newer tidings tells of something unknown"),
    }
}
