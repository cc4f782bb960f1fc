//! Tests: their snapshots, read and listed. (What checks this edge stands in `conformance`.)

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::HttpState;
use super::extract::{Asked, Caller, Named};
use super::problem::{Problem, ReadErrors};
use super::query::{Cursor, ListQuery};
use crate::broker::TestPage;
use crate::model::{Snapshot, TestId};

/// A page of tests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Tests {
    /// Newest first.
    tests: Vec<Snapshot>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List tests, newest first; those included that ran elsewhere and only report here.
#[utoipa::path(
    get,
    path = "/api/v1/tests",
    operation_id = "listTests",
    tag = "tests",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of tests", body = Tests),
        (status = 400, description = "`invalid_query`, or `invalid_cursor`: not a cursor of this list",
            body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Tests>, Problem> {
    let wanted = query.read(Cursor::Tests)?;
    let mut page = state.broker.tests(wanted.state, wanted.before, wanted.limit).await?;
    state.rights.retain_tests(&caller.0, &mut page.tests).await?;
    let TestPage { tests, next } = page;
    Ok(Json(Tests { tests, next: next.map(|place| Cursor::Tests.write(place)) }))
}

/// Read the state of a test: the fold of its messages up to `offset`.
#[utoipa::path(
    get,
    path = "/api/v1/tests/{testId}",
    operation_id = "getTest",
    tag = "tests",
    params(("testId" = TestId, Path, description = "Names the test")),
    responses(
        (status = 200, description = "The state of the test", body = Snapshot),
        (status = 404, description = "`test_not_found`", body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn get(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Named(test): Named<TestId>,
) -> Result<Json<Snapshot>, Problem> {
    state.rights.see_test(&caller.0, &test).await?;
    let found = state.broker.snapshot(&test).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("test_not_found", format!("there is no test {test}")))
}
