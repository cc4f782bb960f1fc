//! Traces of requests: `traceparent` is taken from callers and goes on with what they submit or publish.

use std::time::SystemTime;

use axum::http::HeaderMap;
use serde_json::value::RawValue;

use crate::model::Incoming;
use crate::model::trace::{TRACEPARENT, TraceContext};
use crate::traces::{self, Kind, Span};

tokio::task_local! {
    /// Where the request stands that this task serves.
    static CURRENT: Option<TraceContext>;
}

/// The place of a request in a trace.
pub(super) struct Traced {
    parent: Option<TraceContext>,
    context: Option<TraceContext>,
    began: SystemTime,
}

impl Traced {
    /// What the caller says. A request that makes a job (`begins`) begins a trace where the caller has none.
    pub(super) fn of(headers: &HeaderMap, begins: bool) -> Self {
        let parent = headers.get(TRACEPARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?));
        let context = match parent {
            Some(parent) if traces::wanted() => Some(parent.child()),
            Some(parent) => Some(parent),
            None => (begins && traces::wanted()).then(TraceContext::root),
        };
        Self { parent, context, began: SystemTime::now() }
    }

    /// Whatever `serve` does is done at this place.
    pub(super) async fn scope<T>(&self, serve: impl Future<Output = T>) -> T {
        CURRENT.scope(self.context, serve).await
    }

    /// The request was answered.
    pub(super) fn end(self, method: &str, route: &str, status: u16, request_id: &str) {
        let Some(context) = self.context.filter(|_| traces::wanted()) else { return };
        traces::record(Span {
            name: format!("{method} {route}"),
            kind: Kind::Server,
            context,
            parent: self.parent.map_or(0, |parent| parent.span_id),
            began: self.began,
            ended: SystemTime::now(),
            failure: (status >= 500).then(|| format!("answered with {status}")),
            attributes: vec![
                ("http.route", route.to_owned()),
                ("http.response.status_code", status.to_string()),
                ("tidings.request_id", request_id.to_owned()),
            ],
        });
    }
}

/// Where the request stands that is served now.
pub(super) fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// Gives a message the place of the request that it came with, if it has none of its own.
pub(super) fn mark(message: &mut Incoming) {
    if let Some(context) = current()
        && !message.extra.iter().any(|(name, _)| name == TRACEPARENT)
        // Digits and dashes are JSON once they are quoted.
        && let Ok(value) = RawValue::from_string(format!("\"{context}\""))
    {
        message.extra.push((TRACEPARENT.to_owned(), value));
    }
}
