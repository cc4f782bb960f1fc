//! Short histories: they are texts until they grow, and nobody can tell.

use tidings::broker::Broker as _;

use super::{Node, hears_all};
use crate::support::redis::RedisServer;
use crate::support::{channel, stored};

const META: &str = "tidings{c:plain-1}m";
const HISTORY: &str = "tidings{c:plain-1}h";

fn kind(server: &RedisServer) -> String {
    server.cli(&["TYPE", HISTORY]).trim().to_owned()
}

async fn offsets(node: &Node) -> Vec<u64> {
    stored(&node.broker, "plain-1").await.iter().map(|message| message.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_grows_becomes_a_stream_and_loses_nothing() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(&server.url()).await, Node::start(&server.url()).await);
    let mut kinds = Vec::new();
    for n in 1..=60_u64 {
        // Alone, and several of a call; ids of a row among them, which are looked for in all of history.
        let count = if n % 5 == 0 { 3 } else { 1 };
        let ids: Vec<_> = (0..count).map(|m| format!("a.{m}.{n}")).collect();
        node.append_all("plain-1", &ids, 40).await;
        kinds.push(kind(&server));
        let upto = n + n / 5 * 2;
        assert_eq!(offsets(&other).await, (1..=upto).collect::<Vec<_>>(), "after {n} calls");
        let left: i64 = server.cli(&["PTTL", HISTORY]).trim().parse().expect("a number");
        assert!(left > 0, "its life has an end: {left}");
        // Whoever sends one again hears where it stands.
        for known in [1, n / 2 + 1, n] {
            let again = other.append("plain-1", &format!("a.0.{known}")).await.expect("it is known");
            let first = known + (known - 1) / 5 * 2;
            assert_eq!(again.offset, first, "a.0.{known} after {n} calls");
        }
    }
    kinds.dedup();
    assert_eq!(kinds, ["string", "stream"]);
    assert_eq!(server.cli(&["HEXISTS", META, "short"]).trim(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_long_is_a_stream_at_once_and_what_is_empty_begins_short_again() {
    let server = RedisServer::start();
    let node = Node::start(&server.url()).await;
    node.append_all("plain-1", &["long".to_owned()], 5000).await;
    assert_eq!(kind(&server), "stream");
    // Its life is over.
    server.cli(&["DEL", HISTORY]);
    server.cli(&["HSET", META, "touched", "0"]);
    node.append("plain-1", "short").await.expect("appended");
    assert_eq!((kind(&server).as_str(), offsets(&node).await), ("string", vec![2]));
    server.cli(&["DEL", HISTORY]);
    server.cli(&["HSET", META, "touched", "0"]);
    node.append_all("plain-1", &["longer".to_owned()], 5000).await;
    assert_eq!((kind(&server).as_str(), offsets(&node).await), ("stream", vec![3]));
    assert_eq!(server.cli(&["HEXISTS", META, "short"]).trim(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_history_that_somebody_removed_begins_where_it_is() {
    let server = RedisServer::start();
    let node = Node::start(&server.url()).await;
    for n in 1..=3 {
        node.append("plain-1", &format!("a{n}")).await.expect("appended");
    }
    // As Redis does where it runs out of memory and may evict.
    server.cli(&["DEL", HISTORY]);
    for n in 4..=5 {
        assert_eq!(node.append("plain-1", &format!("a{n}")).await.expect("appended").offset, n);
    }
    assert_eq!(offsets(&node).await, [4, 5]);
    assert_eq!(server.cli(&["HGET", META, "oldest"]).trim(), "4");
    let left: i64 = server.cli(&["PTTL", HISTORY]).trim().parse().expect("a number");
    assert!(left > 0, "{left}");
    // Nothing leads to ids whose messages are gone.
    assert_eq!(node.append("plain-1", "a1").await.expect("appended").offset, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_a_long_history_for_a_short_one_writes_what_everybody_reads() {
    let server = RedisServer::start();
    let (node, listener) = (Node::start(&server.url()).await, Node::start(&server.url()).await);
    listener.broker.follow(&channel("plain-1")).await.expect("it listens");
    let ids: Vec<_> = (0..100).map(|n| format!("long-{n}")).collect();
    node.append_all("plain-1", &ids, 100).await;
    assert_eq!(kind(&server), "stream");
    // It has never seen the channel.
    let new = Node::start(&server.url()).await;
    let ids: Vec<_> = (0..3).map(|n| format!("new-{n}")).collect();
    new.append_all("plain-1", &ids, 10).await;
    assert_eq!(offsets(&listener).await, (1..=103).collect::<Vec<_>>());
    hears_all(&listener, "plain-1").await;
}
