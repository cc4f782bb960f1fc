//! A broker without a store: what is measured with it has no other thread, no disk and no other heap.

use async_trait::async_trait;
use tidings::broker::{
    AppendError, AppendGroup, Appended, Broker, BrokerError, Page, PageLimit, Survey, TestPage, Top,
};
use tidings::fault::Cause;
use tidings::metrics;
use tidings::model::{ChannelName, Epoch, Position, Snapshot, TestId, TestState};
use tidings::store::StoreError;

/// A broker that says yes at once and keeps nothing.
pub(crate) struct Nowhere(Epoch);

impl Nowhere {
    /// All of whose channels are empty.
    pub(crate) fn new() -> Self {
        Self(Epoch::new("h3k9q2m7c4x1"))
    }
}

#[async_trait]
impl Broker for Nowhere {
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        let place = |group: AppendGroup| {
            // Each message by itself, as over Redis; a store of one machine counts those of a commit together.
            for append in std::iter::once(&group.first).chain(&group.mirrors) {
                metrics::published(&append.namespace.name, append.priority, 1);
            }
            let position = Position { epoch: self.0.clone(), offset: 1 };
            Ok(Appended { id: group.first.id, position, duplicate: false })
        };
        Ok(groups.into_iter().map(place).collect())
    }

    async fn begin(&self, _: Vec<Snapshot>) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn follow(&self, _: &ChannelName) -> Result<(), BrokerError> {
        Ok(())
    }

    fn unfollow(&self, _: &ChannelName) {}

    async fn top(&self, _: &ChannelName) -> Result<Top, BrokerError> {
        Ok(Top { position: Position { epoch: self.0.clone(), offset: 0 }, snapshot: None })
    }

    async fn history(&self, _: &ChannelName, _: u64, _: PageLimit) -> Result<Page, BrokerError> {
        Err(nothing())
    }

    async fn survey(&self, _: &ChannelName, _: u64, _: u64) -> Result<Survey, BrokerError> {
        Err(nothing())
    }

    async fn snapshot(&self, _: &TestId) -> Result<Option<Snapshot>, BrokerError> {
        Err(nothing())
    }

    async fn tests(&self, _: Option<TestState>, _: Option<i64>, _: usize) -> Result<TestPage, BrokerError> {
        Err(nothing())
    }

    async fn retain(&self) -> Result<bool, BrokerError> {
        Ok(false)
    }
}

fn nothing() -> BrokerError {
    BrokerError::Unavailable(Cause::new(StoreError::Closed))
}
