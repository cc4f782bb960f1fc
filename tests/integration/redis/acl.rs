//! A user of Redis that may do what tidings does, and nothing else: the lines of `docs/deploy.md`.

use std::time::Duration;

use serde_json::{Map, json};
use tidings::auth::Identity;
use tidings::inbox::PageOf;
use tidings::model::{MessageId, UserId, WorkerId, now_ms};
use tidings::queue::{Ending, NewJob};
use tidings::sync::{Basis, Device, Place, Saved};

use super::Node;
use crate::conformance::presence::{arrive, online_now, user};
use crate::conformance::queue::{claim, failed, get, job, log, progress, submit};
use crate::conformance::{Backend, OnRedis};
use crate::support::redis::{Cluster, RedisServer};
use crate::support::{channel, incoming, wait_until};

/// The rights, as the documents say them.
fn rights(line: &str) -> Vec<String> {
    let documents = include_str!("../../../docs/deploy.md");
    let start = documents.find(line).unwrap_or_else(|| panic!("docs/deploy.md has no {line:?}"));
    let words = documents[start..].lines().next().expect("a line").trim_start_matches("redis-cli ");
    words.split(' ').map(|word| word.trim_matches('\'').replace(">PASSWORD", ">p@ss")).collect()
}

fn allow(server: &RedisServer, line: &str) {
    let words = rights(line);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    assert_eq!(server.cli(&words), "OK", "{words:?}");
    // Redis 7.0 does not know it, and would refuse the line.
    if !server.cli(&["COMMAND", "INFO", "client|setinfo"]).is_empty() {
        assert_eq!(server.cli(&["ACL", "SETUSER", "tidings", "+client|setinfo"]), "OK");
    }
    server.cli(&["ACL", "LOG", "RESET"]);
}

/// What was refused to anybody.
fn refused(server: &RedisServer) -> String {
    server.cli(&["ACL", "LOG"])
}

/// Does everything that there is to do once.
async fn do_everything(backend: &OnRedis) {
    let node = backend.start().await;
    queue(&node).await;
    inbox(backend, &node).await;
    presence(backend, &node).await;
    devices(backend, &node).await;
    let tests = node.broker.tests(None, None, 10).await.expect("tests");
    assert!(!tests.tests.is_empty());
    node.broker.retain().await.expect("retention");
    node.broker.ready().await.expect("it is ready");
    node.stop().await;
}

async fn queue(node: &crate::conformance::Node) {
    let worker = WorkerId::parse("w").expect("a worker");
    node.queue.join(&worker, &["command".to_owned()]).await.expect("a worker");
    let made = submit(node, NewJob { dedupe_key: Some("key".to_owned()), ..job("command") }).await;
    let lease = claim(node, "w").await.lease;
    node.queue.renew(vec![lease.clone()]).await.expect("a renewal");
    node.queue.report(&lease, vec![progress(10.0), log("x")]).await.expect("a report");
    node.queue.cancel(&made.job_id, None, None).await.expect("a wish");
    node.queue.finish(&lease, vec![progress(20.0)], Ending::Cancelled).await.expect("an end");
    node.queue.retry(&made.job_id).await.expect("once more");
    let lease = claim(node, "w").await.lease;
    node.queue.finish(&lease, Vec::new(), failed("timeout")).await.expect("an end");
    let later = NewJob { run_at: Some(now_ms() + 50), ..job("command") };
    submit(node, later).await;
    wait_until("what is due is due", async || {
        node.queue.sweep().await.expect("a sweep");
        node.queue.counts().await.expect("numbers")["scheduled"] == 0
    })
    .await;
    let passed = Ending::Passed { results: Map::new() };
    let lease = claim(node, "w").await.lease;
    node.queue.finish(&lease, Vec::new(), passed).await.expect("an end");
    get(node, &made.job_id).await;
    node.queue.list(None, None, 10).await.expect("jobs");
    node.queue.leave(&worker).await.expect("it goes");
    node.queue.retain().await.expect("retention");
}

async fn inbox(backend: &OnRedis, node: &crate::conformance::Node) {
    let inbox = backend.inbox(node, Duration::from_secs(3600));
    let (ann, name) = (UserId::parse("ann").expect("a user"), "user-notifications-ann");
    let id = |n: u32| MessageId::parse(&format!("note.{n}")).expect("an id");
    let mut places = Vec::new();
    for n in 0..3 {
        let mut sent = incoming(name, "user:notification", &json!({ "title": "x" }));
        sent.id = Some(id(n));
        places.push(
            node.publisher.publish_one(Identity::server(), sent).await.expect("a notification").position,
        );
    }
    let page = PageOf { after: None, limit: 10, bytes: usize::MAX };
    assert_eq!(inbox.unread(&ann, page).await.expect("a page").total, 3);
    assert_eq!(inbox.offline(&ann, None, page).await.expect("a page").total, 3);
    inbox.find(&id(0), 10).await.expect("a look");
    inbox.mark_read(&ann, vec![id(0)]).await.expect("read");
    inbox.confirm(&ann, vec![id(1)]).await.expect("confirmed");
    inbox.acknowledge(&ann, &places[2]).await.expect("acknowledged");
    inbox.waiting(&ann, &channel(name)).await.expect("a look");
    assert_eq!(inbox.unread_in_all().await.expect("a number"), 2);
    inbox.retain().await.expect("retention");
}

async fn presence(backend: &OnRedis, node: &crate::conformance::Node) {
    let presence = backend.presence(node);
    arrive(&*presence, "c1", "bob");
    presence.enter("c1", &channel("team-updates-1"));
    wait_until("bob is online", async || online_now(&*presence, "bob").await.is_some()).await;
    presence.users(None, 10).await.expect("users");
    presence.room(&channel("team-updates-1")).await.expect("a room");
    presence.connections(None, 10).await.expect("connections");
    presence.counts().await.expect("numbers");
    presence.nodes().await.expect("nodes");
    presence.end_dead().await.expect("an answer");
    presence.leave("c1", &channel("team-updates-1"));
    presence.depart("c1");
    wait_until("bob has left", async || online_now(&*presence, "bob").await.is_none()).await;
}

async fn devices(backend: &OnRedis, node: &crate::conformance::Node) {
    let sync = backend.sync(node, Duration::from_secs(3600));
    let name = channel("user-notifications-ann");
    let position = node.broker.top(&name).await.expect("a top").position;
    let device = Device { user_id: Some(user("ann")), client_id: "phone".into() };
    let place = Place { position, basis: Basis::Acknowledged };
    sync.save(vec![Saved { device: device.clone(), channel: name.clone(), place }]).await.expect("saved");
    assert!(sync.load(&device, &name).await.expect("a look").is_some());
    sync.retain().await.expect("retention");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_documented_rights_can_do_everything_and_nothing_else() {
    let server = RedisServer::start();
    allow(
        &server,
        "redis-cli ACL SETUSER tidings on '>PASSWORD' resetkeys resetchannels '~tidings{*' '&tidings{*' -@all +@read",
    );
    let url = format!("redis://tidings:p%40ss@127.0.0.1:{}", server.port());
    do_everything(&OnRedis::at(url.clone())).await;
    assert_eq!(refused(&server), "");
    // Keys that are none of its own are out of reach.
    let foreign = Node::trusting(&format!("{url}?prefix=foreign"), None).await;
    let denied = foreign.err().expect("it may not");
    assert!(denied.to_string().contains("ACL"), "{denied}");
    let whoami = format!("{}", server.port());
    for command in ["FLUSHALL", "KEYS *", "CONFIG GET maxmemory", "ACL LIST"] {
        let answer = std::process::Command::new("redis-cli")
            .args(["-p", &whoami, "--no-auth-warning", "--user", "tidings", "--pass", "p@ss"])
            .args(command.split(' '))
            .output()
            .expect("redis-cli runs");
        assert!(String::from_utf8_lossy(&answer.stdout).contains("NOPERM"), "{command}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_user_with_the_documented_rights_can_do_everything() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        allow(
            node,
            "redis-cli ACL SETUSER tidings on '>PASSWORD' resetkeys resetchannels '~tidings{*' '&tidings{*' -@all +cluster|slots",
        );
    }
    let url = cluster.url().replace("://", "://tidings:p%40ss@");
    do_everything(&OnRedis::at(url)).await;
    for node in &cluster.nodes {
        assert_eq!(refused(node), "");
    }
}
