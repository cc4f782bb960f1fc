//! `tidings bench queue`: how long a job waits for its test to start.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidings::app::{App, AppOptions};
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::config::channels::Rules;
use tidings::config::redis_url::RedisUrl;
use tidings::config::settings::Settings;

use crate::Failure;
use crate::client::print_line;
use crate::follow::{Follower, News};

/// How long one job may take before the benchmark gives up.
const JOB_DEADLINE: Duration = Duration::from_secs(20);

/// Arguments of `bench queue`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many jobs.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// A running server; without it, one is started in a temporary directory.
    #[arg(long, env = "TIDINGS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The token, where the server wants one.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// For the server that is started: the Redis in which it keeps its jobs; else a file.
    #[arg(long, env = "TIDINGS_REDIS", hide_env_values = true, value_name = "URL", conflicts_with = "server", value_parser = RedisUrl::parse)]
    redis: Option<RedisUrl>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { jobs, server, token, redis, json } = args;
    let own = if server.is_some() { None } else { Some(OwnServer::start(redis).await?) };
    let url = server.or_else(|| own.as_ref().map(OwnServer::url)).context("there is no server")?;
    let measured = measure_queue(&url, token, jobs).await;
    if let Some(own) = own {
        own.stop().await;
    }
    let figures = measured?;
    let at = |quantile| Duration::from_micros(figures.value_at_quantile(quantile));
    if json {
        let us = |quantile| figures.value_at_quantile(quantile);
        print_line(json!({ "benchmark": "queue", "jobs": figures.len(), "unit": "us",
                    "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "max": figures.max() }))?;
    } else {
        print_line(format_args!(
            "submit -> test:started, {} jobs: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
            figures.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            Duration::from_micros(figures.max())
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A server for the time of the benchmark.
pub(super) struct OwnServer {
    app: App,
    // Removed with its contents when the benchmark ends.
    _dir: tempfile::TempDir,
}

impl OwnServer {
    /// A server as it comes, with its state in a temporary directory, or in Redis.
    pub(super) async fn start(redis: Option<RedisUrl>) -> Result<Self, Failure> {
        let dir = tempfile::tempdir().context("no temporary directory could be made")?;
        let mut settings = Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: dir.path().join("data"),
            ..Settings::default()
        };
        settings.redis.url = redis;
        let rules = Arc::new(Rules::builtin());
        let app =
            App::start(AppOptions { settings, rules, guard: None, runners: Vec::new(), log_level: None })
                .await?;
        Ok(Self { app, _dir: dir })
    }

    pub(super) async fn stop(self) {
        self.app.stop().await;
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.app.address())
    }
}

async fn measure_queue(url: &str, token: Option<String>, jobs: u32) -> Result<Histogram<u64>, Failure> {
    let http = HttpClient::new(url, token.as_deref())?;
    let rooms = vec!["test-updates".to_owned(), "queue-updates".to_owned()];
    let mut follower = Follower::new(url, token, rooms, Since::Now);
    for _ in 0..2 {
        follower.next().await?;
    }
    let mut latencies = Histogram::<u64>::new(3).context("a histogram of three digits")?;
    // The shortest test that ships: a few requests to the server's own health check.
    let config = json!({ "url": format!("{url}/healthz"), "concurrency": 1, "durationMs": 20 });
    let job = json!({ "testType": "stress", "config": config });
    for _ in 0..jobs {
        let submitted = Instant::now();
        let answer: Value = http.post("/api/v1/jobs", &job).await?;
        let test = answer["testId"].as_str().context("the server answered without a test id")?;
        let run = until_ended(&mut follower, test);
        let started =
            tokio::time::timeout(JOB_DEADLINE, run).await.context("a job did not end in time")??;
        let latency = started.duration_since(submitted).as_micros();
        latencies.record(u64::try_from(latency).unwrap_or(u64::MAX)).context("a latency beyond measure")?;
    }
    Ok(latencies)
}

/// When `test` started, once its job has ended: the next job finds an idle server.
async fn until_ended(follower: &mut Follower, test: &str) -> Result<Instant, Failure> {
    let mut started = None;
    loop {
        let message = match follower.next().await? {
            News::Message(message) => message,
            News::Joined(_) => continue,
            News::Reset(_) | News::Lost(_) => return Err(anyhow::anyhow!("the connection was lost").into()),
        };
        if message.data["testId"] != *test {
            continue;
        }
        match message.event.as_str() {
            "test:started" => started = Some(Instant::now()),
            "queue:job:completed" => return Ok(started.context("the test ended without a start")?),
            "queue:job:failed" => return Err(failed(&message.data)),
            _ => {}
        }
    }
}

fn failed(data: &Value) -> Failure {
    let message = data["error"]["message"].as_str().unwrap_or("for no known reason");
    anyhow::anyhow!("a job of the benchmark failed: {message}").into()
}
