//! What every [`tidings::broker::Broker`] promises.

mod append;
mod begin;
mod history;
mod rules;
mod snapshot;
