//! Tells a server of a test that runs here, outside of its queue: what `tidings run` and other programs stand on.
//!
//! Whoever runs the test changes a [`Progress`] as often as it likes and never waits. One task moves lines of output
//! from there into a bounded `spool`; another one registers the test, sends what is there in order, keeps the lease
//! alive and tries again for as long as it takes (`link`). The server may be slow, away, or come back without
//! the lease: then the test is registered anew and its whole state told again. [`run`] wraps a command.

mod fit;
mod link;
mod reports;
pub mod run;
mod side;
mod spool;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::client::HttpClient;
use crate::model::TestId;
use crate::model::test::TestError;
use crate::tasks::Tasks;
use crate::worker::attempt::{LOG_BYTES, LOG_LINES, TICK};
use crate::worker::progress::Progress;

use self::link::Link;
use self::spool::Spool;
pub use self::spool::SpoolLimits;
use self::wire::SpooledEvent;

/// What is told of the test when it is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The test.
    pub test_id: TestId,
    /// The kind of test.
    pub test_type: String,
    /// What earlier and later runs of the same thing have in common.
    pub name: Option<String>,
    /// How long the server waits for a sign of life before it takes the test for lost.
    pub lease: Duration,
    /// When it began, in ms since the Unix epoch.
    pub started_at: i64,
}

/// How the test ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// As people say it.
    pub outcome: EndOutcome,
    /// What there is of results.
    pub results: Map<String, Value>,
    /// How long it took.
    pub took: Duration,
}

/// Whether it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndOutcome {
    /// Everything passed.
    Passed,
    /// It did not pass.
    Failed(TestError),
    /// Somebody did not want it any more.
    Cancelled(TestError),
}

/// Somebody asked the server to cancel the test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cancelled {
    /// Why.
    pub reason: Option<String>,
    /// Who.
    pub by: Option<String>,
}

/// What the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It does not know of the test yet; the newest reason why not, if there was a try.
    Unknown(Option<String>),
    /// It was told of the test.
    Registered,
    /// It was told before, and cannot be told now, for this reason.
    Away(String),
    /// It confirmed the end; the state that the test has there.
    Ended(String),
}

/// The server did not confirm the end in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotTold {
    /// Why, as far as is known.
    pub reason: String,
}

/// Speaks for one test. Dropping it ends the reporting, and the server finds the test lost.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    standing: watch::Receiver<Standing>,
    tasks: Tasks,
}

/// What the tasks and the owner share.
#[derive(Debug)]
struct Shared {
    progress: Progress,
    // Ids of events begin with it, so that no other run of the test has the same.
    run_id: String,
    spool: Mutex<Spool>,
    ending: Mutex<Option<(End, Instant)>>,
    wake: Notify,
    cancelled: Mutex<Option<Cancelled>>,
    cancel: CancellationToken,
}

impl Reporter {
    /// Begins to tell the server of `http` what `progress` shows. Nothing here waits for the server.
    #[must_use]
    pub fn start(
        http: HttpClient,
        registration: Registration,
        progress: Progress,
        limits: SpoolLimits,
    ) -> Self {
        let shared = Arc::new(Shared {
            progress,
            run_id: format!("r{}", ulid::Ulid::generate().to_string().to_lowercase()),
            spool: Mutex::new(Spool::new(limits)),
            ending: Mutex::default(),
            wake: Notify::new(),
            cancelled: Mutex::default(),
            cancel: CancellationToken::new(),
        });
        let (tell, standing) = watch::channel(Standing::Unknown(None));
        let tasks = Tasks::new();
        tasks.spawn("output", collect(shared.clone()));
        tasks.spawn("reports", Link::new(http, registration, shared.clone(), tell).run());
        Self { shared, standing, tasks }
    }

    /// Cancelled when somebody asks the server to cancel the test.
    #[must_use]
    pub fn cancel(&self) -> &CancellationToken {
        &self.shared.cancel
    }

    /// Who asked to cancel it, and why.
    #[must_use]
    pub fn cancelled(&self) -> Option<Cancelled> {
        lock(&self.shared.cancelled).clone()
    }

    /// What the server knows now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Tells how the test ended, after all that was told before, and waits at most `within` for the server's
    /// confirmation; the state that the test has there. Late in that time the output that still waits is left
    /// out, because the end matters more.
    ///
    /// # Errors
    /// [`NotTold`]: the server may find the test lost.
    pub async fn end(mut self, end: End, within: Duration) -> Result<String, NotTold> {
        self.shared.spool_output();
        *lock(&self.shared.ending) = Some((end, Instant::now() + within / 2));
        self.shared.wake.notify_one();
        let confirmed = self.standing.wait_for(|standing| matches!(standing, Standing::Ended(_)));
        let confirmed =
            tokio::time::timeout(within, confirmed).await.ok().and_then(Result::ok).map(|s| s.clone());
        let told = match confirmed {
            Some(Standing::Ended(state)) => Ok(state),
            _ => Err(NotTold { reason: self.reason(within) }),
        };
        self.tasks.stop(Duration::from_millis(100)).await;
        told
    }

    fn reason(&self, within: Duration) -> String {
        match self.standing() {
            Standing::Unknown(Some(reason)) | Standing::Away(reason) => reason,
            _ => format!("the server did not confirm it within {within:?}"),
        }
    }
}

impl Shared {
    /// Moves the output that waits into the spool. Two may do so at once: whoever takes also pushes before the other
    /// one takes, so that the order stays, and nothing is on its way when this returns.
    fn spool_output(&self) {
        let mut spool = lock(&self.spool);
        while let Some(chunk) = self.progress.take_log(LOG_LINES, LOG_BYTES) {
            let id = format!("{}-l{}", self.run_id, chunk.first_line);
            let data = json!({ "firstLine": chunk.first_line, "lines": chunk.lines });
            // A value of strings and numbers can always be written.
            let Ok(data) = to_raw_value(&data) else { continue };
            let event = SpooledEvent { id, event: "log".into(), data };
            if let Ok(record) = serde_json::to_vec(&event) {
                spool.push(record);
            }
        }
    }

    fn ending(&self) -> Option<(End, Instant)> {
        lock(&self.ending).clone()
    }
}

/// Empties the log of the progress, which keeps only so much, whatever the server does.
async fn collect(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.spool_output();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_output_at_once_keeps_its_order() {
        const LINES: usize = 20_000;
        let shared = Shared {
            progress: Progress::new(),
            run_id: "r".to_owned(),
            spool: Mutex::new(Spool::new(SpoolLimits::default())),
            ending: Mutex::default(),
            wake: Notify::new(),
            cancelled: Mutex::default(),
            cancel: CancellationToken::new(),
        };
        let move_all = || {
            for n in 0..LINES / 2 {
                shared.progress.log(&format!("line {n}"));
                shared.spool_output();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move_all);
            scope.spawn(move_all);
        });
        // Nothing is on its way when both are done, and each chunk begins where the one before ends.
        let (mut next, mut spool) = (1, lock(&shared.spool));
        for record in spool.take(usize::MAX, usize::MAX) {
            let event: SpooledEvent = serde_json::from_slice(&record).expect("a record");
            let data: Value = serde_json::from_str(event.data.get()).expect("JSON");
            assert_eq!(data["firstLine"], next);
            next += data["lines"].as_array().expect("lines").len();
        }
        assert_eq!((next, spool.left_out()), (LINES + 1, 0));
    }
}
