//! Control of the queue: pauses, and the order of what waits.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{Admin, Body, Caller, Named, OptionalBody};
use super::jobs::MAX_REASON;
use super::problem::{BodyErrors, LimitErrors, Problem, ReadErrors, WriteErrors};
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::model::{Job, JobId, Pause, Priority, Scope};

/// What the queue is told by people.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QueueState {
    /// What is held back.
    paused: Vec<Pause>,
}

/// What is to be held back: everything if the body is left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PauseQueue {
    /// Only the jobs of this test type.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$", example = "command")]
    test_type: Option<String>,
    /// Only the jobs of the test type `command` that run this suite.
    #[schema(min_length = 1, max_length = 256, example = "unit")]
    suite: Option<String>,
    /// Why: whose job waits is told.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// What is to go on: what was paused as a whole if the body is left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResumeQueue {
    /// The jobs of this test type.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$", example = "command")]
    test_type: Option<String>,
    /// The jobs of the test type `command` that run this suite.
    #[schema(min_length = 1, max_length = 256, example = "unit")]
    suite: Option<String>,
}

/// Another place in the queue.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPriority {
    /// Higher ones run first.
    priority: Priority,
}

/// Read what is held back.
#[utoipa::path(
    get,
    path = "/api/v1/queue",
    operation_id = "getQueue",
    tag = "jobs",
    responses((status = 200, description = "What is held back", body = QueueState), ReadErrors)
)]
pub(super) async fn queue(State(state): State<Arc<HttpState>>) -> Result<Json<QueueState>, Problem> {
    Ok(Json(QueueState { paused: state.queue.pauses().await? }))
}

/// Hold jobs back: all, or those of a test type or suite.
///
/// They are still taken, and what runs goes on; but no attempt begins, on no node, until somebody resumes the same again.
/// What is paused already stays as it was paused first.
#[utoipa::path(
    post,
    path = "/api/v1/queue/pause",
    operation_id = "pauseQueue",
    tag = "jobs",
    params(("X-User-Id" = Option<String>, Header, description = "Who pauses it, while authentication is off")),
    request_body = Option<PauseQueue>,
    responses(
        (status = 200, description = "What is held back now", body = QueueState),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`too_many_pauses`: so many parts are paused that no other can be", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn pause(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    caller: Caller,
    OptionalBody(PauseQueue { test_type, suite, reason }): OptionalBody<PauseQueue>,
) -> Result<Json<QueueState>, Problem> {
    let scope = scope(test_type, suite)?;
    let reason = reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Problem::bad_request("invalid", format!("reason has at most {MAX_REASON} characters")));
    }
    let (pause, began) = state.queue.pause(&scope, reason, caller.user().cloned()).await?;
    if began {
        let by = pause.by.as_ref().map(tracing::field::display);
        tracing::info!(what = %scope, by, "a part of the queue was paused");
    }
    queue(State(state)).await
}

/// Let jobs go that were held back: the same again that was paused.
///
/// What was not paused stays as it is. Whoever waits for jobs looks at once.
#[utoipa::path(
    post,
    path = "/api/v1/queue/resume",
    operation_id = "resumeQueue",
    tag = "jobs",
    params(("X-User-Id" = Option<String>, Header, description = "Who resumes it, while authentication is off")),
    request_body = Option<ResumeQueue>,
    responses(
        (status = 200, description = "What is held back still", body = QueueState),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn resume(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    caller: Caller,
    OptionalBody(ResumeQueue { test_type, suite }): OptionalBody<ResumeQueue>,
) -> Result<Json<QueueState>, Problem> {
    let scope = scope(test_type, suite)?;
    if let Some(resumed) = state.queue.unpause(&scope, caller.user().cloned()).await? {
        let by = resumed.by.as_ref().map(tracing::field::display);
        tracing::info!(what = %scope, by, "a part of the queue was resumed");
    }
    queue(State(state)).await
}

/// Give a job that waits another priority.
///
/// Among those of its new priority it stands where its submission puts it.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{jobId}/priority",
    operation_id = "prioritiseJob",
    tag = "jobs",
    params(("jobId" = JobId, Path, description = "Names the job")),
    request_body = SetPriority,
    responses(
        (status = 200, description = "The job, which waits as before", body = Job),
        (status = 400, description = "`invalid`, `invalid_json`: no priority", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_waiting`: it runs, or has ended", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn prioritise(
    State(state): State<Arc<HttpState>>,
    Named(job): Named<JobId>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    Body(SetPriority { priority }): Body<SetPriority>,
) -> Result<Json<Job>, Problem> {
    state.rights.control(&caller.0, &job, state.queue.get(&job).await?.as_ref())?;
    // Each is told like a new job.
    state.paced(Act::Submit, &caller, origin.as_deref(), 1)?;
    Ok(Json(state.queue.prioritise(&job, priority).await?))
}

fn scope(test_type: Option<String>, suite: Option<String>) -> Result<Scope, Problem> {
    Scope::named(test_type, suite).map_err(|detail| Problem::bad_request("invalid", detail))
}
