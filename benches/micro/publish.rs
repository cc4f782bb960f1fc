//! Publishing without a store: parsing, the publish door, and the whole way of a request through HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tidings::auth::origin::Origins;
use tidings::auth::{Auth, Identity, Rights};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::config::channels::Rules;
use tidings::config::live::Live as Setting;
use tidings::config::settings::Settings;
use tidings::fanout::Fanout;
use tidings::http::{HttpLimits, HttpState, Readiness, Routes, router};
use tidings::inbox::embedded::EmbeddedInbox;
use tidings::limits::crowd::Crowd;
use tidings::limits::pace::Pace;
use tidings::model::Incoming;
use tidings::notify::Notifier;
use tidings::presence::embedded::EmbeddedPresence;
use tidings::publish::Publisher;
use tidings::queue::QueueOptions;
use tidings::queue::embedded::EmbeddedQueue;
use tidings::quota::Quota;
use tidings::revocation::embedded::EmbeddedRevocations;
use tidings::store::{Store, Synchronous};
use tidings::tasks::Tasks;
use tidings::worker::runner::RunnerSet;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use crate::nowhere::Nowhere;
use crate::sample::offered;

const CHANNEL: &str = "test-progress-stress_123";
/// How large the data of a message may be.
const MESSAGE_BYTES: usize = 64 * 1024;

/// What is offered: a free event, and one that changes the state of a test and is told in other channels too.
const EVENTS: [&str; 2] = ["custom:sample", "test:progress"];

fn one(event: &str) -> String {
    offered(CHANNEL).replace("test:progress", event)
}

fn array(event: &str, n: usize) -> String {
    format!("[{}]", vec![one(event); n].join(","))
}

/// One message, as a socket's event or a request brings it.
#[divan::bench]
fn parse_one(bencher: Bencher<'_, '_>) {
    let text = one(EVENTS[0]);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        serde_json::from_str::<Incoming>(black_box(&text)).expect("a message");
    });
}

/// An array of 50, all of which are messages.
#[divan::bench]
fn parse_50(bencher: Bencher<'_, '_>) {
    let text = array(EVENTS[0], 50);
    bencher.counter(ItemsCount::new(50usize)).bench_local(|| {
        serde_json::from_str::<Vec<Incoming>>(black_box(&text)).expect("messages");
    });
}

/// Checks, id, time, priority and envelopes.
#[divan::bench(args = EVENTS, consts = [1, 50])]
fn door<const N: usize>(bencher: Bencher<'_, '_>, event: &str) {
    let publisher = publisher(&Arc::new(Rules::builtin()));
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let message = || serde_json::from_str::<Incoming>(&one(event)).expect("a message");
    bencher
        .counter(ItemsCount::new(N))
        .with_inputs(|| (0..N).map(|_| message()).collect::<Vec<_>>())
        .bench_local_values(|messages| {
            let results = runtime.block_on(publisher.publish(Identity::server(), messages));
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        });
}

/// `POST /api/v1/events`, from the request to the answer.
#[divan::bench(args = EVENTS, consts = [1, 50])]
fn http<const N: usize>(bencher: Bencher<'_, '_>, event: &str) {
    let edge = Edge::of(event);
    bencher
        .counter(ItemsCount::new(N))
        .with_inputs(|| edge.request(N))
        .bench_local_values(|request| edge.publish(request));
}

/// The HTTP edge, whose publish door leads to nowhere.
pub(crate) struct Edge {
    router: Router,
    runtime: Runtime,
    event: String,
    _dir: TempDir,
}

impl Edge {
    /// For an event of no channel's own.
    pub(crate) fn new() -> Self {
        Self::of(EVENTS[0])
    }

    fn of(event: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let dir = TempDir::new().expect("a directory");
        let state = runtime.block_on(state(&dir));
        Self { router: router(state, Routes::ALL), runtime, event: event.to_owned(), _dir: dir }
    }

    /// One with `n` messages.
    pub(crate) fn request(&self, n: usize) -> Request<Body> {
        let body = if n == 1 { one(&self.event) } else { array(&self.event, n) };
        let request = Request::post("/api/v1/events").header(header::CONTENT_TYPE, "application/json");
        request.body(Body::from(body)).expect("a request")
    }

    /// Publishes what is in `request`.
    pub(crate) fn publish(&self, request: Request<Body>) {
        let answer = self.runtime.block_on(self.router.clone().oneshot(request)).expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

async fn state(dir: &TempDir) -> HttpState {
    let day = Duration::from_secs(24 * 3600);
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let (rules, live, tasks) = (Arc::new(Rules::builtin()), Live::default(), Tasks::new());
    let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), live.clone()));
    let options = QueueOptions {
        max_attempts: 3,
        lease: day,
        backoff_base: day,
        backoff_max: day,
        retention: day,
        max_jobs_kept: 1000,
    };
    let queue = EmbeddedQueue::open(store.clone(), rules.clone(), live, options).await;
    let queue = Arc::new(queue.expect("the queue opens"));
    let revocations = Arc::new(EmbeddedRevocations::new(store.clone()));
    let (publisher, settings) = (publisher(&rules), Settings::default());
    let inbox = Arc::new(EmbeddedInbox::new(store.clone(), day));
    let auth = Auth::start(&settings.auth, revocations, &tasks);
    HttpState {
        queue: queue.clone(),
        fanout: Fanout::start(broker.clone(), rules.clone(), 1, &tasks),
        notifier: Notifier::new(inbox, broker.clone(), publisher.clone(), rules.clone()),
        presence: EmbeddedPresence::start(broker.clone(), rules.clone(), &tasks),
        auth: Arc::new(auth.await.expect("no keys")),
        rights: Rights::new(rules, broker.clone(), queue),
        origins: Origins::default().into(),
        broker,
        publisher,
        crowd: Crowd::new(Setting::default()),
        pace: Arc::new(Pace::new(Setting::default())),
        quota: Quota::alone(),
        runners: Arc::new(RunnerSet::default()),
        schedules: tidings::schedules::Schedules::none(),
        log_level: None,
        // Of another recorder: whether one is installed is not decided here.
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        ready: Readiness::new(),
        limits: HttpLimits::default(),
    }
}

fn publisher(rules: &Arc<Rules>) -> Publisher {
    Publisher::new(Arc::new(Nowhere::new()), rules.clone(), MESSAGE_BYTES)
}
