//! The embedded store under bad luck: other owners, foreign and damaged files, full disks, hard ends.

mod crash;
mod damage;
mod epochs;
mod full;
mod group;
mod migrate;
mod open;
mod packs;
mod places;
mod read;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::store::{Store, Synchronous};

use crate::support::rules;

/// Opens the store in `dir`, as the server does.
fn open(dir: &Path) -> Store {
    Store::open(dir, Synchronous::Normal).expect("the store opens")
}

/// A broker on `store` that tells nobody.
fn broker(store: &Store) -> Arc<EmbeddedBroker> {
    Arc::new(EmbeddedBroker::new(store.clone(), rules(), Live::default()))
}

/// The database file behind the store's back.
fn file(dir: &Path) -> Connection {
    Connection::open(dir.join("tidings.db")).expect("the file opens")
}
