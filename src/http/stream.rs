//! Streams: a channel as server-sent events, so that `curl -N` or an `EventSource` follows a test.
//!
//! A stream is a connection of the fan-out like any socket's, and opening it is a join: the same rules decide
//! what is replayed, and what a receiver must not miss. `frames` is the wire format, the queue and the body,
//! `open` knows the streams that are open.

mod frames;
mod open;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::HttpState;
use super::extract::{Asked, Caller, Named};
use super::problem::{LimitErrors, Problem, ReadErrors};
use super::query::given;
use crate::fanout::outbox::Limits;
use crate::fanout::{Fanout, JoinAck, JoinError, JoinRequest, Since};
use crate::limits::crowd::Member;
use crate::limits::{Reason, met};
use crate::listener::KillSwitch;
use crate::listener::serve::Origin;
use crate::model::{ChannelName, Epoch, Position};
use crate::quota::Seat;
pub(super) use open::Streams;

use frames::{QUEUE, StreamTransport, body, opening};
use open::{End, Slot};

/// The header with which an `EventSource` says what it had last.
const LAST_EVENT_ID: &str = "last-event-id";
/// Tells proxies of the nginx kind not to hold events back.
const ACCEL_BUFFERING: &str = "x-accel-buffering";

/// Where a stream begins. Everything may be left out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamQuery {
    /// `start` for all that history has, `now` for what comes. Without effect beside a last event id.
    #[param(value_type = Option<String>, default = "now", example = "start")]
    since: Option<String>,
    /// As the header `Last-Event-ID`, which comes before it, for clients that cannot set headers.
    last_event_id: Option<String>,
}

/// Follow a channel as server-sent events.
///
/// Each message is an event of its own name whose id is `epoch:offset` and whose data is the message. With the
/// id of the last event in `Last-Event-ID` the stream continues right after it, without a gap or a duplicate; if
/// that is not possible, the first event is `room:reset` and what follows starts after its id. Where nothing is
/// replayed and the channel has the state of a test, the first event is `snapshot`. Comments keep the
/// connection alive. The stream ends when the server stops, after the event `system:maintenance:start`, which has no id,
/// or when the reader is too slow: come back with the last id.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{channel}/stream",
    operation_id = "streamChannel",
    tag = "messages",
    params(
        ("channel" = ChannelName, Path, description = "Names the channel"),
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "`epoch:offset` of the last event that is known"),
    ),
    responses(
        (status = 200, description = "Events, until one side ends it", body = String,
            content_type = "text/event-stream"),
        (status = 400, description = "`invalid_query`; `invalid_position`: the last event id is not `epoch:offset`",
            body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_channel`: no rule of this server has such a channel", body = Problem,
            content_type = "application/problem+json"),
        LimitErrors,
        ReadErrors,
    )
)]
pub(super) async fn stream(
    State(state): State<Arc<HttpState>>,
    Extension(streams): Extension<Arc<Streams>>,
    (kill, origin): (Option<Extension<KillSwitch>>, Option<Extension<Origin>>),
    caller: Caller,
    Named(channel): Named<ChannelName>,
    Asked(query): Asked<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let since = since(&headers, &query)?;
    state.rights.read(&caller.0, &channel).await?;
    let counted = count(&state, origin.map(|Extension(origin)| origin), &caller).await?;
    // The end of the server is the end of its streams, or it would wait for them.
    let closing = state.ready.closing().clone();
    let ended = End::within(&closing);
    let slot = streams.open(caller.0.clone(), channel.clone(), ended.clone())?;
    // Once more, or rules that changed since would be looked through before it was there.
    state.rights.read(&caller.0, &channel).await?;
    state.auth.note(&caller.0);
    // Whoever was shut out while they were let in.
    if let Some(error) = state.auth.judge(&caller.0) {
        return Err(error.into());
    }
    let (events, queue) = mpsc::channel(QUEUE);
    let kill = kill.map(|Extension(switch)| switch);
    let stream = Stream {
        fanout: state.fanout.clone(),
        events,
        ended: ended.clone(),
        kill,
        _slot: slot,
        _counted: counted,
    };
    let (tell, joined) = oneshot::channel();
    let request = JoinRequest { channel, since, batch: false, snapshot: false };
    // A task of its own: should the client go away while this waits, somebody still has to leave the room.
    tokio::spawn(stream.run(request, tell));
    match joined.await {
        Ok(Ok(())) => Ok((response_headers(), body(queue, ended, closing)).into_response()),
        Ok(Err(JoinError::Broker(error))) => Err(error.into()),
        Err(_) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the server is going away before the stream began",
        )),
    }
}

fn response_headers() -> [(header::HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static(ACCEL_BUFFERING), HeaderValue::from_static("no")),
    ]
}

/// An open stream: what keeps its membership.
struct Stream {
    fanout: Arc<Fanout>,
    events: mpsc::Sender<bytes::Bytes>,
    ended: End,
    kill: Option<KillSwitch>,
    _slot: Slot,
    _counted: Counted,
}

/// What a stream counts as: one of its address and, where it has one, of its user.
type Counted = (Option<Member>, Option<Seat>);

async fn count(state: &HttpState, origin: Option<Origin>, caller: &Caller) -> Result<Counted, Problem> {
    let refused = |reason| {
        met(reason);
        Problem::limited(reason, Duration::from_secs(1))
    };
    let member = match origin {
        Some(origin) => Some(state.crowd.stream(origin.address).map_err(refused)?),
        None => None,
    };
    let Some(user) = caller.user() else { return Ok((member, None)) };
    let most = Some(state.crowd.limits().connections_per_user).filter(|most| *most > 0);
    let seat = state.quota.connect(user, most).await;
    Ok((member, Some(seat.ok_or_else(|| refused(Reason::ConnectionsOfUser))?)))
}

impl Stream {
    /// Joins, and leaves again once the client or the stream has gone.
    async fn run(self, request: JoinRequest, tell: oneshot::Sender<Result<(), JoinError>>) {
        let Self { fanout, events, ended, kill, _slot, _counted } = self;
        let transport = StreamTransport { events: events.clone(), ended: ended.clone(), kill };
        let connection = fanout.connect(Box::new(transport), Limits::default());
        let (channel, since) = (request.channel.clone(), request.since.clone());
        let joined = match fanout.prepare_join(&connection, request).await {
            Ok(joined) => joined,
            Err(error) => {
                connection.close();
                // A client that has gone needs no answer.
                let _ = tell.send(Err(error));
                return;
            }
        };
        // The queue is empty: nothing is published to a subscriber that does not listen yet.
        let _ = events.try_send(first_words(&since, &joined.ack));
        let _ = tell.send(Ok(()));
        let follow = async {
            if let Err(error) = fanout.complete_join(&connection, joined).await {
                tracing::warn!(%channel, %error, "a stream broke off before it was live; its reader resumes");
                ended.end();
            }
        };
        let end = async {
            tokio::select! {
                () = events.closed() => {}
                () = ended.ended() => {}
            }
            // Ends a join that waits for room, too.
            connection.close();
        };
        tokio::join!(follow, end);
        fanout.leave(&channel, connection.id()).await;
    }
}

/// What stands before the first message.
fn first_words(since: &Since, ack: &JoinAck) -> bytes::Bytes {
    let top = Position { epoch: ack.epoch.clone(), offset: ack.offset };
    if !ack.recovered && *since != Since::Now {
        // The reset that follows brings the place and the snapshot; before it no place may be remembered.
        opening(None, None)
    } else if ack.replayed == 0 {
        // A reader that comes back before the first message says that it was here.
        opening(Some(&top), ack.snapshot.as_ref())
    } else {
        opening(None, None)
    }
}

fn since(headers: &HeaderMap, query: &StreamQuery) -> Result<Since, Problem> {
    let header = headers.get(LAST_EVENT_ID).map(HeaderValue::to_str).transpose();
    let header = header.map_err(|_| wrong_position("it is not ASCII"))?;
    if let Some(text) = given(header).or_else(|| given(query.last_event_id.as_deref())) {
        return position(text).map(Since::At);
    }
    match given(query.since.as_deref()) {
        None | Some("now") => Ok(Since::Now),
        Some("start") => Ok(Since::Start),
        Some(text) => {
            let detail = format!("since is start or now, not {text:?}; a position is a Last-Event-ID");
            Err(Problem::bad_request("invalid_query", detail))
        }
    }
}

/// A place as the id of an event.
pub(super) fn position(text: &str) -> Result<Position, Problem> {
    let wrong = || wrong_position(&format!("{text:?} is no such id"));
    let (epoch, offset) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
    let offset = offset.parse().map_err(|_| wrong())?;
    if epoch.is_empty() || epoch.len() > Epoch::MAX_LEN {
        return Err(wrong());
    }
    Ok(Position { epoch: Epoch::new(epoch), offset })
}

fn wrong_position(reason: &str) -> Problem {
    let detail = format!("Last-Event-ID is epoch:offset, as the id of an event: {reason}");
    Problem::bad_request("invalid_position", detail)
}
