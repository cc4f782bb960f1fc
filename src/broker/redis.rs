//! The broker on Redis: channels that many servers share.
//!
//! A message is appended by one script, which also publishes it (`append.rs`, `append.lua`). What other nodes append
//! is heard by subscription and put in order by the follower (`follow.rs`, `follower.rs`). Keys of a channel share a
//! hash tag; the store is looked at again (`core.rs`) whenever it may have gone back.

mod append;
mod begin;
mod core;
mod follow;
mod follower;
mod read;
mod recall;
mod record;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::core::Core;
use super::{
    AppendError, AppendGroup, Appended, Broker, BrokerError, LiveSink, Page, PageLimit, Survey, TestPage, Top,
};
use crate::config::channels::Rules;
use crate::model::{ChannelName, Snapshot, TestId, TestState};
use crate::redis::{Redis, Status};
use crate::tasks::Tasks;
use follow::Follow;

/// The pause before a look at Redis that failed is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Channels in Redis.
#[derive(Clone)]
pub struct RedisBroker {
    core: Arc<Core>,
    follow: Arc<Follow>,
}

impl std::fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBroker").field("redis", &self.core.redis.options().url).finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// The broker on `redis`, whose tasks listen to what other nodes publish and look after what Redis may lose.
    #[must_use]
    pub fn start(redis: Redis, rules: Arc<Rules>, tasks: &Tasks) -> Self {
        let core = Arc::new(Core::new(redis, rules));
        let follow = Follow::start(core.clone(), tasks);
        tasks.spawn("redis-broker-guard", guard(core.clone()));
        Self { core, follow }
    }

    /// Hands in the sink. Only the first one counts; messages appended before it are not told live.
    pub fn connect(&self, sink: Arc<dyn LiveSink>) {
        self.follow.connect(sink);
    }
}

/// Looks, whenever Redis is another one than before or was not heard for a while, whether it has what this node was
/// told that it has.
async fn guard(core: Arc<Core>) {
    let mut status = core.redis.status();
    let (mut seen, mut unsure) = (None, false);
    loop {
        let now = match &*status.borrow_and_update() {
            Status::Up(incarnation) => Some(incarnation.clone()),
            Status::Down(_) => None,
        };
        let pause = match now {
            Some(now) if seen.as_ref() == Some(&now) => None,
            Some(now) if (seen.is_none() && !unsure) || look_at_tops(&core).await => {
                (seen, unsure) = (Some(now), false);
                None
            }
            Some(_) => Some(LOOK_AGAIN),
            None => None,
        };
        let again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = again => {}
            // In a cluster one of its servers may have been replaced.
            () = core.suspicion.notified(), if pause.is_none() => {
                if !look_at_tops(&core).await {
                    seen = None;
                    unsure = true;
                }
            }
        }
    }
}

/// Whether all channels could be looked at.
async fn look_at_tops(core: &Core) -> bool {
    for (channel, known) in core.tops.all() {
        match core.check(&channel, &known).await {
            Ok((epoch, _)) if epoch != known.epoch => core.tops.remove(&channel),
            Ok(_) => {}
            Err(fault) => {
                tracing::debug!(%fault, "what Redis has cannot be looked at yet");
                return false;
            }
        }
    }
    true
}

#[async_trait]
impl Broker for RedisBroker {
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        self.core.recall(&groups).await?;
        let outcome = self.core.append(&groups, self.follow.wants()).await?;
        self.follow.tell(outcome.told).await;
        Ok(outcome.answers)
    }

    async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError> {
        self.core.begin(tests).await
    }

    async fn ready(&self) -> Result<(), BrokerError> {
        self.follow.ready()?;
        Ok(self.core.redis.query::<()>(&::redis::cmd("PING")).await?)
    }

    async fn follow(&self, channel: &ChannelName) -> Result<(), BrokerError> {
        self.follow.follow(channel).await
    }

    fn unfollow(&self, channel: &ChannelName) {
        self.follow.unfollow(channel);
    }

    async fn top(&self, channel: &ChannelName) -> Result<Top, BrokerError> {
        self.core.top(channel).await
    }

    async fn history(
        &self,
        channel: &ChannelName,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        self.core.history(channel, after, limit).await
    }

    async fn survey(&self, channel: &ChannelName, after: u64, upto: u64) -> Result<Survey, BrokerError> {
        self.core.survey(channel, after, upto).await
    }

    async fn snapshot(&self, test: &TestId) -> Result<Option<Snapshot>, BrokerError> {
        self.core.snapshot(test).await
    }

    async fn tests(
        &self,
        state: Option<TestState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<TestPage, BrokerError> {
        self.core.tests(state, cursor, limit).await
    }

    async fn retain(&self) -> Result<bool, BrokerError> {
        // Appends trim their own channels, and keys have lives; only the index of tests is swept.
        self.core.retain().await
    }
}
