//! The guard: stands before every route, and lets nobody pass whom it does not know.
//!
//! A route needs no token only if it stands in the list here, so that a new one is closed until somebody decides.
//! What a caller may do is decided by the handlers, which ask [`crate::auth::Rights`].

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::HttpState;
use super::problem::Problem;
use crate::auth::origin::Foreign;
use crate::auth::{AuthError, Denied, bearer};
use crate::config::secret::Secret;
use crate::fault::Fault;
use crate::metrics;

/// What is there for everybody.
const PUBLIC: [&str; 5] = ["/", "/assets/{name}", "/icon.svg", "/healthz", "/readyz"];

/// Lets a request pass with the identity of its caller, or answers it.
pub(super) async fn guard(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let token = bearer::take(&mut parts.headers, &mut parts.uri);
    if let Err(foreign) = state.origins.read().admits(&parts.headers, &parts.uri) {
        return Problem::from(foreign).into_response();
    }
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    // A path that does not exist is nobody's secret.
    let closed = route.is_some_and(|route| !PUBLIC.contains(&route));
    if closed && state.auth.is_on() {
        match state.auth.identify(token.as_ref().map(Secret::reveal), None).await {
            Ok(identity) => {
                parts.extensions.insert(identity);
            }
            Err(error) => {
                metrics::rejected("unauthorized");
                return Problem::from(error).into_response();
            }
        }
    }
    next.run(Request::from_parts(parts, body)).await
}

/// No answer, of whatever is asked, is ever taken for something else than it is.
pub fn harden<B>(mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // What is no page runs nothing and is shown in no frame; the page says itself what it may.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

impl From<Foreign> for Problem {
    fn from(foreign: Foreign) -> Self {
        let (reason, status, code, detail) = match foreign {
            Foreign::Origin => (
                "origin",
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "pages of this origin may not ask this server (http.allowed_origins)",
            ),
            Foreign::Host => (
                "host",
                StatusCode::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "this server does not answer to the name that was asked for: ask it as localhost, or list the name in \
                 http.allowed_hosts",
            ),
        };
        metrics::rejected(reason);
        Self::new(status, code, detail)
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let status = match &error {
            AuthError::Blocked(_) => StatusCode::FORBIDDEN,
            AuthError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = match &denied {
            Denied::UnknownChannel(_) => StatusCode::NOT_FOUND,
            Denied::Forbidden(_) => StatusCode::FORBIDDEN,
            Denied::Unknown(Fault::Full(_)) => StatusCode::INSUFFICIENT_STORAGE,
            Denied::Unknown(Fault::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        };
        metrics::rejected(denied.code());
        Self::new(status, denied.code(), denied.to_string())
    }
}
