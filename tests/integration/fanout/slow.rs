//! Receivers that are slow: helped as long as they can be, and ended without harm to others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings::fanout::Since;

use super::node;
use crate::support::{in_time, wait_until};

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
