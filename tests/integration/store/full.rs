//! A full disk: publishing is refused, reading goes on, and what was acknowledged stays.

use serde_json::json;
use tempfile::TempDir;
use tidings::auth::Identity;
use tidings::broker::embedded::Live;
use tidings::broker::{AppendGroup, Broker, BrokerError};
use tidings::model::{Priority, now_ms};
use tidings::publish::{PublishError, Publisher};
use tidings::queue::embedded::EmbeddedQueue;
use tidings::queue::{NewJob, Queue, QueueError};
use tidings::store::Store;

use super::{broker, open};
use crate::conformance::options;
use crate::support::{append, channel, incoming, rules, stored};

/// Lets the file grow by `more` pages from now on.
async fn limit(store: &Store, more: i64) {
    let limited = store.write(move |tx| {
        let pages: i64 = tx.conn().query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let sql = format!("PRAGMA max_page_count = {}", pages + more);
        tx.conn().query_row(&sql, [], |row| row.get::<_, i64>(0))
    });
    limited.await.expect("the limit is set");
}

fn large(id: u64) -> AppendGroup {
    let data = json!("x".repeat(20_000));
    AppendGroup { first: append(&rules(), "plain-1", &id.to_string(), &data, now_ms()), mirrors: Vec::new() }
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_keeps_what_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    limit(&store, 40).await;
    let mut kept = Vec::new();
    let full = loop {
        let id = kept.len() as u64 + 1;
        match broker.append(vec![large(id)]).await {
            Ok(_) => kept.push((id, id.to_string())),
            Err(error) => break error,
        }
        assert!(kept.len() < 50, "the disk is never full");
    };
    assert!(matches!(full, BrokerError::Full(_)), "{full}");
    assert!(kept.len() > 2, "{kept:?}");

    assert_eq!(stored(&*broker, "plain-1").await, kept, "reading goes on");
    assert_eq!(broker.top(&channel("plain-1")).await.unwrap().position.offset, kept.len() as u64);
    let publisher = Publisher::new(broker.clone(), rules(), 1 << 20);
    let refused = publisher
        .publish(Identity::server(), vec![incoming("plain-1", "custom:x", &json!("x".repeat(20_000)))])
        .await
        .remove(0);
    assert_eq!(refused.as_ref().map_err(PublishError::code).unwrap_err(), "storage_full", "{refused:?}");
    assert_eq!(stored(&*broker, "plain-1").await, kept, "a refusal leaves nothing");

    limit(&store, 400).await;
    let next = kept.len() as u64 + 1;
    let answer = broker.append(vec![large(next)]).await.expect("there is room again").remove(0).unwrap();
    assert_eq!((answer.position.offset, answer.duplicate), (next, false));
    store.close().await;
    let store = open(dir.path());
    kept.push((next, next.to_string()));
    assert_eq!(stored(&*super::broker(&store), "plain-1").await, kept);
}

#[tokio::test]
async fn many_publishers_at_a_full_disk_are_each_told_the_truth() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    broker.top(&channel("plain-1")).await.unwrap();
    limit(&store, 60).await;
    let publishers = (1..=40).map(|id| {
        let broker = broker.clone();
        tokio::spawn(async move { (id, broker.append(vec![large(id)]).await) })
    });
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for publisher in publishers.collect::<Vec<_>>() {
        match publisher.await.unwrap() {
            (id, Ok(answers)) => {
                acknowledged.push((answers[0].as_ref().unwrap().position.offset, id.to_string()))
            }
            (_, Err(BrokerError::Full(_))) => refused += 1,
            (_, Err(error)) => panic!("{error}"),
        }
    }
    acknowledged.sort();
    assert!(refused > 5 && acknowledged.len() > 2, "{refused} refused of 40");
    assert_eq!(
        stored(&*broker, "plain-1").await,
        acknowledged,
        "neither more nor less than was acknowledged"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_jobs_and_leaves_the_queue_as_it_was() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let queue = EmbeddedQueue::open(store.clone(), rules(), Live::default(), options()).await.unwrap();
    let wanted = || {
        let config = [("text".to_owned(), "x".repeat(20_000).into())].into_iter().collect();
        NewJob {
            test_type: "command".to_owned(),
            name: None,
            config,
            test_id: None,
            priority: Priority::Normal,
            run_at: None,
            max_attempts: None,
            timeout_ms: None,
            dedupe_key: None,
            team_id: None,
            user_id: None,
            traceparent: None,
        }
    };
    limit(&store, 30).await;
    let mut accepted = 0;
    let full = loop {
        match queue.submit(wanted()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 50, "the disk is never full");
    };
    assert!(matches!(full, QueueError::Full(_)), "{full}");
    assert_eq!(queue.counts().await.unwrap()["queued"], accepted);
    assert_eq!(queue.list(None, None, 100).await.unwrap().jobs.len() as u64, accepted);
    limit(&store, 400).await;
    queue.submit(wanted()).await.expect("there is room again");
}
