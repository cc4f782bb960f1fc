//! Membership: one per connection and channel, and what its end means.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidings::fanout::Since;
use tidings::model::{Epoch, Position};

use super::{Node, node, request};
use crate::support::{channel, in_time, wait_until};

/// Publishes to a channel that `wire` listens to, and waits for it: whatever was on its way before has arrived.
async fn settle(node: &Node, name: &str, wire: &super::Wire) {
    node.publish(name, 1, 20).await;
    let top = node.top(name).await.offset;
    wait_until("the sentinel arrives", async || wire.offsets(name).last() == Some(&top)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_leaving_nothing_more_arrives() {
    let node = Arc::new(node());
    let (connection, wire) = node.connect();
    node.join(&connection, "plain-other", Since::Now).await;
    for _ in 0..20 {
        node.join(&connection, "plain-1", Since::Now).await;
        let publisher = tokio::spawn({
            let node = node.clone();
            async move { node.publish("plain-1", 60, 20).await }
        });
        settle(&node, "plain-other", &wire).await;
        node.fanout.leave(&channel("plain-1"), connection.id()).await;
        let arrived = wire.offsets("plain-1").len();
        publisher.await.unwrap();
        settle(&node, "plain-other", &wire).await;
        assert_eq!(wire.offsets("plain-1").len(), arrived);
    }
    // To leave what one is not in is no mistake.
    node.fanout.leave(&channel("plain-1"), connection.id()).await;
    node.fanout.leave(&channel("plain-nobody"), connection.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_join_replaces_the_first() {
    let node = node();
    node.publish("plain-1", 30, 20).await;
    let (connection, wire) = node.connect();
    node.join(&connection, "plain-1", Since::Start).await;
    wire.got("plain-1", 0, 30).await;
    node.join(&connection, "plain-1", Since::Now).await;
    node.publish("plain-1", 5, 20).await;
    wire.got("plain-1", 0, 35).await;
    node.fanout.leave(&channel("plain-1"), connection.id()).await;
    node.join(&connection, "plain-other", Since::Now).await;
    node.publish("plain-1", 5, 20).await;
    settle(&node, "plain-other", &wire).await;
    assert_eq!(wire.offsets("plain-1").len(), 35, "one membership, one leave");
}

/// A connection whose join from the start is in the middle of the replay, because its transport is full.
async fn stuck(
    node: &Arc<Node>,
) -> (Arc<tidings::fanout::Connection>, Arc<super::Wire>, tokio::task::JoinHandle<()>) {
    node.publish("plain-1", 3000, 100).await;
    let (connection, wire) = node.connect();
    wire.set_capacity(0);
    let prepared =
        node.fanout.prepare_join(&connection, request("plain-1", Since::Start)).await.expect("a join");
    let (fanout, joining) = (node.fanout.clone(), connection.clone());
    let replay = tokio::spawn(async move { fanout.complete_join(&joining, prepared).await.expect("a join") });
    (connection, wire, replay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_in_the_middle_of_a_replay_ends_it() {
    let node = Arc::new(node());
    let (connection, wire, replay) = stuck(&node).await;
    // Some of the replay has left, and some waits.
    wire.set_capacity(100);
    wait_until("the replay is under way", async || wire.offsets("plain-1").len() == 100).await;
    node.fanout.leave(&channel("plain-1"), connection.id()).await;
    wire.set_capacity(usize::MAX);
    in_time("the replay ends", replay).await.unwrap();
    node.join(&connection, "plain-other", Since::Now).await;
    settle(&node, "plain-other", &wire).await;
    assert_eq!(wire.offsets("plain-1").len(), 100, "it went on after the leave");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_join_in_the_middle_of_a_replay_ends_the_first() {
    let node = Arc::new(node());
    let (connection, wire, replay) = stuck(&node).await;
    wire.set_capacity(100);
    wait_until("the replay is under way", async || wire.offsets("plain-1").len() == 100).await;
    let second = node.fanout.prepare_join(&connection, request("plain-1", Since::Now)).await.unwrap();
    wire.set_capacity(usize::MAX);
    in_time("the first join ends", replay).await.unwrap();
    node.publish("plain-1", 50, 20).await;
    in_time("the second join ends", node.fanout.complete_join(&connection, second)).await.unwrap();
    node.publish("plain-1", 5, 20).await;
    wait_until("the newest arrives", async || wire.offsets("plain-1").last() == Some(&3055)).await;
    let offsets = wire.offsets("plain-1");
    assert!(offsets.iter().copied().eq((1..=100).chain(3001..=3055)), "{} of them", offsets.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reset_of_a_join_that_was_replaced_is_not_told() {
    let node = node();
    node.publish("plain-1", 20, 20).await;
    let (connection, wire) = node.connect();
    wire.set_capacity(0);
    let lost = Position { epoch: Epoch::new("another"), offset: 3 };
    let first = node.fanout.prepare_join(&connection, request("plain-1", Since::At(lost))).await.unwrap();
    node.join(&connection, "plain-1", Since::Start).await;
    // The first join goes on late, with the replay of the second waiting for the transport.
    in_time("the first join ends", node.fanout.complete_join(&connection, first)).await.unwrap();
    wire.set_capacity(usize::MAX);
    wire.got("plain-1", 0, 20).await;
    assert!(wire.resets().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_is_let_go_of() {
    let node = node();
    let mut wires = Vec::new();
    let (witness, witness_wire) = node.connect();
    node.join(&witness, "plain-1", Since::Now).await;
    for _ in 0..10 {
        let (connection, wire) = node.connect();
        node.join(&connection, "plain-1", Since::Now).await;
        // Its peer goes, and nobody says that it leaves the channel.
        connection.close();
        wires.push(wire);
    }
    let (late, late_wire) = node.connect();
    let prepared = node.fanout.prepare_join(&late, request("plain-1", Since::Now)).await.unwrap();
    late.close();
    in_time("the join of a closed connection ends", node.fanout.complete_join(&late, prepared))
        .await
        .unwrap();
    drop(late);
    wires.push(late_wire);
    node.publish("plain-1", 3, 20).await;
    witness_wire.got("plain-1", 0, 3).await;
    wait_until("nobody holds them", async || wires.iter().all(|w| w.dropped.load(Ordering::Acquire))).await;
    assert!(wires.iter().all(|w| w.offsets("plain-1").is_empty()));
    assert!(!witness_wire.dropped.load(Ordering::Acquire));
}
