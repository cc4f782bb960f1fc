//! `tidings demo`: a server, three real tests and a live view, in a temporary directory.

mod view;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tidings::app::{App, AppOptions};
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::config::channels::Rules;
use tidings::config::settings::{Settings, Sources};
use tidings::telemetry;

use crate::Failure;
use crate::client::print_line;
use crate::follow::{Follower, News};
use crate::signals::Signals;
use view::View;

/// With `--exit` the demo ends by itself within this time, whatever happens.
const TIME_LIMIT: Duration = Duration::from_secs(40);
/// How long the last messages may take after the last test has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the stress test runs.
const STRESS_MS: u64 = 6_000;

/// The suites of the demo; plain shell scripts, so that they run wherever there is a shell.
const SUITES: [(&str, &str); 2] =
    [("healthy.sh", include_str!("demo/healthy.sh")), ("flawed.sh", include_str!("demo/flawed.sh"))];

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End when the tests have ended; exit code 0 if every message was delivered.
    #[arg(long)]
    exit: bool,
    /// Where to listen; a free port by default.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), value_name = "ADDRESS")]
    listen: SocketAddr,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let dir = tempfile::tempdir().context("no temporary directory could be made")?;
    let settings = settings(dir.path(), args.listen)?;
    let log_level = Some(telemetry::init("error", settings.log.format)?);
    let guard = std::env::current_exe().context("the path of this program is unknown")?;
    let deadline = settings.shutdown.deadline;
    let app = App::start(AppOptions {
        settings,
        rules: Arc::new(Rules::builtin()),
        guard: Some(guard),
        runners: Vec::new(),
        log_level,
    })
    .await?;
    let url = format!("http://{}", app.address());
    let mut signals = Signals::listen()?;
    let done = if args.exit {
        tokio::time::timeout(TIME_LIMIT, show(&url, true, &mut signals))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the tests did not end within {TIME_LIMIT:?}").into()))
    } else {
        show(&url, false, &mut signals).await
    };
    match signals.end_within(deadline, app.stop()).await {
        ExitCode::SUCCESS => done,
        code => Ok(code),
    }
}

fn settings(dir: &Path, listen: SocketAddr) -> Result<Settings, Failure> {
    for (name, script) in SUITES {
        std::fs::write(dir.join(name), script).context("the demo's suites could not be written")?;
    }
    let config = dir.join("tidings.toml");
    std::fs::write(&config, include_str!("demo/tidings.toml"))
        .context("the demo's settings could not be written")?;
    let sources = Sources::new(Some(&config)).with_flag("--listen", "listen", Some(listen)).with_flag(
        "--data-dir",
        "data_dir",
        Some(dir.join("data")),
    );
    Ok(Settings::load(&sources)?)
}

/// Submits the tests and shows what is told of them, until they have ended or somebody stops it.
async fn show(url: &str, exit: bool, signals: &mut Signals) -> Result<ExitCode, Failure> {
    let rooms = vec!["queue-updates".to_owned(), "test-updates".to_owned()];
    let mut follower = Follower::new(url, None, rooms.clone(), Since::Now);
    let mut view = View::new(url);
    let mut joined = 0;
    let mut submitted = false;
    let mut jobs = Vec::new();
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            () = signals.stop_or_hangup() => {
                view.finish();
                return Ok(ExitCode::SUCCESS);
            }
        };
        match news {
            News::Joined(_) => joined += 1,
            News::Message(message) => view.show(&message),
            News::Reset(_) | News::Lost(_) => view.note("the connection was lost; trying again"),
        }
        if joined >= rooms.len() && !submitted {
            jobs = submit(url).await?;
            submitted = true;
        }
        if submitted && view.all_ended(&jobs) && view.is_open() {
            view.finish();
            let complete = summary(url, &rooms, &mut follower, &mut view, &jobs).await?;
            if exit {
                return Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            print_line(format_args!("The server goes on: open {url} or press Ctrl-C."))?;
        }
    }
}

async fn submit(url: &str) -> Result<Vec<String>, Failure> {
    let http = HttpClient::new(url, None)?;
    let target = format!("{url}/healthz");
    let wanted = [
        json!({ "testType": "stress", "testId": "stress-healthz",
                "config": { "url": target, "rate": 200, "durationMs": STRESS_MS } }),
        json!({ "testType": "command", "testId": "suite-healthy", "config": { "suite": "healthy" } }),
        json!({ "testType": "command", "testId": "suite-flawed", "config": { "suite": "flawed" } }),
    ];
    let mut jobs = Vec::new();
    for job in wanted {
        let answer: Value = http.post("/api/v1/jobs", &job).await?;
        jobs.push(answer["jobId"].as_str().context("the server answered without a job id")?.to_owned());
    }
    Ok(jobs)
}

/// Tells how the tests ended and whether every message of the rooms arrived.
async fn summary(
    url: &str,
    rooms: &[String],
    follower: &mut Follower,
    view: &mut View,
    jobs: &[String],
) -> Result<bool, Failure> {
    let http = HttpClient::new(url, None)?;
    let mut stored = 0;
    for room in rooms {
        let page: Value = http.get(&format!("/api/v1/channels/{room}/messages?limit=1")).await?;
        stored += page["top"].as_u64().context("the server answered without the channel's top")?;
    }
    // The news that ended the last test need not be the last of every room.
    let rest = async {
        while follower.delivery().messages + view.conflated() < stored {
            if let News::Message(message) = follower.next().await? {
                view.show(&message);
            }
        }
        Ok::<_, Failure>(())
    };
    if let Ok(ended) = tokio::time::timeout(LAST_WORDS, rest).await {
        ended?;
    }
    for job in jobs {
        print_line(view.line(job))?;
    }
    let delivery = follower.delivery();
    // Conflated messages were delivered too: by the newer ones that stand for them.
    let delivered = delivery.messages + view.conflated();
    print_line(format_args!(
        "{delivered} of {stored} messages delivered, {} duplicates, {} gaps",
        delivery.duplicates, delivery.gaps
    ))?;
    Ok(delivered == stored && delivery.gaps == 0 && delivery.duplicates == 0)
}
