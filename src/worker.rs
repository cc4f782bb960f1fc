//! The worker: takes jobs from the queue and runs them.
//!
//! [`pool`] drives apalis' worker over our queue, [`attempt`] runs one attempt from its claim to its end,
//! [`runner`] is what a test type has to offer, [`progress`] how a running attempt tells how far it is.

pub mod attempt;
pub mod pool;
pub mod progress;
pub mod runner;
mod source;
