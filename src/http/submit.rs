//! Submitting jobs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::HttpState;
use super::extract::{Body, Caller};
use super::problem::{BodyErrors, LimitErrors, Problem, WriteErrors};
use super::traced;
use crate::auth::Denied;
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::model::id::{MAX_ID_LEN, check};
use crate::model::job::SUITE_TYPE;
use crate::model::{JobId, JobState, Priority, TestId, now_ms};
use crate::queue::{NewJob, Submitted};
use crate::schedules::KEY_PREFIX;

/// The longest config, as JSON: it comes back with every list of jobs.
const MAX_CONFIG_BYTES: usize = 64 * 1024;
/// The most attempts that a job may ask for.
const MAX_ATTEMPTS: u32 = 100;
/// The longest time that a job may give an attempt: 7 days.
const MAX_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;
/// The longest key against double submission, in characters.
const MAX_DEDUPE_KEY: usize = 256;
/// How far away a start may be: ten years. Beyond that somebody has mistaken the unit.
const MAX_DELAY_MS: i64 = 3650 * 24 * 3600 * 1000;

/// A request to run a test. Fields that do not stand here are refused.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SubmitJob {
    /// Which runner handles it: `stress`, `command`, or a type that a worker registered.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$", example = "command")]
    test_type: String,
    /// What the runner is told; its shape depends on the test type.
    #[schema(value_type = Object, example = json!({"suite": "unit"}))]
    config: Map<String, Value>,
    /// The name of the test, to choose it; one is made up otherwise.
    test_id: Option<TestId>,
    /// Higher ones run first; 2 (normal) unless told.
    priority: Option<Priority>,
    /// Not before so many ms have passed. Not together with `runAt`.
    #[schema(minimum = 0)]
    delay_ms: Option<u64>,
    /// Not before this time, in ms since the Unix epoch; at once if it is past. Not together with `delayMs`.
    #[schema(minimum = 0)]
    run_at: Option<i64>,
    /// Attempts in all.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// How long an attempt may take; the runner's own limit if absent.
    #[schema(minimum = 1, maximum = 604800000)]
    timeout_ms: Option<u64>,
    /// A second submission with the same key returns the first job instead of adding one. `schedule:…` are those of
    /// scheduled jobs.
    #[schema(min_length = 1, max_length = 256)]
    dedupe_key: Option<String>,
    /// The team that the job belongs to.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$")]
    team_id: Option<String>,
}

/// The answer to a submission.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Accepted {
    /// Names the job.
    job_id: JobId,
    /// Names the test that it runs: its channel is `test-progress-{testId}`.
    test_id: TestId,
    /// Where the job is in its life.
    state: JobState,
    /// The dedupe key was known: this is the job that has had it.
    existing: bool,
}

/// Submit a job.
///
/// The config is checked at once where this server knows the test type; a job of another type waits for a
/// worker that handles it, and says so (`waiting`).
#[utoipa::path(
    post,
    path = "/api/v1/jobs",
    operation_id = "submitJob",
    tag = "jobs",
    params((
        "X-User-Id" = Option<String>, Header,
        description = "Who submits the job, while authentication is off"
    )),
    request_body = SubmitJob,
    responses(
        (status = 201, description = "The job was added", body = Accepted,
            headers(("Location" = String, description = "Where the job can be read"))),
        (status = 200, description = "The dedupe key was known; nothing was added", body = Accepted),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`, or `invalid_config` with what \
            the runner says", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`test_active`: another job of this test has not ended", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn submit(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    Body(wish): Body<SubmitJob>,
) -> Result<Response, Problem> {
    state.rights.submit(&caller.0, wish.test_id.as_ref(), wish.team_id.as_deref()).await?;
    state.paced(Act::Submit, &caller, origin.as_deref(), 1)?;
    let job = wish.check(&caller).map_err(|detail| Problem::bad_request("invalid", detail))?;
    if let Some(runner) = state.runners.get(&job.test_type) {
        runner.check(&job.config).map_err(|detail| Problem::bad_request("invalid_config", detail))?;
    }
    let submitted = state.queue.submit(job).await?;
    if submitted.existing {
        // Somebody else may have come upon the same key. Which job it is, is not for everybody.
        let (job, why) = (&submitted.job, "`dedupeKey` is that of somebody else's job: choose another one");
        let seen = state.rights.see_job(&caller.0, &job.job_id, Some(job));
        seen.map_err(|_| Denied::Forbidden(why.to_owned()))?;
    }
    Ok(accepted(submitted))
}

/// The answer to a submission.
pub(super) fn accepted(submitted: Submitted) -> Response {
    let Submitted { job, existing } = submitted;
    let place = format!("/api/v1/jobs/{}", job.job_id);
    let accepted = Accepted { job_id: job.job_id, test_id: job.test_id, state: job.state, existing };
    if existing {
        (StatusCode::OK, Json(accepted)).into_response()
    } else {
        (StatusCode::CREATED, [(header::LOCATION, place)], Json(accepted)).into_response()
    }
}

impl SubmitJob {
    /// Checks what the types of the fields do not say.
    fn check(self, caller: &Caller) -> Result<NewJob, String> {
        check("test type", &self.test_type, MAX_ID_LEN).map_err(|e| format!("testType: {e}"))?;
        if let Some(team) = &self.team_id {
            check("team id", team, MAX_ID_LEN).map_err(|e| format!("teamId: {e}"))?;
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=MAX_ATTEMPTS).contains(&attempts)
        {
            return Err(format!("maxAttempts is from 1 to {MAX_ATTEMPTS}, not {attempts}"));
        }
        if let Some(ms) = self.timeout_ms
            && !(1..=MAX_TIMEOUT_MS).contains(&ms)
        {
            return Err(format!("timeoutMs is from 1 to {MAX_TIMEOUT_MS} (7 days), not {ms}"));
        }
        let bytes = serde_json::to_string(&self.config).map_or(0, |text| text.len());
        if bytes > MAX_CONFIG_BYTES {
            return Err(format!(
                "config has {bytes} bytes, more than the {MAX_CONFIG_BYTES} that are allowed"
            ));
        }
        if let Some(key) = &self.dedupe_key
            && !(1..=MAX_DEDUPE_KEY).contains(&key.chars().count())
        {
            return Err(format!("dedupeKey has 1 to {MAX_DEDUPE_KEY} characters"));
        }
        // Whoever had it could stand in for the job of a tick.
        if self.dedupe_key.as_deref().is_some_and(|key| key.starts_with(KEY_PREFIX)) {
            return Err(format!(
                "dedupeKey begins with `{KEY_PREFIX}`, as only those of scheduled jobs do: choose another"
            ));
        }
        // They become arguments of a command. Only what a test said may choose them, not a submitter.
        if self.test_type == SUITE_TYPE && self.config.contains_key("only") {
            return Err("config.only cannot be submitted: run the test, and then what failed of it by \
                POST /api/v1/jobs/{jobId}/rerun with failedOnly"
                .to_owned());
        }
        Ok(NewJob {
            run_at: self.start(now_ms())?,
            test_type: self.test_type,
            name: None,
            config: self.config,
            test_id: self.test_id,
            priority: self.priority.unwrap_or_default(),
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            dedupe_key: self.dedupe_key,
            team_id: self.team_id,
            user_id: caller.user().cloned(),
            traceparent: traced::current(),
        })
    }

    /// When the job may start, if not at once.
    fn start(&self, now: i64) -> Result<Option<i64>, String> {
        match (self.delay_ms, self.run_at) {
            (Some(_), Some(_)) => Err("give delayMs or runAt, not both".to_owned()),
            (Some(delay), None) => match i64::try_from(delay) {
                Ok(delay) if delay <= MAX_DELAY_MS => Ok(Some(now + delay)),
                _ => Err(format!("delayMs is at most {MAX_DELAY_MS} (ten years), not {delay}")),
            },
            (None, Some(at)) if at < 0 || at > now + MAX_DELAY_MS => {
                Err(format!("runAt is in ms since the Unix epoch and within ten years, not {at}"))
            }
            (None, at) => Ok(at),
        }
    }
}
