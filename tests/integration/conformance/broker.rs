//! What every [`tidings::broker::Broker`] promises.

mod append;
mod history;
mod rules;
mod snapshot;
