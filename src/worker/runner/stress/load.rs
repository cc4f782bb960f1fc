//! The load: when requests go out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::metrics::Ended;

/// A user that gets no connection tries again after this; without a pause, refusals would be the load.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// `users` users, each of whom sends the next request when the last one was answered, until `end`.
pub(super) async fn closed(client: Arc<Client>, users: usize, end: Instant) {
    let mut tasks = JoinSet::new();
    for _ in 0..users {
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            while Instant::now() < end {
                if client.request(Instant::now()).await == Ended::NotConnected {
                    sleep(RECONNECT_PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// `rate` requests per second until `end`, whatever the answers, at most `limit` of them under way. A
/// request that has to wait for one of those is late, and its latency counts from when it was meant to
/// start: a server that stalls cannot hide it by slowing the load down. Returns how many were due and
/// could not be sent before the end.
pub(super) async fn scheduled(
    client: Arc<Client>,
    rate: f64,
    limit: usize,
    start: Instant,
    end: Instant,
) -> u64 {
    let slots = Arc::new(Semaphore::new(limit));
    let mut tasks = JoinSet::new();
    let mut sent = 0u64;
    loop {
        #[expect(clippy::cast_precision_loss, reason = "a day of requests fits into 53 bits")]
        let intended = start + Duration::from_secs_f64(sent as f64 / rate);
        if intended >= end {
            break;
        }
        sleep_until(intended).await;
        let slot = tokio::select! {
            biased;
            () = sleep_until(end) => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        sent += 1;
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            client.request(intended).await;
            drop(slot);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor large")]
    let due = ((end - start).as_secs_f64() * rate).ceil() as u64;
    due.saturating_sub(sent)
}
