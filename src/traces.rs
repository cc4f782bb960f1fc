//! Traces: what was done for a test, from its submission over attempts and publications to deliveries, as spans that go to an
//! OTLP collector. Without `traces.endpoint` nothing is recorded, and trace contexts are only passed on.
//!
//! Spans are made where they end, by those who know when they began; nothing is carried along but the context. What the
//! collector does not take in time is dropped and counted: tracing never holds anybody up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;

use crate::model::trace::TraceContext;
use crate::tasks::Tasks;

/// So many spans wait for the exporter; more are dropped.
const WAITING: usize = 8192;
/// So many go in one request.
const BATCH: usize = 512;
/// A span waits at most so long.
const LINGER: Duration = Duration::from_millis(500);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of its answer so much is read.
const ANSWER_BYTES: usize = 64 * 1024;

static WAY_OUT: OnceLock<mpsc::Sender<Span>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// What a span is of; the collector shows them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that was served.
    Server,
    /// Something handed to a queue or channel.
    Producer,
    /// Something taken from there.
    Consumer,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Span {
    /// What.
    pub name: String,
    /// Of what kind.
    pub kind: Kind,
    /// Its own place.
    pub context: TraceContext,
    /// The span that it was done for; 0 for none.
    pub parent: u64,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Details: names as OpenTelemetry has them, where it has one.
    pub attributes: Vec<(&'static str, String)>,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint} (traces.endpoint): {reason}")]
pub struct TracesError {
    endpoint: String,
    reason: String,
}

/// Whether anybody wants spans.
#[must_use]
pub fn wanted() -> bool {
    WAY_OUT.get().is_some()
}

/// Records a span, if somebody upstream wants its trace recorded. It never waits.
pub fn record(span: Span) {
    if let Some(way_out) = WAY_OUT.get()
        && span.context.sampled
        && way_out.try_send(span).is_err()
    {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A moment, from ms since the Unix epoch.
#[must_use]
pub fn moment(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Sends spans of this process, which is `node`, to the collector at `endpoint` until the tasks end. Only the first call
/// counts.
pub fn start(endpoint: &str, node: &str, tasks: &Tasks) -> Result<(), TracesError> {
    let failed = |reason: String| TracesError { endpoint: endpoint.to_owned(), reason };
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Plain::new())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let about = [
        KeyValue::new("service.name", "tidings"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
    ];
    exporter.set_resource(&Resource::builder_empty().with_attributes(about).build());
    let (way_out, mut spans) = mpsc::channel(WAITING);
    if WAY_OUT.set(way_out).is_err() {
        return Ok(());
    }
    let stopping = tasks.stopping().clone();
    tasks.spawn_draining("traces", async move {
        loop {
            let mut batch = Vec::new();
            let more = tokio::select! {
                n = spans.recv_many(&mut batch, BATCH) => n > 0,
                () = stopping.cancelled() => false,
            };
            if more && batch.len() < BATCH {
                // What is done together ends together.
                tokio::select! {
                    () = tokio::time::sleep(LINGER) => {}
                    () = stopping.cancelled() => {}
                }
            }
            while batch.len() < BATCH {
                let Ok(span) = spans.try_recv() else { break };
                batch.push(span);
            }
            export(&exporter, batch).await;
            if !more {
                return;
            }
        }
    });
    Ok(())
}

async fn export(exporter: &opentelemetry_otlp::SpanExporter, batch: Vec<Span>) {
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        tracing::warn!(dropped, "spans were dropped: the collector does not keep up");
    }
    if batch.is_empty() {
        return;
    }
    let spans = batch.len();
    if let Err(error) = exporter.export(batch.into_iter().map(data).collect()).await {
        tracing::warn!(%error, spans, "spans could not be sent to the collector, and are lost");
    }
}

fn data(span: Span) -> SpanData {
    let TraceContext { trace_id, span_id, .. } = span.context;
    let trace = TraceId::from_bytes(trace_id.to_be_bytes());
    let own = SpanId::from_bytes(span_id.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: SpanId::from_bytes(span.parent.to_be_bytes()),
        parent_span_is_remote: true,
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name.into(),
        start_time: span.began,
        end_time: span.ended,
        attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("tidings").build(),
    }
}

/// The client that the rest of the program uses, too: the exporter's own would bring another HTTP stack.
#[derive(Debug)]
struct Plain(Client<HttpConnector, Full<Bytes>>);

impl Plain {
    fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build(HttpConnector::new()))
    }
}

#[async_trait]
impl HttpClient for Plain {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let asking = async {
            let (parts, body) = self.0.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
            Ok(http::Response::from_parts(parts, body))
        };
        tokio::time::timeout(PATIENCE, asking).await?
    }
}
