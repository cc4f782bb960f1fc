//! Epochs: they change when the past cannot be vouched for, and only then.

use std::path::Path;

use tempfile::TempDir;
use tidings::broker::Broker;
use tidings::model::Position;
use tidings::store::{Store, Synchronous};

use super::{broker, file};
use crate::support::{channel, message, rules, stored};

/// Opens the store, looks, appends one message and closes it.
async fn run(dir: &Path, synchronous: Synchronous, id: &str) -> Position {
    let store = Store::open(dir, synchronous).expect("the store opens");
    let broker = broker(&store);
    let name = channel("plain-1");
    let before = broker.top(&name).await.expect("a top").position;
    let group = message(&rules(), "plain-1", id);
    let after = broker.append(vec![group]).await.expect("an append").remove(0).expect("accepted").position;
    assert_eq!((&after.epoch, after.offset), (&before.epoch, before.offset + 1));
    store.close().await;
    after
}

/// Makes it look as if the last run had ended without a word.
fn note(dir: &Path, set: &str) {
    assert_eq!(file(dir).execute(&format!("UPDATE run SET {set}"), []).expect("a note"), 1);
}

async fn epochs_stay(synchronous: Synchronous, set: &str) -> bool {
    let dir = TempDir::new().expect("a directory");
    let first = run(dir.path(), synchronous, "a").await;
    note(dir.path(), set);
    let second = run(dir.path(), synchronous, "b").await;
    // Whatever became of the epoch, offsets go on: no number stands for two messages.
    assert_eq!(second.offset, 2);
    let third = run(dir.path(), synchronous, "c").await;
    assert_eq!(third.epoch, second.epoch, "a clean end follows");
    let store = super::open(dir.path());
    assert_eq!(stored(&*broker(&store), "plain-1").await.len(), 3);
    first.epoch == second.epoch
}

#[tokio::test]
async fn a_hard_end_of_the_host_begins_new_epochs_where_it_may_have_lost_something() {
    assert!(!epochs_stay(Synchronous::Normal, "clean = 0, boot_id = 'another'").await);
}

#[tokio::test]
async fn a_hard_end_of_the_host_keeps_the_epochs_where_every_commit_was_on_the_disk() {
    assert!(epochs_stay(Synchronous::Full, "clean = 0, boot_id = 'another'").await);
}

#[tokio::test]
async fn a_hard_end_of_the_process_keeps_the_epochs() {
    assert!(epochs_stay(Synchronous::Normal, "clean = 0").await);
    assert!(epochs_stay(Synchronous::Full, "clean = 0").await);
}

#[tokio::test]
async fn a_clean_end_keeps_the_epochs_over_a_restart_of_the_host() {
    assert!(epochs_stay(Synchronous::Normal, "boot_id = 'another'").await);
}

#[tokio::test]
async fn a_host_that_does_not_name_its_boots_is_not_trusted() {
    assert!(!epochs_stay(Synchronous::Normal, "clean = 0, boot_id = NULL").await);
}

#[tokio::test]
async fn new_epochs_are_the_same_for_no_two_channels_and_are_stored_at_once() {
    let dir = TempDir::new().unwrap();
    let store = super::open(dir.path());
    let owner = broker(&store);
    let names = ["plain-1", "plain-2", "plain-3"].map(channel);
    for name in &names {
        owner.top(name).await.unwrap();
    }
    store.close().await;
    note(dir.path(), "clean = 0, boot_id = 'another'");
    let mut seen = std::collections::HashSet::new();
    for _ in 0..2 {
        let store = super::open(dir.path());
        for name in &names {
            seen.insert(broker(&store).top(name).await.unwrap().position.epoch);
        }
        store.close().await;
    }
    assert_eq!(seen.len(), 3);
}
