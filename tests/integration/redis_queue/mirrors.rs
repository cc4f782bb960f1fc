//! The channels in which all jobs are told of keep what they may, and no more.

use std::sync::Arc;

use tidings::broker::redis::RedisBroker;
use tidings::config::channels::{BUILTIN, Rules};
use tidings::queue::Queue;
use tidings::queue::redis::RedisQueue;

use super::{job, options, passed, worker};
use crate::support::history;
use crate::support::redis::{RedisServer, connect};

/// How many messages they may keep, and how much later than that they are cut.
const SIZE: u64 = 100;
const LATER: u64 = 2 * 64;

/// Where the first entry of a stream ends, and where the last one does.
fn stretch(server: &RedisServer, key: &str) -> (u64, u64) {
    let end = |command: &str, from: &str, to: &str| {
        let found = server.cli(&[command, key, from, to, "COUNT", "1"]);
        let id = found.lines().next().expect("an entry");
        id.split_once('-').expect("an id").0.parse::<u64>().expect("an offset")
    };
    (end("XRANGE", "-", "+"), end("XREVRANGE", "+", "-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_of_all_jobs_keep_what_they_may_and_no_more() {
    let server = RedisServer::start();
    let (redis, tasks) = connect(&server.url()).await;
    let rules = BUILTIN.replace("size = 10000", &format!("size = {SIZE}"));
    assert_ne!(rules, BUILTIN);
    let rules = Arc::new(Rules::parse("channels.toml", &rules).expect("rules"));
    let broker = Arc::new(RedisBroker::start(redis.clone(), rules.clone(), &tasks));
    let queue = RedisQueue::start(redis, broker.clone(), rules, options(), &tasks).await;
    for _ in 0..200 {
        queue.submit(job()).await.expect("a job");
        let claims = queue.claim(&worker("w"), &["command".to_owned()], 1).await.expect("a claim");
        queue.finish(&claims[0].lease, Vec::new(), passed()).await.expect("an end");
    }
    for name in ["queue-updates", "test-updates"] {
        let (first, last) = stretch(&server, &format!("tidings{{c:{name}}}h"));
        assert!(last >= 400, "{name}: {last}");
        assert!(first > last - SIZE - LATER, "{name}: {first} to {last} is left in Redis");
        let kept = history(&*broker, name).await;
        let offsets: Vec<_> = kept.iter().map(|message| message.position.offset).collect();
        assert_eq!(offsets, (last - SIZE + 1..=last).collect::<Vec<_>>(), "{name}");
    }
    tasks.stopping().cancel();
}
