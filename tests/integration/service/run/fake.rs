//! A server that does what a test wants: hangs, refuses, forgets. The real one is in the other modules.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What it is asked, as `(path, body)`, and whether it answers.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) asked: Mutex<Vec<(String, Value)>>,
    /// How often the lease is refused before it is believed again.
    pub(super) forgets: Mutex<u32>,
    /// What every answer to a report says of a cancellation.
    pub(super) cancel: Mutex<Option<Value>>,
    /// It never answers.
    pub(super) hangs: bool,
}

impl Fake {
    /// Starts it; its address.
    pub(super) async fn start(self) -> (String, Arc<Self>) {
        let fake = Arc::new(self);
        let router = Router::new()
            .route("/api/v1/tests", post(register))
            .route("/api/v1/tests/{test}/{what}", post(tell))
            .with_state(fake.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, fake)
    }

    /// The bodies of all requests to a path that ends so.
    pub(super) fn asked(&self, path: &str) -> Vec<Value> {
        let asked = lock(&self.asked);
        asked.iter().filter(|(to, _)| to.ends_with(path)).map(|(_, body)| body.clone()).collect()
    }

    /// All events of one kind, in order.
    pub(super) fn events(&self, event: &str) -> Vec<Value> {
        let asked = lock(&self.asked);
        let events =
            asked.iter().flat_map(|(_, body)| body["events"].as_array().cloned().unwrap_or_default());
        events.filter(|e| e["event"] == event).collect()
    }

    /// All lines of output, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let logs = self.events("log");
        let lines = logs.iter().flat_map(|log| log["data"]["lines"].as_array().expect("lines"));
        lines.map(|line| line.as_str().expect("text").to_owned()).collect()
    }

    async fn note(&self, path: &str, body: Value) {
        lock(&self.asked).push((path.to_owned(), body));
        if self.hangs {
            std::future::pending::<()>().await;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn register(State(fake): State<Arc<Fake>>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let test = body["testId"].clone();
    fake.note("/tests", body).await;
    let attempt = fake.asked("/tests").len();
    let answer = json!({ "testId": test, "jobId": "j", "attempt": attempt, "lease": format!("lease {attempt}"),
        "leaseMs": 30_000, "state": "running" });
    (StatusCode::CREATED, Json(answer))
}

async fn tell(
    State(fake): State<Arc<Fake>>,
    Path((_, what)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    {
        let mut forgets = lock(&fake.forgets);
        if *forgets > 0 {
            *forgets -= 1;
            let problem = json!({ "code": "stale_attempt", "title": "stale", "detail": "not any more" });
            return (StatusCode::CONFLICT, Json(problem));
        }
    }
    let attempt = body["attempt"].clone();
    fake.note(&format!("/{what}"), body).await;
    if what == "end" {
        return (StatusCode::OK, Json(json!({ "state": "completed" })));
    }
    let mut answer = json!({ "attempt": attempt, "leaseMs": 30_000 });
    if let Some(cancel) = &*lock(&fake.cancel) {
        answer["cancel"] = cancel.clone();
    }
    (StatusCode::OK, Json(answer))
}
