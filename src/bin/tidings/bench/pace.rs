//! How far the slowest subscriber of each room is: what keeps a publisher that goes flat out from running away.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// Written by the threads of the swarm, read by those of the publisher.
#[derive(Debug)]
pub(super) struct Pace {
    /// For each thread of the swarm and each room: one beyond the highest number that all its subscribers have.
    floors: Vec<Vec<AtomicU64>>,
    waiting: AtomicUsize,
    publishers: Mutex<Vec<Thread>>,
}

/// The floor of a room without subscribers: nobody is waited for.
pub(super) const NOBODY: u64 = u64::MAX;

impl Pace {
    pub(super) fn new(threads: usize, rooms: usize) -> Self {
        let floors = || (0..rooms).map(|_| AtomicU64::new(NOBODY)).collect();
        Self {
            floors: (0..threads).map(|_| floors()).collect(),
            waiting: AtomicUsize::new(0),
            publishers: Mutex::new(Vec::new()),
        }
    }

    /// One beyond the highest number of `room` that every subscriber has.
    pub(super) fn floor(&self, room: usize) -> u64 {
        let floors = self.floors.iter().map(|thread| thread[room].load(Ordering::SeqCst));
        floors.min().unwrap_or(NOBODY)
    }

    /// The subscribers of one thread have come so far.
    pub(super) fn set(&self, thread: usize, room: usize, floor: u64) {
        self.floors[thread][room].store(floor, Ordering::SeqCst);
    }

    /// Wakes publishers that wait; to be called after floors have moved.
    pub(super) fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for publisher in self.publishers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            publisher.unpark();
        }
    }

    /// Waits until floors move or `timeout` has passed, unless `ready` holds; may also return early.
    pub(super) fn wait(&self, timeout: Duration, ready: impl FnOnce() -> bool) {
        // Announced before looking once more: whoever moves a floor after that look sees it.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if !ready() {
            std::thread::park_timeout(timeout);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// The calling thread is one that `wake` wakes, until `leave`.
    pub(super) fn enter(&self) {
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current());
    }

    pub(super) fn leave(&self) {
        let own = std::thread::current().id();
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner).retain(|thread| thread.id() != own);
    }
}
