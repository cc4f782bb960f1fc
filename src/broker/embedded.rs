//! The broker of one machine: channels, history and snapshots as tables of the embedded store.

mod append;
mod read;
mod retain;
mod snapshot;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;

pub(crate) use append::Appender;
pub(crate) use snapshot::save_snapshot;

use append::KnownRows;

use super::{
    Append, AppendError, AppendGroup, Appended, Broker, BrokerError, LiveSink, Page, PageLimit, Survey,
    TestPage, Top,
};
use crate::config::channels::{Namespace, Rules};
use crate::fault::Fault;
use crate::metrics;
use crate::model::{ChannelName, Position, Priority, Published, Snapshot, TestId, TestState, now_ms};
use crate::store::{Store, StoreError, WriteTx};

/// The live side of the embedded store: every transaction that appends messages tells it of them.
#[derive(Clone, Default)]
pub struct Live(Arc<OnceLock<Arc<dyn LiveSink>>>);

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    /// Hands in the sink. Only the first one counts; messages appended before it are not told live.
    pub fn connect(&self, sink: Arc<dyn LiveSink>) {
        let _ = self.0.set(sink);
    }

    /// Tells of what was appended once the transaction is committed.
    pub(crate) fn tell_after_commit(&self, tx: &mut WriteTx<'_>, told: Told) {
        let Told { messages, counts } = told;
        if messages.is_empty() {
            return;
        }
        let sink = self.0.get().cloned();
        tx.after_commit(move || {
            for (namespace, priority, n) in &counts {
                metrics::published(&namespace.name, *priority, *n);
            }
            if let Some(sink) = sink {
                sink.published(messages);
            }
        });
    }
}

/// What a transaction appended so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    messages: Vec<Arc<Published>>,
    /// How many of them there are of each kind: a metric is looked up once for all of them.
    counts: Vec<(Arc<Namespace>, Priority, u64)>,
}

impl Told {
    fn push(&mut self, message: &Append, position: Position) {
        let published = Published::new(
            message.channel.clone(),
            position,
            message.event.clone(),
            message.priority,
            message.timestamp_ms,
            message.conflation_key.clone(),
            message.open.clone(),
        );
        self.messages.push(Arc::new(published));
        let Append { namespace, priority, .. } = message;
        let counted = self.counts.iter_mut().find(|(n, p, _)| Arc::ptr_eq(n, namespace) && p == priority);
        match counted {
            Some((_, _, n)) => *n += 1,
            None => self.counts.push((namespace.clone(), *priority, 1)),
        }
    }
}

/// Channels in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedBroker {
    store: Store,
    rules: Arc<Rules>,
    live: Live,
    /// Taken by the writer for each append.
    known: Arc<Mutex<KnownRows>>,
}

impl EmbeddedBroker {
    /// The broker on `store`, which tells `live` of every message.
    #[must_use]
    pub fn new(store: Store, rules: Arc<Rules>, live: Live) -> Self {
        Self { store, rules, live, known: Arc::default() }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        let (live, known) = (self.live.clone(), self.known.clone());
        let answer = self.store.write(move |tx| {
            let mut told = Told::default();
            let mut answers = Vec::with_capacity(groups.len());
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let mut appender = Appender::knowing(tx, std::mem::take(&mut *known));
            for group in &groups {
                answers.push(appender.append(group, &mut told)?);
            }
            *known = appender.finish();
            live.tell_after_commit(tx, told);
            Ok(answers)
        });
        Ok(answer.await?)
    }

    async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError> {
        let begun =
            self.store.write(move |tx| tests.iter().try_for_each(|test| snapshot::begin(tx, test, now_ms())));
        Ok(begun.await?)
    }

    async fn ready(&self) -> Result<(), BrokerError> {
        let one = self.store.read(|conn| conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)));
        Ok(one.await.map(drop)?)
    }

    async fn follow(&self, _: &ChannelName) -> Result<(), BrokerError> {
        // The sink hears of everything that is committed.
        Ok(())
    }

    fn unfollow(&self, _: &ChannelName) {}

    async fn top(&self, channel: &ChannelName) -> Result<Top, BrokerError> {
        let (name, test) = (channel.clone(), read::test_of(&self.rules, channel));
        let found = self.store.read_places(move |tx| read::top(tx, &name, test.as_ref())).await?;
        if let Some(top) = found {
            return Ok(top);
        }
        let name = channel.clone();
        self.store.write(move |tx| tx.ensure_channel(&name, now_ms()).map(drop)).await?;
        let (name, test) = (channel.clone(), read::test_of(&self.rules, channel));
        let made = self.store.read_places(move |tx| read::top(tx, &name, test.as_ref())).await?;
        made.ok_or_else(|| StoreError::Closed.into())
    }

    async fn history(
        &self,
        channel: &ChannelName,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let history = self.rules.resolve(channel.as_str()).map(|r| r.namespace.history);
        let name = channel.clone();
        let found = self.store.read_places(move |tx| read::history(tx, &name, history, after, limit)).await?;
        if let Some(page) = found {
            return Ok(page);
        }
        let Top { position, .. } = self.top(channel).await?;
        Ok(Page {
            messages: Vec::new(),
            epoch: position.epoch,
            top: position.offset,
            oldest: position.offset + 1,
        })
    }

    async fn survey(&self, channel: &ChannelName, after: u64, upto: u64) -> Result<Survey, BrokerError> {
        let name = channel.clone();
        Ok(self.store.read_places(move |tx| read::survey(tx, &name, after, upto)).await?)
    }

    async fn snapshot(&self, test: &TestId) -> Result<Option<Snapshot>, BrokerError> {
        let test = test.clone();
        Ok(self.store.read_places(move |tx| snapshot::load_snapshot(tx, &test)).await?)
    }

    async fn tests(
        &self,
        state: Option<TestState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<TestPage, BrokerError> {
        Ok(self.store.read_places(move |tx| read::tests(tx, state, cursor, limit)).await?)
    }

    async fn retain(&self) -> Result<bool, BrokerError> {
        retain::retain(&self.store, &self.rules).await
    }
}
