//! Redis as people run it: behind Sentinels, as a cluster, with users, prefixes, databases and TLS.

use std::time::Duration;

use tidings::broker::Broker;
use tidings::model::Position;

use super::faults::Stage;
use super::{Node, hears_all};
use crate::support::redis::{Cluster, RedisServer, Watched};
use crate::support::{channel, wait_until};

const NAME: &str = "plain-1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_with_everything_is_gone_on_with() {
    let mut redis = Watched::start();
    let stage = Stage::on(&redis.url()).await;
    stage.pause().await;
    // What was acknowledged has reached the replica.
    let behind = || redis.primary.cli(&["WAIT", "1", "5000"]);
    assert_eq!(behind(), "1");
    redis.primary.kill();
    stage.go_on();
    stage.nothing_is_lost().await;
    assert!(redis.replica.cli(&["ROLE"]).starts_with("master"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_without_the_last_messages_begins_another_past() {
    let mut redis = Watched::start();
    let url = redis.url();
    let nodes = [Node::following(&url, &[NAME]).await, Node::following(&url, &[NAME]).await];
    for n in 0..10 {
        nodes[0].append(NAME, &format!("kept.{n}")).await.expect("appended");
    }
    assert_eq!(redis.primary.cli(&["WAIT", "1", "5000"]), "1");
    redis.replica.pause();
    redis.primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    let mut lost = Vec::new();
    for n in 0..5 {
        lost.push(nodes[0].append(NAME, &format!("lost.{n}")).await.expect("acknowledged by the primary"));
    }
    wait_until("it is heard", async || nodes[1].heard.of(NAME).len() == 15).await;
    redis.primary.kill();
    redis.replica.resume();
    for node in &nodes {
        wait_until("everybody is told", async || !node.heard.resets(NAME).is_empty()).await;
        let next = node.insist(NAME, "next").await;
        assert_eq!(next.offset, 11);
        assert!(!lost.contains(&next), "{next} was another message's");
    }
}

/// Channels on each node of a cluster, as many as nodes.
async fn spread(cluster: &Cluster, node: &Node) -> Vec<(String, Position)> {
    let mut found: Vec<Option<(String, Position)>> = vec![None; cluster.nodes.len()];
    for n in 0.. {
        let name = format!("plain-{n}");
        let place = node.append(&name, "first").await.expect("appended");
        let owner = cluster.place_of(&format!("tidings{{c:{name}}}m")).1;
        found[owner].get_or_insert((name, place));
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_slot_that_moves_takes_its_channel_along() {
    let cluster = Cluster::start();
    let stage = Stage::on(&cluster.url()).await;
    let (slot, from) = cluster.place_of(&format!("tidings{{c:{NAME}}}m"));
    cluster.move_slot(&slot, from, (from + 1) % 3);
    stage.progress().await;
    cluster.move_slot(&slot, (from + 1) % 3, from);
    stage.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_primary_that_becomes_a_replica_leaves_nobody_deaf() {
    let cluster = Cluster::start();
    let writer = Node::start(&cluster.url()).await;
    let names: Vec<_> = spread(&cluster, &writer).await.into_iter().map(|(name, _)| name).collect();
    let reader = Node::start(&cluster.url()).await;
    for name in &names {
        reader.broker.follow(&channel(name)).await.expect("followed");
    }
    let (own, old) = (&names[0], &cluster.nodes[0]);
    let listeners = |server: &RedisServer| {
        let counted = server.cli(&["PUBSUB", "SHARDNUMSUB", &format!("tidings{{c:{own}}}p")]);
        counted.lines().last().map(str::to_owned)
    };
    assert_eq!(listeners(old).as_deref(), Some("1"));
    let new = cluster.replica_of(0);
    // For a while nobody looks whether it still listens where it should, and the old one is a replica that works.
    assert_eq!(new.cli(&["CLUSTER", "FAILOVER"]), "OK");
    let role = |server: &RedisServer| server.cli(&["ROLE"]).lines().next().map(str::to_owned);
    wait_until("they have changed places", async || {
        role(&new).as_deref() == Some("master") && role(old).as_deref() == Some("slave")
    })
    .await;
    // Nothing else is published that would tell the reader of it.
    writer.insist(own, "after").await;
    wait_until("it is heard", async || reader.heard.of(own).last().is_some_and(|(_, id)| id == "after"))
        .await;
    wait_until("the new primary is listened to", async || listeners(&new).as_deref() == Some("1")).await;
    for name in &names {
        writer.insist(name, "last").await;
        wait_until("all are heard", async || {
            reader.heard.of(name).last().is_some_and(|(_, id)| id == "last")
        })
        .await;
        assert!(reader.heard.resets(name).is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_who_listens_to_a_replica_is_told_as_well() {
    let cluster = Cluster::start();
    let writer = Node::start(&cluster.url()).await;
    let names: Vec<_> = spread(&cluster, &writer).await.into_iter().map(|(name, _)| name).collect();
    // Nobody listens to any primary; whoever listens to a replica is not counted there.
    let replica = cluster.replica_of(0);
    let mut ear = replica.listen_to_shard(&format!("tidings{{c:{}}}p", names[0]));
    let place = writer.append(&names[0], "told").await.expect("appended");
    let heard = ear.next_containing("custom:test");
    assert!(heard.contains(&format!("{} {}", place.epoch, place.offset)), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_the_death_of_one_server_stops_only_its_own_channels() {
    let mut cluster = Cluster::start();
    let writer = Node::start(&cluster.url()).await;
    let names: Vec<_> = spread(&cluster, &writer).await.into_iter().map(|(name, _)| name).collect();
    let reader = Node::start(&cluster.url()).await;
    for name in &names {
        reader.broker.follow(&channel(name)).await.expect("followed");
        writer.append(name, "second").await.expect("appended");
        wait_until("it is heard", async || reader.heard.of(name).len() == 1).await;
    }
    cluster.nodes[2].kill();
    for (n, name) in names.iter().enumerate().take(2) {
        writer.insist(name, "third").await;
        wait_until("the others are heard", async || reader.heard.of(name).len() == 2).await;
        assert!(writer.append(&names[2], &format!("refused.{n}")).await.is_err(), "nobody has its slots");
    }
    cluster.nodes[2].restart();
    writer.insist(&names[2], "third").await;
    wait_until("it is heard again", async || {
        reader.heard.of(&names[2]).last().is_some_and(|(_, id)| id == "third")
    })
    .await;
    for name in &names {
        assert!(reader.heard.resets(name).is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_and_two_databases_know_nothing_of_each_other() {
    let server = RedisServer::start();
    let urls = ["/0", "/0?prefix=other", "/3"].map(|rest| format!("{}{rest}", server.url()));
    for url in &urls {
        let node = Node::start(url).await;
        let place = node.append(NAME, "same").await.expect("appended");
        assert_eq!(place.offset, 1, "{url}");
    }
    // Publications know no databases: what another one publishes under the same name is not taken for ours.
    let (one, other) = (Node::following(&urls[0], &[NAME]).await, Node::following(&urls[2], &[NAME]).await);
    for n in 0..5 {
        one.append(NAME, &format!("a{n}")).await.expect("appended");
        other.append(NAME, &format!("b{n}")).await.expect("appended");
    }
    hears_rest(&one, 5).await;
    hears_rest(&other, 5).await;
}

/// Waits until a node has heard exactly the messages of its channel after the first.
async fn hears_rest(node: &Node, n: usize) {
    wait_until("its own are heard", async || node.heard.of(NAME).len() >= n).await;
    let stored = crate::support::stored(&node.broker, NAME).await;
    assert_eq!(node.heard.of(NAME), stored[1..]);
    assert!(node.heard.resets(NAME).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_tls_it_is_the_same() {
    let certificates = certificates();
    let path = |name: &str| certificates.path().join(name).to_str().expect("a path").to_owned();
    let tls_port = crate::support::redis::free_port();
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-ca-cert-file",
        &path("cert.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{tls_port}");
    let ca = std::fs::read(path("cert.pem")).expect("a certificate");
    let nodes = [Node::trusting(&url, Some(ca.clone())).await, Node::trusting(&url, Some(ca)).await];
    let nodes = nodes.map(|node| node.expect("it is trusted"));
    nodes[1].broker.follow(&channel(NAME)).await.expect("followed");
    for n in 0..5 {
        nodes[0].append(NAME, &n.to_string()).await.expect("appended");
    }
    hears_all(&nodes[1], NAME).await;
    // Nobody vouches for it otherwise.
    let began = std::time::Instant::now();
    let refused = Node::trusting(&url, None).await.err().expect("it is not trusted");
    assert!(began.elapsed() < Duration::from_secs(15), "{refused}");
    assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");
}

/// A certificate for `localhost` that vouches for itself.
fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir.path())
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}
