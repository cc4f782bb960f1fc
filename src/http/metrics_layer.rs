//! The outermost layer: counts every request, and logs each one that the server could not serve.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::problem::Cause;
use crate::metrics;

/// Lets the request pass and takes note of its answer.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = label(request.method());
    let response = next.run(request).await;
    // The template, never the path itself: the number of series stays bounded.
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let status = response.status().as_u16();
    metrics::http_request(route, method, status);
    if let Some(Cause { code, detail }) = response.extensions().get() {
        tracing::error!(route, method, status, code, detail, "a request could not be served");
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
