//! `tidings run -- CMD…`: runs a test command here, as it is, and tells a server how it is doing.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tidings::config::suite::Format;
use tidings::model::TestId;
use tidings::model::id::is_id_char;
use tidings::reporter::run::{Ask, CANCEL_GRACE, Ended, Wrapped};
use tidings::reporter::{self, EndOutcome, Registration, Reporter, SpoolLimits};
use tidings::worker::progress::Progress;
use tidings::worker::runner::parse;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::Failure;
use crate::client::Address;

/// How long the server may take to confirm the end.
const CONFIRMATION: Duration = Duration::from_secs(5);
const LEASES: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(300);
/// The command line is wrong.
const USAGE: u8 = 2;
/// The longest part of the command in a test's id, and in its name.
const MAX_SLUG: usize = 40;
const MAX_NAME: usize = 120;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The name of the test; one is made from the command if this is left out.
    #[arg(long, value_name = "ID", value_parser = TestId::parse)]
    test_id: Option<TestId>,
    /// What this run has in common with earlier ones, whose times tell how long it will take [default: the
    /// directory and the command].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How the output is to be read.
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    format: Format,
    /// Read plain lines by this regular expression; its named groups say what they mean: pass, fail, skip (with name,
    /// ms, message), or done, total, percent.
    #[arg(long, value_name = "REGEX", conflicts_with = "format")]
    pattern: Option<String>,
    /// Count by this report, which the command writes: JUnit XML, or the JSON of Jest, Vitest, Playwright Test or k6
    /// (`--summary-export`); may be given more than once.
    #[arg(long = "report", visible_alias = "junit", value_name = "FILE")]
    reports: Vec<PathBuf>,
    /// How long the server waits for a sign of life before it takes the test for lost.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = lease)]
    lease: Duration,
    #[command(flatten)]
    server: Address,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let http = args.server.http()?;
    let parser = match &args.pattern {
        Some(pattern) => {
            parse::by_pattern(pattern).map_err(|error| Failure { code: USAGE, error: error.into() })?
        }
        None => parse::parser(args.format),
    };
    let guard = std::env::current_exe().context("the path of this program is unknown")?;
    let test_id = args.test_id.map_or_else(|| made_up(&args.command), Ok)?;
    let stop = listen()?;
    let progress = Progress::new();
    let registration = Registration {
        test_id: test_id.clone(),
        test_type: "external".to_owned(),
        name: Some(args.name.unwrap_or_else(|| name(&args.command))),
        lease: args.lease,
        started_at: now_ms(),
    };
    if std::io::stderr().is_terminal() {
        eprintln!("tidings: test {test_id}, to be followed with `tidings watch test-progress-{test_id}`");
    }
    let reporter = Reporter::start(http, registration, progress.clone(), SpoolLimits::default());
    let wrapped = Wrapped {
        argv: args.command,
        guard,
        test_id: test_id.clone(),
        parser,
        grace: CANCEL_GRACE,
        reports: args.reports,
    };
    let Ended { code, end, remarks } = reporter::run::run(wrapped, progress, &reporter, stop)
        .await
        .context("the command cannot be started")?;
    remarks.iter().for_each(|remark| eprintln!("tidings: {remark}"));
    let outcome = match &end.outcome {
        EndOutcome::Passed => "passed",
        EndOutcome::Failed(_) => "failed",
        EndOutcome::Cancelled(_) => "was cancelled",
    };
    if let Err(not_told) = reporter.end(end, CONFIRMATION).await {
        eprintln!("tidings: the server does not know that test {test_id} {outcome}: {not_told}");
    }
    Ok(ExitCode::from(code))
}

/// What a server takes for a lease.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    match LEASES.contains(&lease) {
        true => Ok(lease),
        false => Err("a lease lasts from 5s to 5m".to_owned()),
    }
}

/// What asks this process to end, to be passed on.
fn listen() -> std::io::Result<mpsc::Receiver<Ask>> {
    let (tell, asked) = mpsc::channel(4);
    let signals = [
        (SignalKind::interrupt(), Ask::Interrupt),
        (SignalKind::terminate(), Ask::Terminate),
        (SignalKind::hangup(), Ask::Hangup),
    ];
    for (kind, ask) in signals {
        let mut signal: Signal = signal(kind)?;
        let tell = tell.clone();
        tokio::spawn(async move { while signal.recv().await.is_some() && tell.send(ask).await.is_ok() {} });
    }
    Ok(asked)
}

/// An id that says what is run, and that no other run has.
fn made_up(command: &[OsString]) -> Result<TestId, Failure> {
    let program = command.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let is_word = |arg: &&OsString| {
        arg.to_str().is_some_and(|arg| !arg.starts_with('-') && arg.chars().all(is_id_char))
    };
    let words = std::iter::once(program)
        .chain(command.iter().skip(1).take_while(is_word).take(2).map(OsString::as_os_str));
    let slug = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join("-");
    let slug: String = slug.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let slug = &slug[..slug.len().min(MAX_SLUG)];
    let unique = ulid::Ulid::generate().to_string().to_lowercase();
    Ok(TestId::parse(&format!("{}-{unique}", slug.trim_matches('-')))?)
}

/// The directory and the command.
fn name(command: &[OsString]) -> String {
    let directory = std::env::current_dir().unwrap_or_default();
    let directory = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let command: Vec<_> = command.iter().map(|arg| arg.to_string_lossy()).collect();
    let name = format!("{directory}: {}", command.join(" "));
    parse::cut(&name, MAX_NAME).to_owned()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_id_says_what_is_run() {
        let id = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            made_up(&words).expect("an id").to_string()
        };
        assert!(id(&["/usr/bin/cargo", "test", "--workspace", "x"]).starts_with("cargo-test-0"));
        assert!(id(&["ärger"]).starts_with("rger-"));
        assert!(id(&[&"x".repeat(500)]).len() < 80);
        assert_ne!(id(&["a"]), id(&["a"]));
    }
}
