//! Running a test again as a new job: all of it, or only what failed.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::HttpState;
use super::extract::{Caller, Named, OptionalBody};
use super::problem::{BodyErrors, LimitErrors, Problem, WriteErrors};
use super::submit::{Accepted, accepted};
use super::traced;
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::model::job::SUITE_TYPE;
use crate::model::{Job, JobId, TestId};
use crate::queue::{NewJob, QueueError};

/// How a test is run again. The whole body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rerun {
    /// Only the cases that failed.
    #[serde(default)]
    failed_only: bool,
    /// The name of the new test, to choose it; one is made up otherwise.
    test_id: Option<TestId>,
}

/// Run an ended job again, as a new one, with its config, priority, attempts and team.
///
/// With `failedOnly` it runs the cases that failed alone, by the command `rerun` of its suite: `config.only` of the new job names
/// them.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{jobId}/rerun",
    operation_id = "rerunJob",
    tag = "jobs",
    params(
        ("jobId" = JobId, Path, description = "Names the job that has ended"),
        ("X-User-Id" = Option<String>, Header, description = "Who runs it again, while authentication is off"),
    ),
    request_body = Option<Rerun>,
    responses(
        (status = 201, description = "The new job was added", body = Accepted,
            headers(("Location" = String, description = "Where the job can be read"))),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`, or `invalid_config`: the runner would not \
            take the config any more", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_ended`; `job_is_external`; `test_active`: another job runs the named test; of \
            `failedOnly`: `rerun_unsupported`: it runs no suite, or its suite has no `rerun`; `nothing_failed`; \
            `failures_unknown`: they are not all known any more, or cannot be named: run all of it", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn rerun(
    State(state): State<Arc<HttpState>>,
    Named(id): Named<JobId>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    OptionalBody(Rerun { failed_only, test_id }): OptionalBody<Rerun>,
) -> Result<Response, Problem> {
    let found = state.queue.get(&id).await?;
    state.rights.control(&caller.0, &id, found.as_ref())?;
    let job = found.ok_or_else(|| QueueError::NotFound(id.clone()))?;
    state.rights.submit(&caller.0, test_id.as_ref(), job.team_id.as_deref()).await?;
    if job.lease_ms.is_some() {
        return Err(QueueError::Outside(id).into());
    }
    if !job.state.is_terminal() {
        return Err(QueueError::NotEnded { job: id, state: job.state }.into());
    }
    let mut config = job.config.clone();
    if failed_only {
        config.insert("only".to_owned(), Value::from(failed(&state, &job).await?));
    } else if job.test_type == SUITE_TYPE {
        // All of it, also where the job ran a part.
        config.remove("only");
    }
    state.paced(Act::Submit, &caller, origin.as_deref(), 1)?;
    if let Some(runner) = state.runners.get(&job.test_type) {
        let code = if failed_only {
            (StatusCode::CONFLICT, "rerun_unsupported")
        } else {
            (StatusCode::BAD_REQUEST, "invalid_config")
        };
        runner.check(&config).map_err(|detail| Problem::new(code.0, code.1, detail))?;
    }
    let new = NewJob {
        test_type: job.test_type,
        name: job.name,
        config,
        test_id,
        priority: job.priority,
        run_at: None,
        max_attempts: Some(job.max_attempts),
        timeout_ms: job.timeout_ms,
        dedupe_key: None,
        team_id: job.team_id,
        user_id: caller.user().cloned(),
        traceparent: traced::current(),
    };
    Ok(accepted(state.queue.submit(new).await?))
}

/// The names of all cases of the job that failed.
async fn failed(state: &HttpState, job: &Job) -> Result<Vec<String>, Problem> {
    let conflict = |code, detail: String| Problem::new(StatusCode::CONFLICT, code, detail);
    if job.test_type != SUITE_TYPE {
        let detail = format!(
            "only jobs of the test type `{SUITE_TYPE}` can run what failed alone, not `{}`; run all of it again (`failedOnly: false`)",
            job.test_type
        );
        return Err(conflict("rerun_unsupported", detail));
    }
    let snapshot = state.broker.snapshot(&job.test_id).await?;
    let Some(snapshot) = snapshot.filter(|snapshot| snapshot.job_id.as_ref() == Some(&job.job_id)) else {
        let detail = "what failed is not known any more: its test was run again by another job, or is forgotten; run all \
                      of it again (`failedOnly: false`)";
        return Err(conflict("failures_unknown", detail.to_owned()));
    };
    let (known, failed) = (snapshot.failures.len(), snapshot.counts.failed);
    if known == 0 && failed == 0 {
        let detail =
            format!("no case of job {} failed; run all of it again (`failedOnly: false`)", job.job_id);
        return Err(conflict("nothing_failed", detail));
    }
    if u64::try_from(known).is_ok_and(|known| known < failed) {
        let detail = format!(
            "{failed} cases failed, and only {known} of them are known by their names; run all of it again (`failedOnly: false`)"
        );
        return Err(conflict("failures_unknown", detail));
    }
    let mut names = Vec::with_capacity(known);
    for failure in snapshot.failures {
        // Of several binaries or files some have cases of one name: it runs them all.
        if !names.contains(&failure.name) {
            names.push(failure.name);
        }
    }
    Ok(names)
}
