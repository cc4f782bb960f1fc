//! The whole: puts the layers together. The only place that picks a back end.
//!
//! [`App`] is a server, [`worker`] a process that only runs jobs.

mod backend;
mod observed;
mod people;
pub mod reload;
mod sides;
mod suites;
pub mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{Layer as _, ServiceExt};

use self::backend::Backend;
use self::people::People;
use self::sides::Sides;
use crate::auth::origin::Origins;
use crate::auth::{self, Auth, Rights};
use crate::config::channels::Rules;
use crate::config::reload::Reload;
use crate::config::settings::{Settings, Shutdown};
use crate::fanout::Fanout;
use crate::http::{self, HttpLimits, HttpState, Readiness};
use crate::limits::address::Proxies;
use crate::limits::crowd::Crowd;
use crate::limits::pace::Pace;
use crate::listener::door::Door;
use crate::listener::{ListenError, Listener, serve};
use crate::metrics;
use crate::notify::Notifier;
use crate::notify::receipts::Receipts;
use crate::publish::Publisher;
use crate::queue::{Queue, QueueError};
use crate::redis::RedisFault;
use crate::schedules::Schedules;
use crate::socket::{self, Clients, SocketOptions, SocketParts};
use crate::store::OpenError;
use crate::sync::SyncState;
use crate::tasks::Tasks;
use crate::telemetry::LogLevel;
use crate::traces::TracesError;
use crate::upkeep;
use crate::worker::pool::{Pool, PoolOptions};
use crate::worker::runner::command::InvalidIdentity;
use crate::worker::runner::stress::InvalidAllow;
use crate::worker::runner::{Runner, RunnerSet};

/// How long jobs may take to be handed back, and tasks to end, when the process stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long clients may take to go, and open requests to end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);
/// Who asked `/readyz` within this time is about to ask again; nobody else is waited for.
const ASKED: Duration = Duration::from_secs(30);

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
    /// The listener of metrics.
    #[error("metrics cannot be answered at {address} (metrics.listen): {error}")]
    Scrape {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The exporter of traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
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
    /// Who is let in.
    #[error(transparent)]
    Auth(#[from] auth::StartError),
    /// A worker process without a queue that it shares with servers.
    #[error("a worker process takes its jobs from Redis: give it --redis URL, TIDINGS_REDIS or `redis.url`")]
    NoRedis,
    /// The allow list of stress tests.
    #[error(transparent)]
    Stress(#[from] InvalidAllow),
    /// A suite that this process could never run.
    #[error("suites.{suite}: {source}")]
    Suite {
        /// Its name.
        suite: String,
        /// Why not.
        source: InvalidIdentity,
    },
}

/// What a server is made of.
pub struct AppOptions {
    /// The configuration.
    pub settings: Settings,
    /// The channels.
    pub rules: Arc<Rules>,
    /// A program that, called as `PROGRAM guard -- ARGV…`, runs ARGV and ends it should this process die; the
    /// `tidings` program itself. Without it commands outlive a killed server.
    pub guard: Option<PathBuf>,
    /// Test types beside those that ship.
    pub runners: Vec<Arc<dyn Runner>>,
    /// What is logged, where an administrator may change it.
    pub log_level: Option<LogLevel>,
}

/// A running server.
pub struct App {
    address: SocketAddr,
    backend: Backend,
    queue: Arc<dyn Queue>,
    pool: Option<Arc<Pool>>,
    readiness: Readiness,
    reload: Arc<Reload>,
    clients: Clients,
    shutdown: Shutdown,
    front: Front,
    tasks: Tasks,
}

/// How the HTTP server ends.
#[derive(Default)]
struct Front {
    /// Nobody is let in any more.
    close: CancellationToken,
    /// Everybody has been answered.
    closed: CancellationToken,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("address", &self.address).finish_non_exhaustive()
    }
}

impl App {
    /// Starts a server. It answers requests when this returns.
    pub async fn start(options: AppOptions) -> Result<Self, StartError> {
        let AppOptions { settings, rules, guard, runners, log_level } = options;
        let metrics = installed_metrics(&settings, &rules)?;
        let reload = Arc::new(Reload::new(settings.clone(), rules.clone()));
        let runners = checked_runners(&settings, &reload, guard, runners)?;
        // Before the store: a taken port should leave no trace.
        let Entrance { listener, address, door, crowd, pace } = Entrance::open(&settings, &reload)?;
        let sides = Sides::bind(&settings, &door)?;
        let origins = reload.view(Origins::of);
        let (tasks, readiness) = (Tasks::new(), Readiness::default());
        let backend = Backend::open(&settings, &rules, &tasks).await?;
        let (broker, queue) = (backend.broker.clone(), backend.queue.clone());
        suites::limit(&settings, &reload, &queue, &tasks).await;
        let schedules = Schedules::of(&settings, &reload);
        let fanout = Fanout::start(broker.clone(), rules.clone(), cores(), &tasks);
        backend.connect(fanout.clone());
        let publisher = Publisher::new(broker.clone(), rules.clone(), settings.limits.message_bytes);
        let rights = Rights::new(rules.clone(), broker.clone(), queue.clone());
        let People { presence, inbox, sync, quota, revocations, node } =
            backend.people(&settings, &rules, &tasks);
        let auth = Arc::new(Auth::start(&settings.auth, revocations, &tasks).await?);
        reload.follow(auth.clone());
        let notifier = Notifier::new(inbox.clone(), broker.clone(), publisher.clone(), rules);
        let receipts = Receipts::start(inbox.clone(), &tasks);
        observed::start(&settings, &node, &backend, &metrics, &tasks).await?;
        let state = HttpState {
            queue: queue.clone(),
            broker: broker.clone(),
            fanout,
            publisher,
            notifier,
            presence,
            crowd,
            pace,
            quota,
            auth,
            rights,
            origins: origins.clone(),
            runners: runners.clone(),
            schedules: schedules.clone(),
            log_level,
            metrics,
            ready: readiness.clone(),
            limits: http_limits(&settings),
        };
        let parts = socket_parts(&state, &sync, receipts);
        let front = Front::default();
        let main = sides.serve(&state, &front.close, &tasks);
        let routes = http::router(state, main);
        let (service, clients) = socket::serve(socket_options(&settings, node), parts, routes, &tasks);
        // Around both: a client that polls asks as a page does.
        let service = ServiceExt::<Request>::map_response(service, |response| http::harden(whole(response)));
        let service = http::cors(origins).layer(service);
        let server = serve::serve(listener, service, front.close.clone());
        front.spawn(server, door, &tasks);
        upkeep::start(&queue, &broker, &sync, &inbox, &tasks);
        schedules.start(queue.clone(), &tasks);
        let options = pool_options(&settings);
        let pool = settings.worker.then(|| Pool::start(queue.clone(), runners, options, &tasks));
        let shutdown = settings.shutdown;
        Ok(Self { address, backend, queue, pool, readiness, reload, clients, shutdown, front, tasks })
    }

    /// Its jobs.
    #[must_use]
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.queue
    }

    /// Puts a changed configuration in force.
    #[must_use]
    pub fn reload(&self) -> &Arc<Reload> {
        &self.reload
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops in order. First `/readyz` says so, and no more jobs are taken; balancers get time to notice, and attempts
    /// to end. Then no connection is taken any more, attempts that still run go back into the queue, clients get what
    /// waits for them and are sent away. Then tasks and store end.
    pub async fn stop(self) {
        self.readiness.drain();
        tokio::join!(self.stop_listening(), stop_pool(self.pool.as_deref(), self.shutdown.attempts));
        self.readiness.close();
        self.clients.send_away(LEAVE_PATIENCE).await;
        if tokio::time::timeout(LEAVE_PATIENCE, self.front.closed.cancelled()).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
        }
        if !self.tasks.stop(STOP_PATIENCE).await {
            tracing::warn!("some tasks did not stop in time");
        }
        self.backend.close().await;
    }

    /// Takes no connections any more, once those who look for it have seen that the server goes away.
    async fn stop_listening(&self) {
        if self.readiness.is_asked(ASKED) {
            tracing::info!(drain = ?self.shutdown.drain, "balancers are told, and everybody is served meanwhile");
            tokio::time::sleep(self.shutdown.drain).await;
        }
        self.front.close.cancel();
    }
}

impl Front {
    /// Has `server` run behind `door`.
    fn spawn(&self, server: impl Future<Output = ()> + Send + 'static, door: Arc<Door>, tasks: &Tasks) {
        tasks.spawn("http", until_end(server, self.closed.clone().drop_guard()));
        tasks.spawn("door", door.watch());
    }
}

/// Where clients come in, and what counts them.
struct Entrance {
    listener: Listener,
    address: SocketAddr,
    door: Arc<Door>,
    crowd: Arc<Crowd>,
    pace: Arc<Pace>,
}

impl Entrance {
    fn open(settings: &Settings, reload: &Reload) -> Result<Self, StartError> {
        let proxies = reload.view(|settings| Proxies::new(settings.http.trusted_proxies.clone()));
        let limits = reload.view(|settings| settings.limits.clone());
        let door = Door::new(limits.clone(), proxies);
        let listener = Listener::bind(settings.listen, door.clone())?;
        let address = listener.address().map_err(StartError::Address)?;
        let (crowd, pace) = (Crowd::new(limits.clone()), Arc::new(Pace::new(limits)));
        Ok(Self { listener, address, door, crowd, pace })
    }
}

fn http_limits(settings: &Settings) -> HttpLimits {
    HttpLimits {
        body_bytes: settings.limits.body_bytes,
        message_bytes: settings.limits.message_bytes,
        publish_batch: settings.limits.publish_batch,
        streams: settings.limits.connections,
    }
}

/// Ends the taking of jobs, and the attempts that run.
async fn stop_pool(pool: Option<&Pool>, grace: Duration) {
    let Some(pool) = pool else { return };
    if tokio::time::timeout(grace + STOP_PATIENCE, pool.stop(grace)).await.is_err() {
        tracing::warn!("the worker did not stop in time; its jobs return when their leases end");
    }
}

/// What runs jobs, where this server does: then it can be whoever its suites run as.
fn checked_runners(
    settings: &Settings,
    reload: &Reload,
    guard: Option<PathBuf>,
    more: Vec<Arc<dyn Runner>>,
) -> Result<Arc<RunnerSet>, StartError> {
    let runners = Arc::new(backend::runners(settings, reload, guard, more)?);
    if settings.worker {
        backend::check_suites(settings, reload)?;
    }
    Ok(runners)
}

/// The metrics of this process, with what the configuration says of them.
fn installed_metrics(settings: &Settings, rules: &Rules) -> Result<PrometheusHandle, StartError> {
    let metrics = metrics::install()?;
    metrics::connections_limit(settings.limits.connections);
    metrics::register_namespaces(rules.namespaces().iter().map(|namespace| namespace.name.as_str()));
    Ok(metrics)
}

/// Follows the server to its end, whichever it is.
async fn until_end(server: impl Future<Output = ()>, _closed: DropGuard) {
    server.await;
}

fn pool_options(settings: &Settings) -> PoolOptions {
    PoolOptions {
        concurrency: settings.workers.concurrency,
        lease: settings.queue.lease,
        default_timeout: settings.queue.default_timeout,
    }
}

/// What sockets stand on beside what HTTP does.
fn socket_parts(state: &HttpState, sync: &Arc<dyn SyncState>, receipts: Receipts) -> SocketParts {
    SocketParts {
        fanout: state.fanout.clone(),
        publisher: state.publisher.clone(),
        auth: state.auth.clone(),
        rights: state.rights.clone(),
        origins: state.origins.clone(),
        sync: sync.clone(),
        presence: state.presence.clone(),
        notifier: state.notifier.clone(),
        receipts,
        crowd: state.crowd.clone(),
        pace: state.pace.clone(),
        quota: state.quota.clone(),
    }
}

/// An answer with a body of the usual type, as the layer around all answers wants it.
fn whole<B>(response: axum::http::Response<B>) -> Response
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    response.map(Body::new)
}

fn socket_options(settings: &Settings, node: String) -> SocketOptions {
    SocketOptions {
        node,
        heartbeat_interval: settings.heartbeat.interval,
        heartbeat_timeout: settings.heartbeat.timeout,
        rooms_per_connection: settings.limits.rooms_per_connection,
        message_bytes: settings.limits.message_bytes,
        connect_timeout: settings.limits.connect_timeout,
        write_deadline: settings.limits.write_deadline,
        save_every: settings.sync.save_every,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
