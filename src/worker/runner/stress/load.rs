//! The load: when requests go out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::schedule::Schedule;

/// A user that gets no connection tries again after this; without a pause, refusals would be the load.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How often a changing number of users is looked at.
const RAMP_TICK: Duration = Duration::from_millis(20);
/// The thread that waits for due times looks so often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How many due times may wait for the runtime.
const MAX_DUE: usize = 1024;

/// What decides when the next request goes out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Load {
    /// The time does, whatever the answers: arrivals at a rate, at most `in_flight` requests under way.
    Open { rate: Schedule, in_flight: usize },
    /// The answers do: users, each of whom sends one request after the other.
    Closed { users: Schedule },
}

impl Load {
    pub(super) fn schedule(&self) -> &Schedule {
        match self {
            Self::Open { rate, .. } => rate,
            Self::Closed { users } => users,
        }
    }

    /// What a level of its schedule is called.
    pub(super) fn unit(&self) -> &'static str {
        match self {
            Self::Open { .. } => "targetRps",
            Self::Closed { .. } => "vus",
        }
    }

    /// Puts the load on; returns when the last request has ended.
    pub(super) async fn run(&self, client: &Arc<Client>, start: Instant) {
        match self {
            Self::Open { rate, in_flight } => open(client, rate, *in_flight, start).await,
            Self::Closed { users } => closed(client, users, start).await,
        }
    }
}

async fn closed(client: &Arc<Client>, users: &Schedule, start: Instant) {
    let end = start + users.duration();
    let (level, wanted) = watch::channel(0);
    let mut tasks = JoinSet::new();
    while Instant::now() < end {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        let now = users.at(start.elapsed()).round() as usize;
        level.send_if_modified(|level| std::mem::replace(level, now) != now);
        while tasks.len() < now {
            tasks.spawn(user(Arc::clone(client), tasks.len(), wanted.clone(), end));
        }
        let next = if users.is_steady() { end } else { end.min(Instant::now() + RAMP_TICK) };
        sleep_until(next).await;
    }
    drop(level);
    while tasks.join_next().await.is_some() {}
}

/// User number `index` from 0, who rests while fewer are wanted.
async fn user(client: Arc<Client>, index: usize, mut wanted: watch::Receiver<usize>, end: Instant) {
    while Instant::now() < end {
        if index >= *wanted.borrow_and_update() {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let now = Instant::now();
        client.metrics.begin(now);
        if client.request(now).await.is_without_connection() {
            sleep(RECONNECT_PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// Requests on schedule. Latencies count from when a request was due: a server that stalls cannot hide it by slowing the
/// load down. One that is due while `in_flight` others are under way is dropped and counted, and so is one for which this
/// machine has no time within the time that a request may take.
async fn open(client: &Arc<Client>, rate: &Schedule, in_flight: usize, start: Instant) {
    let slots = Arc::new(Semaphore::new(in_flight));
    let mut due = due_times(rate, start);
    let mut tasks = JoinSet::new();
    while let Some(intended) = due.recv().await {
        let slot = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) if intended.elapsed() < client.timeout => slot,
            _ => {
                client.metrics.dropped(intended);
                continue;
            }
        };
        let client = Arc::clone(client);
        client.metrics.begin(intended);
        tasks.spawn(async move {
            client.request(intended).await;
            drop(slot);
        });
        while tasks.try_join_next().is_some() {}
    }
    // The last one is due before the end, and rates are over all of the time.
    sleep_until(start + rate.duration()).await;
    while tasks.join_next().await.is_some() {}
}

/// Tells each due time when it has come, until nobody listens. A thread waits for them, because the runtime's timer
/// knows milliseconds only, which would be part of every latency.
fn due_times(rate: &Schedule, start: Instant) -> mpsc::Receiver<Instant> {
    let (sender, due) = mpsc::channel(MAX_DUE);
    let times = rate.due();
    tokio::task::spawn_blocking(move || {
        for time in times {
            let at = start + time;
            while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                if sender.is_closed() {
                    return;
                }
                std::thread::sleep(left.min(LOOK));
            }
            if sender.blocking_send(at).is_err() {
                return;
            }
        }
    });
    due
}
