//! Publishing: one message, or an array whose messages succeed and fail each by itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::HttpState;
use super::extract::{Caller, JsonBytes, first, parse};
use super::problem::{BodyErrors, LimitErrors, Problem, WriteErrors};
use super::traced;
use crate::broker::Appended;
use crate::limits::pace::Act;
use crate::listener::serve::Origin;
use crate::metrics;
use crate::model::{ChannelName, Epoch, EventName, Incoming, MessageId, Priority, UserId};
use crate::publish::PublishError;

/// A message as it is sent. Fields that do not stand here pass through untouched.
#[expect(dead_code, reason = "describes the request in the document; what is parsed is `Incoming`")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct MessageToPublish {
    /// The sender's own id for it. Sending it again returns the first position instead of adding a message.
    id: Option<MessageId>,
    /// What happened; the channel has to carry it.
    event: EventName,
    /// Where it is to stand.
    #[schema(example = "test-progress-stress_123")]
    channel: ChannelName,
    /// Its priority, if not the channel's own for this event.
    priority: Option<Priority>,
    /// Whom it concerns or who sent it; the user of `X-User-Id` unless told.
    user_id: Option<UserId>,
    /// The payload.
    data: serde_json::Value,
}

/// One message, or up to 1,000.
#[expect(dead_code, reason = "describes the request in the document; the first byte decides what is parsed")]
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Publication {
    /// One message.
    One(MessageToPublish),
    /// Messages that succeed and fail each by itself.
    Many(Vec<MessageToPublish>),
}

/// Where a message stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Placed {
    /// Its id: the sender's, or the one that the server gave it.
    id: MessageId,
    /// The epoch of its channel.
    epoch: Epoch,
    /// Its number in the channel, from 1.
    offset: u64,
}

/// What became of an array of messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PublishResults {
    /// One entry for each message, in the same order.
    results: Vec<Outcome>,
}

/// What became of one message of an array.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Outcome {
    /// It was published.
    Placed(Placed),
    /// It was refused.
    Refused {
        /// Why.
        error: Refusal,
    },
}

/// Why one message was refused.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Refusal {
    /// For programs: `unknown_channel`, `unknown_event`, `invalid`, `too_large`, `stale_attempt`, …
    code: &'static str,
    /// For people.
    message: String,
}

impl From<Appended> for Placed {
    fn from(Appended { id, position, .. }: Appended) -> Self {
        Self { id, epoch: position.epoch, offset: position.offset }
    }
}

impl Outcome {
    fn refused(code: &'static str, message: String) -> Self {
        Self::Refused { error: Refusal { code, message } }
    }
}

/// Publish messages; answered once they are durable.
///
/// The messages of an array succeed and fail each by itself: see `results`. Only where the store cannot take
/// any is the whole array answered with 503 or 507; it may then be sent again, with the same ids.
#[utoipa::path(
    post,
    path = "/api/v1/events",
    operation_id = "publish",
    tag = "messages",
    params((
        "X-User-Id" = Option<String>, Header,
        description = "Who sends the messages that name no `userId`, while authentication is off"
    )),
    request_body = Publication,
    responses(
        (status = 201, description = "The message was published", body = Placed),
        (status = 200, description = "For an array: what became of each message. For one message: its id was \
            known, and this is the place that it has had since it was first sent",
            body = inline(PublishAnswer)),
        (status = 400, description = "`invalid`, `invalid_json`, `invalid_user`, or `unknown_event`: the channel \
            does not carry it", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: only the server itself publishes to this channel",
            body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_channel`: no rule of this server has such a channel", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`stale_attempt`: a newer attempt owns the test; `test_ended`: its attempt \
            has ended; `test_owned`: a job runs it, whose worker alone may tell that", body = Problem,
            content_type = "application/problem+json"),
        BodyErrors,
        (status = 413, description = "`body_too_large`, `too_large` (one message), `batch_too_large` (too many \
            messages)", body = Problem, content_type = "application/problem+json"),
        LimitErrors,
        WriteErrors,
    )
)]
pub(super) async fn publish(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    origin: Option<Extension<Origin>>,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let paced = |n| state.paced(Act::Publish, &caller, origin.as_deref(), n);
    if first(&body) == Some(b'[') {
        Ok(Json(publish_many(&state, &caller, &body, paced).await?).into_response())
    } else {
        paced(1)?;
        let (status, placed) = publish_one(&state, &caller, &body).await?;
        Ok((status, Json(placed)).into_response())
    }
}

/// Where the message stands, or what became of each message.
#[expect(dead_code, reason = "describes the answer in the document")]
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum PublishAnswer {
    /// For one message.
    One(Placed),
    /// For an array.
    Many(PublishResults),
}

async fn publish_one(
    state: &HttpState,
    caller: &Caller,
    body: &[u8],
) -> Result<(StatusCode, Placed), Problem> {
    let message = parse(body).inspect_err(|_| metrics::rejected("invalid"))?;
    match state.publisher.publish(&caller.0, vec![marked(message)]).await.pop() {
        Some(Ok(appended)) => {
            let status = if appended.duplicate { StatusCode::OK } else { StatusCode::CREATED };
            Ok((status, appended.into()))
        }
        Some(Err(error)) => Err(error.into()),
        None => Err(no_answer()),
    }
}

async fn publish_many(
    state: &HttpState,
    caller: &Caller,
    body: &[u8],
    paced: impl Fn(usize) -> Result<(), Problem>,
) -> Result<PublishResults, Problem> {
    let max = state.limits.publish_batch;
    let elements = elements(body, max)?;
    paced(elements.len())?;
    let mut messages = Vec::with_capacity(elements.len());
    // Per element: its refusal, or that it is the next of `messages`.
    let mut refused = Vec::with_capacity(elements.len());
    for element in elements {
        match read(element) {
            Ok(message) => {
                messages.push(marked(message));
                refused.push(None);
            }
            Err(reason) => {
                metrics::rejected("invalid");
                refused.push(Some(Outcome::refused("invalid", reason)));
            }
        }
    }
    let mut answers = state.publisher.publish(&caller.0, messages).await.into_iter();
    let mut results = Vec::with_capacity(refused.len());
    for refusal in refused {
        results.push(match refusal {
            Some(outcome) => outcome,
            None => match answers.next() {
                Some(Ok(appended)) => Outcome::Placed(appended.into()),
                // The store takes all messages of a call or none, so this is about the whole array.
                Some(Err(error @ PublishError::Broker(_))) => return Err(error.into()),
                Some(Err(error)) => Outcome::refused(error.code(), error.to_string()),
                None => return Err(no_answer()),
            },
        });
    }
    Ok(PublishResults { results })
}

fn no_answer() -> Problem {
    let detail = "the publish door gave no answer for a message; it may have been published";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

fn marked(mut message: Incoming) -> Incoming {
    traced::mark(&mut message);
    message
}

/// Reads one element of an array, or says what is wrong with it.
fn read(element: &RawValue) -> Result<Incoming, String> {
    // Naming the wrong field costs time, so that is left to a second look at the few that have one.
    serde_json::from_str(element.get()).map_err(|plain| {
        let named = parse::<Incoming>(element.get().as_bytes()).err();
        named.map_or_else(|| plain.to_string(), |problem| problem.detail().to_owned())
    })
}

/// Takes an array apart, but keeps no more than `max` elements of it.
fn elements(body: &[u8], max: usize) -> Result<Vec<&RawValue>, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = (&mut json).deserialize_seq(Elements { max }).and_then(|read| json.end().map(|()| read));
    let (elements, n) = read.map_err(|error| Problem::bad_request("invalid_json", error.to_string()))?;
    if n > max {
        metrics::rejected("too_large");
        let detail = format!("the array has {n} messages, more than the {max} that are taken at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", detail));
    }
    Ok(elements)
}

/// Reads up to `max` elements of an array, and how many it has.
struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.max {
            match seq.next_element()? {
                Some(element) => elements.push(element),
                None => break,
            }
        }
        // Counted only, so that a huge array costs no memory and its sender still learns its size.
        let mut n = elements.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            n += 1;
        }
        Ok((elements, n))
    }
}
