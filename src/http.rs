//! The HTTP edge: jobs, tests, messages and history over REST, and what operators and tools look at.
//!
//! Handlers translate: a request into a call of the queue, the broker or the publish door, their answer into
//! JSON, their errors into [`problem::Problem`]s. Nothing is decided here that the socket edge would have to
//! decide again. Each route is registered together with its description (`openapi`), so that the routes and
//! the document that the server offers cannot differ.

mod block;
mod channels;
#[cfg(test)]
mod conformance;
mod control;
mod events;
mod external;
mod extract;
mod guard;
mod health;
mod inbox;
mod jobs;
mod log_level;
mod metrics_layer;
mod notifications;
mod openapi;
mod page;
mod presence;
mod problem;
mod query;
mod request_id;
mod rerun;
mod schedules;
mod stats;
mod stream;
mod submit;
mod tests;
mod traced;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router, middleware};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::origin::Origins;
use crate::auth::{Auth, Rights, Watched};
use crate::broker::Broker;
use crate::config::live::Live;
use crate::fanout::Fanout;
use crate::limits::crowd::Crowd;
use crate::limits::pace::{Act, Pace};
use crate::listener::serve::Origin;
use crate::metrics;
use crate::model::now_ms;
use crate::notify::Notifier;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::queue::Queue;
use crate::quota::Quota;
use crate::schedules::Schedules;
use crate::telemetry::LogLevel;
use crate::worker::runner::RunnerSet;

use extract::Caller;
pub use guard::harden;
pub use problem::Problem;

/// Answers below this are sent as they are: little would be won.
const COMPRESS_FROM_BYTES: u64 = 1024;

/// What the HTTP edge needs of the rest of the server.
#[derive(Clone)]
pub struct HttpState {
    /// Where jobs are.
    pub queue: Arc<dyn Queue>,
    /// Where tests and history are.
    pub broker: Arc<dyn Broker>,
    /// What brings messages to those who stream a channel.
    pub fanout: Arc<Fanout>,
    /// The door for messages.
    pub publisher: Publisher,
    /// Notifies users; knows the inboxes.
    pub notifier: Notifier,
    /// Who is connected.
    pub presence: Arc<dyn Presence>,
    /// Counts streams by address, and knows the limits.
    pub crowd: Arc<Crowd>,
    /// Measures how often somebody does something.
    pub pace: Arc<Pace>,
    /// Counts what users have.
    pub quota: Arc<Quota>,
    /// Who callers are.
    pub auth: Arc<Auth>,
    /// What they may do.
    pub rights: Rights,
    /// Which pages may ask.
    pub origins: Live<Origins>,
    /// The test types whose configuration this server can check when a job is submitted.
    pub runners: Arc<RunnerSet>,
    /// What the clock submits.
    pub schedules: Schedules,
    /// What is logged, where that may be changed.
    pub log_level: Option<LogLevel>,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// What `/readyz` says.
    pub ready: Readiness,
    /// How much one request may carry.
    pub limits: HttpLimits,
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState")
            .field("runners", &self.runners)
            .field("ready", &self.ready)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl HttpState {
    /// Counts that `caller` does something `n` times; a refusal if that is too often.
    fn paced(&self, act: Act, caller: &Caller, origin: Option<&Origin>, n: usize) -> Result<(), Problem> {
        let Some(origin) = origin else { return Ok(()) };
        let taken = self.pace.take(act, caller.user(), origin.address, n);
        taken.map_err(|wait| Problem::limited(act.reason(), wait))
    }
}

/// How much one request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of a message's data.
    pub message_bytes: usize,
    /// Messages of one `POST /api/v1/events`, and events of one report.
    pub publish_batch: usize,
    /// Open streams, over all clients.
    pub streams: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { body_bytes: 8 * 1024 * 1024, message_bytes: 64 * 1024, publish_batch: 1000, streams: 10_000 }
    }
}

/// How far this server is on its way out; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    draining: CancellationToken,
    closing: CancellationToken,
    // In ms since the Unix epoch; 0 for never.
    asked_at: Arc<AtomicI64>,
}

impl Readiness {
    /// Ready, as far as the server itself is concerned.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `/readyz` says that the server is going away, so that balancers look for another one. It serves
    /// everybody as before.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Streams end, after they were told to come back. It goes on answering.
    pub fn close(&self) {
        self.draining.cancel();
        self.closing.cancel();
    }

    /// Whether the server is going away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Whether somebody asked `/readyz` within the last `window`, and so may be about to ask again.
    #[must_use]
    pub fn is_asked(&self, window: Duration) -> bool {
        let ago = now_ms().saturating_sub(self.asked_at.load(Ordering::Relaxed));
        u128::try_from(ago).is_ok_and(|ago| ago <= window.as_millis())
    }

    fn note_asked(&self) {
        self.asked_at.store(now_ms(), Ordering::Relaxed);
    }

    /// Cancelled when streams are to end.
    fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

/// Which routes a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// All but those that have a listener of their own.
    Main {
        /// What administrators do is served elsewhere.
        admin_apart: bool,
    },
    /// What administrators do.
    Admin,
}

impl Routes {
    /// All of them.
    pub const ALL: Self = Self::Main { admin_apart: false };
}

/// Routes of the HTTP edge, with answers for everything else: each error is `application/problem+json`.
///
/// Every request is counted in `tidings_http_requests_total`, and each answer of 500 and above is logged once.
pub fn router(state: HttpState, which: Routes) -> Router {
    let HttpLimits { body_bytes, streams, .. } = state.limits;
    let (routes, document) = described(which).split_for_parts();
    metrics::register_routes(
        document.paths.paths.keys().map(String::as_str).chain([metrics_layer::UNMATCHED]),
    );
    let state = Arc::new(state);
    let open_streams = stream::Streams::new(streams, state.rights.clone());
    let watched: Arc<dyn Watched> = open_streams.clone();
    state.auth.watch(&watched);
    routes
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(middleware::from_fn_with_state(body_bytes, extract::refuse_large))
        .layer(Extension(open_streams))
        .layer(Extension(Arc::new(external::Outlooks::default())))
        .layer(Extension(openapi::Document::of(&document)))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .layer(compression())
        // Outermost, so that they see the answers of everything below them.
        .layer(middleware::from_fn(metrics_layer::observe))
        .layer(middleware::map_response(async |response: Response| harden(response)))
        .with_state(state)
}

/// Answers browsers that ask whether a page of another origin may ask, and tells them so with every answer.
pub fn cors(origins: Live<Origins>) -> CorsLayer {
    let listed = move |origin: &HeaderValue, _: &Parts| {
        origin.to_str().is_ok_and(|origin| origins.read().lists(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(listed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("x-user-id"),
        ])
        .expose_headers([header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::LOCATION])
        .max_age(Duration::from_hours(1))
}

/// What a listener of metrics needs.
#[derive(Clone)]
pub struct MetricsState {
    /// Whose jobs are counted.
    pub queue: Arc<dyn Queue>,
    /// Whether it can be used is told.
    pub broker: Arc<dyn Broker>,
    /// What the process has measured.
    pub metrics: PrometheusHandle,
}

impl std::fmt::Debug for MetricsState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsState")
    }
}

/// `/metrics` and `/healthz`, for a listener that only Prometheus and whoever restarts processes should reach.
pub fn metrics_router(state: MetricsState) -> Router {
    Router::new()
        .route("/metrics", get(health::metrics_alone))
        .route("/healthz", get(health::healthz))
        .fallback(problem::unknown_path)
        .layer(middleware::from_fn(metrics_layer::observe))
        .layer(middleware::map_response(async |response: Response| harden(response)))
        .with_state(state)
}

/// Reads `text` as each place that a request may name: a `Last-Event-ID`, a cursor, an offset; whether it is any. For
/// `tests/fuzz`, which has no server.
#[must_use]
pub fn read_place(text: &str) -> bool {
    let cursors = [query::Cursor::Jobs, query::Cursor::Tests, query::Cursor::Inbox];
    let is_cursor = cursors.into_iter().any(|cursor| cursor.read(text).is_ok());
    let is_offset = query::number("offset", Some(text), 0, u64::MAX).is_ok();
    is_cursor || is_offset || stream::position(text).is_ok()
}

/// gzip for those who accept it. Streams stay as they are: an event must not wait in a compressor.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESS_FROM_BYTES).and(NotForContentType::const_new("text/event-stream"));
    // JSON shrinks well at any level, and the work is done on the threads that serve everybody.
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

/// The document that describes the routes and what they take and give.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    described(Routes::ALL).split_for_parts().1
}

fn described(which: Routes) -> OpenApiRouter<Arc<HttpState>> {
    let health = OpenApiRouter::with_openapi(openapi::introduction()).routes(routes!(health::healthz));
    match which {
        Routes::Admin => health.merge(admin()),
        Routes::Main { admin_apart: true } => health.merge(usual()),
        Routes::Main { admin_apart: false } => health.merge(usual()).merge(admin()),
    }
}

fn admin() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(presence::connections))
        .routes(routes!(presence::cleanup))
        .routes(routes!(presence::end))
        .routes(routes!(block::block))
        .routes(routes!(block::unblock))
        .routes(routes!(block::revoke))
        .routes(routes!(log_level::get, log_level::set))
        .routes(routes!(control::pause))
        .routes(routes!(control::resume))
}

fn usual() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(submit::submit, jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(rerun::rerun))
        .routes(routes!(schedules::list))
        .routes(routes!(control::prioritise))
        .routes(routes!(control::queue))
        .routes(routes!(tests::list, external::register))
        .routes(routes!(tests::get))
        .routes(routes!(external::report))
        .routes(routes!(external::end))
        .routes(routes!(events::publish))
        .routes(routes!(channels::messages))
        .routes(routes!(stream::stream))
        .routes(routes!(presence::room))
        .routes(routes!(presence::users))
        .routes(routes!(stats::stats))
        .routes(routes!(notifications::send))
        .routes(routes!(notifications::broadcast))
        .routes(routes!(notifications::recall))
        .routes(routes!(inbox::unread))
        .routes(routes!(inbox::mark_read))
        .routes(routes!(inbox::offline))
        .routes(routes!(inbox::confirm))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(page::page))
        .route("/assets/{name}", get(page::asset))
        .route("/icon.svg", get(page::icon))
}
