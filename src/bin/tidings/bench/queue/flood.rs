//! Many jobs that do nothing: how many go through the queue per second, with all that is told of them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidings::client::http::HttpClient;
use tidings::config::redis_url::RedisUrl;
use tidings::model::Priority;
use tidings::queue::NewJob;
use tidings::worker::runner::{Attempt, Outcome, Runner};

use super::OwnServer;
use crate::Failure;

/// The test type of jobs that do nothing.
const NOTHING: &str = "nothing";
/// How many submissions are on their way at once.
const SUBMITTERS: u64 = 64;
/// So many jobs are run before the clock starts.
const WARM_UP: u64 = 500;
/// How long nothing may happen before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs jobs that do nothing.
struct Nothing;

#[async_trait]
impl Runner for Nothing {
    fn test_type(&self) -> &str {
        NOTHING
    }

    fn check(&self, _config: &Map<String, Value>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, _attempt: Attempt) -> Outcome {
        Outcome::Passed { results: Map::new() }
    }
}

pub(super) async fn run(
    jobs: u64,
    concurrency: usize,
    redis: Option<RedisUrl>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let server = OwnServer::start_with(redis, Some(concurrency), vec![Arc::new(Nothing)]).await?;
    let measured = measure(&server, jobs).await;
    server.stop().await;
    let (took, messages) = measured?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_second = |n: u64| (n as f64 / took.as_secs_f64()).round();
    if json {
        let figures = json!({ "benchmark": "queue-flood", "jobs": jobs, "seconds": took.as_secs_f64(),
            "jobsPerSecond": per_second(jobs), "messages": messages });
        println!("{figures}");
    } else {
        println!(
            "{jobs} jobs that do nothing, {concurrency} at once: {took:.2?}, {} jobs/s, {} messages/s",
            per_second(jobs),
            per_second(messages)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// How long the jobs took, from the first submission to the last end, and how many messages told of them.
async fn measure(server: &OwnServer, jobs: u64) -> anyhow::Result<(Duration, u64)> {
    let http = HttpClient::new(&server.url(), None)?;
    let before = completed(server).await?;
    flood(server, before, WARM_UP).await?;
    let told = told(&http).await?;
    let began = Instant::now();
    flood(server, before + WARM_UP, jobs).await?;
    let messages = loop {
        let messages = self::told(&http).await? - told;
        // Added, started, told of at least once and ended, of each job.
        if messages >= jobs * 4 {
            break messages;
        }
        if began.elapsed() > PATIENCE * 10 {
            bail!("only {messages} messages in queue-updates tell of {jobs} jobs");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let took = began.elapsed();
    // Of each of those there is one in the job's own channel; of all but the first also in its test's and in
    // test-updates, and of the last one in test-history-updates.
    let of_tests = messages - jobs;
    Ok((took, messages * 2 + of_tests * 2 + jobs))
}

/// Submits jobs, and waits until they, and `before` others, are done.
async fn flood(server: &OwnServer, before: u64, jobs: u64) -> anyhow::Result<()> {
    let submitters = (0..SUBMITTERS).map(|n| {
        let queue = server.app.queue().clone();
        let share = jobs / SUBMITTERS + u64::from(n < jobs % SUBMITTERS);
        tokio::spawn(async move {
            for _ in 0..share {
                queue.submit(job()).await?;
            }
            anyhow::Ok(())
        })
    });
    for submitter in submitters.collect::<Vec<_>>() {
        submitter.await.context("a submitter broke off")??;
    }
    let (mut seen, mut at) = (0, Instant::now());
    loop {
        let done = completed(server).await?;
        if done >= before + jobs {
            return Ok(());
        }
        if done > seen {
            (seen, at) = (done, Instant::now());
        } else if at.elapsed() > PATIENCE {
            bail!("of {jobs} jobs {} were not run", before + jobs - done);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn completed(server: &OwnServer) -> anyhow::Result<u64> {
    Ok(server.app.queue().counts().await?["completed"])
}

/// How many messages queue-updates has had.
async fn told(http: &HttpClient) -> anyhow::Result<u64> {
    let page: Value = http.get("/api/v1/channels/queue-updates/messages?limit=1").await?;
    page["top"].as_u64().context("a page of history without its top")
}

fn job() -> NewJob {
    NewJob {
        test_type: NOTHING.to_owned(),
        config: Map::new(),
        test_id: None,
        priority: Priority::Normal,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: None,
        team_id: None,
        user_id: None,
    }
}
