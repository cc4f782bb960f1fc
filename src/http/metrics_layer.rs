//! The outermost layer: gives every request its id, counts it, and logs each one that the server could not serve.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::problem::Cause;
use super::request_id::{RequestId, X_REQUEST_ID};
use super::traced::Traced;
use crate::metrics;

/// The route of requests for paths that are none of ours.
pub(super) const UNMATCHED: &str = "unmatched";

/// The route that makes jobs.
const SUBMIT: &str = "/api/v1/jobs";

/// Lets the request pass and takes note of its answer.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = label(request.method());
    let id = RequestId::of(request.headers());
    let span = tracing::info_span!("request", request_id = id.as_str());
    let began = Instant::now();
    let begins = method == "POST" && route.as_ref().is_some_and(|route| route.as_str() == SUBMIT);
    let traced = Traced::of(request.headers(), begins);
    let serving = traced.scope(id.clone().scope(next.run(request)));
    let mut response = serving.instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, id.header());
    // The template, never the path itself: the number of series stays bounded.
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let status = response.status().as_u16();
    traced.end(method, route, status, id.as_str());
    metrics::http_request(route, method, status, began.elapsed());
    if let Some(Cause { code, detail }) = response.extensions().get() {
        let request_id = id.as_str();
        tracing::error!(request_id, route, method, status, code, detail, "a request could not be served");
    }
    response
}

/// Any text can be a method, but not a label.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
