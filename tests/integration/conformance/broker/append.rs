//! Appending: offsets, epochs, ids, groups, and who hears of it.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tidings::auth::Identity;
use tidings::broker::AppendGroup;
use tidings::model::now_ms;
use tidings::publish::PublishError;

use crate::conformance::{Backend, for_each_backend};
use crate::support::{append, channel, history, incoming, message, stored};

for_each_backend!(a cluster too:
    offsets_rise_by_one_whoever_appends,
    the_epoch_is_there_before_the_first_message_and_outlives_the_process,
    a_known_id_is_not_appended_again,
    one_id_sent_many_times_at_once_is_appended_once,
    an_id_belongs_to_its_channel_alone,
    a_group_is_appended_as_a_whole,
    the_sink_hears_each_message_once_in_order_and_before_the_answer,
    a_dropped_store_has_lost_nothing_that_was_acknowledged,
);

/// In a cluster a known message has what belongs to it completed: whoever appended it may have died in between.
mod whole {
    use super::a_group_whose_first_message_is_known_or_refused_leaves_nothing;

    crate::conformance::for_each_backend!(a_group_whose_first_message_is_known_or_refused_leaves_nothing);
}

async fn offsets_rise_by_one_whoever_appends(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["plain-0", "plain-1", "plain-2"]).await;
    let appenders = (0..8).map(|task| {
        let (broker, rules) = (node.broker.clone(), node.rules.clone());
        tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..30 {
                let name = format!("plain-{}", n % 3);
                let groups = vec![
                    message(&rules, &name, &format!("{task}.{n}.a")),
                    message(&rules, &name, &format!("{task}.{n}.b")),
                ];
                for answer in broker.append(groups).await.expect("an append") {
                    let answer = answer.expect("nothing refuses a custom message");
                    places.push((name.clone(), answer.position.offset, answer.id.to_string()));
                }
            }
            places
        })
    });
    let mut answered = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        let places = appender.await.expect("an appender ends");
        for pair in places.chunks(2) {
            assert_eq!(pair[0].1 + 1, pair[1].1, "the groups of a call stand in its order");
        }
        answered.extend(places);
    }
    for name in ["plain-0", "plain-1", "plain-2"] {
        let mut own: Vec<_> = answered.iter().filter(|a| a.0 == name).map(|a| (a.1, a.2.clone())).collect();
        own.sort();
        assert!(own.iter().map(|a| a.0).eq(1..=160), "{name}: {own:?}");
        assert_eq!(stored(&*node.broker, name).await, own);
        assert_eq!(node.heard.of(name), own);
    }
}

async fn the_epoch_is_there_before_the_first_message_and_outlives_the_process(backend: &dyn Backend) {
    let node = backend.start().await;
    let name = channel("plain-1");
    let before = node.broker.top(&name).await.expect("a top");
    assert_eq!(before.position.offset, 0);
    let other = node.broker.top(&channel("plain-2")).await.expect("a top");
    assert_ne!(before.position.epoch, other.position.epoch, "two channels share no past");
    node.stop().await;

    let node = backend.start().await;
    let again = node.broker.top(&name).await.expect("a top");
    assert_eq!(again.position, before.position);
    let answers = node.broker.append(vec![message(&node.rules, "plain-1", "a")]).await.expect("an append");
    let first = answers[0].as_ref().expect("accepted").position.clone();
    assert_eq!((first.offset, &first.epoch), (1, &before.position.epoch));
    node.stop().await;

    let node = backend.start().await;
    assert_eq!(node.broker.top(&name).await.expect("a top").position, first);
    let page = history(&*node.broker, "plain-1").await;
    assert_eq!(page[0].position, first);
}

async fn a_known_id_is_not_appended_again(backend: &dyn Backend) {
    let node = backend.start().await;
    let groups = ["a", "b", "a"].map(|id| message(&node.rules, "plain-1", id)).to_vec();
    let answers = node.broker.append(groups).await.expect("an append");
    let answers: Vec<_> = answers.into_iter().map(|a| a.expect("accepted")).collect();
    let seen: Vec<_> = answers.iter().map(|a| (a.position.offset, a.duplicate)).collect();
    assert_eq!(seen, [(1, false), (2, false), (1, true)]);
    assert_eq!(answers[0].position, answers[2].position);
    node.stop().await;

    let node = backend.start().await;
    node.follow(&["plain-1"]).await;
    let groups = ["b", "c"].map(|id| message(&node.rules, "plain-1", id)).to_vec();
    let again = node.broker.append(groups).await.expect("an append");
    let again: Vec<_> = again.into_iter().map(|a| a.expect("accepted")).collect();
    assert_eq!((&again[0].position, again[0].duplicate), (&answers[1].position, true));
    assert_eq!((again[1].position.offset, again[1].duplicate), (3, false));
    assert_eq!(node.heard.of("plain-1"), [(3, "c".to_owned())]);
}

async fn one_id_sent_many_times_at_once_is_appended_once(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["plain-1"]).await;
    let senders = (0..40).map(|_| {
        let (broker, group) = (node.broker.clone(), message(&node.rules, "plain-1", "only"));
        tokio::spawn(async move { broker.append(vec![group]).await.expect("an append")[0].clone() })
    });
    let mut fresh = 0;
    for sender in senders.collect::<Vec<_>>() {
        let answer = sender.await.expect("a sender ends").expect("accepted");
        assert_eq!(answer.position.offset, 1);
        fresh += usize::from(!answer.duplicate);
    }
    assert_eq!(fresh, 1);
    assert_eq!(node.heard.of("plain-1").len(), 1);
    assert_eq!(stored(&*node.broker, "plain-1").await.len(), 1);
}

async fn an_id_belongs_to_its_channel_alone(backend: &dyn Backend) {
    let node = backend.start().await;
    let groups = ["plain-1", "plain-2"].map(|name| message(&node.rules, name, "same")).to_vec();
    for answer in node.broker.append(groups).await.expect("an append") {
        let answer = answer.expect("accepted");
        assert_eq!((answer.position.offset, answer.duplicate), (1, false));
    }
    // Senders who number the messages of their own test do not get into each other's way where all tests are told.
    for test in ["one", "two"] {
        let mut started = incoming(&format!("test-progress-{test}"), "test:started", &json!({"attempt": 1}));
        started.id = Some("1".parse().expect("an id"));
        node.publisher.publish(Identity::server(), vec![started]).await.remove(0).expect("accepted");
    }
    assert_eq!(history(&*node.broker, "test-updates").await.len(), 2, "both tests were told of");
}

async fn a_group_is_appended_as_a_whole(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["plain-1", "plain-2", "plain-3"]).await;
    let mut group = message(&node.rules, "plain-1", "a");
    group.mirrors =
        vec![message(&node.rules, "plain-2", "a").first, message(&node.rules, "plain-3", "a").first];
    let answer = node.broker.append(vec![group]).await.expect("an append").remove(0).expect("accepted");
    assert_eq!(answer.position.epoch, history(&*node.broker, "plain-1").await[0].position.epoch);
    for name in ["plain-1", "plain-2", "plain-3"] {
        assert_eq!(stored(&*node.broker, name).await, [(1, "a".to_owned())], "{name}");
        assert_eq!(node.heard.of(name), [(1, "a".to_owned())], "{name}");
    }
}

async fn a_group_whose_first_message_is_known_or_refused_leaves_nothing(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["test-progress-t", "test-updates"]).await;
    let with_mirror = |id: &str| AppendGroup {
        first: message(&node.rules, "plain-1", "a").first,
        mirrors: vec![append(&node.rules, "plain-2", id, &Value::Null, now_ms())],
    };
    node.broker.append(vec![with_mirror("x"), with_mirror("y")]).await.expect("an append");
    assert_eq!(stored(&*node.broker, "plain-2").await, [(1, "x".to_owned())]);

    let story =
        |event: &str, attempt: u32| incoming("test-progress-t", event, &json!({ "attempt": attempt }));
    let told = vec![story("test:started", 2), story("test:progress", 1), story("test:completed", 2)];
    let answers = node.publisher.publish(Identity::server(), told).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(PublishError::Stale(_))), "{answers:?}");
    for name in ["test-progress-t", "test-updates"] {
        let events: Vec<_> = history(&*node.broker, name).await.iter().map(|m| m.event.to_string()).collect();
        assert_eq!(events, ["test:started", "test:completed"], "{name}");
        assert_eq!(node.heard.of(name).len(), 2);
    }
}

async fn the_sink_hears_each_message_once_in_order_and_before_the_answer(backend: &dyn Backend) {
    let node = backend.start().await;
    node.follow(&["plain-1"]).await;
    let node = Arc::new(node);
    let appenders = (0..6).map(|task| {
        let node = node.clone();
        tokio::spawn(async move {
            for n in 0..40 {
                let id = format!("{task}.{n}");
                let groups = vec![message(&node.rules, "plain-1", &id)];
                let answer =
                    node.broker.append(groups).await.expect("an append").remove(0).expect("accepted");
                let place = (answer.position.offset, id);
                assert!(node.heard.of("plain-1").contains(&place), "answered before it was heard: {place:?}");
            }
        })
    });
    for appender in appenders.collect::<Vec<_>>() {
        appender.await.expect("an appender ends");
    }
    let heard = node.heard.of("plain-1");
    assert!(heard.iter().map(|h| h.0).eq(1..=240), "in order and without a hole");
    assert_eq!(heard.iter().map(|h| &h.1).collect::<HashSet<_>>().len(), 240, "each one once");
    let live: Vec<_> = node.heard.all().iter().map(|m| m.json().get().to_owned()).collect();
    let kept: Vec<_> =
        history(&*node.broker, "plain-1").await.iter().map(|m| m.json().get().to_owned()).collect();
    assert_eq!(live, kept, "what was told live is what history tells");
}

async fn a_dropped_store_has_lost_nothing_that_was_acknowledged(backend: &dyn Backend) {
    let mut expected = Vec::new();
    let mut epoch = None;
    for round in 0..4_u64 {
        let node = backend.start().await;
        for n in 0..5 {
            let id = format!("{round}.{n}");
            node.broker.append(vec![message(&node.rules, "plain-1", &id)]).await.expect("an append");
            expected.push((round * 5 + n + 1, id));
        }
        let top = node.broker.top(&channel("plain-1")).await.expect("a top").position;
        assert_eq!(*epoch.get_or_insert(top.epoch.clone()), top.epoch);
        drop(node);
    }
    let node = backend.start().await;
    assert_eq!(stored(&*node.broker, "plain-1").await, expected);
}
