//! Readers: beside the writer, each on one committed state.

use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use super::open;
use crate::support::in_time;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_nobody_waits_for_any_more_is_not_missed_by_the_next() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut releases = Vec::new();
    // More than there are readers, each given up while it reads.
    for _ in 0..4 {
        let (release, held) = mpsc::channel::<()>();
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn({
            let store = store.clone();
            async move {
                let read = store.read(move |_| {
                    begun.send(()).expect("the test waits");
                    let _ = held.recv();
                    Ok(())
                });
                read.await
            }
        });
        in_time("the read begins", beginning).await.unwrap();
        reading.abort();
        assert!(reading.await.unwrap_err().is_cancelled());
        releases.push(release);
    }
    let mut next = Box::pin(store.read(|_| Ok(1)));
    let early = tokio::time::timeout(Duration::from_millis(30), &mut next).await;
    assert!(early.is_err(), "it waits for a reader, instead of failing for want of one: {early:?}");
    drop(releases);
    assert_eq!(in_time("a reader is free again", next).await.expect("a read"), 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_read_costs_no_reader() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for _ in 0..8 {
        let read = store.read(|_| -> rusqlite::Result<()> { panic!("a read of the test panics") });
        assert!(in_time("a panic is answered", read).await.is_err());
    }
    assert_eq!(in_time("readers are left", store.read(|_| Ok(1))).await.expect("a read"), 1);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    assert!(store.read(|conn| conn.execute("DELETE FROM channel", [])).await.is_err());
}
