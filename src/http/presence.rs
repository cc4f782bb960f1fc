//! Presence: who is connected, who is in a room, and ending connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{Admin, Asked, Caller, Named, OptionalBody, Text};
use super::problem::{BodyErrors, Problem, ReadErrors, WriteErrors};
use super::query::{given, number};
use crate::fault::Fault;
use crate::model::{ChannelName, UserId};
use crate::presence::{Online, Page, Present};

/// The longest name that a cursor or a connection can have, in bytes.
const MAX_NAME: usize = 128;
/// How many connections one request may name.
const MAX_NAMED: usize = 1000;
/// How many of them are being ended at once.
const ENDING: usize = 64;

/// Which page of a list that is ordered by name. Everything may be left out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NamesQuery {
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many at most; 100 unless told.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
}

impl NamesQuery {
    fn read(&self) -> Result<(Option<&str>, usize), Problem> {
        let limit = number("limit", self.limit.as_deref(), 1, 1000)?.unwrap_or(100);
        let cursor = given(self.cursor.as_deref());
        if cursor.is_some_and(|cursor| cursor.len() > MAX_NAME) {
            let detail = "the cursor is not one that this list gave; leave it out to begin anew";
            return Err(Problem::bad_request("invalid_cursor", detail));
        }
        Ok((cursor, usize::try_from(limit).unwrap_or(usize::MAX)))
    }
}

/// A user with connections.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserOnline {
    /// Who.
    user_id: UserId,
    /// How many connections.
    connections: usize,
}

/// A page of the users that are online.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct UsersOnline {
    /// By name.
    users: Vec<UserOnline>,
    /// How many users are online in all.
    total: usize,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Who is in a room.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RoomPresence {
    /// The channel whose room it is.
    channel: ChannelName,
    /// The named users in it, by name, each with its connections there.
    users: Vec<UserOnline>,
    /// Connections in it, those of nobody in particular included.
    connections: usize,
}

/// An open connection.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenConnection {
    /// The node that holds it, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    node: Option<Arc<str>>,
    /// Names it.
    connection_id: String,
    /// The client's name for its device.
    client_id: String,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    /// The rooms that it is in, by name.
    rooms: Vec<ChannelName>,
    /// When it came, in ms since the Unix epoch.
    connected_at: i64,
    /// What carries it now: `websocket` or `polling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
}

/// A page of connections.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Connections {
    /// By name.
    connections: Vec<OpenConnection>,
    /// How many there are in all.
    total: usize,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which connections to end. Without `connectionIds`, or without a body, those that are dead.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cleanup {
    /// These, dead or not; those that are gone already are passed over.
    #[schema(max_items = 1000)]
    connection_ids: Option<Vec<String>>,
}

/// How many connections were ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Closed {
    /// So many.
    closed: usize,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (status, code) = match &fault {
            Fault::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            Fault::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, fault.to_string())
    }
}

impl From<Online> for UserOnline {
    fn from(Online { user_id, connections, .. }: Online) -> Self {
        Self { user_id, connections }
    }
}

impl From<Present> for OpenConnection {
    fn from(present: Present) -> Self {
        let Present { node, connection_id, client_id, user_id, rooms, connected_at_ms, transport } = present;
        Self { node, connection_id, client_id, user_id, rooms, connected_at: connected_at_ms, transport }
    }
}

/// List the users that are online.
#[utoipa::path(
    get,
    path = "/api/v1/users/online",
    operation_id = "listOnlineUsers",
    tag = "presence",
    params(NamesQuery),
    responses(
        (status = 200, description = "A page of users", body = UsersOnline),
        (status = 400, description = "`invalid_query`, `invalid_cursor`", body = Problem,
            content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn users(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Asked(query): Asked<NamesQuery>,
) -> Result<Json<UsersOnline>, Problem> {
    let (after, limit) = query.read()?;
    state.rights.see_users(&caller.0).await?;
    let Page { items, total, next } = state.presence.users(after, limit).await?;
    Ok(Json(UsersOnline { users: items.into_iter().map(Into::into).collect(), total, next }))
}

/// See who is in a channel's room.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{channel}/presence",
    operation_id = "getPresence",
    tag = "presence",
    params(("channel" = ChannelName, Path, description = "Names the channel")),
    responses(
        (status = 200, description = "Who is in the room now", body = RoomPresence),
        (status = 404, description = "`unknown_channel`: no rule of this server has such a channel", body = Problem,
            content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn room(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Named(channel): Named<ChannelName>,
) -> Result<Json<RoomPresence>, Problem> {
    state.rights.read(&caller.0, &channel).await?;
    let there = state.presence.room(&channel).await?;
    let users = there.users.into_iter().map(|(user_id, connections)| UserOnline { user_id, connections });
    Ok(Json(RoomPresence { channel, users: users.collect(), connections: there.connections }))
}

/// List the open connections.
#[utoipa::path(
    get,
    path = "/api/v1/connections",
    operation_id = "listConnections",
    tag = "presence",
    params(NamesQuery),
    responses(
        (status = 200, description = "A page of connections", body = Connections),
        (status = 400, description = "`invalid_query`, `invalid_cursor`", body = Problem,
            content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn connections(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Asked(query): Asked<NamesQuery>,
) -> Result<Json<Connections>, Problem> {
    let (after, limit) = query.read()?;
    let Page { items, total, next } = state.presence.connections(after, limit).await?;
    Ok(Json(Connections { connections: items.into_iter().map(Into::into).collect(), total, next }))
}

/// End a connection. A client that reconnects by itself comes back.
#[utoipa::path(
    delete,
    path = "/api/v1/connections/{connectionId}",
    operation_id = "endConnection",
    tag = "presence",
    params(("connectionId" = String, Path, description = "Names the connection")),
    responses(
        (status = 200, description = "It was ended", body = Closed),
        (status = 404, description = "`connection_not_found`", body = Problem,
            content_type = "application/problem+json"),
        WriteErrors,
    )
)]
pub(super) async fn end(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    Text(connection_id): Text,
) -> Result<Json<Closed>, Problem> {
    if state.presence.end(&connection_id).await? {
        return Ok(Json(Closed { closed: 1 }));
    }
    let shown: String = connection_id.chars().take(MAX_NAME).collect();
    Err(Problem::not_found("connection_not_found", format!("there is no connection `{shown}`")))
}

/// End dead connections, or given ones.
#[utoipa::path(
    post,
    path = "/api/v1/connections/cleanup",
    operation_id = "cleanUpConnections",
    tag = "presence",
    request_body = Option<Cleanup>,
    responses(
        (status = 200, description = "They were ended", body = Closed),
        (status = 400, description = "`invalid`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn cleanup(
    State(state): State<Arc<HttpState>>,
    _: Admin,
    OptionalBody(Cleanup { connection_ids }): OptionalBody<Cleanup>,
) -> Result<(StatusCode, Json<Closed>), Problem> {
    let closed = match connection_ids {
        None => state.presence.end_dead().await?,
        Some(ids) if ids.len() > MAX_NAMED => {
            let detail = format!("connectionIds has at most {MAX_NAMED} names");
            return Err(Problem::bad_request("invalid", detail));
        }
        Some(ids) => {
            let ids: BTreeSet<_> = ids.into_iter().collect();
            // Those of other nodes are waited for: not one after the other.
            let ending = ids.iter().map(|id| state.presence.end(id));
            let ended = stream::iter(ending.collect::<Vec<_>>()).buffer_unordered(ENDING);
            ended.try_fold(0, async |closed, ended| Ok(closed + usize::from(ended))).await?
        }
    };
    Ok((StatusCode::OK, Json(Closed { closed })))
}
