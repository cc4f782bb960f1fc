//! Jobs that cannot be read: nobody else is the worse for one.

use std::time::Duration;

use tidings::model::{JobId, JobState, TestId};
use tidings::queue::{LeaseStatus, NewJob, Queue, QueueError, QueueOptions};

use super::{Channels, Node, job, options, passed, worker};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::wait_until;

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
    // Of those that ended, the tests are free.
    for (n, lease) in leases.iter().enumerate() {
        let test = server.cli(&["HGETALL", "tidings{q}:active"]);
        let of_job = test.lines().collect::<Vec<_>>();
        let test = of_job.chunks(2).find(|pair| pair[1] == lease.job_id.as_str()).expect("it has a test")[0];
        let again =
            node.queue.submit(NewJob { test_id: Some(TestId::parse(test).expect("an id")), ..job() }).await;
        match again {
            Err(QueueError::TestActive { job, .. }) => assert!([&none, &half].contains(&&job), "{n}"),
            again => assert!(again.is_ok() && ![&none, &half].contains(&&lease.job_id), "{n}: {again:?}"),
        }
    }
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

/// Of three that wait, and of which one is no hash: one that lacks a field, and one that is whole.
struct Damaged {
    half: JobId,
    whole: JobId,
}

impl Damaged {
    async fn new(server: &RedisServer, node: &Node) -> Self {
        let [none, half, whole] = [job(), job(), job()].map(async |new| node.submit(new).await.job_id);
        break_job(server, &none.await);
        let damaged = Self { half: half.await, whole: whole.await };
        server.cli(&["HDEL", &key_of(&damaged.half), "eseq"]);
        damaged
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_claim_of_others() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let Damaged { half, whole } = Damaged::new(&server, &node).await;
    let types = ["command".to_owned()];
    let claims = node.queue.claim(&worker("w"), &types, 10).await.expect("a claim");
    let claimed: Vec<_> = claims.iter().map(|claim| &claim.job.job_id).collect();
    assert_eq!(claimed, [&whole]);
    // What was not taken runs in no list.
    assert_eq!(server.cli(&["HGET", &key_of(&half), "state"]), "queued");
    assert_eq!(server.cli(&["ZRANGE", "tidings{q}:s:running", "0", "-1"]), whole.as_str());
    assert_eq!(server.cli(&["ZRANGE", "tidings{q}:lease", "0", "-1"]), whole.as_str());
    assert_eq!(server.cli(&["SMEMBERS", "tidings{q}:w:w"]), whole.as_str());
    assert_eq!(server.cli(&["ZCARD", "tidings{q}:s:queued"]), "2");
    assert!(node.claim("w").await.is_none(), "no claim meets them again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_look_at_others() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let mut readable = Vec::new();
    let mut first = None;
    for n in 0..5 {
        let made = node.submit(job()).await.job_id;
        first.get_or_insert(made.clone());
        if n % 2 == 0 { break_job(&server, &made) } else { readable.insert(0, made) }
    }
    for limit in 1..=6 {
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = node.queue.list(None, cursor, limit).await.expect("a page");
            assert!(page.jobs.len() <= limit);
            listed.extend(page.jobs.into_iter().map(|job| job.job_id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(listed, readable, "in pages of {limit}");
    }
    // Who asks for it by name is told that something is there.
    let refused = node.queue.get(&first.expect("a job")).await.expect_err("it cannot be read");
    assert!(
        matches!(&refused, QueueError::Unavailable(why) if why.to_string().contains("WRONGTYPE")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_spoils_no_renewal_of_others() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        node.submit(job()).await;
        leases.push(node.claim("w").await.expect("a job").lease);
    }
    break_job(&server, &leases[1].job_id);
    let last = || server.cli(&["ZSCORE", "tidings{q}:lease", leases[2].job_id.as_str()]);
    let before = last();
    wait_until("the clock goes on", async || {
        let renewed = node.queue.renew(leases.clone()).await.expect("a renewal");
        assert_eq!(renewed, [LeaseStatus::Held, LeaseStatus::Lost, LeaseStatus::Held]);
        last() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_ends_with_its_retention_and_keeps_nothing_else_alive() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let none_kept = QueueOptions { max_jobs_kept: 0, ..options() };
    let node = Node::start_with(&server.url(), &channels, none_kept).await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(node.submit(job()).await.job_id);
        let lease = node.claim("w").await.expect("a job").lease;
        node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
    }
    let alive = node.submit(job()).await.job_id;
    wait_until("everything is told", async || server.cli(&["ZCARD", "tidings{q}:out"]) == "0").await;
    break_job(&server, &jobs[0]);
    server.cli(&["HDEL", &key_of(&jobs[1]), "state"]);
    server.cli(&["DEL", &key_of(&jobs[2])]);
    // It has not ended, whatever the list says.
    server.cli(&["ZADD", "tidings{q}:ended", "1", alive.as_str()]);
    node.queue.retain().await.expect("a round");
    for list in ["tidings{q}:ended", "tidings{q}:s:completed"] {
        assert_eq!(server.cli(&["ZCARD", list]), "0", "{list}");
    }
    assert_eq!(server.cli(&["ZRANGE", "tidings{q}:all", "0", "-1"]), alive.as_str());
    assert_eq!(server.cli(&["KEYS", "tidings{q}:j:*"]), key_of(&alive));
    assert_eq!(node.claim("w").await.expect("it waits").job.job_id, alive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_keeps_no_other_news_from_being_forgotten() {
    let (server, channels) = (RedisServer::start(), Channels::new());
    let node = Node::start(&server.url(), &channels).await;
    // Nothing is told, so that all of it is forgotten together later.
    node.lose_broker(true);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(node.submit(job()).await);
    }
    break_job(&server, &jobs[1].job_id);
    node.lose_broker(false);
    wait_until("everything is told and forgotten", async || {
        node.queue.sweep().await.expect("a sweep");
        server.cli(&["ZCARD", "tidings{q}:out"]) == "0"
    })
    .await;
    for told in [&jobs[0], &jobs[2]] {
        assert_eq!(channels.told(told).await, ["queue:job:added"]);
    }
}
