//! tidings tells people, live and without losing a message, how their long-running tests are doing.
//!
//! The layers, lowest first; a lower one never imports a higher one (`tests/integration/layers.rs` checks it):
//! values ([`model`]), ground (configuration, metrics, tasks), seams (the traits), back ends, services, edges,
//! and the whole. `ARCHITECTURE.md` follows one message through them.

pub mod config;
pub mod model;
pub mod worker;
