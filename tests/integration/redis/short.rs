//! Short histories: they are texts until they grow, and nobody can tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings::broker::append::{Append, Count};
use tidings::broker::{AppendGroup, Broker as _};
use tidings::model::{Published, now_ms};

use super::{Node, hears_all};
use crate::support::redis::RedisServer;
use crate::support::{append, channel, history, read, rules, seed, stored, wait_until};

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

/// Channels and how many messages their histories keep.
const KEPT: [(&str, usize); 4] =
    [("plain-1", usize::MAX), ("plain-2", usize::MAX), ("short-1", 10), ("lossy-1", 0)];

/// A message whose id is one of a row, or stands alone.
fn any(random: &mut fastrand::Rng, name: &str, id: &str, counted: bool) -> Append {
    let bytes = [0, 7, 40, 300, 1100, 2300, 4500][random.usize(0..7)];
    // More bytes than characters.
    let data = "\u{fc}\n".repeat(bytes / 3).into();
    let mut append = append(&rules(), name, id, &data, now_ms());
    append.count = Count::read(id).filter(|_| counted);
    append
}

/// What one call appends: here and there, with mirrors and without.
fn some_groups(random: &mut fastrand::Rng, names: &[&str], call: i64) -> Vec<AppendGroup> {
    let mut groups = Vec::new();
    for n in 0..random.i64(1..8) {
        // Numbers of a row rise.
        let counted = random.bool();
        let id = if counted {
            format!("row.x.{}", 1_700_000_000_000_000 + call * 10 + n)
        } else {
            format!("{call}:{n}")
        };
        let (first, mirror) = (*random.choice(names).expect("one"), *random.choice(names).expect("one"));
        let mut group = AppendGroup { first: any(random, first, &id, counted), mirrors: Vec::new() };
        if random.bool() && mirror != first {
            group.mirrors.push(any(random, mirror, &id, counted));
        }
        groups.push(group);
    }
    groups
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_appended_in_whichever_form_is_what_a_naive_list_has() {
    let (mut random, server) = (fastrand::Rng::with_seed(seed()), RedisServer::start());
    let names: Vec<_> = KEPT.iter().map(|(name, _)| *name).collect();
    let listener = Node::following(&server.url(), &names).await;
    let mut nodes = [Node::start(&server.url()).await, Node::start(&server.url()).await];
    let mut model: BTreeMap<&str, Vec<String>> = names.iter().map(|name| (*name, Vec::new())).collect();
    for call in 0..40_i64 {
        if random.u8(0..10) == 0 {
            // It knows nothing of any channel.
            let place = random.usize(0..nodes.len());
            nodes[place] = Node::start(&server.url()).await;
        }
        let groups = some_groups(&mut random, &names, call);
        let node = &nodes[random.usize(0..nodes.len())];
        let sent = groups.clone();
        for answer in node.broker.append(groups).await.expect("an append") {
            assert!(!answer.expect("nothing refuses a custom message").duplicate);
        }
        // Groups with the same mirrors go mirror by mirror, so that the order of a channel is only what was heard.
        for name in &names {
            let all = model.get_mut(name).expect("known");
            let mut new: Vec<_> = sent
                .iter()
                .flat_map(|group| std::iter::once(&group.first).chain(&group.mirrors))
                .filter(|append| append.channel.as_str() == *name)
                .map(|append| append.id.to_string())
                .collect();
            let heard_at = all.len();
            wait_until("it is heard", async || listener.heard.of(name).len() >= heard_at + new.len()).await;
            let heard: Vec<_> =
                listener.heard.of(name)[heard_at..].iter().map(|(_, id)| id.clone()).collect();
            let mut sorted = heard.clone();
            sorted.sort();
            new.sort();
            assert_eq!(sorted, new, "{name} after call {call}");
            all.extend(heard);
        }
        for (name, size) in KEPT {
            let all = &model[name];
            let whole: Vec<_> = all.iter().cloned().zip(1..).map(|(id, n)| (n, id)).collect();
            assert_eq!(listener.heard.of(name), whole, "{name} after call {call}");
            let kept = &whole[whole.len().saturating_sub(size)..];
            assert_eq!(stored(&node.broker, name).await, kept, "{name} after call {call}");
        }
    }
    // Not only which they are: what is kept reads as what was heard.
    for name in names {
        let heard: Vec<_> = listener.heard.all().into_iter().filter(|m| m.channel.as_str() == name).collect();
        let kept = history(&listener.broker, name).await;
        let texts = |messages: &[Arc<Published>]| -> Vec<_> { messages.iter().map(|m| read(m)).collect() };
        assert_eq!(texts(&heard[heard.len() - kept.len()..]), texts(&kept), "{name}");
    }
}
