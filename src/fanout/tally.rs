//! The tally of a round: what is handed to many connections one after the other is counted together, by one clock.
//!
//! A metric and a clock cost about as much as handing over a message does.

use tokio::time::Instant;

use crate::metrics;
use crate::model::{self, Priority, Published};

/// The clocks are read again after so many connections: writing to them takes a while.
const CLOCK_HOLDS: u32 = 32;

/// What was handed over in one round; told to the metrics at its end.
#[derive(Debug)]
pub(super) struct Tally {
    now: Instant,
    now_ms: i64,
    looks: u32,
    // Few: a round is about one channel, or about what became due at one moment.
    deliveries: Vec<(Priority, Option<i64>, usize)>,
    conflated: u64,
    flushes: Vec<(usize, usize)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            now: Instant::now(),
            now_ms: model::now_ms(),
            looks: 0,
            deliveries: Vec::new(),
            conflated: 0,
            flushes: Vec::new(),
        }
    }

    /// The time, for the next connection.
    pub(super) fn now(&mut self) -> Instant {
        self.looks += 1;
        if self.looks.is_multiple_of(CLOCK_HOLDS) {
            (self.now, self.now_ms) = (Instant::now(), model::now_ms());
        }
        self.now
    }

    /// A message was handed over, and `conflated` ones before it were not. What came from history tells how long its
    /// receiver was away, not how fast we are.
    pub(super) fn delivered(&mut self, message: &Published, conflated: u64, from_history: bool) {
        self.conflated += conflated;
        let latency_ms = (!from_history).then(|| self.now_ms - message.timestamp_ms);
        let mut known = self.deliveries.iter_mut().rev();
        match known.find(|(priority, ms, _)| *ms == latency_ms && *priority == message.priority) {
            Some((.., n)) => *n += 1,
            None => self.deliveries.push((message.priority, latency_ms, 1)),
        }
        // A long replay is of many times.
        if self.deliveries.len() > 64 {
            self.tell();
        }
    }

    /// So many messages left one connection at once.
    pub(super) fn flushed(&mut self, messages: usize) {
        match self.flushes.iter_mut().find(|(size, _)| *size == messages) {
            Some((_, n)) => *n += 1,
            None => self.flushes.push((messages, 1)),
        }
    }

    fn tell(&mut self) {
        for (priority, latency_ms, n) in self.deliveries.drain(..) {
            metrics::delivered(priority, latency_ms, n);
        }
        match std::mem::take(&mut self.conflated) {
            0 => {}
            n => metrics::conflated(n),
        }
        for (messages, n) in self.flushes.drain(..) {
            metrics::flushed(messages, n);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell();
    }
}
