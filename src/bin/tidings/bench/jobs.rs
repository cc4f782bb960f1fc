//! `tidings bench jobs`: how many jobs a second go through the queue, when running them takes no time.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};
use tidings::app::{App, AppOptions};
use tidings::client::http::HttpClient;
use tidings::config::channels::Rules;
use tidings::config::redis_url::RedisUrl;
use tidings::config::settings::Settings;
use tidings::model::{JobState, Priority};
use tidings::queue::{NewJob, Queue};
use tidings::worker::runner::{Attempt, Outcome, Runner};

use super::process::Process;
use super::report::{count, or_unknown, per, rate};
use crate::Failure;

/// What the jobs are called; no server but the benchmark's own has a runner for them.
const NOOP: &str = "noop";
/// So many jobs are run before those that count.
const WARMUP: u64 = 500;
/// When no job has ended for so long, the benchmark gives up.
const STALL: Duration = Duration::from_secs(20);
/// How often the ended ones are counted.
const LOOK: Duration = Duration::from_millis(20);

/// How long ended jobs stay in a Redis that was there before.
const KEPT: Duration = Duration::from_secs(600);

/// Arguments of `bench jobs`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How many jobs.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// How many run at once.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = super::at_least_one)]
    concurrency: usize,
    /// How many submit at once.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = super::at_least_one)]
    submitters: usize,
    /// Keep them in this Redis, apart from what it holds already, and not in a directory.
    #[arg(long, hide_env_values = true, env = "TIDINGS_REDIS", value_name = "URL", value_parser = RedisUrl::parse)]
    redis: Option<RedisUrl>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The figures; the names are stable.
#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    jobs: u64,
    concurrency: usize,
    /// Until all was told of the last one, submission included.
    seconds: f64,
    jobs_per_second: f64,
    /// Of submitting, running and telling of one.
    cpu_us_per_job: Option<f64>,
}

/// Runs in no time.
struct Noop;

#[async_trait]
impl Runner for Noop {
    fn test_type(&self) -> &str {
        NOOP
    }

    fn check(&self, _config: &Map<String, Value>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, _attempt: Attempt) -> Outcome {
        Outcome::Passed { results: Map::new() }
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let dir = tempfile::tempdir().context("no temporary directory could be made")?;
    let mut settings = Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: dir.path().join("data"),
        ..Settings::default()
    };
    settings.workers.concurrency = args.concurrency;
    settings.redis.url = args.redis.clone();
    // Apart from everything else that is there, and gone soon.
    settings.redis.prefix = Some(format!("tidings-bench-{:08x}", fastrand::u32(..)));
    settings.queue.retention = KEPT;
    let runners: Vec<Arc<dyn Runner>> = vec![Arc::new(Noop)];
    let options =
        AppOptions { settings, rules: Arc::new(Rules::builtin()), guard: None, runners, log_level: None };
    let app = App::start(options).await?;
    let measured = measure(&app, &args).await;
    app.stop().await;
    let report = measured?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(app: &App, args: &Args) -> anyhow::Result<Report> {
    let (queue, http) = (app.queue(), HttpClient::new(&format!("http://{}", app.address()), None)?);
    let warm = WARMUP.min(args.jobs);
    work_off(queue, 0, warm, args.submitters).await?;
    all_told(&http, warm).await?;
    let process = Process::new(std::process::id())?;
    let (cpu, started) = (process.cpu()?, Instant::now());
    work_off(queue, warm, args.jobs, args.submitters).await?;
    all_told(&http, warm + args.jobs).await?;
    let time = started.elapsed();
    let cpu = process.cpu()?.saturating_sub(cpu);
    Ok(Report {
        benchmark: "jobs",
        jobs: args.jobs,
        concurrency: args.concurrency,
        seconds: time.as_secs_f64(),
        jobs_per_second: rate(args.jobs, time),
        cpu_us_per_job: per(Some(cpu), args.jobs),
    })
}

/// Waits until `queue-updates` tells of everything that happened to `jobs`: over Redis that is a moment later.
async fn all_told(http: &HttpClient, jobs: u64) -> anyhow::Result<()> {
    // Added, started, told of once and ended.
    let (wanted, mut told, mut since) = (jobs * 4, 0, Instant::now());
    while told < wanted {
        let page: Value = http.get("/api/v1/channels/queue-updates/messages?limit=1").await?;
        let top = page["top"].as_u64().context("a page of history without its top")?;
        if top > told {
            (told, since) = (top, Instant::now());
        } else if since.elapsed() > STALL {
            bail!("for {STALL:?} nothing was told; {told} of {wanted} messages were");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Submits `jobs` and waits until they, and the `before` of an earlier call, have ended.
async fn work_off(queue: &Arc<dyn Queue>, before: u64, jobs: u64, submitters: usize) -> anyhow::Result<()> {
    let n = u64::try_from(submitters)?;
    let submitters: Vec<_> = (0..n)
        .map(|index| {
            let (queue, own) = (queue.clone(), jobs / n + u64::from(index < jobs % n));
            tokio::spawn(async move {
                for _ in 0..own {
                    queue.submit(job()).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await??;
    }
    let (mut ended, mut since) = (before, Instant::now());
    while ended < before + jobs {
        tokio::time::sleep(LOOK).await;
        let counts = queue.counts().await?;
        let of = |state: JobState| counts.get(state.name()).copied().unwrap_or(0);
        if of(JobState::Failed) > 0 {
            bail!("{} jobs failed", of(JobState::Failed));
        }
        let now = of(JobState::Completed);
        if now > ended {
            (ended, since) = (now, Instant::now());
        } else if since.elapsed() > STALL {
            bail!("for {STALL:?} no job ended; {} of {} have", ended - before, jobs);
        }
    }
    Ok(())
}

fn job() -> NewJob {
    NewJob {
        test_type: NOOP.to_owned(),
        name: None,
        config: Map::new(),
        test_id: None,
        priority: Priority::Normal,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: None,
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

impl Report {
    /// For people.
    fn text(&self) -> String {
        format!(
            "{} jobs in {:.2} s, {} at once: {} jobs/s, {} of CPU a job",
            count(self.jobs),
            self.seconds,
            self.concurrency,
            count(self.jobs_per_second as u64),
            or_unknown(self.cpu_us_per_job, "µs")
        )
    }
}
