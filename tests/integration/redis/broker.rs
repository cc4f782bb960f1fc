//! The broker of several nodes on one Redis.

use std::sync::Arc;

use super::{Node, hears_all};
use crate::support::redis::{RedisServer, shared_url};
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_hear_each_others_messages_once_and_in_order() {
    let url = shared_url();
    let names = ["plain-1", "plain-2", "plain-3"];
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Arc::new(Node::following(&url, &names).await));
    }
    let appending = (0..9).map(|task| {
        let node = nodes[task % 3].clone();
        tokio::spawn(async move {
            for n in 0..100 {
                node.append(names[(task + n) % 3], &format!("{task}.{n}")).await.expect("appended");
            }
        })
    });
    for task in appending.collect::<Vec<_>>() {
        task.await.expect("it ends");
    }
    for node in &nodes {
        for name in names {
            hears_all(node, name).await;
            assert_eq!(node.heard.of(name).len(), 300);
            assert!(node.heard.resets(name).is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_nothing_of_channels_that_it_does_not_follow() {
    let server = RedisServer::start();
    let one = Node::following(&server.url(), &["plain-1"]).await;
    let other = Node::following(&server.url(), &["plain-2"]).await;
    for n in 0..10 {
        one.append("plain-1", &format!("a{n}")).await.expect("appended");
        one.append("plain-2", &format!("b{n}")).await.expect("appended");
    }
    hears_all(&one, "plain-1").await;
    hears_all(&other, "plain-2").await;
    assert!(one.heard.of("plain-2").is_empty() && other.heard.of("plain-1").is_empty());
    assert_eq!(server.cli(&["PUBSUB", "NUMSUB", "tidings{c:plain-1}p"]).lines().last(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_begins_after_the_top_and_leaves_nothing_out() {
    let url = shared_url();
    let writer = Node::start(&url).await;
    for n in 0..20 {
        writer.append("plain-1", &n.to_string()).await.expect("appended");
    }
    let writing = {
        let writer = Node::start(&url).await;
        tokio::spawn(async move {
            for n in 20..220 {
                writer.append("plain-1", &n.to_string()).await.expect("appended");
            }
        })
    };
    let reader = Node::following(&url, &["plain-1"]).await;
    let top = reader.top("plain-1").await.position;
    writing.await.expect("it ends");
    wait_until("the last is heard", async || {
        reader.heard.of("plain-1").last().is_some_and(|last| last.0 == 220)
    })
    .await;
    let heard: Vec<_> = reader.heard.of("plain-1").iter().map(|heard| heard.0).collect();
    assert!(heard[0] <= top.offset + 1 && heard[0] > 20, "{} after {top}", heard[0]);
    assert!(heard.iter().copied().eq(heard[0]..=220), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_do_not_outlive_the_history_that_ended_by_itself() {
    let server = RedisServer::start();
    let node = Node::following(&server.url(), &["plain-1"]).await;
    let ids = |key: &str| server.cli(&["HKEYS", key]).lines().filter(|field| field.starts_with('i')).count();
    for n in 0..10 {
        node.append("plain-1", &format!("before-{n}")).await.expect("appended");
    }
    let keys = server.cli(&["KEYS", "tidings{c:plain-1}*"]);
    let of_type = |wanted: &str| {
        let key = keys.lines().find(|key| server.cli(&["TYPE", key]).trim() == wanted);
        key.unwrap_or_else(|| panic!("no {wanted} in {keys}"))
    };
    let (meta, history) = (of_type("hash"), of_type("string"));
    assert_eq!(ids(meta), 10);
    // As after a quiet time: the history had an end to its life, and the channel itself a later one.
    server.cli(&["DEL", history]);
    server.cli(&["HSET", meta, "touched", "0"]);
    node.append("plain-1", "after").await.expect("appended");
    assert_eq!(ids(meta), 1);
    wait_until("it is heard", async || node.heard.of("plain-1").last().is_some_and(|last| last.0 == 11))
        .await;
    assert_eq!(server.cli(&["HGET", meta, "oldest"]).trim(), "11");
}
