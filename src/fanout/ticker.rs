//! The ticker: looks at connections when something of theirs is due.
//!
//! Due times are rounded up to a grid, so that the connections of a room, whose windows end together, are
//! looked at together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Connection;
use super::tally::Tally;

/// The grid of due times.
const GRID: Duration = Duration::from_millis(5);

/// The connections that wait, by the number of the grid's line at which they are looked at.
pub(super) struct Ticker {
    start: Instant,
    waiting: Mutex<BTreeMap<u64, Vec<Arc<Connection>>>>,
    earlier: Notify,
}

impl std::fmt::Debug for Ticker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticker")
    }
}

impl Ticker {
    /// A ticker; somebody has to [`run`](Self::run) it.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), waiting: Mutex::default(), earlier: Notify::new() })
    }

    /// Has `connection` looked at when `due`.
    pub(super) fn schedule(&self, connection: &Arc<Connection>, due: Instant) {
        let line = self.line_after(due);
        let mut waiting = self.lock();
        let is_first = waiting.first_key_value().is_none_or(|(first, _)| line < *first);
        waiting.entry(line).or_default().push(connection.clone());
        drop(waiting);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Looks at connections when they are due, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let first = self.lock().first_key_value().map(|(line, _)| *line);
            let Some(first) = first else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.time_of(first)) => self.look(first),
                () = self.earlier.notified() => {}
            }
            // Thousands of connections may be due together; other tasks of this thread get their turn.
            tokio::task::yield_now().await;
        }
    }

    fn look(&self, line: u64) {
        let due = self.lock().remove(&line).unwrap_or_default();
        let mut tally = Tally::new();
        for connection in due {
            connection.tick(&mut tally);
        }
    }

    fn line_after(&self, due: Instant) -> u64 {
        let since_start = due.saturating_duration_since(self.start).as_micros();
        u64::try_from(since_start.div_ceil(GRID.as_micros())).unwrap_or(u64::MAX)
    }

    fn time_of(&self, line: u64) -> Instant {
        let micros = line.saturating_mul(u64::try_from(GRID.as_micros()).unwrap_or(u64::MAX));
        self.start + Duration::from_micros(micros)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Vec<Arc<Connection>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
