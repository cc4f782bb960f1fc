//! Runs commands: the test type `command`, config `{ suite, params?, only? }`.
//!
//! A submitter names a suite that the operator configured, and may set the environment variables and choose the
//! arguments that the suite opens to them, from lists of values; there is no shell between. The command's
//! environment is made anew (`launch`), its output has a budget (`budget`), and it may be another user with
//! limited resources ([`super::guard`]). The command gets a process group of its own, so that
//! whatever it starts ends with it: at its end, at a cancel, and, where a guard is set, when the server dies.
//! What it prints goes to the log and to a parser ([`super::parse`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::parse::{Exit, MAX_NAME_BYTES};
use super::{Attempt, Outcome, Runner};
use crate::config::live::Live;
use crate::config::suite::Suite;

mod budget;
pub(crate) mod feed;
pub(crate) mod group;
mod identity;
mod launch;
pub(crate) mod lines;
mod pump;
pub(crate) mod verdict;

use identity::Identity;
pub use identity::InvalidIdentity;
use launch::{Launch, Process};
use pump::Pump;

/// How long a cancelled command may take to end by itself, after SIGTERM and before SIGKILL.
const CANCEL_GRACE: Duration = Duration::from_millis(500);
/// How long the output is waited for after the command itself ended: somebody it left behind may hold it.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// How long a killed process is waited for; one that hangs inside the kernel is left to it.
const REAP_GRACE: Duration = Duration::from_secs(2);

/// Runs the suites of the configuration.
#[derive(Debug, Clone)]
pub struct CommandRunner {
    suites: Live<BTreeMap<String, Suite>>,
    guard: Option<PathBuf>,
}

/// What a job of this type is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    suite: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Cases that are run alone, by their names.
    only: Option<Vec<String>>,
}

impl CommandRunner {
    /// A runner of `suites`, by their names. If this process is killed, its
    /// commands go on without it; see [`Self::with_guard`].
    #[must_use]
    pub fn new(suites: impl Into<Live<BTreeMap<String, Suite>>>) -> Self {
        Self { suites: suites.into(), guard: None }
    }

    /// Starts commands through `exe guard -- argv…` ([`super::guard::guard`]), which ends them when this
    /// process dies, however it dies.
    #[must_use]
    pub fn with_guard(mut self, exe: PathBuf) -> Self {
        self.guard = Some(exe);
        self
    }

    /// The suite that `config` names and the parameters for it, or what is wrong.
    fn resolve(&self, config: &Map<String, Value>) -> Result<(Suite, Config), String> {
        let suites = self.suites.get();
        let known = || match suites.is_empty() {
            true => "none is configured, add a [suites.NAME] section to tidings.toml".to_owned(),
            false => format!("there is: {}", list(suites.keys())),
        };
        if !config.contains_key("suite") {
            return Err(format!("config.suite is missing; {}", known()));
        }
        let config: Config =
            serde_json::from_value(Value::Object(config.clone())).map_err(|e| format!("config: {e}"))?;
        let name = &config.suite;
        let suite = suites.get(name).ok_or_else(|| format!("there is no suite `{name}`; {}", known()))?;
        for (param, value) in &config.params {
            let Some(allowed) = suite.params.get(param).or_else(|| suite.args.get(param)) else {
                let taken: BTreeSet<&String> = suite.params.keys().chain(suite.args.keys()).collect();
                return Err(match taken.is_empty() {
                    true => format!("params.{param}: the suite `{name}` takes no parameters"),
                    false => format!("params.{param}: the suite `{name}` takes: {}", list(taken)),
                });
            };
            if !allowed.contains(value) {
                return Err(format!("params.{param}: `{value}` is not allowed; allowed: {}", list(allowed)));
            }
        }
        if let Some(only) = &config.only {
            if let Some(long) = only.iter().find(|case| case.len() >= MAX_NAME_BYTES) {
                return Err(format!(
                    "only: {long:?} may have been cut, so that no case would be found by it"
                ));
            }
            suite.rerun_with(&config.params, only).map_err(|error| format!("only: {error}"))?;
        }
        Ok((suite.clone(), config))
    }
}

/// Whether the `user` and `group` of every suite are there, and may be taken on by this process.
pub fn check_identities(suites: &BTreeMap<String, Suite>) -> Result<(), (String, InvalidIdentity)> {
    suites
        .iter()
        .try_for_each(|(name, suite)| Identity::of(suite).map(drop).map_err(|error| (name.clone(), error)))
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl Runner for CommandRunner {
    fn test_type(&self) -> &str {
        "command"
    }

    fn check(&self, config: &Map<String, Value>) -> Result<(), String> {
        self.resolve(config).map(drop)
    }

    fn timeout(&self, config: &Map<String, Value>) -> Option<Duration> {
        self.resolve(config).ok()?.0.timeout
    }

    async fn run(&self, attempt: Attempt) -> Outcome {
        let (suite, config) = match self.resolve(&attempt.job.config) {
            Ok(found) => found,
            Err(message) => return Outcome::runner_error(message),
        };
        let launch = Launch {
            name: &config.suite,
            suite: &suite,
            params: &config.params,
            only: config.only.as_deref(),
            job: &attempt.job,
            guard: self.guard.as_deref(),
        };
        match launch.start() {
            Ok(process) => found(config.only.as_deref(), &attempt, watch(process, &suite, &attempt).await),
            Err(e) => Outcome::runner_error(e.to_string()),
        }
    }
}

/// A run of single cases that ran none of them has not passed, whatever the runner thinks of that.
fn found(only: Option<&[String]>, attempt: &Attempt, outcome: Outcome) -> Outcome {
    let counts = attempt.progress.state().counts;
    match (only, outcome) {
        (Some(only), Outcome::Passed { results }) if counts.passed + counts.failed == 0 => {
            let message = format!(
                "none of the {} cases ran: they have other names now, or `rerun` does not name them as the runner does",
                only.len()
            );
            Outcome::tests_failed(message, results)
        }
        (_, outcome) => outcome,
    }
}

/// Follows the command to its end, its own or the attempt's.
async fn watch(mut process: Process, suite: &Suite, attempt: &Attempt) -> Outcome {
    let started = Instant::now();
    let mut pump = Pump::new(process.take_output(), suite, attempt.progress.clone());
    let exit = tokio::select! {
        exit = run_to_end(&mut process, &mut pump) => exit,
        () = attempt.cancel.cancelled() => {
            stop(&mut process, &mut pump).await;
            return Outcome::runner_error("the command was stopped");
        }
    };
    // Whatever the command left behind.
    process.group.kill();
    match exit {
        Ok(exit) => {
            let printed = pump.finish(exit);
            verdict::outcome(exit, &attempt.progress.state(), &printed, started.elapsed())
        }
        Err(e) => Outcome::runner_error(format!("the command's end could not be waited for: {e}")),
    }
}

async fn run_to_end(process: &mut Process, pump: &mut Pump) -> std::io::Result<Exit> {
    let exit = loop {
        tokio::select! {
            exit = process.wait() => break exit?,
            () = pump.step(), if pump.is_open() => {}
        }
    };
    // A process that was left behind may hold the pipes open for ever.
    let _ = timeout(OUTPUT_GRACE, pump.drain()).await;
    Ok(exit)
}

/// Asks the whole group to end, and then ends it.
async fn stop(process: &mut Process, pump: &mut Pump) {
    process.group.ask(group::Ask::Terminate);
    // Its output is still read, or it might hang on a full pipe while it cleans up.
    let _ = timeout(CANCEL_GRACE, run_to_end(process, pump)).await;
    process.group.kill();
    let _ = timeout(REAP_GRACE, process.wait()).await;
}

#[cfg(test)]
mod tests;
