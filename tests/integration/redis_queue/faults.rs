//! Redis' own bad days.

use std::time::{Duration, Instant};

use serde_json::Map;
use tidings::model::{JobId, JobState};
use tidings::queue::{Ending, LeaseStatus, NewJob, Queue, QueueError, QueueOptions};

use super::{Channels, Node, job, options, worker};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::wait_until;

fn passed() -> Ending {
    Ending::Passed { results: Map::new() }
}

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

/// What stands where a job of this queue is kept.
fn key_of(job: &JobId) -> String {
    format!("tidings{{q}}:j:{job}")
}

/// Makes something of a job that no script of ours can read.
fn break_job(server: &RedisServer, job: &JobId) {
    assert_eq!(server.cli(&["SET", &key_of(job), "no hash"]), "OK");
}

/// How many calls of scripts had one of these arguments, of the last ones.
fn calls_with(server: &RedisServer, argument: &str) -> usize {
    let log = server.cli(&["SLOWLOG", "GET", "1000"]);
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    let calls = lines.split(|line| line.eq_ignore_ascii_case("evalsha")).skip(1);
    calls.filter(|call| call.contains(&argument)).count()
}

/// Ends or submissions that go into one call of a script, because another call is under way: the first of `asked` is
/// sent, and its answer waits on the way; the others are asked for meanwhile.
async fn together<T>(
    server: &RedisServer,
    proxy: &Proxy,
    first_is_done: impl Fn() -> bool,
    asked: Vec<impl Future<Output = T>>,
) -> Vec<T> {
    // Everything that is called from now on is logged.
    for setting in [["slowlog-log-slower-than", "0"], ["slowlog-max-len", "1000"]] {
        server.cli(&["CONFIG", "SET", setting[0], setting[1]]);
    }
    server.cli(&["SLOWLOG", "RESET"]);
    let mut asked: Vec<_> = asked.into_iter().map(Box::pin).collect();
    proxy.stall_answers();
    assert!(futures_util::poll!(&mut asked[0]).is_pending());
    wait_until("the first one is done, and not answered", async || first_is_done()).await;
    for other in &mut asked[1..] {
        // It is in the queue for the next call once it has been looked at.
        assert!(futures_util::poll!(other).is_pending());
    }
    proxy.flow();
    futures_util::future::join_all(asked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_end_that_came_with_its_own() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(&format!("redis://127.0.0.1:{}", proxy.port()), &channels).await;
    let mut leases = Vec::new();
    for _ in 0..6 {
        node.submit(job()).await;
        leases.push(node.claim("w").await.expect("a job").lease);
    }
    // It brings the script, so that the next one is one command.
    let first = leases.remove(0);
    node.queue.finish(&first, Vec::new(), passed()).await.expect("an end");
    let (none, half) = (leases[2].job_id.clone(), leases[3].job_id.clone());
    break_job(&server, &none);
    // This one can be read, and fails in the midst of its end.
    server.cli(&["HDEL", &key_of(&half), "eseq"]);
    let completed = || server.cli(&["ZCARD", "tidings{q}:s:completed"]);
    let ends = leases.iter().map(|lease| node.queue.finish(lease, Vec::new(), passed())).collect();
    let ended = together(&server, &proxy, || completed() == "2", ends).await;
    assert_eq!(calls_with(&server, "passed"), 2, "one alone, and four together");
    for (lease, ended) in leases.iter().zip(ended) {
        match ended {
            Err(QueueError::Unavailable(why)) if lease.job_id == none => {
                assert!(why.to_string().contains("WRONGTYPE"), "{why}");
            }
            Err(QueueError::Unavailable(_)) if lease.job_id == half => {}
            Ok(job) if ![&none, &half].contains(&&lease.job_id) => assert_eq!(job.state, JobState::Completed),
            other => panic!("{}: {other:?}", lease.job_id),
        }
    }
    assert_eq!(completed(), "4");
    // What failed is where it was, in all lists.
    assert_eq!(server.cli(&["HGET", &key_of(&half), "state"]), "running");
    for list in ["tidings{q}:s:running", "tidings{q}:lease"] {
        assert!(!server.cli(&["ZSCORE", list, half.as_str()]).is_empty(), "{list}");
    }
    assert_eq!(server.cli(&["SISMEMBER", "tidings{q}:w:w", half.as_str()]), "1");
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:s:running"]), "2");
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:lease"]), "2");
    assert_eq!(server.cli(&["HLEN", "tidings{q}:active"]), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_submission_that_came_with_one_of_its_key() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(&format!("redis://127.0.0.1:{}", proxy.port()), &channels).await;
    let keyed = NewJob { dedupe_key: Some("key".to_owned()), ..job() };
    let broken = node.submit(keyed.clone()).await.job_id;
    break_job(&server, &broken);
    let queued = || server.cli(&["ZCARD", "tidings{q}:s:queued"]);
    let asked = [job(), job(), keyed, job()].map(|job| node.queue.submit(job)).into();
    let answers = together(&server, &proxy, || queued() == "2", asked).await;
    assert_eq!(calls_with(&server, "config"), 2, "one alone, and three together");
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(QueueError::Unavailable(why)) if n == 2 => {
                assert!(why.to_string().contains("WRONGTYPE"), "{why}")
            }
            Ok(made) if n != 2 => {
                assert!(!made.existing);
                assert_eq!(channels.told(&made.job).await, ["queue:job:added"]);
            }
            other => panic!("{n}: {other:?}"),
        }
    }
    // Nor does it keep a worker from the others.
    for _ in 0..3 {
        let lease = node.claim("w").await.expect("a job").lease;
        assert_ne!(lease.job_id, broken);
    }
    assert!(node.claim("w").await.is_none());
    assert_eq!(queued(), "1", "it still is what it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_sweep() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let short = QueueOptions { lease: Duration::from_millis(1), ..options() };
    let node = Node::start_with(&server.url(), &channels, short).await;
    let mut running = Vec::new();
    for _ in 0..4 {
        node.submit(job()).await;
        running.push(node.claim("w").await.expect("a job").job);
    }
    let [none, half, ended] = [1, 2, 3].map(|n| running[n].job_id.clone());
    break_job(&server, &none);
    server.cli(&["HDEL", &key_of(&half), "eseq"]);
    // One that runs no more, and that the list of leases names all the same.
    let ended_lease = server.cli(&["ZSCORE", "tidings{q}:lease", ended.as_str()]);
    node.queue.cancel(&ended, None, None).await.expect("a wish");
    wait_until("the lease of the first one has ended", async || {
        node.queue.sweep().await.expect("a sweep");
        node.queue.get(&running[0].job_id).await.expect("a look").expect("a job").state != JobState::Running
    })
    .await;
    wait_until("the last one is ended", async || {
        node.queue.sweep().await.expect("a sweep");
        node.queue.get(&ended).await.expect("a look").expect("a job").state == JobState::Cancelled
    })
    .await;
    let told = channels.told(&running[3]).await;
    server.cli(&["ZADD", "tidings{q}:lease", &ended_lease, ended.as_str()]);
    let swept = node.queue.sweep().await.expect("a sweep");
    assert_eq!(swept.reaped, 0);
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:lease"]), "0", "no sweep meets them again");
    assert_eq!(channels.told(&running[3]).await, told, "it ends once");
    // The first one is whole: it waits for its next attempt, and gets it.
    wait_until("the next attempt", async || {
        node.queue.sweep().await.expect("a sweep");
        node.claim("x").await.is_some_and(|claim| {
            assert_eq!((&claim.job.job_id, claim.job.attempt), (&running[0].job_id, 2));
            true
        })
    })
    .await;
    // The other lists: what a worker holds, what waits for the clock, and what is untold.
    server.cli(&["SADD", "tidings{q}:w:x", none.as_str(), ended.as_str()]);
    assert_eq!(node.queue.leave(&worker("x")).await.expect("a leave"), 1, "the first one is given back");
    assert_eq!(server.cli(&["SCARD", "tidings{q}:w:x"]), "0");
    assert_eq!(channels.told(&running[3]).await, told, "what ended is not given back");
    server.cli(&["ZADD", "tidings{q}:due", "1", none.as_str()]);
    for seq in ["1", "2"] {
        server.cli(&["ZADD", "tidings{q}:out", "1", &format!("{none} {seq}")]);
    }
    node.queue.sweep().await.expect("a sweep");
    assert_eq!(server.cli(&["ZSCORE", "tidings{q}:due", none.as_str()]), "");
    assert_eq!(server.cli(&["ZSCORE", "tidings{q}:out", &format!("{none} 1")]), "");
    assert_eq!(server.cli(&["ZSCORE", "tidings{q}:out", &format!("{none} 2")]), "");
    // Of the one that failed in its midst, nothing was changed.
    assert_eq!(server.cli(&["HGET", &key_of(&half), "state"]), "running");
    assert_eq!(server.cli(&["ZSCORE", "tidings{q}:s:running", half.as_str()]), "3");
}
