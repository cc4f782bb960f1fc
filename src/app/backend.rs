//! Which back ends: SQLite in the data directory, or the Redis that several processes share.

use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::people::People;
use crate::broker::embedded::{EmbeddedBroker, Live};
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, LiveSink};
use crate::config::channels::Rules;
use crate::config::reload::{Follower, PutInForce, Reload};
use crate::config::settings::Settings;
use crate::queue::embedded::EmbeddedQueue;
use crate::queue::redis::RedisQueue;
use crate::queue::{Queue, QueueOptions};
use crate::redis::{Redis, RedisOptions};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::worker::runner::command::{CommandRunner, check_identities};
use crate::worker::runner::stress::{InvalidAllow, StressRunner};
use crate::worker::runner::{Runner, RunnerSet};

/// Channels and jobs.
pub(super) struct Backend {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) queue: Arc<dyn Queue>,
    kept: Kept,
}

/// Where everything is kept, and told of.
enum Kept {
    Embedded(Store, Live),
    Redis(Redis, Arc<RedisBroker>),
}

impl Backend {
    /// In the Redis that the settings name, or else in the data directory.
    pub(super) async fn open(
        settings: &Settings,
        rules: &Arc<Rules>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        match Self::redis(settings, rules, tasks).await? {
            Some(redis) => Ok(redis),
            None => Self::embedded(rules, settings).await,
        }
    }

    /// In the store of this process.
    async fn embedded(rules: &Arc<Rules>, settings: &Settings) -> Result<Self, StartError> {
        let store = Store::open(&settings.data_dir, settings.store.synchronous)?;
        let live = Live::default();
        let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), live.clone()));
        let queue =
            EmbeddedQueue::open(store.clone(), rules.clone(), live.clone(), queue_options(settings)).await?;
        Ok(Self { broker, queue: Arc::new(queue), kept: Kept::Embedded(store, live) })
    }

    /// In the Redis that the settings name, if they name one.
    pub(super) async fn redis(
        settings: &Settings,
        rules: &Arc<Rules>,
        tasks: &Tasks,
    ) -> Result<Option<Self>, StartError> {
        let Some(options) = redis_options(settings)? else { return Ok(None) };
        let redis = Redis::connect(options, tasks).await?;
        let broker = Arc::new(RedisBroker::start(redis.clone(), rules.clone(), tasks));
        let (appends, rules) = (broker.clone(), rules.clone());
        let queue = RedisQueue::start(redis.clone(), appends, rules, queue_options(settings), tasks).await;
        let kept = Kept::Redis(redis, broker.clone());
        Ok(Some(Self { broker, queue: Arc::new(queue), kept }))
    }

    /// Has `sink` hear of what is appended.
    pub(super) fn connect(&self, sink: Arc<dyn LiveSink>) {
        match &self.kept {
            Kept::Embedded(_, live) => live.connect(sink),
            Kept::Redis(_, broker) => broker.connect(sink),
        }
    }

    /// What is known of people, kept in the same place.
    pub(super) fn people(&self, settings: &Settings, rules: &Arc<Rules>, tasks: &Tasks) -> People {
        match &self.kept {
            Kept::Embedded(store, _) => People::embedded(store, self, settings, rules, tasks),
            Kept::Redis(redis, _) => People::redis(redis, self, settings, rules, tasks),
        }
    }

    /// Nothing is changed any more.
    pub(super) async fn close(&self) {
        match &self.kept {
            Kept::Embedded(store, _) => store.close().await,
            // Its connections end with their tasks.
            Kept::Redis(..) => {}
        }
    }
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

/// Whether this process, which runs jobs, can be whoever each suite runs as; now and after every reload.
pub(super) fn check_suites(settings: &Settings, reload: &Reload) -> Result<(), StartError> {
    struct Identities;
    impl Follower for Identities {
        fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
            match check_identities(&settings.suites) {
                Ok(()) => Ok(Box::new(|| {})),
                Err((suite, source)) => Err(vec![format!("suites.{suite}: {source}")]),
            }
        }
    }
    reload.follow(Arc::new(Identities));
    check_identities(&settings.suites).map_err(|(suite, source)| StartError::Suite { suite, source })
}

/// The runners that ship, which follow the settings, and `more`.
pub(super) fn runners(
    settings: &Settings,
    reload: &Reload,
    guard: Option<PathBuf>,
    more: Vec<Arc<dyn Runner>>,
) -> Result<RunnerSet, InvalidAllow> {
    let mut command = CommandRunner::new(reload.view(|settings| settings.suites.clone()));
    if let Some(guard) = guard {
        command = command.with_guard(guard);
    }
    let stress = Arc::new(StressRunner::new(&settings.stress.allow)?);
    reload.follow(stress.clone());
    let runners: [Arc<dyn Runner>; 2] = [Arc::new(command), stress];
    Ok(runners.into_iter().chain(more).collect())
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
