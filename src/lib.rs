//! tidings tells people, live and without losing a message, how their long-running tests are doing.
//!
//! The layers, lowest first; a lower one never imports a higher one (`tests/integration/layers.rs` checks it):
//! values ([`model`]), ground ([`config`], [`metrics`]), seams ([`broker`], [`queue`], [`presence`], [`inbox`], [`revocation`])
//! with their back ends on the [`store`] and on [`mod@redis`], services ([`worker`], [`notify`]), edges ([`mod@http`]), and the whole.
//! `ARCHITECTURE.md` follows one message through them.

pub mod app;
pub mod auth;
pub mod broker;
pub mod client;
pub mod config;
pub mod fanout;
pub mod fault;
pub mod http;
pub mod inbox;
pub mod kit;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod presence;
pub mod publish;
pub mod queue;
pub mod quota;
pub mod redis;
pub mod reporter;
pub mod revocation;
pub mod schedules;
pub mod socket;
pub mod store;
pub mod sync;
pub mod tasks;
pub mod telemetry;
mod tls;
pub mod traces;
pub mod upkeep;
pub mod worker;
