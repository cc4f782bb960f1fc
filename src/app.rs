//! The whole: puts the layers together. The only place that picks a back end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::embedded::{EmbeddedBroker, Live};
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, LiveSink};
use crate::config::channels::Rules;
use crate::config::settings::Settings;
use crate::fanout::Fanout;
use crate::http::{self, HttpLimits, HttpState, Readiness};
use crate::inbox::Inbox;
use crate::inbox::embedded::EmbeddedInbox;
use crate::inbox::redis::RedisInbox;
use crate::listener::serve::PerConnection;
use crate::listener::{ListenError, Listener};
use crate::metrics;
use crate::model::id::is_id_char;
use crate::notify::Notifier;
use crate::notify::receipts::Receipts;
use crate::presence::Presence;
use crate::presence::embedded::EmbeddedPresence;
use crate::presence::redis::{PresenceOptions, RedisPresence};
use crate::publish::Publisher;
use crate::queue::embedded::{EmbeddedQueue, QueueOptions};
use crate::queue::{Queue, QueueError};
use crate::redis::{Redis, RedisFault, RedisOptions};
use crate::socket::{self, SocketOptions, SocketParts};
use crate::store::{OpenError, Store};
use crate::sync::SyncState;
use crate::sync::embedded::EmbeddedSync;
use crate::sync::redis::RedisSync;
use crate::tasks::Tasks;
use crate::upkeep;
use crate::worker::pool::{Pool, PoolOptions};
use crate::worker::runner::command::CommandRunner;
use crate::worker::runner::stress::{DEFAULT_ALLOW, InvalidAllow, StressRunner};
use crate::worker::runner::{Runner, RunnerSet};

/// How long open requests may take to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why the server does not start: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listener's own address could not be read.
    #[error("the address of the listener is unknown: {0}")]
    Address(std::io::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The metrics.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisFault),
    /// The certificates that Redis is trusted by.
    #[error("{} cannot be read (redis.ca_file): {error}", file.display())]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The allow list of stress tests.
    #[error(transparent)]
    Stress(#[from] InvalidAllow),
}

/// What a server is made of.
#[derive(Debug)]
pub struct AppOptions {
    /// The configuration.
    pub settings: Settings,
    /// The channels.
    pub rules: Arc<Rules>,
    /// A program that, called as `PROGRAM guard -- ARGV…`, runs ARGV and ends it should this process die; the
    /// `tidings` program itself. Without it commands outlive a killed server.
    pub guard: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    store: Store,
    pool: Option<Arc<Pool>>,
    readiness: Readiness,
    stop_serving: CancellationToken,
    tasks: Tasks,
}

impl App {
    /// Starts a server. It answers requests when this returns.
    pub async fn start(options: AppOptions) -> Result<Self, StartError> {
        let AppOptions { settings, rules, guard } = options;
        let metrics = metrics::install()?;
        metrics::register_namespaces(rules.namespaces().iter().map(|namespace| namespace.name.as_str()));
        let runners = Arc::new(runners(&settings, guard)?);
        // Before the store: a taken port should leave no trace.
        let listener = Listener::bind(settings.listen, settings.limits.write_deadline)?;
        let address = listener.address().map_err(StartError::Address)?;
        let tasks = Tasks::new();
        let store = Store::open(&settings.data_dir, settings.store.synchronous)?;
        let Channels { redis, broker, live, listen } = channels(&settings, &store, &rules, &tasks).await?;
        // Jobs have no back end on Redis yet: there, each server has its own.
        let queue = EmbeddedQueue::open(store.clone(), rules.clone(), live, queue_options(&settings));
        let queue: Arc<dyn Queue> = Arc::new(queue.await?);
        let fanout = Fanout::start(broker.clone(), rules.clone(), cores(), &tasks);
        listen(fanout.clone());
        let publisher = Publisher::new(broker.clone(), rules.clone(), settings.limits.message_bytes);
        let node = node_name(redis.is_some());
        let People { presence, inbox, sync } = match redis {
            Some(redis) => shared_people(&settings, redis, &broker, &rules, &node, &tasks),
            None => own_people(&settings, &store, &broker, &rules, &tasks),
        };
        let notifier = Notifier::new(inbox.clone(), broker.clone(), publisher.clone(), rules.clone());
        let receipts = Receipts::start(inbox.clone(), &tasks);
        let readiness = Readiness::default();
        let state = HttpState {
            queue: queue.clone(),
            broker: broker.clone(),
            fanout: fanout.clone(),
            publisher: publisher.clone(),
            notifier: notifier.clone(),
            presence: presence.clone(),
            rules: rules.clone(),
            runners: runners.clone(),
            metrics,
            ready: readiness.clone(),
            limits: HttpLimits {
                body_bytes: settings.limits.body_bytes,
                publish_batch: settings.limits.publish_batch,
                streams: settings.limits.connections,
            },
        };
        let parts =
            SocketParts { fanout, publisher, rules, sync: sync.clone(), presence, notifier, receipts };
        let service = socket::serve(socket_options(&settings, node), parts, http::router(state), &tasks);
        let stop_serving = CancellationToken::new();
        let stopped = stop_serving.clone().cancelled_owned();
        let server = axum::serve(listener, PerConnection::new(service)).with_graceful_shutdown(stopped);
        tasks.spawn("http", log_end(server.into_future()));
        upkeep::start(&queue, &broker, &sync, &inbox, &tasks);
        let pool = settings.worker.then(|| Pool::start(queue, runners, pool_options(&settings), &tasks));
        Ok(Self { address, store, pool, readiness, stop_serving, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops in order: no new requests, running jobs back into the queue, tasks, store.
    pub async fn stop(self) {
        self.readiness.drain();
        self.stop_serving.cancel();
        if let Some(pool) = &self.pool
            && tokio::time::timeout(STOP_PATIENCE, pool.stop()).await.is_err()
        {
            tracing::warn!("the worker did not stop in time; its jobs return when their leases end");
        }
        if !self.tasks.stop(STOP_PATIENCE).await {
            tracing::warn!("some tasks did not stop in time");
        }
        self.store.close().await;
    }
}

/// Where messages are kept.
struct Channels {
    redis: Option<Redis>,
    broker: Arc<dyn Broker>,
    /// The live side of what the embedded store appends by itself.
    live: Live,
    /// Hands the broker its sink.
    listen: Box<dyn FnOnce(Arc<dyn LiveSink>) + Send>,
}

async fn channels(
    settings: &Settings,
    store: &Store,
    rules: &Arc<Rules>,
    tasks: &Tasks,
) -> Result<Channels, StartError> {
    let live = Live::default();
    let Some(options) = redis_options(settings)? else {
        let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), live.clone()));
        let same = live.clone();
        return Ok(Channels { redis: None, broker, live, listen: Box::new(move |sink| same.connect(sink)) });
    };
    let redis = Redis::connect(options, tasks).await?;
    let broker = RedisBroker::start(redis.clone(), rules.clone(), tasks);
    let same = broker.clone();
    let listen = Box::new(move |sink| same.connect(sink));
    Ok(Channels { redis: Some(redis), broker: Arc::new(broker), live, listen })
}

/// What is known of people: who is there, what waits for them, and how far their devices are.
struct People {
    presence: Arc<dyn Presence>,
    inbox: Arc<dyn Inbox>,
    sync: Arc<dyn SyncState>,
}

fn own_people(
    settings: &Settings,
    store: &Store,
    broker: &Arc<dyn Broker>,
    rules: &Arc<Rules>,
    tasks: &Tasks,
) -> People {
    People {
        presence: EmbeddedPresence::start(broker.clone(), rules.clone(), tasks),
        inbox: Arc::new(EmbeddedInbox::new(store.clone(), settings.inbox.retention)),
        sync: Arc::new(EmbeddedSync::new(store.clone(), settings.sync.retention)),
    }
}

fn shared_people(
    settings: &Settings,
    redis: Redis,
    broker: &Arc<dyn Broker>,
    rules: &Arc<Rules>,
    node: &str,
    tasks: &Tasks,
) -> People {
    let options = PresenceOptions::new(node);
    People {
        presence: RedisPresence::start(redis.clone(), broker.clone(), rules.clone(), options, tasks),
        inbox: Arc::new(RedisInbox::new(redis.clone(), rules.clone(), settings.inbox.retention)),
        sync: Arc::new(RedisSync::new(redis, settings.sync.retention)),
    }
}

/// Names this process. Where there are others, no other has the name: in containers neither the name of the host
/// nor the number of the process tells them apart.
fn node_name(with_others: bool) -> String {
    let process = std::process::id();
    if !with_others {
        return format!("node-{process}");
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| is_id_char(*c)).take(64).collect();
    format!("{host}-{process}-{:06x}", fastrand::u32(..1 << 24))
}

fn redis_options(settings: &Settings) -> Result<Option<RedisOptions>, StartError> {
    let Some(url) = settings.redis.url.clone() else { return Ok(None) };
    let mut options = RedisOptions::new(url);
    if let Some(prefix) = &settings.redis.prefix {
        options.prefix.clone_from(prefix);
    }
    if let Some(file) = &settings.redis.ca_file {
        let ca = std::fs::read(file);
        options.ca = Some(ca.map_err(|error| StartError::Certificates { file: file.clone(), error })?);
    }
    Ok(Some(options))
}

async fn log_end(server: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

fn runners(settings: &Settings, guard: Option<PathBuf>) -> Result<RunnerSet, InvalidAllow> {
    let mut command = CommandRunner::new(settings.suites.clone());
    if let Some(guard) = guard {
        command = command.with_guard(guard);
    }
    let allow: Vec<String> = if settings.stress.allow.is_empty() {
        DEFAULT_ALLOW.map(str::to_owned).into()
    } else {
        settings.stress.allow.clone()
    };
    let stress = StressRunner::new(&allow)?;
    let runners: [Arc<dyn Runner>; 2] = [Arc::new(command), Arc::new(stress)];
    Ok(runners.into_iter().collect())
}

fn queue_options(settings: &Settings) -> QueueOptions {
    let queue = &settings.queue;
    QueueOptions {
        max_attempts: queue.max_attempts,
        lease: queue.lease,
        backoff_base: queue.backoff_base,
        backoff_max: queue.backoff_max,
        retention: queue.retention,
        max_jobs_kept: queue.max_jobs_kept,
    }
}

fn pool_options(settings: &Settings) -> PoolOptions {
    PoolOptions {
        concurrency: settings.workers.concurrency,
        lease: settings.queue.lease,
        default_timeout: settings.queue.default_timeout,
    }
}

fn socket_options(settings: &Settings, node: String) -> SocketOptions {
    SocketOptions {
        node,
        heartbeat_interval: settings.heartbeat.interval,
        heartbeat_timeout: settings.heartbeat.timeout,
        connections: settings.limits.connections,
        rooms_per_connection: settings.limits.rooms_per_connection,
        message_bytes: settings.limits.message_bytes,
        write_deadline: settings.limits.write_deadline,
        save_every: settings.sync.save_every,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
