//! What happens to history when the rules of a channel change between two runs.

use std::sync::Arc;

use tidings::config::channels::Rules;

use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{channel, message, stored};

for_each_backend!(a cluster too:
    a_smaller_size_counts_at_once_and_a_larger_one_brings_nothing_back,
    history_that_is_switched_off_and_on_again_begins_with_what_comes,
    a_channel_whose_rules_are_gone_keeps_what_it_has,
);

fn sized(size: u64) -> Arc<Rules> {
    let text = format!(
        "[channel.plain]\npattern = \"plain-{{id}}\"\nevents = [\"custom:*\"]\nhistory = {{ size = {size}, ttl = \"7d\" }}\n"
    );
    Arc::new(Rules::parse("channels.toml", &text).expect("rules without a mistake"))
}

async fn fill(node: &Node, ids: std::ops::Range<u32>) {
    for n in ids {
        let group = message(&node.rules, "plain-1", &n.to_string());
        let answer = node.broker.append(vec![group]).await.expect("an append").remove(0);
        assert!(!answer.expect("accepted").duplicate, "{n} is new");
    }
}

async fn seen(node: &Node) -> Vec<u64> {
    stored(&*node.broker, "plain-1").await.into_iter().map(|m| m.0).collect()
}

async fn a_smaller_size_counts_at_once_and_a_larger_one_brings_nothing_back(backend: &dyn Backend) {
    let node = backend.open(sized(100), options()).await;
    fill(&node, 0..100).await;
    node.stop().await;
    let node = backend.open(sized(5), options()).await;
    assert_eq!(seen(&node).await, [96, 97, 98, 99, 100]);
    fill(&node, 100..101).await;
    assert_eq!(seen(&node).await, [97, 98, 99, 100, 101]);
    while node.broker.retain().await.expect("retention") {}
    node.stop().await;
    let node = backend.open(sized(100), options()).await;
    fill(&node, 101..102).await;
    assert_eq!(seen(&node).await, [97, 98, 99, 100, 101, 102]);
}

async fn history_that_is_switched_off_and_on_again_begins_with_what_comes(backend: &dyn Backend) {
    let node = backend.open(sized(100), options()).await;
    fill(&node, 0..10).await;
    node.stop().await;
    let node = backend.open(sized(0), options()).await;
    assert!(seen(&node).await.is_empty());
    fill(&node, 10..12).await;
    assert!(seen(&node).await.is_empty());
    while node.broker.retain().await.expect("retention") {}
    node.stop().await;
    let node = backend.open(sized(100), options()).await;
    assert!(seen(&node).await.is_empty(), "what was switched off does not come back");
    // History does not know the old ids any more, so they are free.
    fill(&node, 5..8).await;
    assert_eq!(seen(&node).await, [13, 14, 15]);
}

async fn a_channel_whose_rules_are_gone_keeps_what_it_has(backend: &dyn Backend) {
    let node = backend.open(sized(100), options()).await;
    fill(&node, 0..10).await;
    let top = node.broker.top(&channel("plain-1")).await.expect("a top").position;
    node.stop().await;
    let none = Arc::new(Rules::builtin());
    let node = backend.open(none, options()).await;
    while node.broker.retain().await.expect("retention") {}
    node.stop().await;
    let node = backend.open(sized(100), options()).await;
    assert!(seen(&node).await.into_iter().eq(1..=10));
    assert_eq!(node.broker.top(&channel("plain-1")).await.expect("a top").position, top);
}
