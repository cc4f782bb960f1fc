//! A broker whose sink hears of everything that is appended through it.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use tidings::broker::{
    AppendError, AppendGroup, Appended, Broker, BrokerError, Page, PageLimit, Survey, TestPage, Top,
};
use tidings::model::{ChannelName, Snapshot, TestId, TestState};
use tokio::sync::Mutex;

/// Follows every channel before the first message is appended to it.
pub(crate) struct FollowsAll {
    broker: Arc<dyn Broker>,
    followed: Mutex<HashSet<ChannelName>>,
}

impl FollowsAll {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, followed: Mutex::default() }
    }
}

#[async_trait]
impl Broker for FollowsAll {
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        let mut channels = HashSet::new();
        for group in &groups {
            channels.insert(group.first.channel.clone());
            channels.extend(group.mirrors.iter().map(|mirror| mirror.channel.clone()));
        }
        let mut followed = self.followed.lock().await;
        for channel in channels {
            if !followed.contains(&channel) {
                self.broker.follow(&channel).await?;
                followed.insert(channel);
            }
        }
        drop(followed);
        self.broker.append(groups).await
    }

    async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError> {
        self.broker.begin(tests).await
    }

    async fn ready(&self) -> Result<(), BrokerError> {
        self.broker.ready().await
    }

    async fn follow(&self, channel: &ChannelName) -> Result<(), BrokerError> {
        self.broker.follow(channel).await
    }

    fn unfollow(&self, channel: &ChannelName) {
        self.broker.unfollow(channel);
    }

    async fn top(&self, channel: &ChannelName) -> Result<Top, BrokerError> {
        self.broker.top(channel).await
    }

    async fn history(
        &self,
        channel: &ChannelName,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        self.broker.history(channel, after, limit).await
    }

    async fn survey(&self, channel: &ChannelName, after: u64, upto: u64) -> Result<Survey, BrokerError> {
        self.broker.survey(channel, after, upto).await
    }

    async fn snapshot(&self, test: &TestId) -> Result<Option<Snapshot>, BrokerError> {
        self.broker.snapshot(test).await
    }

    async fn tests(
        &self,
        state: Option<TestState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<TestPage, BrokerError> {
        self.broker.tests(state, cursor, limit).await
    }

    async fn retain(&self) -> Result<bool, BrokerError> {
        self.broker.retain().await
    }
}
