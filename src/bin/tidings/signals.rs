//! The signals that the program heeds.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidings::app::reload;
use tidings::config::reload::Reload;
use tidings::config::settings::Sources;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, from the moment at which this is made.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// These and SIGHUP, for what runs in the background.
pub(crate) struct Signals {
    stop: StopSignals,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { stop: StopSignals::listen()?, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for a signal to stop, and reloads the configuration with each SIGHUP before.
    pub(crate) async fn reload_until_stop(&mut self, reload: &Arc<Reload>, sources: &Sources) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => reload::reload(reload, sources).await,
                () = self.stop.next() => break,
            }
        }
        tracing::info!("stopping; a second signal ends at once");
    }

    /// Lets `stop` end the process in order; with the exit code for it. Another signal, or `deadline`, ends it at once.
    pub(crate) async fn end_within(
        &mut self,
        deadline: Duration,
        stop: impl Future<Output = ()>,
    ) -> ExitCode {
        tokio::select! {
            () = stop => ExitCode::SUCCESS,
            () = self.stop.next() => {
                tracing::warn!("a second signal ends it at once");
                ExitCode::FAILURE
            }
            () = tokio::time::sleep(deadline) => {
                tracing::error!(?deadline, "it did not stop within `shutdown.deadline`, and ends as it is");
                ExitCode::FAILURE
            }
        }
    }

    /// Waits for any of them, for a program that belongs to a terminal and ends with it.
    pub(crate) async fn stop_or_hangup(&mut self) {
        tokio::select! {
            () = self.stop.next() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
