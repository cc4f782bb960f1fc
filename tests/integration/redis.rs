//! Redis itself: the ground that its back ends stand on, and what they do when it fails.

mod acl;
mod broker;
mod deployments;
mod faults;
mod ground;
mod inbox;
mod layouts;
mod presence;
mod quota;
mod revocation;
mod short;

use std::sync::Arc;
use std::time::Duration;

use tidings::broker::redis::RedisBroker;
use tidings::broker::{AppendGroup, Broker, BrokerError, Top};
use tidings::model::{Position, now_ms};
use tidings::redis::{Redis, RedisFault, RedisOptions, RedisUrl};
use tidings::tasks::Tasks;
use tokio_util::sync::DropGuard;

use crate::support::redis::connect;
use crate::support::{Recorder, append, channel, message, rules, stored, wait_until};

/// A server's view of the channels.
struct Node {
    broker: RedisBroker,
    heard: Arc<Recorder>,
    // Ends the tasks.
    _end: DropGuard,
}

impl Node {
    async fn start(url: &str) -> Self {
        let (redis, tasks) = connect(url).await;
        Self::on(redis, &tasks)
    }

    fn on(redis: Redis, tasks: &Tasks) -> Self {
        let broker = RedisBroker::start(redis, rules(), tasks);
        let heard = Arc::new(Recorder::default());
        broker.connect(heard.clone());
        let _end = tasks.stopping().clone().drop_guard();
        Self { broker, heard, _end }
    }

    /// With these certificates in place of the system's.
    async fn trusting(url: &str, ca: Option<Vec<u8>>) -> Result<Self, RedisFault> {
        let tasks = Tasks::new();
        let mut options = RedisOptions::new(RedisUrl::parse(url).expect("a URL"));
        options.ca = ca;
        let redis = Redis::connect(options, &tasks).await?;
        Ok(Self::on(redis, &tasks))
    }

    async fn following(url: &str, names: &[&str]) -> Self {
        let node = Self::start(url).await;
        for name in names {
            node.broker.follow(&channel(name)).await.expect("it is followed");
        }
        node
    }

    async fn append(&self, name: &str, id: &str) -> Result<Position, BrokerError> {
        let answer = self.broker.append(vec![message(&rules(), name, id)]).await?.remove(0);
        Ok(answer.expect("nothing refuses a custom message").position)
    }

    /// Appends messages of `bytes` each, all at once.
    async fn append_all(&self, name: &str, ids: &[String], bytes: usize) {
        let data = "x".repeat(bytes).into();
        let group = |id: &String| AppendGroup {
            first: append(&rules(), name, id, &data, now_ms()),
            mirrors: Vec::new(),
        };
        let groups = ids.iter().map(group).collect();
        for answer in self.broker.append(groups).await.expect("an append") {
            answer.expect("nothing refuses a custom message");
        }
    }

    /// Sends it until it is acknowledged, as clients do.
    async fn insist(&self, name: &str, id: &str) -> Position {
        loop {
            match self.append(name, id).await {
                Ok(position) => return position,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn top(&self, name: &str) -> Top {
        self.broker.top(&channel(name)).await.expect("a top")
    }
}

/// Waits until a node has heard exactly what the channel holds.
async fn hears_all(node: &Node, name: &str) {
    wait_until("everything is heard, once and in order", async || {
        node.broker.top(&channel(name)).await.is_ok() && {
            let heard = node.heard.of(name);
            heard == stored(&node.broker, name).await
        }
    })
    .await;
}
