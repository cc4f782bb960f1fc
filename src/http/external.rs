//! External tests: whoever runs a test outside of all workers registers it, tells of it, and ends it.
//!
//! `external/wish` reads what is sent, `external/pass` is the text by which a lease goes over the wire,
//! `external/outlooks` looks ahead.

mod outlooks;
mod pass;
mod wish;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

#[cfg(test)]
pub(super) use self::outlooks::AHEAD_MS;
pub(super) use self::outlooks::Outlooks;
use self::pass::Pass;
use self::wish::{End, Register, Reports};
use super::HttpState;
use super::extract::{Body, Caller, Named};
use super::problem::{BodyErrors, Problem, WriteErrors};
use crate::auth::WORKER;
use crate::model::{JobId, TestId, TestState, UserId, WorkerId, now_ms};
use crate::queue::{CancelWish, Ending, Held, QueueError};

/// An attempt that the caller holds from now on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    /// Names the test: its channel is `test-progress-{testId}`.
    test_id: TestId,
    /// Names its job.
    job_id: JobId,
    /// The attempt, from 1.
    attempt: u32,
    /// The right to speak for the attempt, a secret. Send it with every report and with the end.
    lease: String,
    /// The longest time between two reports, in ms.
    lease_ms: u64,
    /// Where the test is in its life.
    state: TestState,
}

/// The answer to a report.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken {
    /// The attempt that goes on.
    attempt: u32,
    /// The next report has to come within this time, in ms.
    lease_ms: u64,
    /// Somebody asked to cancel the test: stop it, and end it as `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<Wish>,
}

/// A wish to cancel.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wish {
    /// Why.
    reason: String,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<UserId>,
}

/// The answer to an end.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ended {
    /// How the test ended.
    state: TestState,
}

/// Register a test that runs outside of all workers.
///
/// Its attempt begins at once. Every report prolongs the lease; without a sign of life for `leaseMs` the test fails
/// with `worker_lost`, and `resume` begins its next attempt.
#[utoipa::path(
    post,
    path = "/api/v1/tests",
    operation_id = "registerTest",
    tag = "tests",
    params(("X-User-Id" = Option<String>, Header, description = "Who runs the test, while authentication is off")),
    request_body = Register,
    responses(
        (status = 201, description = "An attempt began", body = Registered,
            headers(("Location" = String, description = "Where the test can be read"))),
        (status = 200, description = "The `id` was known, or the lease of `resume` still counts, or what it \
            began runs: nothing began", body = Registered),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`test_is_running` under another lease; `stale_attempt`: what `resume` names has \
            ended, or goes on under another lease", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn register(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(wish): Body<Register>,
) -> Result<Response, Problem> {
    state.rights.has_role(&caller.0, &[WORKER], "running a test outside")?;
    let (wanted, total, resumed) = wish.read(&caller, now_ms()).map_err(invalid)?;
    let held = match resumed {
        Some(resume) => {
            let lease = resume.lease(wanted.job.test_id.as_ref()).ok_or_else(stale)?;
            state.queue.resume(&lease).await
        }
        None => state.queue.hold(wanted).await,
    };
    let Held { claim, existing } = held.map_err(|error| match error {
        QueueError::TestActive { .. } => {
            Problem::new(StatusCode::CONFLICT, "test_is_running", error.to_string())
        }
        QueueError::LeaseLost { .. } => stale(),
        error => error.into(),
    })?;
    if let Some(total) = total.filter(|_| !existing) {
        // What is not told now is told with the first progress.
        let _ = state.queue.report(&claim.lease, vec![wish::nothing_of(total)]).await;
    }
    let lease = Pass::write(&claim);
    let job = claim.job;
    let registered = Registered {
        lease,
        test_id: job.test_id,
        job_id: job.job_id,
        attempt: job.attempt,
        lease_ms: job.lease_ms.unwrap_or_default(),
        state: job.state,
    };
    let place = format!("/api/v1/tests/{}", registered.test_id);
    Ok(if existing {
        (StatusCode::OK, Json(registered)).into_response()
    } else {
        (StatusCode::CREATED, [(header::LOCATION, place)], Json(registered)).into_response()
    })
}

/// Tell what a registered test does.
///
/// Up to 1,000 events, in order, all of them or none; no events are a sign of life. Progress is absolute and complete:
/// the newest stands for all before it.
#[utoipa::path(
    post,
    path = "/api/v1/tests/{testId}/reports",
    operation_id = "reportTest",
    tag = "tests",
    params(("testId" = TestId, Path, description = "Names the test")),
    request_body = Reports,
    responses(
        (status = 200, description = "Told, and the lease goes on", body = Taken),
        (status = 400, description = "`invalid`, `invalid_json`, `unknown_event`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`test_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`stale_attempt`: the lease counts no more", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn report(
    State(state): State<Arc<HttpState>>,
    Extension(outlooks): Extension<Arc<Outlooks>>,
    caller: Caller,
    Named(test): Named<TestId>,
    Body(wish): Body<Reports>,
) -> Result<Json<Taken>, Problem> {
    state.rights.has_role(&caller.0, &[WORKER], "telling of a test")?;
    let Reports { attempt, lease, events } = wish;
    let reports = wish::reports(events, &state)?;
    let lease = lease_of(&state, &lease, attempt, &test).await?;
    let wanted = match outlooks.report(&*state.queue, &lease.lease, reports).await {
        Ok(wanted) => wanted,
        Err(error) => return Err(refused(&state, error, &test).await),
    };
    let cancel = wanted.map(|CancelWish { reason, by }| Wish {
        reason: reason.unwrap_or_else(|| "cancelled".to_owned()),
        cancelled_by: by,
    });
    Ok(Json(Taken { attempt, lease_ms: lease.lease_ms, cancel }))
}

/// End a registered test.
///
/// The same end again is answered as the first was.
#[utoipa::path(
    post,
    path = "/api/v1/tests/{testId}/end",
    operation_id = "endTest",
    tag = "tests",
    params(("testId" = TestId, Path, description = "Names the test")),
    request_body = End,
    responses(
        (status = 200, description = "The test has ended", body = Ended),
        (status = 400, description = "`invalid`, `invalid_json`, `unknown_event`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`test_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`stale_attempt`: the lease counts no more", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn end(
    State(state): State<Arc<HttpState>>,
    Extension(outlooks): Extension<Arc<Outlooks>>,
    caller: Caller,
    Named(test): Named<TestId>,
    Body(wish): Body<End>,
) -> Result<Json<Ended>, Problem> {
    state.rights.has_role(&caller.0, &[WORKER], "ending a test")?;
    let (lease, attempt) = (wish.lease.clone(), wish.attempt);
    let (last, mut ending, reason) = wish.read(&state)?;
    let lease = lease_of(&state, &lease, attempt, &test).await?.lease;
    let past = outlooks.past(&*state.queue, &lease).await;
    if let (Ending::Failed { results, .. }, Some(past)) = (&mut ending, past) {
        past.mark(results);
    }
    if let (Ending::Cancelled, Some(reason)) = (&ending, reason) {
        // Why it is cancelled is a part of the wish. If this dies in between, the lease ends it as cancelled.
        let wished = state.queue.report(&lease, Vec::new()).await;
        if matches!(wished, Ok(None)) {
            let _ = state.queue.cancel(&lease.job_id, Some(reason), caller.user().cloned()).await;
        }
    }
    let finished = state.queue.finish(&lease, last, ending).await;
    if matches!(finished, Ok(_) | Err(QueueError::LeaseLost { .. })) {
        outlooks.forget(&lease);
    }
    match finished {
        Ok(job) => Ok(Json(Ended { state: job.state })),
        Err(error) => Err(refused(&state, error, &test).await),
    }
}

/// The lease that a text stands for.
async fn lease_of(state: &HttpState, text: &str, attempt: u32, test: &TestId) -> Result<Pass, Problem> {
    match Pass::read(text, test).filter(|pass| pass.lease.attempt == attempt) {
        Some(pass) => Ok(pass),
        None => Err(unknown_or_stale(state, test).await),
    }
}

async fn refused(state: &HttpState, error: QueueError, test: &TestId) -> Problem {
    match error {
        QueueError::LeaseLost { .. } => unknown_or_stale(state, test).await,
        error => error.into(),
    }
}

async fn unknown_or_stale(state: &HttpState, test: &TestId) -> Problem {
    match state.broker.snapshot(test).await {
        Ok(Some(_)) => stale(),
        Ok(None) => Problem::not_found("test_not_found", format!("there is no test {test}")),
        Err(error) => error.into(),
    }
}

fn stale() -> Problem {
    let detail = "this lease counts no more: the attempt has ended, or another one owns the test";
    Problem::new(StatusCode::CONFLICT, "stale_attempt", detail)
}

fn invalid(detail: String) -> Problem {
    Problem::bad_request("invalid", detail)
}

/// What is shown as the worker of a test that `user` runs.
fn holder(user: Option<&UserId>) -> WorkerId {
    let named = user.map(|user| format!("external:{user}"));
    named
        .and_then(|name| WorkerId::parse(&name).ok())
        .unwrap_or_else(|| WorkerId::parse("external").expect("letters make a name"))
}
