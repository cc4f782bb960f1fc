//! Logs: to standard error, pretty on a terminal and JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::settings::LogFormat;

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else writes logs already.
    #[error("logs are written already: {0}")]
    Taken(#[from] TryInitError),
}

/// Starts to write logs of this process. `level` is a level, or directives such as `warn,tidings::queue=debug`.
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = EnvFilter::try_new(level)?;
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if pretty {
        subscriber.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
    } else {
        subscriber.json().flatten_event(true).finish().try_init()?;
    }
    Ok(())
}
