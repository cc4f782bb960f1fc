//! Shutting out: users, and tokens by their id.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{Admin, Named, OptionalBody, Text};
use super::problem::{BodyErrors, Problem, WriteErrors};
use crate::auth::claims::MAX_TOKEN_ID;
use crate::model::{UserId, now_ms};
use crate::revocation::{Change, RevocationError};

/// Tokens that live longer than this are nobody's: without a word on its expiry a token is remembered for a year.
const REMEMBERED_MS: i64 = 365 * 24 * 3600 * 1000;

/// Until when a token has to be shut out. The whole body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeToken {
    /// When it expires, in ms since the Unix epoch; a year from now unless told.
    #[schema(minimum = 0)]
    expires_at: Option<i64>,
}

/// What a change did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Revoked {
    /// Whether it changed something; else it was so already.
    changed: bool,
}

impl From<RevocationError> for Problem {
    fn from(error: RevocationError) -> Self {
        match error {
            RevocationError::TooMany => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "too_many_revocations", error.to_string())
            }
            RevocationError::Fault(fault) => fault.into(),
        }
    }
}

/// Shut a user out, whatever tokens they have.
///
/// Their connections and streams end on all nodes within two seconds, and new ones are refused until they are let in
/// again.
#[utoipa::path(
    post,
    path = "/api/v1/users/{userId}/block",
    operation_id = "blockUser",
    tag = "access",
    params(("userId" = UserId, Path, description = "Names the user")),
    responses(
        (status = 200, description = "They are shut out", body = Revoked),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        WriteErrors,
    )
)]
pub(super) async fn block(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Named(user): Named<UserId>,
) -> Result<Json<Revoked>, Problem> {
    apply(&state, Change::Block(user)).await
}

/// Let a user in again.
#[utoipa::path(
    post,
    path = "/api/v1/users/{userId}/unblock",
    operation_id = "unblockUser",
    tag = "access",
    params(("userId" = UserId, Path, description = "Names the user")),
    responses(
        (status = 200, description = "They are let in", body = Revoked),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        WriteErrors,
    )
)]
pub(super) async fn unblock(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Named(user): Named<UserId>,
) -> Result<Json<Revoked>, Problem> {
    apply(&state, Change::Unblock(user)).await
}

/// Shut a token out, by its id (`jti`), for as long as it would be taken.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/{tokenId}/revoke",
    operation_id = "revokeToken",
    tag = "access",
    params(("tokenId" = String, Path, description = "The `jti` of the token")),
    request_body = Option<RevokeToken>,
    responses(
        (status = 200, description = "It is shut out", body = Revoked),
        (status = 400, description = "`invalid`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: it needs the role admin", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn revoke(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Text(token): Text,
    OptionalBody(RevokeToken { expires_at }): OptionalBody<RevokeToken>,
) -> Result<Json<Revoked>, Problem> {
    if token.len() > MAX_TOKEN_ID {
        let detail = format!("no token has a name of more than {MAX_TOKEN_ID} bytes");
        return Err(Problem::bad_request("invalid", detail));
    }
    let until = expires_at.unwrap_or_else(|| now_ms().saturating_add(REMEMBERED_MS));
    // Clocks differ, and tokens are taken for a while after their end.
    let until = until.saturating_add(state.auth.leeway_ms());
    apply(&state, Change::Revoke(token, until)).await
}

async fn apply(state: &HttpState, change: Change) -> Result<Json<Revoked>, Problem> {
    Ok(Json(Revoked { changed: state.auth.revoke(change).await? }))
}
