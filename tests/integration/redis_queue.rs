//! The queue in Redis beyond what every queue promises: several nodes, nodes that die between a change and its
//! telling, and Redis' own bad days.

mod cluster;
mod control;
mod faults;
mod mirrors;
mod nodes;
mod random;
mod turns;
mod unreadable;
mod untold;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;
use tempfile::TempDir;
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::redis::RedisBroker;
use tidings::broker::{
    AppendError, AppendGroup, Appended, Broker, BrokerError, Page, PageLimit, Survey, TestPage, Top,
};
use tidings::fault::Cause;
use tidings::model::{ChannelName, Job, Priority, Snapshot, TestId, TestState, WorkerId};
use tidings::queue::redis::RedisQueue;
use tidings::queue::{Claim, Ending, NewJob, Queue, QueueOptions};
use tidings::store::{Store, Synchronous};
use tidings::tasks::Tasks;
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;

use crate::support::redis::connect;
use crate::support::{Recorder, history, read, rules};

/// A broker that can be made to fail, or to wait before it appends.
struct Gate {
    broker: Arc<dyn Broker>,
    away: AtomicBool,
    /// Some calls are slow, some fail, some fail after they did what they were asked for.
    moody: AtomicBool,
    /// One permit per call; as good as no gate while there are many.
    pass: Semaphore,
}

/// Channels that outlive every node of a test.
struct Channels {
    broker: Arc<dyn Broker>,
    heard: Arc<Recorder>,
    /// Whether they are in Redis, where each node has its own way to them.
    in_redis: bool,
    _rest: (TempDir, Option<DropGuard>),
}

impl Channels {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let store = Store::open(dir.path(), Synchronous::Normal).expect("a store");
        let (live, heard) = (Live::default(), Arc::new(Recorder::default()));
        live.connect(heard.clone());
        let broker = Arc::new(EmbeddedBroker::new(store, rules(), live));
        Self { broker, heard, in_redis: false, _rest: (dir, None) }
    }

    /// The same in the Redis in which the queue is.
    async fn in_redis(url: &str) -> Self {
        let (redis, tasks) = connect(url).await;
        let broker = Arc::new(RedisBroker::start(redis, rules(), &tasks));
        let rest =
            (TempDir::new().expect("a temporary directory"), Some(tasks.stopping().clone().drop_guard()));
        Self { broker, heard: Arc::default(), in_redis: true, _rest: rest }
    }

    /// The events of a job's own channel, in order.
    async fn told(&self, job: &Job) -> Vec<String> {
        let own = history(&*self.broker, &format!("job-status-{}", job.job_id)).await;
        own.iter().map(|message| read(message)["event"].as_str().expect("an event").to_owned()).collect()
    }

    async fn broker_snapshot(&self, job: &Job) -> Option<Snapshot> {
        self.broker.snapshot(&job.test_id).await.expect("a look")
    }
}

/// One process: its queue and its own way to Redis.
struct Node {
    queue: RedisQueue,
    gate: Arc<Gate>,
    // Ends its tasks when it is dropped, as if it were killed.
    _end: DropGuard,
}

fn options() -> QueueOptions {
    QueueOptions {
        max_attempts: 3,
        lease: Duration::from_secs(30),
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        retention: Duration::from_secs(3600),
        max_jobs_kept: 10_000,
    }
}

impl Node {
    async fn start(url: &str, channels: &Channels) -> Self {
        Self::start_with(url, channels, options()).await
    }

    async fn start_with(url: &str, channels: &Channels, options: QueueOptions) -> Self {
        let (redis, tasks): (_, Tasks) = connect(url).await;
        let pass = Semaphore::new(Semaphore::MAX_PERMITS);
        let broker = if channels.in_redis {
            Arc::new(RedisBroker::start(redis.clone(), rules(), &tasks))
        } else {
            channels.broker.clone()
        };
        let gate =
            Arc::new(Gate { broker, away: AtomicBool::new(false), moody: AtomicBool::new(false), pass });
        let queue = RedisQueue::start(redis, gate.clone(), rules(), options, &tasks).await;
        Self { queue, gate, _end: tasks.stopping().clone().drop_guard() }
    }

    /// From now on its broker cannot be reached.
    fn lose_broker(&self, away: bool) {
        self.gate.away.store(away, Ordering::SeqCst);
    }

    async fn submit(&self, job: NewJob) -> Job {
        self.queue.submit(job).await.expect("a job is accepted").job
    }

    async fn claim(&self, by: &str) -> Option<Claim> {
        let types = ["command".to_owned()];
        let claim = self.queue.claim(&worker(by), &types, 1).await.expect("a look for jobs").pop()?;
        // What it told was appended before anything else that its attempt tells is.
        self.queue.report(&claim.lease, Vec::new()).await.expect("a sign of life");
        Some(claim)
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).expect("a worker id")
}

fn job() -> NewJob {
    NewJob {
        test_type: "command".to_owned(),
        name: None,
        config: Map::new(),
        test_id: None,
        priority: Priority::Normal,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: None,
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

fn passed() -> Ending {
    Ending::Passed { results: Map::new() }
}

impl Gate {
    async fn pass(&self) -> Result<(), BrokerError> {
        self.pass.acquire().await.expect("the gate is never closed for good").forget();
        if self.away.load(Ordering::SeqCst) {
            return Err(BrokerError::Unavailable(Cause::new("it was switched off")));
        }
        Ok(())
    }

    async fn mood(&self) -> Result<(), BrokerError> {
        if self.moody.load(Ordering::SeqCst) {
            match fastrand::u8(0..8) {
                0 => return Err(BrokerError::Unavailable(Cause::new("it is not in the mood"))),
                1 | 2 => tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await,
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Broker for Gate {
    async fn append(
        &self,
        groups: Vec<AppendGroup>,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        self.pass().await?;
        self.mood().await?;
        let appended = self.broker.append(groups).await;
        self.mood().await?;
        appended
    }

    async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError> {
        self.pass().await?;
        self.mood().await?;
        self.broker.begin(tests).await?;
        self.mood().await
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
