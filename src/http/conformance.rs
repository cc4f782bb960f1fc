//! The contract's HTTP section as tests: the whole router over a real store in a directory of its own.

mod compression;
mod control;
mod document;
mod events;
mod external;
mod history;
mod inbox;
mod jobs;
mod lists;
mod presence;
mod problems;
mod server;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tower::ServiceExt;

use super::{HttpLimits, HttpState, Readiness, Routes, router};
use crate::auth::origin::Origins;
use crate::auth::{Auth, Rights};
use crate::broker::embedded::{EmbeddedBroker, Live};
use crate::config::channels::Rules;
use crate::config::live::Live as Setting;
use crate::config::settings::Settings;
use crate::fanout::Fanout;
use crate::inbox::embedded::EmbeddedInbox;
use crate::limits::crowd::Crowd;
use crate::limits::pace::Pace;
use crate::metrics;
use crate::model::WorkerId;
use crate::notify::Notifier;
use crate::presence::embedded::EmbeddedPresence;
use crate::publish::Publisher;
use crate::queue::embedded::EmbeddedQueue;
use crate::queue::{Claim, Queue, QueueOptions};
use crate::quota::Quota;
use crate::revocation::embedded::EmbeddedRevocations;
use crate::store::{Store, Synchronous};
use crate::tasks::Tasks;
use crate::worker::runner::{Attempt, Outcome, Runner, RunnerSet};

/// How much a request may carry here.
const BODY_BYTES: usize = 64 * 1024;
/// How much data a message may have here.
const MESSAGE_BYTES: usize = 4 * 1024;
/// How many messages a request may carry here.
const PUBLISH_BATCH: usize = 100;
/// How many streams may be open here.
const STREAMS: usize = 3;

/// A server without a socket, over a store of its own.
struct Server {
    router: Router,
    queue: EmbeddedQueue,
    store: Store,
    presence: Arc<EmbeddedPresence>,
    inbox: Arc<EmbeddedInbox>,
    ready: Readiness,
    _dir: tempfile::TempDir,
}

/// What a server answered.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(&Settings::default()).await
    }

    async fn start_with(settings: &Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Synchronous::Normal).unwrap();
        let rules = Arc::new(Rules::builtin());
        let live = Live::default();
        let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), live.clone()));
        let options = QueueOptions {
            max_attempts: 3,
            lease: Duration::from_secs(30),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            retention: Duration::from_secs(3600),
            max_jobs_kept: 1000,
        };
        let queue = EmbeddedQueue::open(store.clone(), rules.clone(), live.clone(), options).await.unwrap();
        let ready = Readiness::new();
        let tasks = Tasks::new();
        let fanout = Fanout::start(broker.clone(), rules.clone(), 2, &tasks);
        live.connect(fanout.clone());
        let presence = EmbeddedPresence::start(broker.clone(), rules.clone(), &tasks);
        let publisher = Publisher::new(broker.clone(), rules.clone(), MESSAGE_BYTES);
        let inbox = Arc::new(EmbeddedInbox::new(store.clone(), Duration::from_secs(3600)));
        let notifier = Notifier::new(inbox.clone(), broker.clone(), publisher.clone(), rules.clone());
        let state = HttpState {
            queue: Arc::new(queue.clone()),
            publisher,
            notifier,
            presence: presence.clone(),
            crowd: Crowd::new(Setting::default()),
            pace: Arc::new(Pace::new(Setting::default())),
            quota: Quota::alone(),
            broker: broker.clone(),
            fanout,
            auth: Arc::new(
                Auth::start(&settings.auth, Arc::new(EmbeddedRevocations::new(store.clone())), &tasks)
                    .await
                    .unwrap(),
            ),
            rights: Rights::new(rules.clone(), broker.clone(), Arc::new(queue.clone())),
            origins: Origins::of(settings).into(),
            runners: Arc::new([Arc::new(Picky) as Arc<dyn Runner>].into_iter().collect::<RunnerSet>()),
            schedules: crate::schedules::Schedules::none(),
            log_level: None,
            metrics: metrics::install().unwrap(),
            ready: ready.clone(),
            limits: HttpLimits {
                body_bytes: BODY_BYTES,
                message_bytes: MESSAGE_BYTES,
                publish_batch: PUBLISH_BATCH,
                streams: STREAMS,
            },
        };
        Self { router: router(state, Routes::ALL), queue, store, presence, inbox, ready, _dir: dir }
    }

    /// Sends a request and reads the whole answer.
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn get_as(&self, user: &str, path: &str) -> Answer {
        self.send(Request::get(path).header("x-user-id", user).body(Body::empty()).unwrap()).await
    }

    /// Posts `body`, a text that says it is JSON.
    async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.post_as(None, path, body).await
    }

    /// The same, as `user`.
    async fn post_as(&self, user: Option<&str>, path: &str, body: impl ToString) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json; charset=utf-8");
        if let Some(user) = user {
            request = request.header("x-user-id", user);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Posts no body, and nothing that says what it is.
    async fn post_nothing(&self, path: &str) -> Answer {
        self.send(Request::post(path).body(Body::empty()).unwrap()).await
    }

    /// Submits a job and returns its id.
    async fn submit(&self, body: Value) -> String {
        let answer = self.post("/api/v1/jobs", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.json()["jobId"].as_str().unwrap().to_owned()
    }

    /// Lets a worker take the next job of type `command`.
    async fn claim(&self) -> Claim {
        let claims = self.queue.claim(&WorkerId::generate(), &["command".to_owned()], 1).await.unwrap();
        claims.into_iter().next().unwrap()
    }

    /// Leaves the store no room for anything more than what it holds.
    async fn fill_the_disk(&self) {
        let stored = self.store.write(|tx| tx.conn().query_row("PRAGMA max_page_count = 1", [], |_| Ok(())));
        stored.await.unwrap();
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem with this status and code, and returns it.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{self:?}");
        assert_eq!(problem["requestId"], self.header("x-request-id"));
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
        problem
    }

    /// The same, where the detail has to say `part`.
    #[track_caller]
    fn problem_saying(&self, status: u16, code: &str, part: &str) {
        let problem = self.problem(status, code);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "`{detail}` should say `{part}`");
    }
}

/// Handles `command`, and wants to know which suite.
struct Picky;

#[async_trait]
impl Runner for Picky {
    fn test_type(&self) -> &str {
        "command"
    }

    fn check(&self, config: &Map<String, Value>) -> Result<(), String> {
        if config.contains_key("suite") { Ok(()) } else { Err("config.suite is missing".to_owned()) }
    }

    async fn run(&self, _attempt: Attempt) -> Outcome {
        Outcome::Passed { results: Map::new() }
    }
}
