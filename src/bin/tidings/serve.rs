//! `tidings serve`: the server, with an embedded worker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tidings::app::{App, AppOptions, StartError};
use tidings::auth;
use tidings::config::channels::Rules;
use tidings::config::settings::{Settings, Sources};
use tidings::telemetry;

use crate::Failure;
use crate::client::print_line;
use crate::signals::Signals;

/// Flags; each beats its environment variable, which beats the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where to keep the database [default: ./tidings-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Channels that replace the compiled-in ones.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// The settings [default: ./tidings.toml, if there is one].
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The Redis that several servers and workers share: redis://HOST, redis+sentinel://HOST,…/PRIMARY, redis+cluster://HOST,…
    #[arg(long, env = "TIDINGS_REDIS", hide_env_values = true, value_name = "URL")]
    redis: Option<String>,
    /// Run no jobs in this process.
    #[arg(long)]
    no_worker: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let sources = sources(args.config.as_deref())
        .with_flag("--listen", "listen", args.listen)
        .with_flag("--data-dir", "data_dir", args.data_dir)
        .with_flag("--channels", "channels", args.channels)
        .with_flag("--redis", "redis.url", args.redis)
        .with_flag("--no-worker", "worker", args.no_worker.then_some(false));
    let settings = Settings::load(&sources).map_err(Failure::configuration)?;
    let rules = rules(settings.channels.as_deref())?;
    let level = telemetry::init(&settings.log.level, settings.log.format).map_err(Failure::configuration)?;
    let guard = std::env::current_exe().context("the path of this program is unknown")?;
    // Before anybody can know that the server runs, and signal it.
    let mut signals = Signals::listen()?;
    let deadline = settings.shutdown.deadline;
    let (guard, log_level) = (Some(guard), Some(level.clone()));
    let options = AppOptions { settings, rules, guard, runners: Vec::new(), log_level };
    let app = App::start(options).await.map_err(refused)?;
    app.reload().follow(Arc::new(level));
    // The one line that programs which start a server wait for.
    let _ = print_line(format_args!("listening on http://{}", app.address()));
    signals.reload_until_stop(app.reload(), &sources).await;
    Ok(signals.end_within(deadline, app.stop()).await)
}

/// The settings file and the environment. A file that is there at the start has to be there for a reload, too.
pub(crate) fn sources(config: Option<&Path>) -> Sources {
    let file = Sources::new(config).file();
    Sources::new(file.as_deref()).with_process_environment()
}

/// What the settings' own checks cannot see is a mistake in them all the same.
pub(crate) fn refused(error: StartError) -> Failure {
    match error {
        StartError::Stress(_)
        | StartError::Suite { .. }
        | StartError::NoRedis
        | StartError::Auth(auth::StartError::Keys(_)) => Failure::configuration(error),
        error => error.into(),
    }
}

/// The rules of `file`, or the compiled-in ones.
pub(crate) fn rules(file: Option<&Path>) -> Result<Arc<Rules>, Failure> {
    let rules = match file {
        Some(file) => Rules::load(file).map_err(Failure::configuration)?,
        None => Rules::builtin(),
    };
    Ok(Arc::new(rules))
}
