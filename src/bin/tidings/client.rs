//! `tidings submit` and `publish`: small clients of a running server.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::client::{Authority, ClientError};
use tidings::model::job::SUITE_TYPE;

use crate::Failure;
use crate::follow::Follower;
use crate::plain::plain;
use crate::signals::StopSignals;
use crate::wait::{self, Ended};

/// How long an answer is waited for after Ctrl-C.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long it may take to learn why a job waits, which nobody asked for.
const ASIDE: Duration = Duration::from_secs(2);

/// Where the server is.
#[derive(Debug, clap::Args)]
pub(crate) struct Address {
    /// The server.
    #[arg(
        long = "server",
        env = "TIDINGS_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    url: String,
    /// The token, where the server wants one.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The authority that signed the certificate of an https:// server (PEM), where that is none that the system knows.
    #[arg(long, env = "TIDINGS_CA", value_name = "FILE", value_parser = authority)]
    ca: Option<Authority>,
}

/// Read once, and where a mistake in it is one of usage.
fn authority(file: &str) -> Result<Authority, ClientError> {
    Authority::read(Path::new(file))
}

impl Address {
    pub(crate) fn http(&self) -> Result<HttpClient, Failure> {
        Ok(HttpClient::trusting(&self.url, self.token.as_deref(), self.ca.as_ref())?)
    }

    pub(crate) fn follower(&self, rooms: Vec<String>, since: Since) -> Follower {
        Follower::new(&self.url, self.token.clone(), rooms, since).trusting(self.ca.clone())
    }
}

/// Which server, and how its answers are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) address: Address,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Server {
    pub(crate) fn http(&self) -> Result<HttpClient, Failure> {
        self.address.http()
    }

    pub(crate) fn print(&self, answer: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        print_line(plain(&if self.json { answer.to_string() } else { text() }))
    }
}

/// Prints a line; whoever reads may have gone (`watch | head`), which `println!` takes for a bug.
pub(crate) fn print_line(line: impl Display) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Arguments of `submit`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tidings submit [OPTIONS] <TEST_TYPE>\n       tidings submit [OPTIONS] --suite <NAME>"
)]
pub(crate) struct SubmitArgs {
    /// The test type: `command`, `stress`, or one that a worker of yours handles.
    #[arg(required_unless_present = "suite", conflicts_with = "suite")]
    test_type: Option<String>,
    /// Run this suite of the server's tidings.toml: short for `command --config '{"suite":"NAME"}'`.
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// What the test is told, as a JSON object, e.g. '{"suite":"unit"}'.
    #[arg(long, default_value = "{}", value_name = "JSON", value_parser = object)]
    config: Map<String, Value>,
    /// The name of the test; one is made if this is left out.
    #[arg(long, value_name = "ID")]
    test_id: Option<String>,
    /// 1 low, 2 normal, 3 high, 4 critical.
    #[arg(long, value_name = "1-4", value_parser = clap::value_parser!(u8).range(1..=4))]
    priority: Option<u8>,
    /// Wait so long before the job may start, e.g. 30s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Attempts in all.
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long an attempt may take, e.g. 10m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// A second submission with the same key returns the first job.
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// Wait for the end; the exit code is 0 only if the test passed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn submit(args: SubmitArgs) -> Result<ExitCode, Failure> {
    let mut config = args.config;
    if let Some(suite) = args.suite {
        config.insert("suite".to_owned(), suite.into());
    }
    let fields = [
        ("testType", Some(json!(args.test_type.as_deref().unwrap_or(SUITE_TYPE)))),
        ("config", Some(Value::Object(config))),
        ("testId", args.test_id.map(Value::from)),
        ("priority", args.priority.map(Value::from)),
        ("delayMs", args.delay.map(|d| json!(d.as_millis()))),
        ("maxAttempts", args.max_attempts.map(Value::from)),
        ("timeoutMs", args.timeout.map(|d| json!(d.as_millis()))),
        ("dedupeKey", args.dedupe_key.map(Value::from)),
    ];
    let body: Map<String, Value> =
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    submit_and_wait(&args.server, "/api/v1/jobs", &body, args.wait).await
}

/// Submits by `body`, says what was submitted, and waits for its end if that is wanted.
pub(crate) async fn submit_and_wait(
    server: &Server,
    path: &str,
    body: &Map<String, Value>,
    waits: bool,
) -> Result<ExitCode, Failure> {
    let http = server.http()?;
    if !waits {
        said(server, &http.post(path, body).await?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    // Heeded from the first moment at which there may be something that goes on.
    let mut signals = StopSignals::listen()?;
    let mut submitting = pin!(http.post(path, body));
    let answer: Value = tokio::select! {
        biased;
        answer = &mut submitting => answer?,
        () = signals.next() => {
            match tokio::time::timeout(LAST_WORD, submitting).await {
                Ok(answer) => wait::goes_on(text(&answer?, "jobId")),
                Err(_) => eprintln!("tidings: the server has not answered; the job may have been submitted all the same"),
            }
            return Ok(Ended::Interrupted.code());
        }
    };
    let job = text(&answer, "jobId");
    let waiting = async {
        said(server, &answer).await?;
        wait::wait(&server.address, job, text(&answer, "testId")).await
    };
    let ended = tokio::select! {
        biased;
        ended = waiting => ended?,
        () = signals.next() => {
            wait::goes_on(job);
            Ended::Interrupted
        }
    };
    if let Ended::Test(test) = &ended {
        server.print(test, || wait::told(test))?;
    }
    Ok(ended.code())
}

/// Says what was submitted.
async fn said(server: &Server, answer: &Value) -> Result<(), Failure> {
    server.print(answer, || {
        let existing = if answer["existing"] == true { " (it was there already)" } else { "" };
        format!(
            "{} runs test {}: {}{existing}",
            text(answer, "jobId"),
            text(answer, "testId"),
            text(answer, "state")
        )
    })?;
    if let Some(reason) = why_it_waits(server, text(answer, "jobId")).await {
        eprintln!("tidings: it waits: {}", plain(&reason));
    }
    Ok(())
}

/// Why the job does not start though it could, such as that nobody handles its type. Who may not ask is told nothing.
async fn why_it_waits(server: &Server, job: &str) -> Option<String> {
    let http = server.http().ok()?.with_timeout(ASIDE);
    let found: Value = http.get(&format!("/api/v1/jobs/{job}")).await.ok()?;
    Some(found["waiting"].as_str()?.to_owned())
}

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The channel, e.g. test-progress-nightly.
    channel: String,
    /// The event, e.g. custom:note.
    event: String,
    /// The data: any JSON.
    #[arg(default_value = "{}", value_name = "JSON", value_parser = json::<Value>)]
    data: Value,
    /// A name of your own: published twice, it stands in the channel once.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// 1 low, 2 normal, 3 high, 4 critical.
    #[arg(long, value_name = "1-4", value_parser = clap::value_parser!(u8).range(1..=4))]
    priority: Option<u8>,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn publish(args: PublishArgs) -> Result<ExitCode, Failure> {
    let mut message = json!({ "channel": args.channel, "event": args.event, "data": args.data });
    if let Some(id) = args.id {
        message["id"] = id.into();
    }
    if let Some(priority) = args.priority {
        message["priority"] = priority.into();
    }
    let answer: Value = args.server.http()?.post("/api/v1/events", &message).await?;
    args.server.print(&answer, || {
        format!("{} is {}:{}", text(&answer, "id"), text(&answer, "epoch"), answer["offset"])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads an argument.
fn json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// Reads a config.
fn object(text: &str) -> Result<Map<String, Value>, String> {
    json(text).map_err(|e| format!("a JSON object is wanted, such as '{{\"suite\":\"unit\"}}': {e}"))
}

pub(crate) fn text<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or("?")
}
