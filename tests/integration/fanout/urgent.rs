//! Urgency: what is critical does not wait behind what is not.

use serde_json::json;
use tidings::broker::append::{Append, Draft};
use tidings::broker::{AppendGroup, Broker as _};
use tidings::fanout::Since;
use tidings::model::{EventName, MessageId, Priority, now_ms};

use super::{Node, node};
use crate::support::{raw, rules, wait_until};

/// How many low messages wait, over how many channels.
const LOW: u32 = 5000;
const CHANNELS: u32 = 10;

async fn publish(node: &Node, name: &str, priority: Priority, n: u32) {
    let data = raw(&json!("x".repeat(20)));
    let group = |n| {
        let id = format!("{name}:{n}");
        let draft = Draft {
            id: MessageId::parse(&id).expect("an id"),
            fresh: false,
            event: EventName::parse("custom:test").expect("an event"),
            priority: Some(priority),
            timestamp_ms: now_ms(),
            user_id: None,
            data: &data,
            extra: &[],
        };
        let first = Append::own(&rules(), name, draft, None).expect("a channel of the tests");
        AppendGroup { first, mirrors: Vec::new() }
    };
    node.broker.append((0..n).map(group).collect()).await.expect("an append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_message_leaves_before_five_thousand_low_ones_of_other_channels() {
    let node = node();
    let (connection, wire) = node.connect();
    let names: Vec<_> = (0..CHANNELS).map(|n| format!("plain-{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["plain-critical"]) {
        node.join(&connection, name, Since::Now).await;
    }
    // A few have left; then the transport takes no more. The rest waits, partly in the outbox and partly, being
    // more than it holds, in history.
    wire.set_capacity(100);
    for name in &names {
        publish(&node, name, Priority::Low, LOW / CHANNELS).await;
    }
    // A second connection, whose transport is free, shows that the owners have seen it all.
    let (other, seen) = node.connect();
    node.join(&other, "plain-critical", Since::Now).await;
    publish(&node, "plain-critical", Priority::Critical, 1).await;
    seen.got("plain-critical", 0, 1).await;
    let had = wire.places().len();
    assert!(had <= 100, "{had} had left");

    wire.set_capacity(usize::MAX);
    wait_until("all have left", async || wire.places().len() == LOW as usize + 1).await;
    assert_eq!(wire.places()[had], ("plain-critical".to_owned(), 1), "it was not the next to leave");
    for name in &names {
        wire.got(name, 0, u64::from(LOW / CHANNELS)).await;
    }
}
