//! Redis' own bad days.

use std::time::{Duration, Instant};

use tidings::model::JobState;
use tidings::queue::{LeaseStatus, Queue, QueueError};

use super::{Channels, Node, job, passed, worker};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_with_its_data_has_lost_nothing() {
    // Else up to two seconds may be lost where the disk is slow.
    let mut server = RedisServer::start_with(&["--appendfsync", "always"]);
    let channels = Channels::new();
    let node = Node::start(&server.url(), &channels).await;
    let running = node.submit(job()).await;
    let lease = node.claim("w").await.expect("a job").lease;
    let waiting = node.submit(job()).await;
    server.kill();
    let began = Instant::now();
    let refused = node.queue.finish(&lease, Vec::new(), passed()).await.expect_err("there is no Redis");
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    let refused = node.queue.submit(job()).await.expect_err("there is no Redis");
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(10), "nobody waits for ever");
    server.restart();
    wait_until("the end is taken", async || node.queue.finish(&lease, Vec::new(), passed()).await.is_ok())
        .await;
    let found = node.queue.get(&running.job_id).await.expect("a look").expect("it is there");
    assert_eq!(found.state, JobState::Completed);
    assert_eq!(channels.told(&running).await.last().expect("an end"), "queue:job:completed");
    assert_eq!(node.claim("w").await.expect("it waited").job.job_id, waiting.job_id);
    // What wakes is heard again, too.
    wait_until("a job is heard of", async || {
        node.submit(job()).await;
        let woken = tokio::time::timeout(Duration::from_millis(100), node.queue.wait_for_jobs()).await;
        while node.claim("w").await.is_some() {}
        woken.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_takes_new_jobs_and_knows_no_old_lease() {
    let (mut server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    node.queue.sweep().await.expect("a sweep");
    let lost = node.submit(job()).await;
    let lease = node.claim("w").await.expect("a job").lease;
    server.kill();
    server.restart_empty();
    wait_until("the lease is lost", async || {
        node.queue.renew(vec![lease.clone()]).await.is_ok_and(|statuses| statuses == [LeaseStatus::Lost])
    })
    .await;
    let refused = node.queue.finish(&lease, Vec::new(), passed()).await.expect_err("nobody knows it");
    assert!(matches!(refused, QueueError::LeaseLost { .. }), "{refused}");
    assert!(node.queue.get(&lost.job_id).await.expect("a look").is_none());
    node.queue.sweep().await.expect("a sweep");
    let made = node.submit(job()).await;
    let lease = node.claim("w").await.expect("a job").lease;
    assert_eq!(node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end").job_id, made.job_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_takes_no_new_jobs_but_every_end() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let made = node.submit(job()).await;
    let lease = node.claim("w").await.expect("a job").lease;
    node.submit(job()).await;
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1000000"]), "OK");
    let refused = node.queue.submit(job()).await.expect_err("there is no room");
    assert!(matches!(refused, QueueError::Full(_)), "{refused}");
    let types = ["command".to_owned()];
    let refused = node.queue.claim(&worker("w"), &types, 1).await.expect_err("there is no room");
    assert!(matches!(refused, QueueError::Full(_)), "{refused}");
    assert_eq!(node.queue.renew(vec![lease.clone()]).await.expect("a renewal"), [LeaseStatus::Held]);
    assert_eq!(
        node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end").state,
        JobState::Completed
    );
    assert_eq!(channels.told(&made).await.last().expect("an end"), "queue:job:completed");
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert!(node.claim("w").await.is_some(), "it waited");
    node.submit(job()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_was_lost_is_asked_for_again_and_no_job_waits_for_its_lease() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(&format!("redis://127.0.0.1:{}", proxy.port()), &channels).await;
    node.queue.join(&worker("w"), &["command".to_owned()]).await.expect("a worker joins");
    // The first claim brings the script, so that the second one is one command.
    node.submit(job()).await;
    let first = node.claim("w").await.expect("a job").lease;
    let made = node.submit(job()).await;
    let running = || server.cli(&["ZCARD", "tidings{q}:s:running"]);
    assert_eq!(running(), "1");
    proxy.stall_answers();
    let types = ["command".to_owned()];
    let lost = node.queue.claim(&worker("w"), &types, 1).await.expect_err("its answer does not come");
    assert!(matches!(lost, QueueError::Unavailable(_)), "{lost}");
    assert_eq!(running(), "2", "the claim was made, and nobody knows of it");
    // One that nobody can read is among those that the worker holds.
    server.cli(&["SET", "tidings{q}:j:broken", "no hash"]);
    server.cli(&["SADD", "tidings{q}:w:w", "broken"]);
    proxy.flow();
    let mut again = None;
    wait_until("the worker is told what it has", async || {
        // The first looks may come before the connection is made anew.
        again = node.queue.claim(&worker("w"), &types, 1).await.ok().and_then(|mut claims| claims.pop());
        again.is_some()
    })
    .await;
    let again = again.expect("a claim");
    assert_eq!((&again.job.job_id, again.lease.attempt), (&made.job_id, 1), "not a second attempt");
    let leases = vec![first, again.lease];
    assert_eq!(
        node.queue.renew(leases.clone()).await.expect("a look"),
        [LeaseStatus::Held, LeaseStatus::Held]
    );
    assert!(node.claim("w").await.is_none(), "nothing is claimed twice");
    for lease in &leases {
        node.queue.finish(lease, Vec::new(), passed()).await.expect("an end");
    }
    let told = channels.told(&made).await;
    assert_eq!(told, ["queue:job:added", "queue:job:started", "queue:job:completed"]);
}
