//! Problems: how every error of the HTTP edge looks (RFC 9457), and which status an error of the layers below
//! becomes.
//!
//! `code` is what programs act on and never changes; `detail` is for people. Answers of 500 and above carry a
//! [`Cause`], which the metrics layer logs, so that each is logged once and with its route.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{Content, RefOr, Response as Described, ResponseBuilder};

use super::request_id::RequestId;
use crate::broker::BrokerError;
use crate::limits::{Reason, retry_after_s};
use crate::model::Epoch;
use crate::publish::PublishError;
use crate::queue::QueueError;

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// When to come back, in seconds, where the store cannot be reached.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not served (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: what happened is told by `code`.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The phrase of the status.
    #[schema(example = "Not Found")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened here, for people.
    #[schema(example = "there is no job job_1")]
    detail: String,
    /// What happened, for programs: it stays the same over versions.
    #[schema(example = "job_not_found")]
    code: &'static str,
    /// Names the request, as `x-request-id` does: it stands in the server's log, too.
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    request_id: Option<Box<RequestId>>,
    /// The channel's epoch now (`epoch_changed`, `ahead_of_top`).
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    /// The offset of the channel's newest message now (`epoch_changed`, `ahead_of_top`).
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<u64>,
    /// When to come back: a header, not a part of the body.
    #[serde(skip)]
    retry_after_s: u32,
}

/// What stands in the log about an answer of 500 and above.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Problem {
    /// A problem with this status and this stable code.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            request_id: None,
            epoch: None,
            top: None,
            retry_after_s: 0,
        }
    }

    /// Somebody is beyond a limit, and may come again after `wait`.
    pub(super) fn limited(reason: Reason, wait: Duration) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, reason.code(), reason.detail());
        Self { retry_after_s: u32::try_from(retry_after_s(wait)).unwrap_or(u32::MAX), ..problem }
    }

    /// What happened, for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// What happened here, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same with the place of what is wrong before its detail.
    pub(super) fn at(self, place: &str) -> Self {
        Self { detail: format!("{place}: {}", self.detail), ..self }
    }

    /// The request itself is wrong.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Nothing has this name.
    pub(super) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// Tells, beside the problem, where the channel ends now.
    #[must_use]
    pub(super) fn with_end(self, epoch: Epoch, top: u64) -> Self {
        Self { epoch: Some(epoch), top: Some(top), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        self.request_id = RequestId::current().map(Box::new);
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = self.code;
        let cause = status.is_server_error().then(|| Cause { code: self.code, detail: self.detail.clone() });
        let retry_after = Some(self.retry_after_s).filter(|after| *after > 0).map(HeaderValue::from);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
        }
        if let Some(retry_after) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(code));
        }
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// How to come with a better token (RFC 6750, section 3).
fn challenge(code: &str) -> HeaderValue {
    let value = match code {
        "token_required" => "Bearer realm=\"tidings\"".to_owned(),
        code => format!("Bearer realm=\"tidings\", error=\"invalid_token\", error_description=\"{code}\""),
    };
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("Bearer"))
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let (status, code) = match &error {
            QueueError::NotFound(_) => (StatusCode::NOT_FOUND, "job_not_found"),
            QueueError::TestActive { .. } => (StatusCode::CONFLICT, "test_active"),
            QueueError::Ended { .. } => (StatusCode::CONFLICT, "job_ended"),
            QueueError::NotEnded { .. } => (StatusCode::CONFLICT, "job_not_ended"),
            QueueError::NotWaiting { .. } => (StatusCode::CONFLICT, "job_not_waiting"),
            QueueError::TooManyPauses => (StatusCode::CONFLICT, "too_many_pauses"),
            QueueError::Outside(_) => (StatusCode::CONFLICT, "job_is_external"),
            QueueError::LeaseLost { .. } => (StatusCode::CONFLICT, "lease_lost"),
            QueueError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            QueueError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        PublishError::from(error).into()
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let status = match &error {
            PublishError::UnknownChannel(_) => StatusCode::NOT_FOUND,
            PublishError::ServerOnly(_) | PublishError::ServerEvent(_) | PublishError::Forbidden { .. } => {
                StatusCode::FORBIDDEN
            }
            PublishError::UnknownEvent { .. } | PublishError::Invalid(_) => StatusCode::BAD_REQUEST,
            PublishError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            PublishError::Stale(_) => StatusCode::CONFLICT,
            PublishError::Broker(BrokerError::Full(_)) => StatusCode::INSUFFICIENT_STORAGE,
            PublishError::Broker(BrokerError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// Answers a request for a path that is none of ours.
pub(super) async fn unknown_path(uri: Uri) -> Problem {
    let detail = format!("there is nothing at `{}`; /api/openapi.json lists what there is", uri.path());
    Problem::not_found("not_found", detail)
}

/// Answers a request with a method that the path does not have; axum adds `Allow`.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` does not take {method}; the header Allow says what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The errors of every route that reads from the store, for the document.
pub(super) enum ReadErrors {}

/// The errors of every route that writes to the store, for the document.
pub(super) enum WriteErrors {}

/// The errors of every route that takes a JSON body, for the document.
pub(super) enum BodyErrors {}

/// The errors of every route that is limited by how often it is asked, for the document.
pub(super) enum LimitErrors {}

type Responses = std::collections::BTreeMap<String, RefOr<Described>>;

impl utoipa::IntoResponses for ReadErrors {
    fn responses() -> Responses {
        [describe(503, "`unavailable`: the store cannot be reached; come back after `Retry-After` seconds")]
            .into()
    }
}

impl utoipa::IntoResponses for WriteErrors {
    fn responses() -> Responses {
        [
            describe(
                503,
                "`unavailable`: the store cannot be reached, and it is unknown whether the change was made; \
                 try again after `Retry-After` seconds",
            ),
            describe(507, "`storage_full`: there is no room for more; reading goes on"),
        ]
        .into()
    }
}

impl utoipa::IntoResponses for LimitErrors {
    fn responses() -> Responses {
        let text = "`rate_limited`, `too_many_connections`: a limit is reached; come back after `Retry-After` seconds";
        [describe(429, text)].into()
    }
}

impl utoipa::IntoResponses for BodyErrors {
    fn responses() -> Responses {
        [
            describe(408, "`request_timeout`: the body did not come in time"),
            describe(413, "`body_too_large`: the body has more bytes than the server takes at once"),
            describe(415, "`unsupported_media_type`: the body is not sent as `application/json`"),
        ]
        .into()
    }
}

fn describe(status: u16, description: &str) -> (String, RefOr<Described>) {
    let problem = utoipa::openapi::Ref::from_schema_name("Problem");
    let response = ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, Content::new(Some(problem)))
        .build();
    (status.to_string(), RefOr::T(response))
}
