//! The queue in a cluster, where its jobs and each of their channels may be on different servers.

use serde_json::Map;
use std::sync::Arc;
use tidings::broker::Broker;
use tidings::broker::redis::RedisBroker;
use tidings::model::JobState;
use tidings::queue::redis::RedisQueue;
use tidings::queue::{Ending, Queue};
use tidings::tasks::Tasks;

use super::{job, options, worker};
use crate::support::redis::{Cluster, connect};
use crate::support::{history, in_time, read, rules, wait_until};

/// One process, all of it in the cluster.
struct Node {
    broker: Arc<RedisBroker>,
    queue: RedisQueue,
    tasks: Tasks,
}

impl Node {
    async fn start(cluster: &Cluster) -> Self {
        let (redis, tasks) = connect(&cluster.url()).await;
        let broker = Arc::new(RedisBroker::start(redis.clone(), rules(), &tasks));
        let queue = RedisQueue::start(redis, broker.clone(), rules(), options(), &tasks).await;
        Self { broker, queue, tasks }
    }

    async fn told(&self, channel: &str) -> Vec<String> {
        let told = history(&*self.broker, channel).await;
        told.iter().map(|message| read(message)["event"].as_str().expect("an event").to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_jobs_run_and_are_told_of_as_anywhere() {
    let cluster = Cluster::start();
    let (one, other) = (Node::start(&cluster).await, Node::start(&cluster).await);
    let types = ["command".to_owned()];
    for _ in 0..10 {
        let waiting = other.queue.wait_for_jobs();
        let made = one.queue.submit(job()).await.expect("a job is accepted").job;
        in_time("who waits on another node is woken", waiting).await;
        let begun = other.broker.snapshot(&made.test_id).await.expect("a look").expect("it has begun");
        assert_eq!((begun.state, begun.offset), (JobState::Queued, 0));
        let mut claims = Vec::new();
        wait_until("the job is there", async || {
            claims = other.queue.claim(&worker("w"), &types, 1).await.expect("a look");
            !claims.is_empty()
        })
        .await;
        let ending = Ending::Passed { results: Map::new() };
        other.queue.finish(&claims[0].lease, Vec::new(), ending).await.expect("an end");
        let told = one.told(&format!("job-status-{}", made.job_id)).await;
        assert_eq!(told, ["queue:job:added", "queue:job:started", "queue:job:completed"]);
        let told = one.told(&format!("test-progress-{}", made.test_id)).await;
        assert_eq!(told, ["test:started", "test:completed"]);
        let ended = one.broker.snapshot(&made.test_id).await.expect("a look").expect("a test");
        assert_eq!((ended.state, ended.offset), (JobState::Completed, 2));
    }
    assert_eq!(one.told("queue-updates").await.len(), 30);
    assert_eq!(one.told("test-history-updates").await.len(), 10);
    let listed = one.broker.tests(Some(JobState::Completed), None, 100).await.expect("a page");
    assert_eq!(listed.tests.len(), 10);
    for node in [one, other] {
        assert!(node.tasks.stop(crate::support::DEADLINE).await, "its tasks end");
    }
}
