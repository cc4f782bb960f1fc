//! History: the messages of a channel, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::HttpState;
use super::extract::{Asked, Caller, Named};
use super::problem::{Problem, ReadErrors};
use super::query::{given, number};
use crate::broker::{Page, PageLimit};
use crate::model::{ChannelName, Epoch, Message};

/// How many bytes of messages one answer holds, if more than one message.
const PAGE_BYTES: usize = 1024 * 1024;
/// How many messages one answer holds at most.
const PAGE_MESSAGES: u64 = 1000;

/// Which stretch of history is asked for. Everything may be left out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// The epoch that `offset` counts in; if the channel has another one by now, the answer is 409.
    epoch: Option<String>,
    /// The offset of the last message that is known already; 0 reads from the start.
    #[param(value_type = Option<u64>, default = 0)]
    offset: Option<String>,
    /// How many at most; 100 unless told.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
}

/// A stretch of history.
///
/// If `oldest` is greater than the asked `offset` plus one, the messages between the two are gone: history
/// keeps only so many, for so long.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stretch {
    /// Oldest first, without a hole, never conflated.
    #[schema(value_type = Vec<Message>)]
    messages: Vec<Arc<RawValue>>,
    /// The epoch of the channel and of all offsets here.
    epoch: Epoch,
    /// The offset of the channel's newest message; 0 before the first.
    top: u64,
    /// The offset of the oldest message that can still be read; `top + 1` if there is none.
    oldest: u64,
    /// The `offset` to go on from, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// Read the history of a channel.
///
/// An answer holds at most 1 MiB of messages, but always one if there is any.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{channel}/messages",
    operation_id = "readHistory",
    tag = "messages",
    params(("channel" = ChannelName, Path, description = "Names the channel"), HistoryQuery),
    responses(
        (status = 200, description = "The messages after `offset`", body = Stretch),
        (status = 400, description = "`invalid_query`", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "`unknown_channel`: no rule of this server has such a channel", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`epoch_changed`: what is known of the channel counts for nothing any more; \
            `ahead_of_top`: the channel does not reach as far as `offset`. Both tell `epoch` and `top`",
            body = Problem, content_type = "application/problem+json"),
        ReadErrors,
    )
)]
pub(super) async fn messages(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Named(channel): Named<ChannelName>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Json<Stretch>, Problem> {
    let epoch = given(query.epoch.as_deref());
    let offset = number("offset", query.offset.as_deref(), 0, u64::MAX)?.unwrap_or(0);
    let limit = number("limit", query.limit.as_deref(), 1, PAGE_MESSAGES)?.unwrap_or(100);
    state.rights.read(&caller.0, &channel).await?;
    let limit = PageLimit { messages: usize::try_from(limit).unwrap_or(usize::MAX), bytes: PAGE_BYTES };
    let page = state.broker.history(&channel, offset, limit).await?;
    check_place(&channel, epoch, offset, &page)?;
    Ok(Json(Stretch::of(page)))
}

/// Whether what the reader knows of the channel is a part of its past.
fn check_place(channel: &ChannelName, epoch: Option<&str>, offset: u64, page: &Page) -> Result<(), Problem> {
    let (code, detail) = if epoch.is_some_and(|epoch| epoch != page.epoch.as_str()) {
        let detail = format!("the epoch of `{channel}` is {} now: begin anew, without an offset", page.epoch);
        ("epoch_changed", detail)
    } else if offset > page.top {
        ("ahead_of_top", format!("`{channel}` ends at offset {}, before {offset}", page.top))
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::CONFLICT, code, detail).with_end(page.epoch.clone(), page.top))
}

impl Stretch {
    fn of(page: Page) -> Self {
        let last = page.messages.last().map(|message| message.position.offset);
        Self {
            next: last.filter(|last| *last < page.top),
            // As they were encoded once for everybody; parsing them here could only change them.
            messages: page.messages.iter().map(|message| message.json().clone()).collect(),
            epoch: page.epoch,
            top: page.top,
            oldest: page.oldest,
        }
    }
}
