//! What is logged: read, and changed while the server runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{Admin, Body};
use super::problem::{BodyErrors, Problem};
use crate::telemetry::LogLevel;

/// What is logged.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logged {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or directives.
    #[schema(example = "info,tidings::queue=debug")]
    level: String,
}

/// Read what is logged.
#[utoipa::path(
    get,
    path = "/api/v1/log-level",
    operation_id = "getLogLevel",
    tag = "server",
    responses(
        (status = 200, description = "What is logged now", body = Logged),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`no_log`: this server has no log whose level can be changed", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(State(state): State<Arc<HttpState>>, _: Admin) -> Result<Json<Logged>, Problem> {
    Ok(Json(Logged { level: log(&state)?.get() }))
}

/// Change what is logged by this server, until its configuration is read again.
#[utoipa::path(
    put,
    path = "/api/v1/log-level",
    operation_id = "setLogLevel",
    tag = "server",
    request_body = Logged,
    responses(
        (status = 200, description = "What is logged from now on", body = Logged),
        (status = 400, description = "`invalid`, `invalid_json`: it is no level; nothing has changed", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`no_log`: this server has no log whose level can be changed", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
    )
)]
pub(super) async fn set(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Body(Logged { level }): Body<Logged>,
) -> Result<Json<Logged>, Problem> {
    let log = log(&state)?;
    let before = log.get();
    // Before and after: one of the two may be below the level.
    tracing::info!(before, level, "the level of the log is changed");
    log.set(&level).map_err(|error| Problem::bad_request("invalid", format!("level: {error}")))?;
    tracing::info!(before, level, "the level of the log was changed");
    Ok(Json(Logged { level }))
}

fn log(state: &HttpState) -> Result<&LogLevel, Problem> {
    let none = || {
        let detail = "this server has no log whose level can be changed";
        Problem::new(StatusCode::NOT_FOUND, "no_log", detail)
    };
    state.log_level.as_ref().ok_or_else(none)
}
