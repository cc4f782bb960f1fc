//! Extractors: the parts of a request, checked, or the problem that says what is wrong with them.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::HttpState;
use super::problem::Problem;
use crate::auth::Identity;
use crate::listener::deadline::BodyTimeout;
use crate::metrics;
use crate::model::UserId;
use crate::model::id::InvalidId;

/// The header that names the user while authentication is off.
const USER_HEADER: &str = "x-user-id";
/// So long a body that is refused is taken.
const LINGER: Duration = Duration::from_millis(500);

/// A body that says it is JSON, not parsed yet.
pub(super) struct JsonBytes(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "send the body as JSON, with the header `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        Ok(Self(bytes(request, state).await?))
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        parse_object(&bytes).map(Self)
    }
}

/// A JSON body, or none at all.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !json {
            let detail =
                "send the body as JSON, with the header `Content-Type: application/json`, or send none";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        parse_object(&bytes).map(Self)
    }
}

/// Refuses a body that says that it is larger than `max`, instead of waiting for it.
///
/// A little is taken of it all the same: a peer that still writes when its connection is closed is told so by its system
/// before it reads the answer.
pub(super) async fn refuse_large(State(max): State<usize>, request: Request, next: Next) -> Response {
    let length = request.body().size_hint().exact();
    if length.is_some_and(|length| length > max as u64) {
        let _ = tokio::time::timeout(LINGER, discard(request.into_body(), 2 * max)).await;
        return too_large().into_response();
    }
    next.run(request).await
}

/// Reads `body` to its end, or so many bytes of it.
async fn discard(mut body: axum::body::Body, bytes: usize) {
    let mut left = bytes;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

fn too_large() -> Problem {
    metrics::rejected("too_large");
    let detail = "the body has more bytes than this server takes at once (limits.body_bytes)";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => too_large(),
        rejection => match timeout(&rejection) {
            Some(late) => Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", late.to_string()),
            None => Problem::bad_request("unreadable_body", rejection.body_text()),
        },
    })
}

/// The deadline that a body missed, if that is why it could not be read.
fn timeout(rejection: &BytesRejection) -> Option<&BodyTimeout> {
    let first: &(dyn Error + 'static) = rejection;
    std::iter::successors(Some(first), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let parsed = parse(bytes);
    let is_no_json = parsed.as_ref().is_err_and(|problem| problem.code() == "invalid_json");
    // serde also takes an array of a struct's fields in their order, which no document describes.
    if first(bytes) == Some(b'{') || is_no_json {
        parsed
    } else {
        Err(Problem::bad_request("invalid", "the body has to be a JSON object"))
    }
}

/// The first byte of a JSON text that is not white space.
pub(super) fn first(bytes: &[u8]) -> Option<u8> {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()).copied()
}

/// Reads JSON. The problem names the field and the place; its code is `invalid_json` for text that is no JSON,
/// and `invalid` for JSON that is not what was expected.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    match Json::from_bytes(bytes) {
        Ok(Json(value)) => Ok(value),
        Err(rejection) => {
            let code = match &rejection {
                JsonRejection::JsonDataError(_) => "invalid",
                _ => "invalid_json",
            };
            Err(Problem::bad_request(code, reason(&rejection.body_text())))
        }
    }
}

/// What axum says of a rejection, without the sentence that it puts before every one.
fn reason(text: &str) -> String {
    text.split_once(": ").map_or(text, |(_, reason)| reason).to_owned()
}

/// The only placeholder of a route's path.
pub(super) struct Named<T>(pub(super) T);

impl<T: FromStr<Err = InvalidId>, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request("invalid_path", rejection.body_text()))?;
        text.parse().map(Self).map_err(|e: InvalidId| Problem::bad_request("invalid_path", e.to_string()))
    }
}

/// The only placeholder of a route's path, any text.
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Text {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(rejection) => Err(Problem::bad_request("invalid_path", rejection.body_text())),
        }
    }
}

/// The query of a request.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::bad_request("invalid_query", reason(&rejection.body_text()))),
        }
    }
}

/// Who asks: whom the guard knew by a token, or, while authentication is off, whoever the caller says it is.
pub(super) struct Caller(pub(super) Arc<Identity>);

impl Caller {
    /// The user.
    pub(super) fn user(&self) -> Option<&UserId> {
        self.0.user()
    }
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Arc<Identity>>() {
            return Ok(Self(known.clone()));
        }
        let named = named_user(&parts.headers)?;
        Ok(Self(state.auth.identify(None, named).await?))
    }
}

/// Whom the header names; believed while authentication is off.
fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, Problem> {
    let mut named = headers.get_all(USER_HEADER).iter();
    let Some(first) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(wrong_user("it stands there twice"));
    }
    let text = first.to_str().map_err(|_| wrong_user("it is not ASCII"))?;
    match UserId::parse(text.trim()) {
        Ok(user) => Ok(Some(user)),
        Err(error) => Err(wrong_user(&error.to_string())),
    }
}

/// That an administrator asks.
pub(super) struct Admin;

impl FromRequestParts<Arc<HttpState>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let Caller(identity) = Caller::from_request_parts(parts, state).await?;
        state.rights.has_role(&identity, &[], "this")?;
        Ok(Self)
    }
}

/// Who asks, where only somebody in particular can.
pub(super) struct CallingUser(pub(super) UserId);

impl FromRequestParts<Arc<HttpState>> for CallingUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.user().cloned().map(Self).ok_or_else(|| {
            let detail = if caller.0.is_unrestricted() {
                "this is about a user in particular: name one with the header `X-User-Id`"
            } else {
                "this is about a user in particular, and the token names none"
            };
            Problem::bad_request("user_required", detail)
        })
    }
}

fn wrong_user(reason: &str) -> Problem {
    Problem::bad_request("invalid_user", format!("the header X-User-Id does not name a user: {reason}"))
}
