//! Presence over several nodes: who dies, who is taken for dead, and what Redis does to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel as channel_of};
use std::time::{Duration, Instant};

use tidings::broker::Broker;
use tidings::model::ChannelName;
use tidings::presence::redis::{PresenceOptions, RedisPresence};
use tidings::presence::{Counts, Presence};
use tidings::redis::{Redis, RedisOptions, RedisUrl};
use tidings::tasks::Tasks;
use tokio::runtime::{Builder, Runtime};

use crate::conformance::presence::{Thread, arrival, arrive, changes, offline, online, online_now};
use crate::conformance::{Backend, Embedded};
use crate::support::redis::{Cluster, RedisServer, shared_url};
use crate::support::{DEADLINE, channel, history, rules, seed, wait_until};

const LEASE: Duration = Duration::from_secs(2);

/// A process: what runs in it ends with its runtime, without a word.
struct Node {
    presence: Arc<dyn Presence>,
    tasks: Tasks,
    runtime: Option<Runtime>,
}

impl Node {
    async fn start(name: &str, url: &str, broker: &Arc<dyn Broker>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (tasks, broker) = (Tasks::new(), broker.clone());
        let options = RedisOptions::new(RedisUrl::parse(url).expect("a URL"));
        let node = PresenceOptions { node: name.to_owned(), lease: LEASE };
        let started = {
            let tasks = tasks.clone();
            runtime.spawn(async move {
                let redis = Redis::connect(options, &tasks).await.expect("Redis can be reached");
                RedisPresence::start(redis, broker, rules(), node, &tasks)
            })
        };
        let presence: Arc<dyn Presence> = started.await.expect("it starts");
        Self { presence, tasks, runtime: Some(runtime) }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }

    /// SIGSTOP, and SIGCONT when what this returns is dropped.
    fn pause(&self) -> Sender<()> {
        let (paused, until) = channel_of();
        self.runtime.as_ref().expect("it runs").spawn(async move {
            let _ = until.recv();
        });
        paused
    }

    /// SIGTERM.
    async fn stop(self) {
        assert!(self.tasks.stop(DEADLINE).await, "its tasks end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who was told of, and nodes with names.
struct World {
    broker: Arc<dyn Broker>,
    url: String,
    _store: (Embedded, crate::conformance::Node),
}

impl World {
    async fn new(url: String) -> Self {
        let embedded = Embedded::new();
        let node = embedded.start().await;
        Self { broker: node.broker.clone(), url, _store: (embedded, node) }
    }

    async fn node(&self, name: &str) -> Node {
        Node::start(name, &self.url, &self.broker).await
    }

    async fn told(&self) -> Vec<(String, String, u64)> {
        changes(&history(&*self.broker, "user-presence").await)
    }

    async fn wait_for_told(&self, expected: &[(String, String, u64)]) {
        wait_until("it is told", async || self.told().await.len() >= expected.len()).await;
        assert_eq!(self.told().await, expected);
    }
}

fn room() -> ChannelName {
    channel("plain-1")
}

async fn counts(node: &Node) -> Counts {
    node.presence.counts().await.expect("an answer")
}

async fn connections(node: &Node) -> Vec<(String, String)> {
    let page = node.presence.connections(None, 100).await.expect("a page");
    assert_eq!(page.total, page.items.len());
    let items = page.items.into_iter();
    items.map(|present| (present.connection_id, present.node.expect("a node").to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_several_nodes_comes_once_and_goes_once() {
    let world = World::new(shared_url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    arrive(&*one.presence, "a", "ann");
    wait_until("the other node knows", async || online_now(&*two.presence, "ann").await.is_some()).await;
    arrive(&*two.presence, "b", "ann");
    arrive(&*two.presence, "c", "bob");
    for (node, connection) in [(&one, "a"), (&two, "b")] {
        node.presence.enter(connection, &room());
        node.presence.counts().await.expect("it is written");
    }
    for node in [&one, &two] {
        assert_eq!(counts(node).await, Counts { connections: 3, users: 2, rooms: 1 });
        let there = node.presence.room(&room()).await.expect("an answer");
        assert_eq!((there.connections, there.users.len(), there.users[0].1), (2, 1, 2));
        let expected = [("a", "one"), ("b", "two"), ("c", "two")].map(|(c, n)| (c.to_owned(), n.to_owned()));
        assert_eq!(connections(node).await, expected);
        let users = node.presence.users(Some("ann"), 10).await.expect("a page");
        assert_eq!((users.total, users.items.len(), users.next), (2, 1, None));
        let names = node.presence.nodes().await.expect("an answer").into_iter();
        let names: Vec<_> = names.map(|node| (node.node.expect("a name"), node.connections)).collect();
        assert_eq!(names, [("one".to_owned(), 1), ("two".to_owned(), 2)]);
    }
    one.presence.depart("a");
    assert_eq!(online_now(&*one.presence, "ann").await.expect("still there").connections, 1);
    two.presence.depart("b");
    world.wait_for_told(&[online("ann"), online("bob"), offline("ann")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_once_and_in_order_however_nodes_cross() {
    let world = World::new(shared_url()).await;
    let nodes = [world.node("one").await, world.node("two").await, world.node("three").await];
    let seed = seed();
    let devices = (0..9).map(|device| {
        let presence = nodes[device % 3].presence.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed + device as u64);
            for n in 0..40 {
                let (connection, name) = (format!("{device}.{n}"), format!("user{}", random.u8(..3)));
                arrive(&*presence, &connection, &name);
                if random.u8(..4) == 0 {
                    // So that others see it, too.
                    presence.counts().await.expect("an answer");
                }
                presence.depart(&connection);
            }
        })
    });
    for device in devices.collect::<Vec<_>>() {
        device.await.expect("a device ends");
    }
    for node in &nodes {
        counts(node).await;
    }
    arrive(&*nodes[0].presence, "last", "zoe");
    wait_until("all is told", async || world.told().await.contains(&online("zoe"))).await;
    let mut last: BTreeMap<String, bool> = BTreeMap::new();
    for (name, event, _) in world.told().await {
        let now = event == "user:online";
        assert_ne!(last.insert(name.clone(), now).unwrap_or(false), now, "{name} changed to what it was");
    }
    assert!(last.iter().all(|(name, online)| *online == (name == "zoe")), "{last:?}");
    assert_eq!(counts(&nodes[1]).await, Counts { connections: 1, users: 1, rooms: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_killed_node_have_left_within_two_leases() {
    let world = World::new(shared_url()).await;
    let (one, two, three) = (world.node("one").await, world.node("two").await, world.node("three").await);
    arrive(&*one.presence, "a", "ann");
    one.presence.enter("a", &room());
    arrive(&*one.presence, "b", "bob");
    world.wait_for_told(&[online("ann"), online("bob")]).await;
    arrive(&*two.presence, "c", "bob");
    assert_eq!(counts(&two).await, Counts { connections: 3, users: 2, rooms: 1 });
    let killed = Instant::now();
    one.kill();
    world.wait_for_told(&[online("ann"), online("bob"), offline("ann")]).await;
    assert!(killed.elapsed() <= 2 * LEASE, "after {:?}", killed.elapsed());
    for node in [&two, &three] {
        assert_eq!(counts(node).await, Counts { connections: 1, users: 1, rooms: 0 });
        assert_eq!(online_now(&*node.presence, "bob").await.expect("still there").connections, 1);
        assert_eq!(node.presence.room(&room()).await.expect("an answer").connections, 0);
        assert_eq!(connections(node).await, [("c".to_owned(), "two".to_owned())]);
    }
    // Both of the others noticed; a second one would be told by now.
    wait_until("a lease passes", async || killed.elapsed() > 3 * LEASE).await;
    assert_eq!(world.told().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_node_that_stops_in_good_order_have_left_at_once() {
    let world = World::new(shared_url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    arrive(&*one.presence, "a", "ann");
    world.wait_for_told(&[online("ann")]).await;
    one.stop().await;
    assert_eq!(world.told().await, [online("ann"), offline("ann")]);
    assert_eq!(counts(&two).await, Counts::default());
    assert!(connections(&two).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_under_its_name_takes_its_own_past_out() {
    let world = World::new(shared_url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    for n in 0..300 {
        one.presence.arrive(arrival(&format!("a{n}"), Some(&format!("user{n}")), Arc::default()));
        one.presence.enter(&format!("a{n}"), &channel(&format!("plain-{n}")));
    }
    assert_eq!(counts(&one).await, Counts { connections: 300, users: 300, rooms: 300 });
    one.kill();
    let one = world.node("one").await;
    arrive(&*one.presence, "b", "user0");
    assert_eq!(counts(&one).await, Counts { connections: 1, users: 1, rooms: 0 });
    assert_eq!(connections(&two).await, [("b".to_owned(), "one".to_owned())]);
    assert_eq!(two.presence.room(&channel("plain-7")).await.expect("an answer").connections, 0);
    wait_until("all is told", async || world.told().await.len() >= 601).await;
    let told = world.told().await;
    let of_the_first: Vec<_> = told.iter().filter(|told| told.0 == "user0").cloned().collect();
    assert_eq!(of_the_first, [online("user0"), offline("user0"), online("user0")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_taken_for_dead_comes_back_with_what_it_has() {
    let world = World::new(shared_url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    arrive(&*one.presence, "a", "ann");
    one.presence.enter("a", &room());
    world.wait_for_told(&[online("ann")]).await;
    let paused = one.pause();
    world.wait_for_told(&[online("ann"), offline("ann")]).await;
    assert_eq!(counts(&two).await, Counts::default());
    // While nobody knows of it, it goes on: what comes and goes meanwhile is told after its return.
    arrive(&*one.presence, "b", "bob");
    drop(paused);
    wait_until("it is back", async || world.told().await.len() >= 4).await;
    let mut told = world.told().await;
    told[2..].sort();
    assert_eq!(told, [online("ann"), offline("ann"), online("ann"), online("bob")]);
    let all = Counts { connections: 2, users: 2, rooms: 1 };
    wait_until("all is known again", async || counts(&two).await == all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_lost_is_written_again() {
    let mut server = RedisServer::start();
    let world = World::new(server.url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    arrive(&*one.presence, "a", "ann");
    one.presence.enter("a", &room());
    counts(&one).await;
    arrive(&*two.presence, "b", "bob");
    world.wait_for_told(&[online("ann"), online("bob")]).await;
    server.kill();
    // It waits for nobody: neither for Redis nor for the other nodes.
    one.presence.arrive(arrival("c", None, Arc::default()));
    one.presence.depart("none");
    server.restart_empty();
    let all = Counts { connections: 3, users: 2, rooms: 1 };
    for node in [&one, &two] {
        wait_until("all is known again", async || node.presence.counts().await.ok() == Some(all)).await;
    }
    let names = connections(&two).await;
    assert_eq!(names.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    two.presence.depart("b");
    wait_until("it goes on", async || world.told().await.last() == Some(&offline("bob"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_because_redis_was_away() {
    let mut server = RedisServer::start();
    let world = World::new(server.url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    arrive(&*one.presence, "a", "ann");
    counts(&one).await;
    arrive(&*two.presence, "b", "bob");
    world.wait_for_told(&[online("ann"), online("bob")]).await;
    counts(&one).await;

    // Longer than any lease.
    server.pause();
    tokio::time::sleep(LEASE * 2).await;
    assert!(one.presence.counts().await.is_err(), "it is not known what the others have");
    server.resume();
    let both = Counts { connections: 2, users: 2, rooms: 0 };
    wait_until("it is back", async || one.presence.counts().await.ok() == Some(both)).await;

    server.kill();
    // All that happens meanwhile is told afterwards, in its order.
    arrive(&*one.presence, "c", "cid");
    one.presence.depart("c");
    one.presence.depart("a");
    arrive(&*one.presence, "d", "ann");
    tokio::time::sleep(LEASE * 2).await;
    server.restart();
    let cid = [online("cid"), offline("cid")];
    let ann = [online("ann"), offline("ann"), online("ann")];
    wait_until("all is told", async || world.told().await.len() >= 6).await;
    // And for a while nobody changes: longer than anybody is given to come back.
    let settled = Instant::now();
    let given = 2 * LEASE + Duration::from_secs(5);
    wait_until("nobody is waited for", async || settled.elapsed() > given).await;
    let told = world.told().await;
    let of = |name: &str| told.iter().filter(|told| told.0 == name).cloned().collect::<Vec<_>>();
    assert_eq!((of("ann"), of("bob"), of("cid")), (ann.to_vec(), vec![online("bob")], cid.to_vec()));
    assert_eq!(counts(&two).await, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_ends_connections_of_any_other() {
    let world = World::new(shared_url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let (line, dead) = (Arc::new(Thread::default()), || Arc::new(Thread { dead: true, ..Thread::default() }));
    one.presence.arrive(arrival("a", Some("ann"), line.clone()));
    one.presence.arrive(arrival("dead1", None, dead()));
    two.presence.arrive(arrival("dead2", None, dead()));
    two.presence.arrive(arrival("b", None, Arc::default()));
    counts(&one).await;
    assert_eq!(counts(&two).await.connections, 4);
    assert!(!two.presence.end("none").await.expect("an answer"));
    assert!(two.presence.end("a").await.expect("an answer"));
    assert!(!two.presence.end("a").await.expect("an answer"));
    assert_eq!(line.ended.load(Ordering::SeqCst), 1);
    assert_eq!(counts(&two).await, Counts { connections: 3, users: 0, rooms: 0 });
    assert_eq!(two.presence.end_dead().await.expect("an answer"), 2);
    assert_eq!(connections(&one).await, [("b".to_owned(), "two".to_owned())]);

    // A node that cannot answer does not hold anybody up for long.
    one.presence.arrive(arrival("c", None, Arc::default()));
    counts(&one).await;
    one.kill();
    let began = Instant::now();
    assert!(two.presence.end("c").await.is_err(), "it is not known whether it ended");
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(two.presence.end_dead().await.expect("an answer"), 0, "the others are seen to all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_everybody_is_counted_and_told_of_wherever_their_keys_are() {
    let cluster = Cluster::start();
    let world = World::new(cluster.url()).await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    for n in 0..40 {
        for (node, name) in [(&one, "one"), (&two, "two")] {
            let (connection, user) = (format!("{name}.{n:02}"), format!("user{n:02}"));
            node.presence.arrive(arrival(&connection, Some(&user), Arc::default()));
            node.presence.enter(&connection, &channel(&format!("plain-{}", n % 10)));
        }
    }
    let all = Counts { connections: 80, users: 40, rooms: 10 };
    counts(&one).await;
    assert_eq!(counts(&two).await, all);
    assert_eq!(counts(&one).await, all);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = one.presence.users(after.as_deref(), 7).await.expect("a page");
        assert_eq!(page.total, 40);
        seen.extend(page.items.into_iter().map(|user| (user.user_id.to_string(), user.connections)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted() && seen.len() == 40 && seen.iter().all(|(_, n)| *n == 2), "{seen:?}");
    let there = two.presence.room(&room()).await.expect("an answer");
    assert_eq!((there.connections, there.users.len()), (8, 4));
    assert_eq!(connections(&one).await.len(), 80);
    assert!(one.presence.end("two.00").await.expect("an answer"));
    one.kill();
    let left = |told: &[(String, String, u64)]| told.iter().filter(|told| told.1 == "user:offline").count();
    // Who is on the other node, too, stays.
    wait_until("the others are left", async || {
        two.presence.counts().await.ok() == Some(Counts { connections: 39, users: 39, rooms: 10 })
    })
    .await;
    wait_until("it is told", async || left(&world.told().await) == 1).await;
    assert_eq!(world.told().await.len(), 41);
}
