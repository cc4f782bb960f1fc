//! `tidings worker`: a process that only runs jobs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tidings::app::worker::{WorkerApp, WorkerOptions};
use tidings::config::settings::Settings;
use tidings::telemetry;

use crate::Failure;
use crate::client::print_line;
use crate::serve::{refused, rules, sources};
use crate::signals::Signals;

/// Flags; each beats its environment variable, which beats the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Redis whose jobs it runs: redis://HOST, redis+sentinel://HOST,…/PRIMARY, redis+cluster://HOST,…
    #[arg(long, env = "TIDINGS_REDIS", hide_env_values = true, value_name = "URL")]
    redis: Option<String>,
    /// So many jobs at once [default: the cores of this machine, at least 2].
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Channels that replace the compiled-in ones; the same as those of the servers.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// The settings, with the suites that may be run [default: ./tidings.toml, if there is one].
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let sources = sources(args.config.as_deref())
        .with_flag("--redis", "redis.url", args.redis)
        .with_flag("--concurrency", "workers.concurrency", args.concurrency)
        .with_flag("--channels", "channels", args.channels);
    let settings = Settings::load(&sources).map_err(Failure::configuration)?;
    let rules = rules(settings.channels.as_deref())?;
    let level = telemetry::init(&settings.log.level, settings.log.format).map_err(Failure::configuration)?;
    let guard = std::env::current_exe().context("the path of this program is unknown")?;
    // Before anybody can know that the worker runs, and signal it.
    let mut signals = Signals::listen()?;
    let deadline = settings.shutdown.deadline;
    let options =
        WorkerOptions { settings, rules, guard: Some(guard), runners: Vec::new(), ships_runners: true };
    let worker = WorkerApp::start(options).await.map_err(refused)?;
    worker.reload().follow(Arc::new(level));
    // The one line that programs which start a worker wait for.
    let _ = print_line(format_args!("working as {}", worker.id()));
    signals.reload_until_stop(worker.reload(), &sources).await;
    Ok(signals.end_within(deadline, worker.stop()).await)
}
