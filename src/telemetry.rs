//! Logs: to standard error, pretty on a terminal and JSON elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, reload};

use crate::config::reload::{Follower, PutInForce};
use crate::config::settings::{self, LogFormat, Settings};

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

/// What is no level, nor directives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLevel(String);

/// What is logged; it follows `log.level`, and whoever changes it while the process runs. Clones share it.
#[derive(Clone)]
pub struct LogLevel(Arc<Level>);

struct Level {
    exchange: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    // Held while it is exchanged, so that it says what holds.
    said: Mutex<String>,
}

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
        Ok(LogLevel::new(level, move |filter| handle.reload(filter)))
    } else {
        let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.finish().try_init()?;
        Ok(LogLevel::new(level, move |filter| handle.reload(filter)))
    }
}

/// What `level` lets pass. Packets as they come, with tokens in them, are logged only for who names the library.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let logs_all = level.split(',').any(|part| part.trim().eq_ignore_ascii_case("trace"));
    if logs_all {
        return EnvFilter::try_new(format!("tungstenite=debug,{level}"));
    }
    EnvFilter::try_new(level)
}

impl LogLevel {
    fn new(
        level: &str,
        exchange: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Level { exchange: Box::new(exchange), said: Mutex::new(level.to_owned()) }))
    }

    /// The level, or directives, by which is logged now.
    #[must_use]
    pub fn get(&self) -> String {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by `level` from now on: until the next call, or a reload of the configuration.
    ///
    /// # Errors
    /// It is no level; then nothing has changed.
    pub fn set(&self, level: &str) -> Result<(), InvalidLevel> {
        settings::check_level(level).map_err(InvalidLevel)?;
        let filter = filter(level).map_err(|error| InvalidLevel(error.to_string()))?;
        self.exchange(level, filter);
        Ok(())
    }

    fn exchange(&self, level: &str, filter: EnvFilter) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.0.exchange)(filter) {
            Ok(()) => level.clone_into(&mut said),
            // Only a process that writes no logs any more has no place for it.
            Err(error) => tracing::error!(%error, "the level of the log was not changed"),
        }
    }
}

impl Follower for LogLevel {
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let level = settings.log.level.clone();
        let filter = filter(&level).map_err(|e| vec![format!("`log.level`: {e}")])?;
        let own = self.clone();
        Ok(Box::new(move || own.exchange(&level, filter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_logged_only_for_who_names_the_library_and_nothing_of_it_below_its_level() {
        for level in ["off", "error", "info", "warn,tidings=trace"] {
            assert_eq!(filter(level).unwrap().to_string(), EnvFilter::try_new(level).unwrap().to_string());
        }
        for level in ["trace", "tidings=info, TRACE"] {
            assert!(filter(level).unwrap().to_string().contains("tungstenite=debug"), "{level}");
        }
        assert!(filter("trace,tungstenite=trace").unwrap().to_string().contains("tungstenite=trace"));
    }
}
