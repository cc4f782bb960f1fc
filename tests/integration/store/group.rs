//! Groups: operations that wait together are committed together, and answer for themselves alone.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tidings::store::{Store, StoreError};

use super::open;

/// Holds the writer until the sender is dropped, so that what follows waits together.
pub(super) async fn hold(store: &Store) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let (held, begun) = (Mutex::new(held), Mutex::new(Some(begun)));
    let store = store.clone();
    tokio::spawn(async move {
        let held = store.write(move |_| {
            if let Some(begun) = begun.lock().expect("no panic before").take() {
                begun.send(()).expect("the test waits");
            }
            // An error is the wanted end: the sender was dropped.
            let _ = held.lock().expect("no panic before").recv();
            Ok(())
        });
        held.await.expect("the store is open");
    });
    beginning.await.expect("the writer runs");
    release
}

async fn table(store: &Store) {
    store
        .write(|tx| tx.conn().execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        .await
        .expect("a table");
}

async fn rows(store: &Store) -> Vec<i64> {
    let rows = store.read(|conn| {
        let mut all = conn.prepare("SELECT n FROM t ORDER BY n")?;
        all.query_map([], |row| row.get(0))?.collect()
    });
    rows.await.expect("the table can be read")
}

/// Queues nine inserts, of which those with a number in `bad` do what `bad_sql` says; their answers, and what
/// was told after the commits, in its order.
async fn insert_together(store: &Store, bad: &'static [i64], bad_sql: &'static str) -> (Vec<bool>, Vec<i64>) {
    let release = hold(store).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut answers = Vec::new();
    for n in 1..=9 {
        let told = told.clone();
        let mut write = Box::pin({
            let store = store.clone();
            async move {
                store
                    .write(move |tx| {
                        tx.conn().execute("INSERT INTO t VALUES (?1)", [n])?;
                        let told = told.clone();
                        tx.after_commit(move || told.lock().expect("no panic before").push(n));
                        if bad.contains(&n) { tx.conn().execute_batch(bad_sql) } else { Ok(()) }
                    })
                    .await
            }
        });
        // Queued by the first look; the writer is held.
        assert!(futures_util::FutureExt::now_or_never(&mut write).is_none());
        answers.push(write);
    }
    drop(release);
    let mut good = Vec::new();
    for answer in answers {
        good.push(answer.await.is_ok());
    }
    let told = told.lock().expect("no panic before").clone();
    (good, told)
}

#[tokio::test]
async fn an_operation_that_fails_takes_no_other_with_it() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    table(&store).await;
    let (good, told) = insert_together(&store, &[3, 9], "INSERT INTO nowhere VALUES (1)").await;
    assert_eq!(good, [true, true, false, true, true, true, true, true, false]);
    assert_eq!(rows(&store).await, [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(told, [1, 2, 4, 5, 6, 7, 8], "what was committed was told once, in its order");
    store.close().await;
}

#[tokio::test]
async fn an_operation_that_ends_the_transaction_takes_no_other_with_it() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    table(&store).await;
    let (good, told) = insert_together(&store, &[5], "INSERT OR ROLLBACK INTO t VALUES (5)").await;
    assert_eq!(good, [true, true, true, true, false, true, true, true, true]);
    assert_eq!(rows(&store).await, [1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(told, [1, 2, 3, 4, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_panic_in_an_operation_is_an_error_of_that_operation_alone() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    table(&store).await;
    let panics = store.write(|tx| -> rusqlite::Result<()> {
        tx.conn().execute("INSERT INTO t VALUES (1)", [])?;
        panic!("an operation of the test panics")
    });
    assert!(panics.await.is_err());
    let told = store.write(|tx| {
        tx.after_commit(|| panic!("an effect of the test panics"));
        tx.conn().execute("INSERT INTO t VALUES (2)", [])
    });
    assert!(told.await.is_ok(), "it was committed");
    store.write(|tx| tx.conn().execute("INSERT INTO t VALUES (3)", [])).await.expect("the writer goes on");
    assert_eq!(rows(&store).await, [2, 3]);
    store.close().await;
}

#[tokio::test]
async fn an_answer_of_its_own_error_is_committed_like_any_other() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    table(&store).await;
    let answer: Result<Result<(), &str>, StoreError> = store
        .write(|tx| {
            tx.conn().execute("INSERT INTO t VALUES (1)", [])?;
            Ok(Err("refused"))
        })
        .await;
    assert_eq!(answer.expect("committed"), Err("refused"));
    assert_eq!(rows(&store).await, [1]);
}

#[tokio::test]
async fn what_was_queued_before_the_close_is_committed() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    table(&store).await;
    let release = hold(&store).await;
    let mut late = Box::pin(store.write(|tx| tx.conn().execute("INSERT INTO t VALUES (1)", [])));
    assert!(futures_util::FutureExt::now_or_never(&mut late).is_none());
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    drop(release);
    assert_eq!(late.await.expect("committed"), 1);
    closing.await.expect("it closes");
    let store = open(dir.path());
    assert_eq!(rows(&store).await, [1]);
}
