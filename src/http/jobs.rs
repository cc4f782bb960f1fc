//! Jobs: read, listed, cancelled, retried.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{Asked, Caller, Named, OptionalBody};
use super::problem::{BodyErrors, LimitErrors, Problem, ReadErrors, WriteErrors};
use super::query::{Cursor, ListQuery};
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::model::{Job, JobId};
use crate::queue::{JobPage, QueueError};

/// The longest reason for a cancellation or a pause, in characters.
pub(super) const MAX_REASON: usize = 1000;

/// A page of jobs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Jobs {
    /// Newest first.
    jobs: Vec<Job>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Why a job is cancelled. The whole body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CancelJob {
    /// Stands in `test:cancelled`.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// List jobs, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    operation_id = "listJobs",
    tag = "jobs",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of jobs", body = Jobs),
        (status = 400, description = "`invalid_query`, or `invalid_cursor`: not a cursor of this list",
            body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Jobs>, Problem> {
    let wanted = query.read(Cursor::Jobs)?;
    let mut page = state.queue.list(wanted.state, wanted.before, wanted.limit).await?;
    page.jobs.retain(|job| state.rights.see_job(&caller.0, &job.job_id, Some(job)).is_ok());
    let JobPage { jobs, next } = page;
    Ok(Json(Jobs { jobs, next: next.map(|place| Cursor::Jobs.write(place)) }))
}

/// Read a job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{jobId}",
    operation_id = "getJob",
    tag = "jobs",
    params(("jobId" = JobId, Path, description = "Names the job")),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn get(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Named(job): Named<JobId>,
) -> Result<Json<Job>, Problem> {
    let found = state.queue.get(&job).await?;
    state.rights.see_job(&caller.0, &job, found.as_ref())?;
    found.map(Json).ok_or_else(|| QueueError::NotFound(job).into())
}

/// Cancel a job.
///
/// One that waits ends now; the attempt of a running one is stopped by its worker soon.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{jobId}/cancel",
    operation_id = "cancelJob",
    tag = "jobs",
    params(
        ("jobId" = JobId, Path, description = "Names the job"),
        ("X-User-Id" = Option<String>, Header, description = "Who cancels it, while authentication is off"),
    ),
    request_body = Option<CancelJob>,
    responses(
        (status = 200, description = "The job has ended", body = Job),
        (status = 202, description = "The running attempt is being stopped", body = Job),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_ended`: it had ended already", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn cancel(
    State(state): State<Arc<HttpState>>,
    Named(job): Named<JobId>,
    caller: Caller,
    OptionalBody(CancelJob { reason }): OptionalBody<CancelJob>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let reason = reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Problem::bad_request("invalid", format!("reason has at most {MAX_REASON} characters")));
    }
    state.rights.control(&caller.0, &job, state.queue.get(&job).await?.as_ref())?;
    let job = state.queue.cancel(&job, reason, caller.user().cloned()).await?;
    let status = if job.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(job)))
}

/// Put an ended job back into the queue, with as many attempts as it had in the beginning.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{jobId}/retry",
    operation_id = "retryJob",
    tag = "jobs",
    params(("jobId" = JobId, Path, description = "Names the job")),
    responses(
        (status = 200, description = "The job, which waits again", body = Job),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_ended`, or `test_active`: another job runs its test", body = Problem,
            content_type = "application/problem+json"),
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn retry(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    Named(job): Named<JobId>,
) -> Result<Json<Job>, Problem> {
    state.rights.control(&caller.0, &job, state.queue.get(&job).await?.as_ref())?;
    state.paced(Act::Submit, &caller, origin.as_deref(), 1)?;
    Ok(Json(state.queue.retry(&job).await?))
}
