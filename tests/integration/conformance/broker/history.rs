//! History: pages, bounds, and what is forgotten.

use serde_json::json;
use tidings::broker::{AppendGroup, PageLimit};
use tidings::model::now_ms;

use crate::conformance::{Backend, Node, for_each_backend};
use crate::support::{ALL, append, channel, message, stored};

for_each_backend!(a cluster too:
    pages_follow_each_other_without_a_hole_or_a_duplicate,
    a_page_ends_at_the_first_bound_but_has_one_message,
    history_before_the_first_message_and_after_the_last_is_empty,
    readers_see_exactly_as_many_as_the_size_says,
    readers_see_nothing_older_than_the_ttl,
    a_channel_without_history_still_counts,
    retention_removes_what_is_not_promised_and_says_when_it_is_done,
);

async fn fill(node: &Node, name: &str, ids: std::ops::Range<u32>) {
    let groups = ids.map(|n| message(&node.rules, name, &n.to_string())).collect();
    for answer in node.broker.append(groups).await.expect("an append") {
        answer.expect("accepted");
    }
}

async fn offsets(node: &Node, name: &str, after: u64, limit: PageLimit) -> (Vec<u64>, u64, u64) {
    let page = node.broker.history(&channel(name), after, limit).await.expect("a page");
    (page.messages.iter().map(|m| m.position.offset).collect(), page.oldest, page.top)
}

async fn pages_follow_each_other_without_a_hole_or_a_duplicate(backend: &dyn Backend) {
    let node = backend.start().await;
    fill(&node, "plain-1", 0..100).await;
    fill(&node, "plain-2", 0..3).await;
    for messages in [1, 7, 99, 100, 101] {
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let limit = PageLimit { messages, bytes: usize::MAX };
            let (page, oldest, top) = offsets(&node, "plain-1", after, limit).await;
            assert_eq!((oldest, top), (1, 100));
            assert!(page.len() <= messages);
            let Some(last) = page.last() else { break };
            after = *last;
            seen.extend(page);
        }
        assert!(seen.iter().copied().eq(1..=100), "pages of {messages}: {seen:?}");
    }
}

async fn a_page_ends_at_the_first_bound_but_has_one_message(backend: &dyn Backend) {
    let node = backend.start().await;
    fill(&node, "plain-1", 0..20).await;
    let page = node.broker.history(&channel("plain-1"), 0, ALL).await.expect("a page");
    let three: usize = page.messages[..3].iter().map(|m| m.size()).sum();
    for (bytes, expected) in [(three, 3), (three - 1, 2), (three + 1, 3), (1, 1), (0, 1)] {
        let (page, ..) = offsets(&node, "plain-1", 0, PageLimit { messages: 500, bytes }).await;
        assert_eq!(page.len(), expected, "{bytes} bytes");
    }
    let none = PageLimit { messages: 0, bytes: 1000 };
    assert_eq!(offsets(&node, "plain-1", 4, none).await.0, [5], "at least one message");
    let all = PageLimit { messages: usize::MAX, bytes: usize::MAX };
    assert_eq!(offsets(&node, "plain-1", 0, all).await.0.len(), 20, "no bound at all");
}

async fn history_before_the_first_message_and_after_the_last_is_empty(backend: &dyn Backend) {
    let node = backend.start().await;
    let page = node.broker.history(&channel("plain-1"), 0, ALL).await.expect("a page");
    assert_eq!((page.messages.len(), page.top, page.oldest), (0, 0, 1));
    fill(&node, "plain-1", 0..3).await;
    for after in [3, 4, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        assert_eq!(offsets(&node, "plain-1", after, ALL).await, (vec![], 1, 3), "after {after}");
    }
    let again = node.broker.history(&channel("plain-1"), 0, ALL).await.expect("a page");
    assert_eq!(again.epoch, page.epoch);
}

async fn readers_see_exactly_as_many_as_the_size_says(backend: &dyn Backend) {
    let node = backend.start().await;
    for n in 1..=400_u32 {
        fill(&node, "short-1", n..n + 1).await;
        let first = u64::from(n).saturating_sub(9).max(1);
        if n % 7 == 0 || n < 60 {
            let (page, oldest, top) = offsets(&node, "short-1", 0, ALL).await;
            assert!(page.iter().copied().eq(first..=u64::from(n)), "after {n} messages: {page:?}");
            assert_eq!((oldest, top), (first, u64::from(n)));
        }
    }
    // Asked for what is gone, it begins with what there is; the hole shows in `oldest`.
    assert_eq!(offsets(&node, "short-1", 200, ALL).await, ((391..=400).collect(), 391, 400));
    let two = PageLimit { messages: 2, bytes: usize::MAX };
    assert_eq!(offsets(&node, "short-1", 0, two).await.0, [391, 392]);
    node.stop().await;
    let node = backend.start().await;
    assert_eq!(offsets(&node, "short-1", 0, ALL).await, ((391..=400).collect(), 391, 400));
    fill(&node, "short-1", 401..402).await;
    assert_eq!(offsets(&node, "short-1", 0, ALL).await, ((392..=401).collect(), 392, 401));
}

async fn readers_see_nothing_older_than_the_ttl(backend: &dyn Backend) {
    let node = backend.start().await;
    let aged = |id: &str, age_ms: i64| AppendGroup {
        first: append(&node.rules, "brief-1", id, &json!(0), now_ms() - age_ms),
        mirrors: Vec::new(),
    };
    let groups = vec![aged("a", 120_000), aged("b", 61_000), aged("c", 30_000), aged("d", 0)];
    node.broker.append(groups).await.expect("an append");
    assert_eq!(offsets(&node, "brief-1", 0, ALL).await, (vec![3, 4], 3, 4));
    while node.broker.retain().await.expect("retention") {}
    assert_eq!(offsets(&node, "brief-1", 0, ALL).await, (vec![3, 4], 3, 4));

    // All of it too old: the next one counts on.
    node.broker
        .append(vec![AppendGroup {
            first: append(&node.rules, "brief-2", "a", &json!(0), now_ms() - 61_000),
            mirrors: Vec::new(),
        }])
        .await
        .expect("an append");
    assert_eq!(offsets(&node, "brief-2", 0, ALL).await, (vec![], 2, 1));
    let epoch = node.broker.top(&channel("brief-2")).await.expect("a top").position.epoch;
    while node.broker.retain().await.expect("retention") {}
    assert_eq!(offsets(&node, "brief-2", 0, ALL).await, (vec![], 2, 1));
    fill(&node, "brief-2", 5..6).await;
    assert_eq!(offsets(&node, "brief-2", 0, ALL).await, (vec![2], 2, 2));
    assert_eq!(node.broker.top(&channel("brief-2")).await.expect("a top").position.epoch, epoch);
}

async fn a_channel_without_history_still_counts(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["lossy-1"]).await;
    let before = node.broker.top(&channel("lossy-1")).await.expect("a top").position;
    fill(&node, "lossy-1", 0..5).await;
    assert_eq!(offsets(&node, "lossy-1", 0, ALL).await, (vec![], 6, 5));
    assert!(node.heard.of("lossy-1").iter().map(|h| h.0).eq(1..=5));
    node.stop().await;
    let node = backend.start().await;
    fill(&node, "lossy-1", 5..6).await;
    let top = node.broker.top(&channel("lossy-1")).await.expect("a top").position;
    assert_eq!((top.offset, top.epoch), (6, before.epoch));
    assert!(stored(&*node.broker, "lossy-1").await.is_empty());
}

async fn retention_removes_what_is_not_promised_and_says_when_it_is_done(backend: &dyn Backend) {
    let node = backend.start().await;
    let old = |n: u32| AppendGroup {
        first: append(&node.rules, "brief-1", &n.to_string(), &json!(0), now_ms() - 3_600_000),
        mirrors: Vec::new(),
    };
    node.broker.append((0..700).map(old).collect()).await.expect("an append");
    fill(&node, "brief-1", 700..720).await;
    fill(&node, "plain-1", 0..20).await;
    let mut calls = 0;
    while node.broker.retain().await.expect("retention") {
        calls += 1;
        assert!(calls < 20, "there is always more to remove");
    }
    assert_eq!(offsets(&node, "brief-1", 0, ALL).await, ((701..=720).collect(), 701, 720));
    assert_eq!(offsets(&node, "plain-1", 0, ALL).await.0.len(), 20);
    // What was removed is forgotten: its id is free again.
    fill(&node, "brief-1", 3..4).await;
    assert_eq!(offsets(&node, "brief-1", 0, ALL).await.2, 721);
}
