//! Receivers that are slow: helped as long as they can be, and ended without harm to others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings::broker::Broker as _;
use tidings::fanout::Since;
use tidings::model::Position;

use super::node;
use crate::support::{forget, in_time, wait_until};

/// Takes a few frames now and then.
fn drip(wire: &Arc<super::Wire>, frames: usize) -> tokio::task::JoinHandle<()> {
    let wire = wire.clone();
    tokio::spawn(async move {
        loop {
            wire.set_capacity(frames);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_gets_a_long_history_whole() {
    let node = node();
    node.publish("plain-1", 2000, 200).await;
    let (connection, wire) = node.connect();
    let dripping = drip(&wire, 40);
    in_time("the join ends", node.join(&connection, "plain-1", Since::Start)).await;
    wire.got("plain-1", 0, 2000).await;
    assert!(!wire.killed.load(Ordering::Acquire));
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_that_resumes_many_rooms_at_once_is_not_ended_for_it() {
    let node = Arc::new(node());
    let names: Vec<_> = (0..60).map(|n| format!("plain-{n}")).collect();
    for name in &names {
        node.publish(name, 60, 700).await;
    }
    let (connection, wire) = node.connect();
    wire.set_capacity(0);
    let joins = names.iter().map(|name| {
        let (node, connection, name) = (node.clone(), connection.clone(), name.clone());
        tokio::spawn(async move { node.join(&connection, &name, Since::Start).await })
    });
    let joins: Vec<_> = joins.collect();
    let dripping = drip(&wire, 100);
    for join in joins {
        in_time("the joins end", join).await.unwrap();
    }
    assert!(!wire.killed.load(Ordering::Acquire), "more was read from history than there was room for");
    for name in &names {
        wire.got(name, 0, 60).await;
    }
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_never_reads_is_ended_and_nobody_else_notices() {
    let node = node();
    let (stuck, stuck_wire) = node.connect();
    let (well, well_wire) = node.connect();
    stuck_wire.set_capacity(0);
    for connection in [&stuck, &well] {
        node.join(connection, "plain-1", Since::Now).await;
    }
    // Twice the bound of an outbox.
    node.publish("plain-1", 210, 10_000).await;
    wait_until("it is ended", async || stuck_wire.killed.load(Ordering::Acquire)).await;
    assert!(stuck.is_closed());
    well_wire.got("plain-1", 0, 210).await;
    assert!(!well_wire.killed.load(Ordering::Acquire));
    assert!(stuck_wire.offsets("plain-1").is_empty());
}

/// A receiver of `name` that fell behind while its transport took nothing, and whose history was trimmed since.
async fn left_behind(node: &super::Node, name: &str) -> (Arc<tidings::fanout::Connection>, Arc<super::Wire>) {
    let (connection, wire) = node.connect();
    node.join(&connection, name, Since::Now).await;
    node.publish(name, 3, 20).await;
    wire.got(name, 0, 3).await;
    wire.set_capacity(0);
    // More than an outbox holds.
    node.publish(name, 100, 10_000).await;
    while node.broker.retain().await.expect("retention works") {}
    (connection, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_lags_past_history_is_ended_and_told_to_start_over_on_return() {
    let node = node();
    let (connection, wire) = left_behind(&node, "short-1").await;
    let known = node.top("short-1").await;
    wire.set_capacity(usize::MAX);
    wait_until("it is ended", async || wire.killed.load(Ordering::Acquire)).await;
    assert!(connection.is_closed());
    assert_eq!(wire.resets(), [], "an open connection is not told of a gap that its client can ask about");
    let offsets = wire.offsets("short-1");
    assert!(offsets.iter().copied().eq(1..=offsets.len() as u64), "nothing after the gap: {offsets:?}");

    let (again, wire) = node.connect();
    let last = Position { epoch: known.epoch, offset: offsets.len() as u64 };
    let ack = node.join(&again, "short-1", Since::At(last)).await;
    assert!(!ack.recovered);
    wait_until("it is told", async || wire.resets() == [("trimmed".to_owned(), 103)]).await;
    node.publish("short-1", 1, 20).await;
    wire.got("short-1", 103, 104).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_lags_in_a_lossy_channel_goes_on_at_the_top() {
    let node = node();
    let (connection, wire) = left_behind(&node, "lossy-1").await;
    wire.set_capacity(usize::MAX);
    let after = wire.offsets("lossy-1").len();
    wait_until("it is live again", async || {
        node.publish("lossy-1", 1, 20).await;
        wire.offsets("lossy-1").len() > after
    })
    .await;
    assert!(!connection.is_closed());
    assert!(!wire.killed.load(Ordering::Acquire));
    assert_eq!(wire.resets(), []);
    assert!(wire.offsets("lossy-1").is_sorted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_of_a_channel_that_was_forgotten_is_told_once_to_start_over() {
    let node = node();
    let (connection, wire) = node.connect();
    node.join(&connection, "plain-1", Since::Now).await;
    wire.set_capacity(0);
    // More than an outbox holds.
    node.publish("plain-1", 100, 10_000).await;
    let forget = node.store.write(|tx| forget(tx, "plain-1"));
    forget.await.expect("the store is open");
    wire.set_capacity(usize::MAX);
    wait_until("it is told", async || !wire.resets().is_empty()).await;
    node.publish("plain-1", 3, 20).await;
    wait_until("the newest arrives", async || wire.offsets("plain-1").last() == Some(&3)).await;
    assert_eq!(wire.resets(), [("epoch_changed".to_owned(), 0)]);
    assert!(wire.offsets("plain-1").ends_with(&[1, 2, 3]));
}
