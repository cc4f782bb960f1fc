//! `tidings doctor`: looks at what a server would meet here, and says what to change.
//!
//! Each check is a line: what was looked at, how it is, what was found and, where that is not as it should be, what to
//! do. Nothing is changed, and a server that runs meanwhile is not disturbed.

mod redis;
mod store;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use tidings::config::report;
use tidings::config::settings::{Settings, Sources};

use crate::Failure;
use crate::client::print_line;

/// What to look at: the configuration of a server, as it would read it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The settings [default: ./tidings.toml, if there is one].
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the database is [default: ./tidings-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Channels that replace the compiled-in ones.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// The Redis that several servers and workers share.
    #[arg(long, env = "TIDINGS_REDIS", hide_env_values = true, value_name = "URL")]
    redis: Option<String>,
    /// A running server, whose clock is compared with that of this machine.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// As it should be.
    Ok,
    /// It works, but may not always.
    Warning,
    /// A server would not work, or would lose something.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, health: Health::Ok, found: found.into(), advice: None }
    }

    fn skipped(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, health: Health::Skipped, found: found.into(), advice: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, health: Health::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn failed(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, health: Health::Failed, found: found.into(), advice: Some(advice.into()) }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let sources = Sources::new(args.config.as_deref())
        .with_process_environment()
        .with_flag("--data-dir", "data_dir", args.data_dir)
        .with_flag("--channels", "channels", args.channels)
        .with_flag("--redis", "redis.url", args.redis);
    let mut checks = Vec::new();
    match configuration(&sources, &mut checks) {
        Some(settings) => {
            checks.extend(system::look(&settings));
            match &settings.redis.url {
                Some(url) => checks.extend(redis::look(url, &settings).await),
                None => checks.extend(store::look(&settings.data_dir)),
            }
        }
        None => {
            checks.push(Check::skipped("surroundings", "what is looked at follows from the configuration"))
        }
    }
    if let Some(server) = &args.server {
        checks.push(system::clock_of(server).await);
    }
    let ok = checks.iter().all(|check| check.health != Health::Failed);
    let report = Report { ok, checks };
    if args.json {
        let _ = print_line(serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The settings, if they have no mistake.
fn configuration(sources: &Sources, checks: &mut Vec<Check>) -> Option<Settings> {
    const NAME: &str = "configuration";
    match report::check(sources) {
        Ok(summary) => {
            let file = summary.config.as_ref().map(|file| file.display().to_string());
            let file = file.unwrap_or_else(|| "no tidings.toml, so the defaults".to_owned());
            checks.push(match summary.warnings.as_slice() {
                [] => Check::ok(NAME, file),
                warnings => {
                    Check::warning(NAME, format!("{file}: {}", warnings.join("; ")), "see tidings check")
                }
            });
            Some(summary.settings)
        }
        Err(mistakes) => {
            checks.push(Check::failed(NAME, mistakes.join("; "), "mend it; a server would not start"));
            None
        }
    }
}

fn print(report: &Report) {
    for Check { name, health, found, advice } in &report.checks {
        let mark = match health {
            Health::Ok => "ok     ",
            Health::Warning => "warning",
            Health::Failed => "FAILED ",
            Health::Skipped => "skipped",
        };
        let _ = print_line(format_args!("{mark}  {name}: {found}"));
        if let Some(advice) = advice {
            let _ = print_line(format_args!("         → {advice}"));
        }
    }
    let count = |wanted| report.checks.iter().filter(|check| check.health == wanted).count();
    let (failed, warnings) = (count(Health::Failed), count(Health::Warning));
    let _ = print_line(format_args!("\n{failed} failed, {warnings} warnings"));
}
