//! What the clock submits, and when.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};

use super::HttpState;
use super::extract::Caller;
use super::problem::Problem;
use crate::auth::SUBMIT;
use crate::model::{Priority, now_ms};
use crate::schedules::Planned;

/// All schedules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ScheduleList {
    /// By their names.
    schedules: Vec<ScheduleState>,
}

/// A job that the clock submits.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScheduleState {
    /// Its name: its jobs have it, and their tests begin with it.
    name: String,
    /// When, as a cron expression.
    cron: String,
    /// By which clock.
    timezone: String,
    /// Which runner handles it.
    test_type: String,
    /// What the runner is told.
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    /// Higher ones run first.
    priority: Priority,
    /// When it is due next, in ms since the Unix epoch; never again if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

impl ScheduleState {
    fn of(name: &str, Planned { schedule, timing }: &Planned) -> Self {
        Self {
            name: name.to_owned(),
            cron: schedule.cron.clone(),
            timezone: schedule.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
            test_type: schedule.test_type().to_owned(),
            config: schedule.job_config(),
            priority: schedule.priority.unwrap_or_default(),
            next: timing.next_after(now_ms()),
        }
    }
}

/// List what the clock submits.
#[utoipa::path(
    get,
    path = "/api/v1/schedules",
    operation_id = "listSchedules",
    tag = "jobs",
    responses(
        (status = 200, description = "The schedules of this server's configuration", body = ScheduleList),
        (status = 403, description = "`forbidden`: it needs the role submit or admin", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
) -> Result<Json<ScheduleList>, Problem> {
    state.rights.has_role(&caller.0, &[SUBMIT], "looking at schedules")?;
    let plan = state.schedules.now();
    Ok(Json(ScheduleList {
        schedules: plan.iter().map(|(name, planned)| ScheduleState::of(name, planned)).collect(),
    }))
}
