//! `tidings submit --wait`: follows a job to its end, and ends as it did.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tidings::client::room::Since;
use tidings::model::Message;

use crate::Failure;
use crate::client::Address;
use crate::follow::News;
use crate::plain::plain;

/// The exit code of whoever was interrupted by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Follows the job that runs `test` to its end. Where this is dropped before, nothing of it is left on the terminal.
pub(crate) async fn wait(server: &Address, job: &str, test: &str) -> Result<Ended, Failure> {
    let http = server.http()?;
    let (status, progress) = (format!("job-status-{job}"), format!("test-progress-{test}"));
    let mut follower = server.follower(vec![status.clone(), progress], Since::Now);
    let bar = bar(test);
    loop {
        let may_have_ended = match follower.next().await? {
            // It may have ended before it was joined.
            News::Joined(joined) => joined.room == status,
            News::Message(message) => show(&bar, &message),
            News::Reset(_) => true,
            News::Lost(error) => {
                bar.set_message(format!("{}; trying again", plain(&error.to_string())));
                false
            }
        };
        if may_have_ended {
            let found: Value = http.get(&format!("/api/v1/jobs/{job}")).await?;
            if matches!(found["state"].as_str(), Some("completed" | "failed" | "cancelled")) {
                bar.finish_and_clear();
                return Ok(Ended::Test(http.get(&format!("/api/v1/tests/{test}")).await?));
            }
            if let Some(reason) = found["waiting"].as_str() {
                bar.set_message(plain(reason).into_owned());
            }
        }
    }
}

/// Says that nobody waits for `job` any more.
pub(crate) fn goes_on(job: &str) {
    eprintln!("tidings: {job} goes on; `tidings cancel {job}` ends it");
}

/// How the waiting ended.
pub(crate) enum Ended {
    /// With the test, of which this is the snapshot.
    Test(Value),
    /// Before.
    Interrupted,
}

impl Ended {
    /// 0 only if the test passed.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Test(test) if test["state"] == "completed" => ExitCode::SUCCESS,
            Self::Test(_) => ExitCode::FAILURE,
            Self::Interrupted => ExitCode::from(INTERRUPTED),
        }
    }
}

/// Whether the message tells of an end.
fn show(bar: &ProgressBar, message: &Message) -> bool {
    let data: &Value = &message.data;
    match message.event.as_str() {
        "test:progress" => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
            bar.set_position(data["progress"].as_f64().unwrap_or(0.0) as u64);
            bar.set_message(summary(data));
            false
        }
        "queue:job:started" => {
            bar.set_message("running");
            false
        }
        "queue:job:retrying" => {
            bar.set_message("waits for its next attempt");
            false
        }
        event => event.starts_with("queue:job:"),
    }
}

/// The counts of a snapshot or of progress, for people.
pub(crate) fn summary(data: &Value) -> String {
    let counts = &data["counts"];
    let of = |key: &str| counts[key].as_u64().unwrap_or(0);
    let mut text = format!("{} passed, {} failed", of("passed"), of("failed"));
    if of("skipped") > 0 {
        text = format!("{text}, {} skipped", of("skipped"));
    }
    match data["current"][0].as_str() {
        Some(current) => format!("{text}  {}", plain(current)),
        None => text,
    }
}

/// What a test came to, for people: the outcome, and the first failures.
pub(crate) fn told(test: &Value) -> String {
    let state = match test["state"].as_str() {
        Some("completed") => "passed",
        state => state.unwrap_or("?"),
    };
    let mut text = format!("{} {state}: {}", test["testId"].as_str().unwrap_or("?"), summary(test));
    if let Some(error) = test["error"]["message"].as_str() {
        text = format!("{text}\n  {error}");
    }
    for failure in test["failures"].as_array().into_iter().flatten() {
        let (name, why) =
            (failure["name"].as_str().unwrap_or("?"), failure["message"].as_str().unwrap_or(""));
        let why = why.lines().next().map(|why| format!(": {why}")).unwrap_or_default();
        text = format!("{text}\n  ✗ {name}{why}");
    }
    text
}

/// Hidden where standard error is no terminal.
fn bar(test: &str) -> ProgressBar {
    let bar = ProgressBar::new(100);
    // The template is fixed, so that it is known to be right.
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24.cyan/dim} {pos:>3} %  {wide_msg}") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.set_prefix(test.to_owned());
    bar.set_message("queued");
    bar
}
