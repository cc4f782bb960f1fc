//! A worker process: the queue, a pool and what both need, without a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{self, Backend};
use super::observed;
use super::{STOP_PATIENCE, StartError, pool_options, stop_pool, suites};
use crate::config::channels::Rules;
use crate::config::reload::Reload;
use crate::config::settings::Settings;
use crate::metrics;
use crate::model::WorkerId;
use crate::queue::Queue;
use crate::tasks::Tasks;
use crate::upkeep;
use crate::worker::pool::Pool;
use crate::worker::runner::Runner;

/// What a worker process is made of.
pub struct WorkerOptions {
    /// The configuration.
    pub settings: Settings,
    /// The channels, which have to be those of the servers.
    pub rules: Arc<Rules>,
    /// As for a server.
    pub guard: Option<PathBuf>,
    /// Test types beside those that ship.
    pub runners: Vec<Arc<dyn Runner>>,
    /// Whether those that ship are run, too.
    pub ships_runners: bool,
}

/// A running worker process.
pub struct WorkerApp {
    queue: Arc<dyn Queue>,
    pool: Arc<Pool>,
    reload: Arc<Reload>,
    grace: Duration,
    tasks: Tasks,
}

impl WorkerApp {
    /// Starts a worker. It takes jobs when this returns.
    pub async fn start(options: WorkerOptions) -> Result<Self, StartError> {
        let WorkerOptions { settings, rules, guard, runners, ships_runners } = options;
        let reload = Arc::new(Reload::new(settings.clone(), rules.clone()));
        let runners = Arc::new(match ships_runners {
            true => backend::runners(&settings, &reload, guard, runners)?,
            false => runners.into_iter().collect(),
        });
        backend::check_suites(&settings, &reload)?;
        let tasks = Tasks::new();
        let backend = Backend::redis(&settings, &rules, &tasks).await?.ok_or(StartError::NoRedis)?;
        let (queue, broker) = (backend.queue.clone(), backend.broker.clone());
        suites::limit(&settings, &reload, &queue, &tasks).await;
        let metrics = metrics::install()?;
        metrics::register_namespaces(rules.namespaces().iter().map(|namespace| namespace.name.as_str()));
        // It may be the last process that is left: then it is the one to find dead leases and due jobs.
        upkeep::start_sweeping(&queue, &tasks);
        upkeep::start_observing(&queue, &broker, None, &tasks);
        let pool = Pool::start(queue.clone(), runners, pool_options(&settings), &tasks);
        observed::start(&settings, pool.id().as_str(), &backend, &metrics, &tasks).await?;
        Ok(Self { queue, pool, reload, grace: settings.shutdown.attempts, tasks })
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

    /// The name that its jobs show.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        self.pool.id()
    }

    /// Stops in order: no more jobs, time for attempts to end, those that have not back into the queue, then the tasks.
    pub async fn stop(self) {
        stop_pool(Some(&self.pool), self.grace).await;
        if !self.tasks.stop(STOP_PATIENCE).await {
            tracing::warn!("some tasks did not stop in time");
        }
    }
}
