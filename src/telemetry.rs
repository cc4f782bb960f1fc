//! Logs: to standard error, pretty on a terminal and JSON elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, reload};

use crate::config::reload::{Follower, PutInForce};
use crate::config::settings::{LogFormat, Settings};

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("log.level: {0}")]
    Level(#[from] ParseError),
    /// Somebody else writes logs already.
    #[error("logs are written already: {0}")]
    Taken(#[from] TryInitError),
}

/// What is logged; it follows `log.level`.
pub struct LogLevel(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// Starts to write logs of this process. `level` is a level, or directives such as `warn,tidings::queue=debug`.
pub fn init(level: &str, format: LogFormat) -> Result<LogLevel, TelemetryError> {
    let filter = filter(level)?;
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if pretty {
        let subscriber = subscriber.with_ansi(ansi).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.finish().try_init()?;
        Ok(LogLevel(Arc::new(move |filter| handle.reload(filter))))
    } else {
        let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.finish().try_init()?;
        Ok(LogLevel(Arc::new(move |filter| handle.reload(filter))))
    }
}

/// What `level` lets pass. Packets as they come, with tokens in them, are logged only for who names the library.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("tungstenite=debug,{level}"))
}

impl Follower for LogLevel {
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let filter = filter(&settings.log.level).map_err(|e| vec![format!("`log.level`: {e}")])?;
        let exchange = self.0.clone();
        Ok(Box::new(move || {
            // Only a process that writes no logs any more has no place for it.
            if let Err(error) = exchange(filter) {
                tracing::error!(%error, "the level of the log was not changed");
            }
        }))
    }
}
