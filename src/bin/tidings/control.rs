//! `tidings cancel`, `priority`, `rerun`, `schedules`, `pause` and `resume`: control of a running server's queue.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::Failure;
use crate::client::{Server, submit_and_wait, text};

/// Arguments of `cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// The job.
    job_id: String,
    /// Why; those who watch the test are told.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn cancel(args: CancelArgs) -> Result<ExitCode, Failure> {
    let body = args.reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let path = format!("/api/v1/jobs/{}/cancel", args.job_id);
    let answer: Value = args.server.http()?.post(&path, &body).await?;
    args.server.print(&answer, || match text(&answer, "state") {
        "running" => format!("{} is being stopped", args.job_id),
        state => format!("{} is {state}", args.job_id),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `priority`.
#[derive(Debug, clap::Args)]
pub(crate) struct PriorityArgs {
    /// The job, which has to wait still.
    job_id: String,
    /// 1 low, 2 normal, 3 high, 4 critical.
    #[arg(value_name = "1-4", value_parser = clap::value_parser!(u8).range(1..=4))]
    priority: u8,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn priority(args: PriorityArgs) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/jobs/{}/priority", args.job_id);
    let answer: Value = args.server.http()?.post(&path, &json!({ "priority": args.priority })).await?;
    args.server.print(&answer, || {
        format!("{} is {}, with priority {}", args.job_id, text(&answer, "state"), answer["priority"])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Which part of the queue; all of it if nothing is said.
#[derive(Debug, clap::Args)]
pub(crate) struct Part {
    /// Only the jobs of this test type.
    #[arg(long = "type", value_name = "TYPE")]
    test_type: Option<String>,
    /// Only the jobs of the test type `command` that run this suite.
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
}

impl Part {
    fn body(&self) -> Map<String, Value> {
        let fields = [("testType", &self.test_type), ("suite", &self.suite)];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))).collect()
    }
}

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    part: Part,
    /// Why; jobs that wait tell it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn pause(args: PauseArgs) -> Result<ExitCode, Failure> {
    let mut body = args.part.body();
    body.extend(args.reason.map(|reason| ("reason".to_owned(), reason.into())));
    let answer: Value = args.server.http()?.post("/api/v1/queue/pause", &body).await?;
    args.server.print(&answer, || paused(&answer))?;
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn resume(args: ResumeArgs) -> Result<ExitCode, Failure> {
    let answer: Value = args.server.http()?.post("/api/v1/queue/resume", &args.part.body()).await?;
    args.server.print(&answer, || paused(&answer))?;
    Ok(ExitCode::SUCCESS)
}

/// What is paused, a line each.
fn paused(answer: &Value) -> String {
    let pauses = answer["paused"].as_array().map(Vec::as_slice).unwrap_or_default();
    if pauses.is_empty() {
        return "nothing is paused".to_owned();
    }
    pauses.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(pause: &Value) -> String {
    let what = match (pause["suite"].as_str(), pause["testType"].as_str()) {
        (Some(suite), _) => format!("the suite `{suite}`"),
        (None, Some(test_type)) => format!("the test type `{test_type}`"),
        (None, None) => "the whole queue".to_owned(),
    };
    let since = UNIX_EPOCH + Duration::from_millis(pause["since"].as_u64().unwrap_or(0));
    let by = pause["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = pause["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{what} is paused since {}{by}{reason}", humantime::format_rfc3339_seconds(since))
}

/// Arguments of `rerun`.
#[derive(Debug, clap::Args)]
pub(crate) struct RerunArgs {
    /// The job, which has to have ended.
    job_id: String,
    /// Run the cases that failed alone: `rerun` of its suite says how.
    #[arg(long)]
    failed: bool,
    /// The name of the new test; one is made if this is left out.
    #[arg(long, value_name = "ID")]
    test_id: Option<String>,
    /// Wait for the end; the exit code is 0 only if the test passed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn rerun(args: RerunArgs) -> Result<ExitCode, Failure> {
    let mut body = Map::from_iter([("failedOnly".to_owned(), args.failed.into())]);
    body.extend(args.test_id.map(|test| ("testId".to_owned(), test.into())));
    let path = format!("/api/v1/jobs/{}/rerun", args.job_id);
    submit_and_wait(&args.server, &path, &body, args.wait).await
}

/// Arguments of `schedules`.
#[derive(Debug, clap::Args)]
pub(crate) struct SchedulesArgs {
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn schedules(args: SchedulesArgs) -> Result<ExitCode, Failure> {
    let answer: Value = args.server.http()?.get("/api/v1/schedules").await?;
    args.server.print(&answer, || {
        let all = answer["schedules"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            return "there are no schedules; [schedules.NAME] in tidings.toml makes one".to_owned();
        }
        all.iter().map(due).collect::<Vec<_>>().join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn due(schedule: &Value) -> String {
    let next = schedule["next"].as_u64().map_or_else(
        || "never again".to_owned(),
        |next| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(next)).to_string(),
    );
    let config = &schedule["config"];
    let (name, test_type) = (text(schedule, "name"), text(schedule, "testType"));
    format!(
        "{name}: {next}, {test_type} {config} ({} {})",
        text(schedule, "cron"),
        text(schedule, "timezone")
    )
}
