//! Puts a worker together, and runs it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use super::progress::Progress;
use super::{Failed, Handler, Handlers, IntoResults};
use crate::app::worker::{WorkerApp, WorkerOptions};
use crate::app::{App, AppOptions, StartError};
use crate::config::channels::Rules;
use crate::config::settings::{Settings, SettingsError, Sources};
use crate::model::Job;
use crate::worker::runner::Runner;

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// It would have nothing to do.
    #[error(
        "the worker has no handler: give it one with `handler(\"my-test\", |job, progress| async {{ … }})`"
    )]
    NoHandler,
    /// It would have nowhere to take jobs from.
    #[error("the worker has no source of jobs: give it `redis(URL)`, or `embedded(…)` for one machine")]
    NoSource,
    /// A setting cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What it needs is not there.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
}

/// Where the jobs come from.
#[derive(Debug)]
enum Source {
    Redis(String),
    Embedded { listen: SocketAddr, data_dir: PathBuf },
}

/// What a worker is to be.
#[derive(Debug, Default)]
pub struct Builder {
    source: Option<Source>,
    concurrency: Option<usize>,
    handlers: Handlers,
}

/// A worker of your own; see [the module](super).
#[derive(Debug)]
pub struct Worker(());

impl Worker {
    /// Begins with nothing.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Takes jobs from the Redis that servers share: `redis://HOST`, `redis+sentinel://HOST,…/PRIMARY`,
    /// `redis+cluster://HOST,…`.
    #[must_use]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.source = Some(Source::Redis(url.into()));
        self
    }

    /// Is the server, too: on one machine, and in tests. It listens at `listen` (port 0 takes a free one) and keeps its
    /// data in `data_dir`. Commands and load tests are run as by `tidings serve`, without suites.
    #[must_use]
    pub fn embedded(mut self, listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        self.source = Some(Source::Embedded { listen, data_dir: data_dir.into() });
        self
    }

    /// So many jobs at once; as many as there are cores, at least two, if this is left out.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = Some(jobs);
        self
    }

    /// Runs the jobs of `test_type` with `handler`. Of two handlers of the same type the later one counts.
    #[must_use]
    pub fn handler<F, Fut, R>(mut self, test_type: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Job, Progress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failed>> + Send + 'static,
        R: IntoResults,
    {
        let test_type = test_type.into();
        let handler = Handler::new(test_type.clone(), handler);
        self.handlers.insert(test_type, Arc::new(handler));
        self
    }

    /// Starts the worker. It takes jobs when this returns.
    ///
    /// # Errors
    /// [`KitError`] says what to change.
    pub async fn start(self) -> Result<Running, KitError> {
        let runners: Vec<Arc<dyn Runner>> =
            self.handlers.into_values().map(|handler| handler as Arc<dyn Runner>).collect();
        if runners.is_empty() {
            return Err(KitError::NoHandler);
        }
        let source = self.source.ok_or(KitError::NoSource)?;
        let sources = Sources::new(None).with_flag("concurrency", "workers.concurrency", self.concurrency);
        let rules = Arc::new(Rules::builtin());
        match source {
            Source::Redis(url) => {
                let settings = Settings::load(&sources.with_flag("redis", "redis.url", Some(url)))?;
                let options = WorkerOptions { settings, rules, guard: None, runners, ships_runners: false };
                // Boxed, or the whole server would be a part of the caller's future.
                let starting: BoxFuture<'_, _> = WorkerApp::start(options).boxed();
                Ok(Running(Kind::Worker(starting.await?)))
            }
            Source::Embedded { listen, data_dir } => {
                let sources = sources.with_flag("listen", "listen", Some(listen)).with_flag(
                    "data_dir",
                    "data_dir",
                    Some(data_dir),
                );
                let options = AppOptions {
                    settings: Settings::load(&sources)?,
                    rules,
                    guard: None,
                    runners,
                    log_level: None,
                };
                let starting: BoxFuture<'_, _> = App::start(options).boxed();
                Ok(Running(Kind::Server(Box::new(starting.await?))))
            }
        }
    }

    /// Starts the worker and runs it until SIGTERM or SIGINT; then it takes no more jobs, gives those that run their
    /// time, and hands the rest back.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn run(self) -> Result<(), KitError> {
        // Before anybody can know that the worker runs, and signal it.
        let mut terminate = signal(SignalKind::terminate()).map_err(KitError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(KitError::Signals)?;
        let running = self.start().await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        running.stop().await;
        Ok(())
    }
}

/// A running worker.
pub struct Running(Kind);

enum Kind {
    Worker(WorkerApp),
    Server(Box<App>),
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Running {
    /// Where it listens, if it is the server, too.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Worker(_) => None,
            Kind::Server(app) => Some(app.address()),
        }
    }

    /// Stops in order: no more jobs, time for those that run, the others back into the queue.
    pub async fn stop(self) {
        let stopping: BoxFuture<'static, ()> = match self.0 {
            Kind::Worker(worker) => worker.stop().boxed(),
            Kind::Server(app) => app.stop().boxed(),
        };
        stopping.await;
    }
}
