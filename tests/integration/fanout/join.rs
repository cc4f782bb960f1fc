//! Joining: no gap, no duplicate, or a notice that says why not.

use std::sync::Arc;
use std::time::Duration;

use tidings::fanout::{JoinRequest, Since};
use tidings::model::{Epoch, Position};

use super::{node, request};
use crate::support::{channel, forget, in_time, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_amid_a_thousand_messages_has_no_gap_and_no_duplicate() {
    let node = Arc::new(node());
    node.publish("plain-1", 100, 20).await;
    let begin = node.top("plain-1").await;
    let publishers = (0..4).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { node.publish("plain-1", 250, 20).await })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut joined = Vec::new();
    let mut round = 0;
    while round < 9 || publishers.iter().any(|p| !p.is_finished()) {
        let since = match round % 3 {
            0 => Since::Now,
            1 => Since::Start,
            _ => Since::At(begin.clone()),
        };
        round += 1;
        if joined.len() < 60 {
            let (connection, wire) = node.connect();
            let wanted = JoinRequest { batch: round % 2 == 0, ..request("plain-1", since.clone()) };
            let prepared = node.fanout.prepare_join(&connection, wanted).await.unwrap();
            let after = match since {
                Since::Now => prepared.ack.offset,
                Since::Start => 0,
                Since::At(at) => at.offset,
            };
            assert_eq!(prepared.ack.replayed, prepared.ack.offset - after);
            in_time("the join ends", node.fanout.complete_join(&connection, prepared)).await.unwrap();
            joined.push((connection, wire, after));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    // Somebody who joined at the very top needs one more message to show that it listens.
    node.publish("plain-1", 1, 20).await;
    let top = node.top("plain-1").await.offset;
    assert_eq!(top, 1101);
    for (_connection, wire, after) in joined {
        wire.got("plain-1", after, top).await;
        assert!(wire.resets().is_empty());
        assert!(wire.largest_batch.load(std::sync::atomic::Ordering::Acquire) <= 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acknowledgement_says_what_follows() {
    let node = node();
    node.publish("plain-1", 20, 20).await;
    let top = node.top("plain-1").await;
    let at = |offset| Since::At(Position { epoch: top.epoch.clone(), offset });
    for (since, recovered, replayed) in [
        (Since::Now, false, 0),
        (Since::Start, true, 20),
        (at(0), true, 20),
        (at(15), true, 5),
        (at(20), true, 0),
    ] {
        let (connection, wire) = node.connect();
        let ack = node.join(&connection, "plain-1", since.clone()).await;
        assert_eq!((&ack.epoch, ack.offset), (&top.epoch, 20));
        assert_eq!((ack.recovered, ack.replayed), (recovered, replayed), "{since:?}");
        if replayed > 0 {
            wire.got("plain-1", 20 - replayed, 20).await;
        }
        assert!(wire.resets().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_brought_up_to_date_is_told_to_start_over_and_then_listens() {
    let node = node();
    node.publish("short-1", 20, 20).await;
    node.publish("lossy-1", 20, 20).await;
    for (name, epoch, offset, reason) in [
        ("short-1", None, 9, "trimmed"),
        ("short-1", None, 21, "ahead_of_top"),
        ("short-1", Some("another"), 20, "epoch_changed"),
        ("lossy-1", None, 19, "trimmed"),
    ] {
        let top = node.top(name).await;
        let epoch = epoch.map_or(top.epoch.clone(), Epoch::new);
        let (connection, wire) = node.connect();
        let ack = node.join(&connection, name, Since::At(Position { epoch, offset })).await;
        assert_eq!((ack.recovered, ack.replayed, ack.offset), (false, 0, top.offset));
        assert_eq!(wire.resets(), [(reason.to_owned(), top.offset)]);
        assert!(wire.offsets(name).is_empty());
        node.publish(name, 3, 20).await;
        wire.got(name, top.offset, top.offset + 3).await;
        if name == "short-1" {
            // For the next one the history is as before: 20 messages, of which 10 can be read.
            return_to_twenty(&node).await;
        }
    }
}

/// Begins the channel anew, with twenty messages.
async fn return_to_twenty(node: &super::Node) {
    let clear = node.store.write(|tx| forget(tx, "short-1"));
    clear.await.expect("the store is open");
    node.publish("short-1", 20, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_without_history_can_be_listened_to() {
    let node = Arc::new(node());
    let publisher = tokio::spawn({
        let node = node.clone();
        async move { node.publish("lossy-1", 300, 20).await }
    });
    wait_until("it has begun", async || node.top("lossy-1").await.offset > 10).await;
    let (connection, wire) = node.connect();
    in_time("the join ends", node.join(&connection, "lossy-1", Since::Now)).await;
    publisher.await.unwrap();
    node.publish("lossy-1", 1, 20).await;
    wait_until("the newest arrives", async || wire.offsets("lossy-1").last() == Some(&301)).await;
    let offsets = wire.offsets("lossy-1");
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_forgotten_while_somebody_listened_can_be_joined() {
    let node = node();
    let (idle, idle_wire) = node.connect();
    node.join(&idle, "plain-1", Since::Now).await;
    node.publish("plain-1", 1, 20).await;
    idle_wire.got("plain-1", 0, 1).await;
    // What retention does after a month without messages.
    let forget = node.store.write(|tx| forget(tx, "plain-1"));
    forget.await.unwrap();
    let (connection, wire) = node.connect();
    let ack = in_time("the join ends", node.join(&connection, "plain-1", Since::Now)).await;
    assert_eq!(ack.offset, 0);
    node.publish("plain-1", 2, 20).await;
    wire.got("plain-1", 0, 2).await;
    assert_eq!(idle_wire.resets().len(), 1, "what follows does not continue what it had");
    wait_until("both are told", async || idle_wire.offsets("plain-1") == [1, 1, 2]).await;
    let page =
        tidings::broker::Broker::history(&*node.broker, &channel("plain-1"), 0, crate::support::ALL).await;
    assert_eq!(page.unwrap().top, 2);
}
