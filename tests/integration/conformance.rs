//! Conformance: the promises of a trait, one suite that every back end passes.
//!
//! A back end enters by implementing [`Backend`] and by one more module in [`for_each_backend`].

mod broker;
mod inbox;
pub(crate) mod presence;
pub(crate) mod queue;
mod revocation;
mod sync;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tempfile::TempDir;
use tidings::broker::Broker;
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::redis::RedisBroker;
use tidings::config::channels::Rules;
use tidings::inbox::Inbox;
use tidings::inbox::embedded::EmbeddedInbox;
use tidings::inbox::redis::RedisInbox;
use tidings::presence::Presence;
use tidings::presence::embedded::EmbeddedPresence;
use tidings::presence::redis::{PresenceOptions, RedisPresence};
use tidings::publish::Publisher;
use tidings::queue::embedded::EmbeddedQueue;
use tidings::queue::redis::RedisQueue;
use tidings::queue::{Queue, QueueOptions};
use tidings::redis::Redis;
use tidings::revocation::Revocations;
use tidings::revocation::embedded::EmbeddedRevocations;
use tidings::revocation::redis::RedisRevocations;
use tidings::store::{OpenError, Store, Synchronous};
use tidings::sync::SyncState;
use tidings::sync::embedded::EmbeddedSync;
use tidings::sync::redis::RedisSync;
use tidings::tasks::Tasks;
use tokio_util::sync::DropGuard;

use crate::support::follows_all::FollowsAll;
use crate::support::redis::{connect, shared_cluster_url, shared_url};
use crate::support::{DEADLINE, Recorder, channel, rules};

/// Something that keeps channels and jobs, and can be left and entered again.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Goes on with what is there.
    async fn open(&self, rules: Arc<Rules>, options: QueueOptions) -> Node;

    /// The same with the rules and options of most tests.
    async fn start(&self) -> Node {
        self.open(rules(), options()).await
    }

    /// The inboxes of `node`, whose entries are kept for `retention`.
    fn inbox(&self, node: &Node, retention: Duration) -> Arc<dyn Inbox>;

    /// The places of devices in the channels of `node`, kept for `retention`.
    fn sync(&self, node: &Node, retention: Duration) -> Arc<dyn SyncState>;

    /// Who is shut out.
    fn revocations(&self, node: &Node) -> Arc<dyn Revocations>;

    /// Who is connected to `node`; nobody yet.
    fn presence(&self, node: &Node) -> Arc<dyn Presence>;
}

/// One process's view of a back end.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) publisher: Publisher,
    pub(crate) heard: Arc<Recorder>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) tasks: Tasks,
    store: Store,
    redis: Option<Redis>,
    // Ends the tasks of a node that is dropped: they would keep its store open.
    _end: DropGuard,
}

impl Node {
    /// Has its sink hear of these channels.
    pub(crate) async fn follow(&self, names: &[&str]) {
        for name in names {
            self.broker.follow(&channel(name)).await.expect("a channel is followed");
        }
    }

    fn redis(&self) -> Redis {
        self.redis.clone().expect("a node on Redis")
    }

    /// Leaves in good order. A node that is dropped instead leaves in none.
    pub(crate) async fn stop(self) {
        assert!(self.tasks.stop(DEADLINE).await, "the node's tasks end");
        self.store.close().await;
    }
}

/// Short times, so that what has to pass passes soon.
pub(crate) fn options() -> QueueOptions {
    QueueOptions {
        max_attempts: 3,
        lease: Duration::from_secs(30),
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        retention: Duration::from_secs(3600),
        max_jobs_kept: 10_000,
    }
}

/// SQLite in a directory of its own.
pub(crate) struct Embedded(TempDir);

impl Embedded {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&self, rules: Arc<Rules>, options: QueueOptions) -> Node {
        let store = open_store(self.0.path()).await;
        let (live, heard) = (Live::default(), Arc::new(Recorder::default()));
        live.connect(heard.clone());
        let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), live.clone()));
        let queue = EmbeddedQueue::open(store.clone(), rules.clone(), live, options);
        let queue = Arc::new(queue.await.expect("the queue opens"));
        let publisher = Publisher::new(broker.clone(), rules.clone(), 1 << 20);
        let tasks = Tasks::new();
        let _end = tasks.stopping().clone().drop_guard();
        Node { broker, queue, publisher, heard, rules, store, redis: None, tasks, _end }
    }

    fn inbox(&self, node: &Node, retention: Duration) -> Arc<dyn Inbox> {
        Arc::new(EmbeddedInbox::new(node.store.clone(), retention))
    }

    fn sync(&self, node: &Node, retention: Duration) -> Arc<dyn SyncState> {
        Arc::new(EmbeddedSync::new(node.store.clone(), retention))
    }

    fn revocations(&self, node: &Node) -> Arc<dyn Revocations> {
        Arc::new(EmbeddedRevocations::new(node.store.clone()))
    }

    fn presence(&self, node: &Node) -> Arc<dyn Presence> {
        EmbeddedPresence::start(node.broker.clone(), node.rules.clone(), &node.tasks)
    }
}

/// The store in a directory.
async fn open_store(dir: &Path) -> Store {
    let began = Instant::now();
    loop {
        match Store::open(dir, Synchronous::Normal) {
            Ok(store) => return store,
            // Whoever had it before may still be on the way out.
            Err(OpenError::InUse { .. }) if began.elapsed() < DEADLINE => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("the store cannot be opened: {error}"),
        }
    }
}

/// Redis, under a prefix of its own. What has no back end there yet is embedded.
pub(crate) struct OnRedis {
    url: String,
    rest: TempDir,
}

impl OnRedis {
    pub(crate) fn new() -> Self {
        Self { url: shared_url(), rest: TempDir::new().expect("a temporary directory") }
    }

    /// What is at `url`.
    pub(crate) fn at(url: String) -> Self {
        Self { url, rest: TempDir::new().expect("a temporary directory") }
    }

    /// The same in a cluster.
    pub(crate) fn in_cluster() -> Self {
        Self { url: shared_cluster_url(), rest: TempDir::new().expect("a temporary directory") }
    }
}

#[async_trait]
impl Backend for OnRedis {
    async fn open(&self, rules: Arc<Rules>, options: QueueOptions) -> Node {
        let (redis, tasks) = connect(&self.url).await;
        let heard = Arc::new(Recorder::default());
        let broker = Arc::new(RedisBroker::start(redis.clone(), rules.clone(), &tasks));
        broker.connect(heard.clone());
        let store = open_store(self.rest.path()).await;
        let told = Arc::new(FollowsAll::new(broker.clone()));
        let queue = Arc::new(RedisQueue::start(redis.clone(), told, rules.clone(), options, &tasks).await);
        let publisher = Publisher::new(broker.clone(), rules.clone(), 1 << 20);
        let _end = tasks.stopping().clone().drop_guard();
        Node { broker, queue, publisher, heard, rules, store, redis: Some(redis), tasks, _end }
    }

    fn inbox(&self, node: &Node, retention: Duration) -> Arc<dyn Inbox> {
        Arc::new(RedisInbox::new(node.redis(), node.rules.clone(), retention))
    }

    fn sync(&self, node: &Node, retention: Duration) -> Arc<dyn SyncState> {
        Arc::new(RedisSync::new(node.redis(), retention))
    }

    fn revocations(&self, node: &Node) -> Arc<dyn Revocations> {
        Arc::new(RedisRevocations::new(node.redis()))
    }

    fn presence(&self, node: &Node) -> Arc<dyn Presence> {
        let options = PresenceOptions { node: "one".to_owned(), lease: Duration::from_secs(10) };
        RedisPresence::start(node.redis(), node.broker.clone(), node.rules.clone(), options, &node.tasks)
    }
}

/// Makes a test for every back end of every promise that is named; `embedded only:` where there is no other yet.
macro_rules! for_each_backend {
    ($($promise:ident),+ $(,)?) => {
        crate::conformance::for_each_backend!(embedded only: $($promise),+);
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$promise(&crate::conformance::OnRedis::new()).await;
                }
            )+
        }
    };
    (a cluster too: $($promise:ident),+ $(,)?) => {
        crate::conformance::for_each_backend!($($promise),+);
        mod cluster {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$promise(&crate::conformance::OnRedis::in_cluster()).await;
                }
            )+
        }
    };
    (embedded only: $($promise:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$promise(&crate::conformance::Embedded::new()).await;
                }
            )+
        }
    };
}
pub(crate) use for_each_backend;
