//! What holds jobs back, where jobs, Redis or nodes are not as they should be.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidings::model::{Job, JobState, Priority, Scope};
use tidings::queue::{NewJob, Queue, QueueError, QueueOptions};

use super::{Channels, Node, job, options, passed, worker};
use crate::support::redis::RedisServer;
use crate::support::{history, read, wait_until};

fn of_suite(suite: &str) -> NewJob {
    NewJob { config: json!({ "suite": suite }).as_object().expect("an object").clone(), ..job() }
}

fn suite(name: &str) -> Scope {
    Scope::Suite(name.to_owned())
}

fn key_of(job: &Job) -> String {
    format!("tidings{{q}}:j:{}", job.job_id)
}

async fn limit(node: &Node, suite: &str, most: Option<u32>) {
    node.queue.limit_suites(&BTreeMap::from([(suite.to_owned(), most)])).await.expect("a limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_job_of_a_suite_that_cannot_be_read_keeps_no_other_suite_waiting() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    for how in ["SET", "DEL"] {
        let broken = node.submit(of_suite("a")).await;
        let healthy = node.submit(of_suite("b")).await;
        match how {
            "SET" => server.cli(&["SET", &key_of(&broken), "no hash"]),
            _ => server.cli(&["DEL", &key_of(&broken)]),
        };
        let claimed = node.claim("w").await.expect("a job of the other suite");
        assert_eq!(claimed.job.job_id, healthy.job_id, "{how}");
        assert_eq!(server.cli(&["ZCARD", "tidings{q}:r:command"]), "0", "nobody waits: {how}");
    }
    // A mark that was left before.
    server.cli(&["ZADD", "tidings{q}:r:command", "0", "/gone"]);
    let healthy = node.submit(of_suite("b")).await;
    assert_eq!(node.claim("w").await.expect("a job").job.job_id, healthy.job_id);
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:r:command"]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_that_cannot_be_read_keeps_its_place_in_the_suite_no_longer_than_its_lease() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let short = QueueOptions { lease: Duration::from_millis(50), ..options() };
    let node = Node::start_with(&server.url(), &channels, short).await;
    limit(&node, "unit", Some(1)).await;
    let lost = node.submit(of_suite("unit")).await;
    let next = node.submit(of_suite("unit")).await;
    assert_eq!(node.claim("w").await.expect("a job").job.job_id, lost.job_id);
    assert!(node.claim("w").await.is_none(), "one at once");
    server.cli(&["DEL", &key_of(&lost)]);
    wait_until("its place is free", async || {
        node.queue.sweep().await.expect("a sweep");
        node.claim("w").await.is_some_and(|claim| claim.job.job_id == next.job_id)
    })
    .await;
    // Or it was lost while there was no limit.
    limit(&node, "unit", None).await;
    server.cli(&["SADD", "tidings{q}:l:command/unit", lost.job_id.as_str()]);
    let lease = node.queue.get(&next.job_id).await.expect("a look").expect("a job");
    assert_eq!(lease.state, JobState::Running);
    limit(&node, "unit", Some(2)).await;
    assert_eq!(server.cli(&["SMEMBERS", "tidings{q}:l:command/unit"]), next.job_id.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suite_can_be_held_back_in_a_redis_without_room() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1000000"]), "OK");
    let refused = node.queue.submit(job()).await.expect_err("there is no room");
    assert!(matches!(refused, QueueError::Full(_)), "{refused}");
    limit(&node, "unit", Some(1)).await;
    limit(&node, "unit", None).await;
    assert!(node.queue.pause(&suite("unit"), None, None).await.expect("a pause").1);
    assert!(node.queue.unpause(&suite("unit"), None).await.expect("a resumption").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_from_before_suites_had_lanes_waits_with_its_suite() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let made = node.submit(of_suite("unit")).await;
        server.cli(&["HDEL", &key_of(&made), "lane"]);
        server.cli(&["ZREM", "tidings{q}:r:command/unit", made.job_id.as_str()]);
        server.cli(&["ZADD", "tidings{q}:r:command", &made.created_at.to_string(), made.job_id.as_str()]);
        jobs.push(made);
    }
    server.cli(&["ZREM", "tidings{q}:r:command", "/unit"]);
    node.queue.pause(&suite("unit"), None, None).await.expect("a pause");
    // Whatever is done with one: it stands in one place.
    node.queue.cancel(&jobs[0].job_id, None, None).await.expect("cancelled");
    node.queue.prioritise(&jobs[2].job_id, Priority::Critical).await.expect("the first one now");
    assert_eq!(server.cli(&["ZRANGE", "tidings{q}:r:command", "0", "-1"]), jobs[1].job_id.as_str());
    let types = ["command".to_owned()];
    assert!(node.queue.claim(&worker("w"), &types, 9).await.expect("a look").is_empty(), "it is paused");
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:r:command"]), "0");
    limit(&node, "unit", Some(1)).await;
    node.queue.unpause(&suite("unit"), None).await.expect("a resumption");
    for made in [&jobs[2], &jobs[1]] {
        let claims = node.queue.claim(&worker("w"), &types, 9).await.expect("a look");
        assert_eq!(claims.len(), 1, "one at once");
        assert_eq!(claims[0].job.job_id, made.job_id);
        node.queue.finish(&claims[0].lease, Vec::new(), passed()).await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_priority_is_refused_while_too_much_of_the_job_is_untold() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let made = node.submit(job()).await;
    let mut untold = vec!["HSET".to_owned(), key_of(&made)];
    untold.extend((0..1000).flat_map(|n| [format!("o:{n}"), "x".to_owned()]));
    let untold: Vec<&str> = untold.iter().map(String::as_str).collect();
    server.cli(&untold);
    let refused = node.queue.prioritise(&made.job_id, Priority::Critical).await.expect_err("too much");
    assert!(refused.to_string().contains("have not been told yet"), "{refused}");
    assert_eq!(server.cli(&["HGET", &key_of(&made), "prio"]), made.priority.number().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_its_node_could_not_tell_is_told_before_its_resumption() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let [a, b] = [Node::start(&server.url(), &channels).await, Node::start(&server.url(), &channels).await];
    a.lose_broker(true);
    a.queue.pause(&suite("unit"), None, None).await.expect("a pause");
    a.queue.pause(&Scope::All, None, None).await.expect("another one");
    b.queue.unpause(&suite("unit"), None).await.expect("a resumption");
    let told = async || {
        let all = history(&*channels.broker, "queue-updates").await;
        all.iter().map(|message| read(message)["event"].as_str().expect("an event").to_owned()).collect()
    };
    let events: Vec<String> = told().await;
    assert_eq!(events, ["queue:paused", "queue:resumed"]);
    assert_eq!(server.cli(&["HLEN", "tidings{q}:news"]), "1", "the other one is still to be told");
    // Nor is it told ahead of a pause that could not be told either.
    b.lose_broker(true);
    b.queue.unpause(&Scope::All, None).await.expect("a resumption");
    assert_eq!(server.cli(&["HLEN", "tidings{q}:news"]), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_another_node_took_away_stays_away_until_redis_loses_all() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let [a, b] = [Node::start(&server.url(), &channels).await, Node::start(&server.url(), &channels).await];
    let sweep = async || a.queue.sweep().await.map(drop).expect("a sweep");
    let kept = || server.cli(&["HGET", "tidings{q}:limits", "command/unit"]);
    limit(&a, "unit", Some(1)).await;
    sweep().await;
    limit(&b, "unit", None).await;
    a.submit(job()).await;
    sweep().await;
    assert_eq!(kept(), "");
    // The last change of limits is lost, and no job; or everything is.
    limit(&a, "unit", Some(1)).await;
    let before = server.cli(&["GET", "tidings{q}:limited"]);
    limit(&a, "unit", Some(1)).await;
    assert_eq!(server.cli(&["HDEL", "tidings{q}:limits", "command/unit"]), "1");
    assert_eq!(server.cli(&["SET", "tidings{q}:limited", &before]), "OK");
    sweep().await;
    assert_eq!(kept(), "1");
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    sweep().await;
    assert_eq!(kept(), "1");
}
