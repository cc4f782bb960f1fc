//! Schedules over several nodes that share a Redis.

use std::sync::Arc;

use tidings::config::reload::Reload;
use tidings::config::settings::Settings;
use tidings::model::JobState;
use tidings::schedules::Schedules;

use crate::conformance::{Backend as _, Node, OnRedis};
use crate::support::redis::shared_url;
use crate::support::{rules, wait_until};

/// A node that submits a job each second.
async fn node(url: &str) -> Node {
    let node = OnRedis::at(url.to_owned()).start().await;
    let mut settings = Settings::default();
    let schedule = toml::from_str("cron = '* * * * * *'\ntest_type = 'ticks'").expect("a schedule");
    settings.schedules.insert("ticks".to_owned(), schedule);
    let reload = Reload::new(settings.clone(), rules());
    Schedules::of(&settings, &reload).start(Arc::clone(&node.queue), &node.tasks);
    node
}

/// The ticks that were fired, newest first; one that was fired twice stands there twice.
async fn ticks(node: &Node) -> Vec<i64> {
    let jobs = node.queue.list(None, None, 1000).await.expect("a list").jobs;
    let keys = jobs.iter().map(|job| job.dedupe_key.as_deref().expect("a key"));
    keys.map(|key| key.rsplit(':').next().expect("a tick").parse().expect("a number")).collect()
}

/// It takes some seconds: ticks are whole seconds apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_is_fired_once_by_three_nodes_of_which_one_dies() {
    let url = shared_url();
    let (first, second, third) = (node(&url).await, node(&url).await, node(&url).await);
    wait_until("two ticks are fired", async || ticks(&first).await.len() >= 2).await;
    drop(second);
    // What ended is no reason to fire again.
    let worker = "w".parse().expect("a worker");
    for claim in first.queue.claim(&worker, &["ticks".to_owned()], 1).await.expect("a claim") {
        let passed = tidings::queue::Ending::Passed { results: serde_json::Map::new() };
        let ended = third.queue.finish(&claim.lease, Vec::new(), passed).await.expect("an end");
        assert_eq!(ended.state, JobState::Completed);
    }
    wait_until("five ticks are fired", async || ticks(&third).await.len() >= 5).await;
    let mut fired = ticks(&third).await;
    fired.sort_unstable();
    let expected: Vec<i64> = (0..fired.len()).map(|n| fired[0] + 1000 * n as i64).collect();
    assert_eq!(fired, expected);
}
