//! The talk with the server: registers the test, sends what waits, keeps the lease alive, ends the test.
//!
//! Every request may be sent again: registrations, events and the end have ids, or are the same again. So whatever
//! the network answers, the same request follows until the server has said something. A server that does not know
//! the lease any more (it was away for longer than that, or lost its data) is told everything anew, as another attempt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::fit;
use super::wire::{EndReport, Ended, Register, Registered, Reported, Reports, SpooledEvent};
use super::{Cancelled, End, EndOutcome, Registration, Shared, Standing, lock};
use crate::client::{ClientError, HttpClient};
use crate::worker::attempt::{KEEP_TELLING, TICK};

/// The state of a test that somebody did not want any more.
const CANCELLED: &str = "cancelled";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// When the end waits there is no time for long ones.
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// Events and bytes of one report.
const MAX_EVENTS: usize = 100;
const MAX_BYTES: usize = 128 * 1024;

pub(super) struct Link {
    http: HttpClient,
    registration: Registration,
    shared: Arc<Shared>,
    tell: watch::Sender<Standing>,
    pause: Duration,
    registrations: u64,
    // The attempt that counts no more, to be gone on with.
    lost: Option<Registered>,
    // Of the progress: each is another message.
    progress: u64,
}

/// What one attempt of ours sends next.
struct Batch {
    events: Vec<SpooledEvent>,
    // Nothing that was there before the end was asked for is missing.
    is_last: bool,
}

/// How the talk about one attempt ended.
enum Over {
    /// The server confirmed the end.
    Ended(String),
    /// The server does not know the lease, or not any more.
    LeaseLost,
}

/// What an answer means.
enum Answer<T> {
    Yes(T),
    /// The lease counts no more.
    Stale,
    /// The same again will be refused again.
    Refused(String),
    /// Perhaps later.
    Later(String),
}

impl Link {
    pub(super) fn new(
        http: HttpClient,
        registration: Registration,
        shared: Arc<Shared>,
        tell: watch::Sender<Standing>,
    ) -> Self {
        let http = http.with_timeout(PATIENCE);
        Self {
            http,
            registration,
            shared,
            tell,
            pause: FIRST_PAUSE,
            registrations: 0,
            lost: None,
            progress: 0,
        }
    }

    /// Until the server has confirmed the end.
    pub(super) async fn run(mut self) {
        loop {
            let Some(lease) = self.register().await else {
                self.heed(Cancelled::default());
                self.tell.send_replace(Standing::Ended(CANCELLED.to_owned()));
                return;
            };
            match self.talk(&lease).await {
                Over::Ended(state) => {
                    self.tell.send_replace(Standing::Ended(state));
                    return;
                }
                // Whoever cancelled it has ended it, too: another attempt would begin it anew.
                Over::LeaseLost if self.shared.cancel.is_cancelled() => {
                    self.tell.send_replace(Standing::Ended(CANCELLED.to_owned()));
                    return;
                }
                Over::LeaseLost => {
                    tracing::info!(test = %self.registration.test_id, "the lease was lost; registering anew");
                    self.lost = Some(lease);
                    self.rest().await;
                }
            }
        }
    }

    /// Registers the test, as the next attempt of its job where it had one. Nothing if the server says that it was
    /// cancelled meanwhile.
    async fn register(&mut self) -> Option<Registered> {
        self.registrations += 1;
        let id = format!("{}-{}", self.shared.run_id, self.registrations);
        let registration = self.registration.clone();
        let mut request = Register {
            id: &id,
            test_id: &registration.test_id,
            test_type: &registration.test_type,
            name: registration.name.as_deref(),
            lease_ms: millis(registration.lease),
            started_at: registration.started_at,
            resume: self.lost.take(),
        };
        loop {
            match self.ask("/api/v1/tests", &request).await {
                Answer::Yes(lease) => {
                    self.tell.send_replace(Standing::Registered);
                    return Some(lease);
                }
                Answer::Stale if request.resume.is_some() => {
                    if self.was_cancelled().await {
                        return None;
                    }
                    // The server knows nothing of the attempt any more.
                    request.resume = None;
                }
                Answer::Stale => self.lament("the server refuses the registration".to_owned()).await,
                // A test that somebody else runs may end; rights may be given.
                Answer::Refused(reason) | Answer::Later(reason) => self.lament(reason).await,
            }
        }
    }

    /// Whether the test has ended because somebody did not want it any more; whoever knows nothing says no.
    async fn was_cancelled(&self) -> bool {
        let path = format!("/api/v1/tests/{}", self.registration.test_id);
        self.http.get::<Ended>(&path).await.is_ok_and(|test| test.state == CANCELLED)
    }

    fn heed(&self, cancel: Cancelled) {
        lock(&self.shared.cancelled).get_or_insert(cancel);
        self.shared.cancel.cancel();
    }

    /// Sends what there is until the end is confirmed or the lease is lost.
    async fn talk(&mut self, lease: &Registered) -> Over {
        let keep_alive = Duration::from_millis(lease.lease_ms / 3).min(KEEP_TELLING);
        // The server has nothing of this attempt yet: its whole state is due.
        let mut told_at: Option<Instant> = None;
        loop {
            let ending = self.shared.ending();
            let due = told_at.is_none_or(|at| at.elapsed() >= keep_alive);
            let batch = self.batch(ending.as_ref().map(|(_, hurry)| *hurry), due);
            let over = match ending {
                Some((end, _)) if batch.is_last => self.end(lease, &end, batch.events).await,
                _ if batch.events.is_empty() => {
                    let _ = tokio::time::timeout(TICK, self.shared.wake.notified()).await;
                    continue;
                }
                _ => self.report(lease, batch.events).await,
            };
            if let Some(over) = over {
                return over;
            }
            told_at = Some(Instant::now());
            if self.shared.ending().is_none() {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// The oldest output that waits, and the newest progress.
    fn batch(&mut self, hurry: Option<Instant>, due: bool) -> Batch {
        let mut spool = lock(&self.shared.spool);
        if hurry.is_some_and(|at| at <= Instant::now()) {
            spool.clear();
        }
        let records = spool.take(MAX_EVENTS, MAX_BYTES);
        let is_last = hurry.is_some() && spool.is_empty();
        drop(spool);
        let mut events: Vec<SpooledEvent> =
            records.iter().filter_map(|record| serde_json::from_slice(record).ok()).collect();
        let changed = self.shared.progress.take_changed();
        let state = changed.or_else(|| (due || is_last).then(|| self.shared.progress.state()));
        if let Some(data) = state.and_then(fit::progress) {
            events.push(self.progress_event(data));
        }
        Batch { events, is_last }
    }

    fn progress_event(&mut self, data: Box<RawValue>) -> SpooledEvent {
        self.progress += 1;
        let id = format!("{}-p{}", self.shared.run_id, self.progress);
        SpooledEvent { id, event: "progress".into(), data }
    }

    async fn report(&mut self, lease: &Registered, mut events: Vec<SpooledEvent>) -> Option<Over> {
        let path = format!("/api/v1/tests/{}/reports", self.registration.test_id);
        loop {
            let request = Reports { attempt: lease.attempt, lease: &lease.lease, events: &events };
            match self.ask(&path, &request).await {
                Answer::Yes(Reported { cancel }) => {
                    if let Some(cancel) = cancel {
                        self.heed(Cancelled { reason: cancel.reason, by: cancel.cancelled_by });
                    }
                    self.tell.send_replace(Standing::Registered);
                    return None;
                }
                Answer::Stale => {
                    self.give_back(&events);
                    return Some(Over::LeaseLost);
                }
                // Whatever it is that the server does not want, the rest has to reach it.
                Answer::Refused(_)
                    if events.iter().any(|event| event.event == "progress") && events.len() > 1 =>
                {
                    events.retain(|event| event.event != "progress");
                }
                Answer::Refused(reason) => {
                    tracing::warn!(test = %self.registration.test_id, reason, "a report was refused, and is left out");
                    return None;
                }
                Answer::Later(reason) => {
                    self.lament(reason).await;
                    // What came meanwhile stands for the older progress.
                    if let Some(data) = self.shared.progress.take_changed().and_then(fit::progress) {
                        events.retain(|event| event.event != "progress");
                        events.push(self.progress_event(data));
                    }
                }
            }
            if self.is_in_hurry() {
                return None;
            }
        }
    }

    async fn end(&mut self, lease: &Registered, end: &End, mut events: Vec<SpooledEvent>) -> Option<Over> {
        let path = format!("/api/v1/tests/{}/end", self.registration.test_id);
        let (outcome, error) = match &end.outcome {
            EndOutcome::Passed => ("passed", None),
            EndOutcome::Failed(error) => ("failed", Some(error)),
            EndOutcome::Cancelled(error) => ("cancelled", Some(error)),
        };
        let mut results = fit::results(end.results.clone());
        let left_out = lock(&self.shared.spool).left_out();
        if left_out > 0 {
            results.insert("spoolLeftOut".to_owned(), Value::from(left_out));
        }
        loop {
            let request = EndReport {
                attempt: lease.attempt,
                lease: &lease.lease,
                outcome,
                results: &results,
                error,
                duration_ms: millis(end.took),
                events: &events,
            };
            match self.ask(&path, &request).await {
                Answer::Yes(Ended { state }) => return Some(Over::Ended(state)),
                Answer::Stale => {
                    self.give_back(&events);
                    return Some(Over::LeaseLost);
                }
                // The end is what matters.
                Answer::Refused(reason) if !events.is_empty() => {
                    tracing::warn!(test = %self.registration.test_id, reason, "the last report was refused, and is left out");
                    events.clear();
                }
                Answer::Refused(_) if results.len() > fit::least(&results).len() => {
                    results = fit::least(&results)
                }
                Answer::Refused(reason) | Answer::Later(reason) => self.lament(reason).await,
            }
        }
    }

    /// Puts the output of a report that did not count back, for the next attempt.
    fn give_back(&self, events: &[SpooledEvent]) {
        let logs = events.iter().filter(|event| event.event == "log");
        let records = logs.filter_map(|event| serde_json::to_vec(event).ok()).collect();
        lock(&self.shared.spool).give_back(records);
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(&mut self, path: &str, body: &B) -> Answer<T> {
        match self.http.post(path, body).await {
            Ok(answer) => {
                self.pause = FIRST_PAUSE;
                Answer::Yes(answer)
            }
            Err(ClientError::Problem { status: 409, code, .. }) if code == "stale_attempt" => Answer::Stale,
            // The server lost its data, or the test is too old for it.
            Err(ClientError::Problem { status: 404, code, .. }) if code == "test_not_found" => Answer::Stale,
            Err(error @ ClientError::Problem { status: 400 | 413 | 422, .. }) => {
                Answer::Refused(error.to_string())
            }
            Err(error) => Answer::Later(error.to_string()),
        }
    }

    /// Tells why the server does not know what it should, and waits before the next try.
    async fn lament(&mut self, reason: String) {
        self.tell.send_modify(|standing| {
            *standing = match standing {
                Standing::Unknown(_) => Standing::Unknown(Some(reason)),
                _ => Standing::Away(reason),
            };
        });
        self.rest().await;
    }

    async fn rest(&mut self) {
        let pause = if self.shared.ending().is_some() { self.pause.min(LAST_PAUSE) } else { self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        // The end wakes it.
        let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
    }

    fn is_in_hurry(&self) -> bool {
        self.shared.ending().is_some_and(|(_, hurry)| hurry <= Instant::now())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
