//! What every [`tidings::presence::Presence`] promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tidings::model::{Published, UserId};
use tidings::presence::{Arrival, Counts, Line, Online, Presence};

use super::Node;
use crate::conformance::{Backend, for_each_backend};
use crate::support::{channel, read, seed, wait_until};

for_each_backend!(
    the_first_device_and_the_last_one_are_told_of_and_those_between_are_not,
    each_change_is_told_once_and_in_order_however_they_cross,
    the_count_is_right_whichever_of_the_old_and_the_new_connection_is_first,
    a_connection_counts_once_and_goes_once,
    rooms_know_who_is_in_them,
    lists_are_paged_by_name,
    an_ended_connection_counts_no_more_and_its_line_is_ended_once,
    only_dead_connections_are_cleaned_up,
    those_who_were_online_before_a_restart_are_told_to_have_left,
);

#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub(crate) ended: AtomicUsize,
    pub(crate) dead: bool,
}

impl Line for Thread {
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn is_alive(&self) -> bool {
        !self.dead
    }

    fn transport(&self) -> Option<&'static str> {
        Some("polling")
    }
}

/// A node that hears of who comes and goes.
async fn start(backend: &dyn Backend) -> (Node, Arc<dyn Presence>) {
    let node = backend.start().await;
    node.follow(&["user-presence"]).await;
    let presence = backend.presence(&node);
    (node, presence)
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user id")
}

pub(crate) fn arrival(connection: &str, name: Option<&str>, line: Arc<Thread>) -> Arrival {
    Arrival {
        connection_id: connection.into(),
        client_id: connection.into(),
        user_id: name.map(user),
        connected_at_ms: 1,
        line,
    }
}

pub(crate) async fn online_now(presence: &dyn Presence, name: &str) -> Option<Online> {
    presence.user(&user(name)).await.expect("an answer")
}

pub(crate) fn arrive(presence: &dyn Presence, connection: &str, name: &str) {
    presence.arrive(arrival(connection, Some(name), Arc::default()));
}

/// What was told so far of who came and went: user, event, connections.
fn told(node: &Node) -> Vec<(String, String, u64)> {
    changes(&node.heard.all())
}

/// The same of these messages.
pub(crate) fn changes(all: &[Arc<Published>]) -> Vec<(String, String, u64)> {
    let own = all.iter().filter(|m| m.channel.as_str() == "user-presence").map(|m| read(m));
    own.map(|m| {
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        assert_eq!(m["userId"], m["data"]["userId"], "{m}");
        let n = m["data"]["connections"].as_u64().expect("a number");
        (text(&m["data"]["userId"]), text(&m["event"]), n)
    })
    .collect()
}

async fn wait_for_told(node: &Node, n: usize) -> Vec<(String, String, u64)> {
    wait_until("the changes are told", async || told(node).len() >= n).await;
    told(node)
}

pub(crate) fn online(name: &str) -> (String, String, u64) {
    (name.to_owned(), "user:online".to_owned(), 1)
}

pub(crate) fn offline(name: &str) -> (String, String, u64) {
    (name.to_owned(), "user:offline".to_owned(), 0)
}

async fn the_first_device_and_the_last_one_are_told_of_and_those_between_are_not(backend: &dyn Backend) {
    let (node, presence) = start(backend).await;
    arrive(&*presence, "a", "ann");
    arrive(&*presence, "b", "ann");
    presence.arrive(arrival("nobody", None, Arc::default()));
    assert_eq!(online_now(&*presence, "ann").await.map(|online| online.connections), Some(2));
    presence.depart("a");
    arrive(&*presence, "c", "bob");
    presence.depart("b");
    assert_eq!(wait_for_told(&node, 3).await, [online("ann"), online("bob"), offline("ann")]);
    assert_eq!(online_now(&*presence, "ann").await, None);
    assert_eq!(presence.counts().await.expect("an answer"), Counts { connections: 2, users: 1, rooms: 0 });
}

async fn each_change_is_told_once_and_in_order_however_they_cross(backend: &dyn Backend) {
    let (node, presence) = start(backend).await;
    let seed = seed();
    let devices = (0..8).map(|device| {
        let presence = presence.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed + device);
            for n in 0..50 {
                let (connection, name) = (format!("{device}.{n}"), format!("user{}", random.u8(..3)));
                arrive(&*presence, &connection, &name);
                if random.bool() {
                    tokio::task::yield_now().await;
                }
                presence.depart(&connection);
            }
        })
    });
    for device in devices.collect::<Vec<_>>() {
        device.await.expect("a device ends");
    }
    // Told after everything before it.
    arrive(&*presence, "last", "zoe");
    wait_until("all is told", async || told(&node).contains(&online("zoe"))).await;
    let mut last: BTreeMap<String, bool> = BTreeMap::new();
    for (name, event, connections) in told(&node) {
        let now = event == "user:online";
        assert_eq!(connections, u64::from(now));
        assert_ne!(last.insert(name.clone(), now).unwrap_or(false), now, "{name} changed to what it was");
    }
    assert!(last.iter().all(|(name, online)| *online == (name == "zoe")), "{last:?}");
    assert_eq!(presence.counts().await.expect("an answer"), Counts { connections: 1, users: 1, rooms: 0 });
}

async fn the_count_is_right_whichever_of_the_old_and_the_new_connection_is_first(backend: &dyn Backend) {
    let (node, presence) = start(backend).await;
    arrive(&*presence, "old", "ann");
    arrive(&*presence, "new", "ann");
    presence.depart("old");
    arrive(&*presence, "b-old", "bob");
    presence.depart("b-old");
    arrive(&*presence, "b-new", "bob");
    for name in ["ann", "bob"] {
        assert_eq!(online_now(&*presence, name).await.map(|online| online.connections), Some(1), "{name}");
    }
    let expected = [online("ann"), online("bob"), offline("bob"), online("bob")];
    assert_eq!(wait_for_told(&node, 4).await, expected);
    // Its time-out comes at last.
    presence.depart("old");
    assert_eq!(online_now(&*presence, "ann").await.map(|online| online.connections), Some(1));
}

async fn a_connection_counts_once_and_goes_once(backend: &dyn Backend) {
    let (_node, presence) = start(backend).await;
    arrive(&*presence, "a", "ann");
    arrive(&*presence, "a", "ann");
    arrive(&*presence, "b", "ann");
    presence.depart("a");
    presence.depart("a");
    presence.depart("none");
    assert_eq!(online_now(&*presence, "ann").await.map(|online| online.connections), Some(1));
    presence.enter("none", &channel("plain-1"));
    presence.leave("none", &channel("plain-1"));
    assert_eq!(presence.counts().await.expect("an answer"), Counts { connections: 1, users: 1, rooms: 0 });
}

async fn rooms_know_who_is_in_them(backend: &dyn Backend) {
    let (_node, presence) = start(backend).await;
    for (connection, name) in [("a", Some("bob")), ("b", Some("ann")), ("c", Some("ann")), ("d", None)] {
        presence.arrive(arrival(connection, name, Arc::default()));
        presence.enter(connection, &channel("plain-1"));
        presence.enter(connection, &channel("plain-1"));
    }
    presence.enter("a", &channel("plain-2"));
    let there = presence.room(&channel("plain-1")).await.expect("an answer");
    assert_eq!((there.users, there.connections), (vec![(user("ann"), 2), (user("bob"), 1)], 4));
    presence.leave("b", &channel("plain-1"));
    presence.leave("b", &channel("plain-1"));
    presence.depart("a");
    let there = presence.room(&channel("plain-1")).await.expect("an answer");
    assert_eq!((there.users, there.connections), (vec![(user("ann"), 1)], 2));
    assert_eq!(presence.room(&channel("plain-2")).await.expect("an answer"), Default::default());
    assert_eq!(presence.counts().await.expect("an answer"), Counts { connections: 3, users: 1, rooms: 1 });
}

async fn lists_are_paged_by_name(backend: &dyn Backend) {
    let (_node, presence) = start(backend).await;
    let mut names = BTreeSet::new();
    for n in 0..10 {
        arrive(&*presence, &format!("c{n}"), &format!("u{n}"));
        names.insert(format!("u{n}"));
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = presence.users(after.as_deref(), 3).await.expect("an answer");
        assert_eq!(page.total, 10);
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|online| online.user_id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(seen.iter().eq(&names), "{seen:?}");
    let page = presence.connections(Some("c4"), 5).await.expect("an answer");
    let ids: Vec<_> = page.items.iter().map(|present| present.connection_id.as_str()).collect();
    assert_eq!((ids, page.next), (vec!["c5", "c6", "c7", "c8", "c9"], None));
    assert_eq!(page.items[0].transport, Some("polling"));
}

async fn an_ended_connection_counts_no_more_and_its_line_is_ended_once(backend: &dyn Backend) {
    let (node, presence) = start(backend).await;
    let line = Arc::new(Thread::default());
    presence.arrive(arrival("a", Some("ann"), line.clone()));
    presence.enter("a", &channel("plain-1"));
    assert!(presence.end("a").await.expect("an answer"));
    assert!(!presence.end("a").await.expect("an answer") && !presence.end("none").await.expect("an answer"));
    assert_eq!(line.ended.load(Ordering::SeqCst), 1);
    assert_eq!(presence.counts().await.expect("an answer"), Counts::default());
    assert_eq!(wait_for_told(&node, 2).await, [online("ann"), offline("ann")]);
}

async fn only_dead_connections_are_cleaned_up(backend: &dyn Backend) {
    let (_node, presence) = start(backend).await;
    for n in 0..6 {
        let line = Arc::new(Thread { dead: n % 2 == 0, ..Thread::default() });
        presence.arrive(arrival(&format!("c{n}"), None, line));
    }
    assert_eq!(presence.end_dead().await.expect("an answer"), 3);
    assert_eq!(presence.end_dead().await.expect("an answer"), 0);
    let left = presence.connections(None, 10).await.expect("an answer").items;
    let left: Vec<_> = left.iter().map(|present| present.connection_id.as_str()).collect();
    assert_eq!(left, ["c1", "c3", "c5"]);
}

async fn those_who_were_online_before_a_restart_are_told_to_have_left(backend: &dyn Backend) {
    let (node, presence) = start(backend).await;
    arrive(&*presence, "a", "ann");
    arrive(&*presence, "b", "bob");
    presence.depart("b");
    wait_for_told(&node, 3).await;
    drop((presence, node));

    let (node, presence) = start(backend).await;
    arrive(&*presence, "c", "ann");
    // Whoever told it: a node on its way out, or the next one.
    let mut all = Vec::new();
    wait_until("the changes are told", async || {
        all = crate::support::history(&*node.broker, "user-presence").await;
        all.len() >= 5
    })
    .await;
    let expected = [online("ann"), online("bob"), offline("bob"), offline("ann"), online("ann")];
    assert_eq!(changes(&all), expected);
    let user = json!(online_now(&*presence, "ann").await.map(|online| online.connections));
    assert_eq!(user, 1);
}
