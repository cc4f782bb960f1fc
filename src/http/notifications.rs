//! Notifying: one user, everybody, and taking a notification back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::HttpState;
use super::events::Placed;
use super::extract::{Body, Caller, Named};
use super::problem::{BodyErrors, LimitErrors, Problem, WriteErrors};
use crate::broker::Appended;
use crate::inbox::Status;
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::model::{ChannelName, Epoch, EventName, Incoming, MessageId, Position, Priority, UserId};
use crate::notify::{Notification, RecallError, Recalled};

/// The channel that everybody should listen to.
const SYSTEM_ALERTS: &str = "system-alerts";
/// What is told there unless the sender says otherwise.
const SYSTEM_ALERT: &str = "system:alert";

type Fields = BTreeMap<String, Box<RawValue>>;

/// What a user is to be told. Fields that do not stand here become a part of the message's data as well.
#[expect(dead_code, reason = "describes the request in the document; fields of any name are taken")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct MessageToUser {
    /// The sender's own id for it. Sending it again returns the first position instead of notifying twice.
    id: Option<MessageId>,
    /// Its priority, if not the channel's own.
    priority: Option<Priority>,
    /// What it is about, in a few words.
    #[schema(min_length = 1)]
    title: String,
    /// The rest of it.
    body: Option<String>,
}

/// What everybody is to be told: `level` and `message`, or `data` of one's own.
#[expect(dead_code, reason = "describes the request in the document; it has one of two shapes")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Broadcast {
    /// The sender's own id for it. Sending it again returns the first position instead of telling it twice.
    id: Option<MessageId>,
    /// How serious it is; with `message`.
    #[schema(example = "warning")]
    level: Option<String>,
    /// What happened; with `level`.
    message: Option<String>,
    /// What happened, for programs; `system:alert` unless told.
    event: Option<EventName>,
    /// The payload, instead of `level` and `message`.
    data: Option<serde_json::Value>,
}

/// A notification that was taken back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RecalledMessage {
    /// Names the notification.
    id: MessageId,
    /// What it is now.
    status: Status,
    /// In how many inboxes.
    inboxes: usize,
    /// The epoch of the channel that tells of it; of the last one if there are several.
    epoch: Epoch,
    /// The place of `user:notification:recalled` there.
    offset: u64,
}

/// Notify a user; answered once it is durable.
///
/// It is in the user's inbox from then on, and reaches the user's devices that are online at once.
#[utoipa::path(
    post,
    path = "/api/v1/users/{userId}/messages",
    operation_id = "notifyUser",
    tag = "inbox",
    params(
        ("userId" = UserId, Path, description = "Names the user"),
        ("X-User-Id" = Option<String>, Header, description = "Who sends it, while authentication is off"),
    ),
    request_body = MessageToUser,
    responses(
        (status = 201, description = "The notification stands here", body = Placed),
        (status = 200, description = "Its id was known: this is its place", body = Placed),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`unknown_channel`: this server has no inboxes", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        (status = 413, description = "`body_too_large`, `too_large`", body = Problem,
            content_type = "application/problem+json"),
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn send(
    State(state): State<Arc<HttpState>>,
    Named(user): Named<UserId>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    Body(mut fields): Body<Fields>,
) -> Result<(StatusCode, Json<Placed>), Problem> {
    state.paced(Act::Notify, &caller, origin.as_deref(), 1)?;
    let (id, priority) = (take(&mut fields, "id")?, take(&mut fields, "priority")?);
    require_text(&fields, "title")?;
    let notification = Notification { id, priority, data: object(&fields)? };
    placed(state.notifier.send(&caller.0, &user, notification).await?)
}

/// Tell everybody; answered once it is durable.
#[utoipa::path(
    post,
    path = "/api/v1/broadcast",
    operation_id = "broadcast",
    tag = "messages",
    params(("X-User-Id" = Option<String>, Header, description = "Who sends it, while authentication is off")),
    request_body = Broadcast,
    responses(
        (status = 201, description = "The message stands here, in `system-alerts`", body = Placed),
        (status = 200, description = "Its id was known: this is its place", body = Placed),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`, `unknown_event`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`unknown_channel`: this server has no such channel", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        (status = 413, description = "`body_too_large`, `too_large`", body = Problem,
            content_type = "application/problem+json"),
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn broadcast(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    Body(mut fields): Body<Fields>,
) -> Result<(StatusCode, Json<Placed>), Problem> {
    state.paced(Act::Notify, &caller, origin.as_deref(), 1)?;
    let invalid = |detail: String| Problem::bad_request("invalid", detail);
    let (id, priority) = (take(&mut fields, "id")?, take(&mut fields, "priority")?);
    let event: Option<EventName> = take(&mut fields, "event")?;
    let data = match fields.remove("data") {
        Some(data) => match fields.keys().next() {
            None => data,
            Some(other) => return Err(invalid(format!("`{other}` does not go with `data`"))),
        },
        None => {
            require_text(&fields, "level")?;
            require_text(&fields, "message")?;
            object(&fields)?
        }
    };
    let event = match event {
        Some(event) => event,
        None => EventName::parse(SYSTEM_ALERT).map_err(|error| invalid(error.to_string()))?,
    };
    let channel = ChannelName::parse(SYSTEM_ALERTS).map_err(|error| invalid(error.to_string()))?;
    let message = Incoming { id, event, channel, priority, user_id: None, data, extra: Vec::new() };
    placed(state.publisher.publish_one(&caller.0, message).await?)
}

/// Take a notification back.
///
/// Its sender may, and an administrator: while authentication is off, whoever names no user. Devices that are
/// online learn of it by `user:notification:recalled`. Where several users were sent the same id, all of them
/// lose it. A second recall changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/messages/{messageId}/recall",
    operation_id = "recallMessage",
    tag = "inbox",
    params(
        ("messageId" = MessageId, Path, description = "Names the notification"),
        ("X-User-Id" = Option<String>, Header, description = "Who recalls it, while authentication is off"),
    ),
    responses(
        (status = 200, description = "It is recalled", body = RecalledMessage),
        (status = 400, description = "`invalid_user`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`not_sender`: the caller received it, somebody else sent it",
            body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`message_not_found`", body = Problem,
            content_type = "application/problem+json"),
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn recall(
    State(state): State<Arc<HttpState>>,
    Named(id): Named<MessageId>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
) -> Result<Json<RecalledMessage>, Problem> {
    state.paced(Act::Notify, &caller, origin.as_deref(), 1)?;
    let by = match caller.user() {
        _ if state.auth.is_on() && caller.0.is_admin() => None,
        // Without a name it would pass for an administrator.
        None if state.auth.is_on() => return Err(RecallError::NotFound(id).into()),
        named => named,
    };
    let Recalled { inboxes, position } = state.notifier.recall(&id, by).await?;
    let Position { epoch, offset } = position;
    Ok(Json(RecalledMessage { id, status: Status::Recalled, inboxes, epoch, offset }))
}

impl From<RecallError> for Problem {
    fn from(error: RecallError) -> Self {
        let detail = error.to_string();
        match error {
            RecallError::NotFound(_) => Self::not_found("message_not_found", detail),
            RecallError::NotSender(_) => Self::new(StatusCode::FORBIDDEN, "not_sender", detail),
            RecallError::Inbox(error) => error.into(),
            RecallError::Publish(error) => error.into(),
        }
    }
}

fn placed(appended: Appended) -> Result<(StatusCode, Json<Placed>), Problem> {
    let status = if appended.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(appended.into())))
}

/// Takes a field of the envelope out of the rest; `null` counts as left out.
fn take<T: DeserializeOwned>(fields: &mut Fields, name: &str) -> Result<Option<T>, Problem> {
    let Some(value) = fields.remove(name) else { return Ok(None) };
    serde_json::from_str(value.get())
        .map_err(|error| Problem::bad_request("invalid", format!("{name}: {error}")))
}

fn require_text(fields: &Fields, name: &str) -> Result<(), Problem> {
    let text = fields.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    match text {
        Some(text) if !text.trim().is_empty() => Ok(()),
        _ => Err(Problem::bad_request(
            "invalid",
            format!("`{name}` has to be there, a text that is not empty"),
        )),
    }
}

fn object(fields: &Fields) -> Result<Box<RawValue>, Problem> {
    to_raw_value(fields).map_err(|error| Problem::bad_request("invalid", error.to_string()))
}
