//! The worker: takes jobs from the queue and runs them.
//!
//! [`runner`] is what a test type has to offer, [`progress`] how a running attempt tells how far it is.

pub mod progress;
pub mod runner;
