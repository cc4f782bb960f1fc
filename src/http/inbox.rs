//! The caller's inbox: what is unread, what came while nobody was there, and what becomes of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::HttpState;
use super::extract::{Asked, Body, CallingUser, OptionalBody};
use super::problem::{BodyErrors, Problem, ReadErrors, WriteErrors};
use super::query::{Cursor, given, number};
use crate::inbox::{InboxError, InboxPage, Marked, PageOf, Status};
use crate::model::{Message, MessageId, now_ms};

/// A page has no more bytes of messages, or a reader that takes its time would hold very much.
const PAGE_BYTES: usize = 1024 * 1024;
/// The most messages of one page, or of one change.
const MOST: usize = 1000;
/// How many messages a page has unless told.
const PAGE: usize = 100;
/// A message on its way to a connected device counts as delivered for so long; then it was not.
const ON_THE_WAY_MS: i64 = 1000;

/// Which page of the unread messages. The whole body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UnreadPage {
    /// Where the page begins: `next` of the page before.
    after: Option<String>,
    /// How many at most; 100 unless told.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Which page of the offline messages. Everything may be left out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfflineQuery {
    /// Where the page begins: `next` of the page before.
    after: Option<String>,
    /// How many at most; 100 unless told.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
}

/// Which messages.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MessageIds {
    /// Their ids; all of them are changed, or none.
    #[schema(max_items = 1000)]
    message_ids: Vec<MessageId>,
}

/// A message of an inbox: the message itself, and what became of it.
#[expect(
    dead_code,
    reason = "describes the answer in the document; the message is passed on as it was encoded"
)]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct InboxMessage {
    #[schema(inline)]
    #[serde(flatten)]
    message: Message,
    /// What became of it.
    status: Status,
    /// When it was first written to a device, in ms since the Unix epoch.
    delivered_at: Option<i64>,
    /// When it was read, in ms since the Unix epoch.
    read_at: Option<i64>,
}

/// A page of an inbox.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct InboxMessages {
    /// Oldest first.
    #[schema(value_type = Vec<InboxMessage>)]
    messages: Vec<Box<RawValue>>,
    /// How many the whole list has, exactly.
    total: u64,
    /// Where the next page begins, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What a change did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Changed {
    /// How many were changed; the others were so already.
    changed: u64,
    /// How many the list still has: unread ones after reading, offline ones after confirming.
    total: u64,
}

impl From<InboxPage> for InboxMessages {
    fn from(InboxPage { entries, total, next }: InboxPage) -> Self {
        let messages = entries.into_iter().map(|entry| entry.json).collect();
        Self { messages, total, next: next.map(|place| Cursor::Inbox.write(place)) }
    }
}

impl From<Marked> for Changed {
    fn from(Marked { changed, left }: Marked) -> Self {
        Self { changed, total: left }
    }
}

impl From<InboxError> for Problem {
    fn from(error: InboxError) -> Self {
        let (status, code) = match &error {
            InboxError::NotFound(_) => (StatusCode::NOT_FOUND, "message_not_found"),
            InboxError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            InboxError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// List the caller's unread messages, oldest first.
#[utoipa::path(
    post,
    path = "/api/v1/messages/unread",
    operation_id = "listUnread",
    tag = "inbox",
    params(("X-User-Id" = Option<String>, Header, description = "Whose inbox, while authentication is off")),
    request_body = Option<UnreadPage>,
    responses(
        (status = 200, description = "A page of them", body = InboxMessages),
        (status = 400, description = "`user_required`: no user is named; `invalid_user`, `invalid`, \
            `invalid_json`, `invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        ReadErrors,
    )
)]
pub(super) async fn unread(
    State(state): State<Arc<HttpState>>,
    CallingUser(user): CallingUser,
    OptionalBody(UnreadPage { after, limit }): OptionalBody<UnreadPage>,
) -> Result<Json<InboxMessages>, Problem> {
    let limit = match limit.map(usize::try_from) {
        None => PAGE,
        Some(Ok(limit)) if (1..=MOST).contains(&limit) => limit,
        Some(_) => {
            return Err(Problem::bad_request("invalid", format!("limit is a number from 1 to {MOST}")));
        }
    };
    let after = given(after.as_deref()).map(|text| Cursor::Inbox.read(text)).transpose()?;
    Ok(Json(state.notifier.inbox().unread(&user, PageOf { after, limit, bytes: PAGE_BYTES }).await?.into()))
}

/// List the messages that no device of the caller took as they came, oldest first.
///
/// They came while no device was connected, or their connection broke before they were written. They stay in the
/// list until a device confirms them, here or with `message:ack`.
#[utoipa::path(
    get,
    path = "/api/v1/messages/offline",
    operation_id = "listOffline",
    tag = "inbox",
    params(
        ("X-User-Id" = Option<String>, Header, description = "Whose inbox, while authentication is off"),
        OfflineQuery,
    ),
    responses(
        (status = 200, description = "A page of them", body = InboxMessages),
        (status = 400, description = "`user_required`: no user is named; `invalid_user`, `invalid_query`, \
            `invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn offline(
    State(state): State<Arc<HttpState>>,
    CallingUser(user): CallingUser,
    Asked(query): Asked<OfflineQuery>,
) -> Result<Json<InboxMessages>, Problem> {
    let limit = number("limit", query.limit.as_deref(), 1, MOST as u64)?;
    let limit = limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(MOST));
    let after = given(query.after.as_deref()).map(|text| Cursor::Inbox.read(text)).transpose()?;
    // What came since the user's first device did may be on its way to it right now.
    let online = state.presence.user(&user).await?;
    let on_the_way = online.map(|online| online.since_ms.max(now_ms() - ON_THE_WAY_MS));
    Ok(Json(
        state
            .notifier
            .inbox()
            .offline(&user, on_the_way, PageOf { after, limit, bytes: PAGE_BYTES })
            .await?
            .into(),
    ))
}

/// Mark messages of the caller as read, on whatever device. Those that are read or recalled stay as they are.
///
/// Where that changes anything, `user:notification:read` tells the caller's devices.
#[utoipa::path(
    post,
    path = "/api/v1/messages/mark-read",
    operation_id = "markRead",
    tag = "inbox",
    params(("X-User-Id" = Option<String>, Header, description = "Whose inbox, while authentication is off")),
    request_body = MessageIds,
    responses(
        (status = 200, description = "They are read; `total` unread ones are left", body = Changed),
        (status = 400, description = "`user_required`: no user is named; `invalid_user`, `invalid`, \
            `invalid_json`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`message_not_found`: the caller has no such message, and none of the others \
            was changed", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn mark_read(
    State(state): State<Arc<HttpState>>,
    CallingUser(user): CallingUser,
    Body(ids): Body<MessageIds>,
) -> Result<Json<Changed>, Problem> {
    let ids = bounded(ids)?;
    Ok(Json(state.notifier.mark_read(&user, ids).await?.into()))
}

/// Confirm that a device of the caller has these messages; they leave the offline list.
#[utoipa::path(
    post,
    path = "/api/v1/messages/offline/confirm",
    operation_id = "confirmOffline",
    tag = "inbox",
    params(("X-User-Id" = Option<String>, Header, description = "Whose inbox, while authentication is off")),
    request_body = MessageIds,
    responses(
        (status = 200, description = "They are confirmed; `total` offline ones are left", body = Changed),
        (status = 400, description = "`user_required`: no user is named; `invalid_user`, `invalid`, \
            `invalid_json`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`message_not_found`: the caller has no such message, and none of the others \
            was changed", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    )
)]
pub(super) async fn confirm(
    State(state): State<Arc<HttpState>>,
    CallingUser(user): CallingUser,
    Body(ids): Body<MessageIds>,
) -> Result<Json<Changed>, Problem> {
    let ids = bounded(ids)?;
    Ok(Json(state.notifier.inbox().confirm(&user, ids).await?.into()))
}

fn bounded(MessageIds { message_ids }: MessageIds) -> Result<Vec<MessageId>, Problem> {
    if message_ids.len() > MOST {
        return Err(Problem::bad_request("invalid", format!("messageIds has at most {MOST} ids")));
    }
    Ok(message_ids)
}
