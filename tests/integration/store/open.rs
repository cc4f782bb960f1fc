//! Who may open what.

use std::fs;

use tempfile::TempDir;
use tidings::store::{OpenError, Store, Synchronous};

use super::{file, open};
use crate::support::wait_until;

fn refusal(dir: &std::path::Path) -> OpenError {
    Store::open(dir, Synchronous::Normal).expect_err("the store must not open")
}

#[tokio::test]
async fn a_directory_belongs_to_one_store_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let refused = refusal(dir.path());
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("--data-dir"), "it says what to do: {refused}");
    let clone = store.clone();
    store.close().await;
    open(dir.path()).close().await;
    let closed = clone.write(|_| Ok(())).await;
    assert!(matches!(closed, Err(tidings::store::StoreError::Closed)), "{closed:?}");
    assert!(clone.read(|_| Ok(())).await.is_err());
}

#[tokio::test]
async fn a_store_that_is_dropped_lets_go_of_its_directory() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    wait_until("the directory is free", async || Store::open(dir.path(), Synchronous::Full).is_ok()).await;
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    for content in [&b"some text that is no database at all, and long enough to be one"[..], &[0xff; 8192]] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("tidings.db");
        fs::write(&path, content).unwrap();
        let refused = refusal(dir.path());
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), content, "it was not touched");
    }
    for id in [0, 7] {
        let dir = TempDir::new().unwrap();
        let theirs = file(dir.path());
        theirs.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
        theirs.pragma_update(None, "application_id", id).unwrap();
        let refused = refusal(dir.path());
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        let n: i64 = theirs.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(n, 1, "it was not touched");
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).close().await;
    let known: i64 = file(dir.path()).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    file(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let refused = refusal(dir.path());
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    let version: i64 = file(dir.path()).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
    // The right program still finds it as it was.
    file(dir.path()).pragma_update(None, "user_version", known).unwrap();
    open(dir.path()).close().await;
}

#[tokio::test]
async fn an_empty_file_is_one_that_was_just_made() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tidings.db"), b"").unwrap();
    open(dir.path()).close().await;
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, b"x").unwrap();
    for below in [file.join("data"), file.clone()] {
        let refused = refusal(&below);
        assert!(matches!(refused, OpenError::Directory { .. }), "{refused}");
        assert!(refused.to_string().contains("a-file"), "{refused}");
    }
    fs::create_dir(dir.path().join("tidings.db")).unwrap();
    let refused = refusal(dir.path());
    assert!(matches!(refused, OpenError::Sqlite { .. }), "{refused}");
}
