//! Random lives: whatever workers, zombies and people do, each life ends once and is told once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tidings::model::{Job, JobId, JobState, now_ms};
use tidings::queue::{Ending, Lease, NewJob, QueueError, QueueOptions};

use super::{channels_of, failed, get, job, log, passed, progress, sweep, told_of, types, view, worker};
use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{history, read, rules, seed, wait_until};

for_each_backend!(a cluster too:
    whatever_happens_each_life_ends_once_and_is_told_once,
    workers_that_run_at_once_end_each_life_once,
);

/// Short enough that some leases run out on the way.
const LEASE: Duration = Duration::from_millis(25);

/// The players of one schedule.
struct Play {
    node: Arc<Node>,
    random: Rng,
    jobs: Vec<JobId>,
    /// Every lease that was ever given: most of them are those of zombies by and by.
    leases: Vec<Lease>,
    /// How many lives each job has had.
    lives: HashMap<JobId, usize>,
}

impl Play {
    fn new(node: Arc<Node>, seed: u64) -> Self {
        let random = Rng::with_seed(seed);
        Self { node, random, jobs: Vec::new(), leases: Vec::new(), lives: HashMap::new() }
    }

    fn ending(&mut self) -> Ending {
        match self.random.u8(0..6) {
            0 | 1 => passed(),
            2 => failed("tests_failed"),
            3 | 4 => failed("timeout"),
            _ => Ending::Cancelled,
        }
    }

    async fn step(&mut self) {
        let queue = self.node.queue.clone();
        match self.random.u8(0..20) {
            0..=3 => {
                let run_at = self.random.bool().then(|| now_ms() + self.random.i64(-5..5));
                let made = queue.submit(NewJob { run_at, max_attempts: Some(2), ..job("command") }).await;
                let made = made.expect("accepted").job;
                self.lives.insert(made.job_id.clone(), 1);
                self.jobs.push(made.job_id);
            }
            4..=8 => {
                let by = worker(&format!("w{}", self.random.u8(0..3)));
                let claims = queue.claim(&by, &types(), self.random.usize(1..3)).await.expect("a claim");
                for claim in claims {
                    self.leases.push(told_of(&self.node, claim).await.lease);
                }
            }
            9..=12 => self.speak().await,
            13 | 14 => sweep(&*queue).await,
            15 => {
                let Some(job) = self.random.choice(&self.jobs) else { return };
                match queue.cancel(job, None, None).await {
                    Ok(_) | Err(QueueError::Ended { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            16 => {
                let Some(job) = self.random.choice(&self.jobs).cloned() else { return };
                match queue.retry(&job).await {
                    Ok(_) => *self.lives.entry(job).or_default() += 1,
                    Err(QueueError::NotEnded { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            17 => drop(queue.leave(&worker(&format!("w{}", self.random.u8(0..3)))).await.expect("a leave")),
            18 => {
                let leases: Vec<_> = self.leases.iter().filter(|_| self.random.bool()).cloned().collect();
                queue.renew(leases).await.expect("a renewal");
            }
            _ => self.outlast_leases().await,
        }
    }

    /// Time passes for those who do not renew.
    async fn outlast_leases(&self) {
        tokio::time::sleep(LEASE + Duration::from_millis(2)).await;
        sweep(&*self.node.queue).await;
    }

    /// Somebody who has, or once had, a lease reports or ends; a refusal changes nothing.
    async fn speak(&mut self) {
        let newest = self.leases.len().saturating_sub(4);
        let from = if self.random.bool() { newest } else { 0 };
        let Some(lease) = self.random.choice(&self.leases[from..]).cloned() else { return };
        let before = view(&self.node, &lease.job_id).await;
        let answer = if self.random.bool() {
            let reports = vec![progress(f64::from(self.random.u8(0..=100))), log("a line")];
            self.node.queue.report(&lease, reports).await.map(drop)
        } else {
            let ending = self.ending();
            self.node.queue.finish(&lease, Vec::new(), ending).await.map(drop)
        };
        match answer {
            Ok(()) => assert_ne!(view(&self.node, &lease.job_id).await, before),
            Err(QueueError::LeaseLost { .. }) => assert_eq!(view(&self.node, &lease.job_id).await, before),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Ends whatever has not ended.
async fn play_out(node: &Node) {
    wait_until("every job has ended", async || {
        sweep(&*node.queue).await;
        for claim in node.queue.claim(&worker("last"), &types(), 100).await.expect("a claim") {
            // The lease is short; a later round takes what this one was too slow for.
            drop(node.queue.finish(&claim.lease, Vec::new(), passed()).await);
        }
        let counts = node.queue.counts().await.expect("counts");
        counts
            .iter()
            .filter(|(state, _)| !["completed", "failed", "cancelled"].contains(state))
            .all(|(_, n)| *n == 0)
    })
    .await;
}

/// Checks what the channel of a job tells: lives with attempts that rise by one, each life with one end.
pub(crate) fn check_story(events: &[Value], lives: usize) {
    let (mut ends, mut alive, mut running, mut attempt) = (0, false, false, 0);
    for event in events {
        let (name, of) = (event["event"].as_str().expect("an event"), event["data"]["attempt"].as_u64());
        let text = format!("{event}\nin {events:#?}");
        if name == "queue:job:added" {
            assert!(!alive, "added while it lives: {text}");
            alive = true;
            continue;
        }
        assert!(alive, "after the end: {text}");
        match name {
            "queue:job:started" => {
                assert!(!running, "two attempts at once: {text}");
                attempt += 1;
                running = true;
            }
            "queue:job:progress" => assert!(running, "progress of nothing: {text}"),
            "queue:job:retrying" => assert!(std::mem::take(&mut running), "nothing had failed: {text}"),
            "queue:job:cancelled" => (ends, alive, running) = (ends + 1, false, false),
            _ => {
                assert!(std::mem::take(&mut running), "the end of nothing: {text}");
                (ends, alive) = (ends + 1, false);
            }
        }
        assert_eq!(of, Some(attempt), "{text}");
    }
    assert_eq!((ends, alive), (lives, false), "{events:#?}");
}

/// What each channel that was told of anything tells.
type Told = HashMap<String, Vec<Value>>;

async fn everything(node: &Node) -> Told {
    let mut told = Told::new();
    let channels: HashSet<_> = node.heard.places().into_iter().map(|place| place.0).collect();
    for channel in channels {
        let messages = history(&*node.broker, &channel).await;
        told.insert(channel, messages.iter().map(|m| read(m)).collect());
    }
    told
}

fn about(told: &Told, channel: &str, job: &Job) -> Vec<Value> {
    let all = told.get(channel).into_iter().flatten();
    all.filter(|m| m["data"]["testId"] == job.test_id.as_str()).cloned().collect()
}

/// Whether a message of a test is an end.
pub(crate) fn is_end(message: &Value) -> bool {
    match message["event"].as_str() {
        Some("test:completed" | "test:cancelled") => true,
        Some("test:failed") => message["data"]["willRetry"] == false,
        _ => false,
    }
}

async fn check(node: &Node, lives: &HashMap<JobId, usize>) {
    let all = everything(node).await;
    for (job, lives) in lives {
        let job = get(node, job).await;
        let [own, status, queue_updates, test_updates, ends] = channels_of(&job);
        check_story(&about(&all, &status, &job), *lives);
        check_story(&about(&all, &queue_updates, &job), *lives);
        for channel in [own, test_updates, ends.clone()] {
            let told = about(&all, &channel, &job);
            assert_eq!(told.iter().filter(|m| is_end(m)).count(), *lives, "{channel}: {told:#?}");
            assert!(channel != ends || told.iter().all(is_end), "{told:#?}");
        }
        let snapshot = node.broker.snapshot(&job.test_id).await.expect("a look").expect("a test");
        assert_eq!((snapshot.state, snapshot.attempt.max(1)), (job.state, job.attempt.max(1)));
    }
}

fn quick() -> QueueOptions {
    QueueOptions { lease: LEASE, ..options() }
}

async fn whatever_happens_each_life_ends_once_and_is_told_once(backend: &dyn Backend) {
    let seed = seed();
    let node = Arc::new(backend.open(rules(), quick()).await);
    let mut play = Play::new(node.clone(), seed);
    for _ in 0..400 {
        play.step().await;
    }
    play_out(&node).await;
    check(&node, &play.lives).await;
}

async fn workers_that_run_at_once_end_each_life_once(backend: &dyn Backend) {
    let seed = seed();
    let node = Arc::new(backend.open(rules(), quick()).await);
    let players = (0..4).map(|n| {
        let mut play = Play::new(node.clone(), seed.wrapping_add(n));
        tokio::spawn(async move {
            for _ in 0..150 {
                // Alone it could compare before and after; here others speak in between.
                match play.random.u8(0..3) {
                    0 if !play.leases.is_empty() => {
                        let lease = play.leases[play.random.usize(..play.leases.len())].clone();
                        let ending = play.ending();
                        drop(play.node.queue.finish(&lease, Vec::new(), ending).await);
                    }
                    1 => {
                        let by = worker(&format!("w{n}"));
                        let claims = play.node.queue.claim(&by, &types(), 2).await.expect("a claim");
                        play.leases.extend(claims.into_iter().map(|c| c.lease));
                    }
                    _ if play.random.u8(0..10) == 0 => play.outlast_leases().await,
                    _ => {
                        let made = play.node.queue.submit(NewJob { max_attempts: Some(2), ..job("command") });
                        play.lives.insert(made.await.expect("accepted").job.job_id, 1);
                    }
                }
            }
            play.lives
        })
    });
    let mut lives = HashMap::new();
    for player in players.collect::<Vec<_>>() {
        lives.extend(player.await.expect("a player ends"));
    }
    play_out(&node).await;
    check(&node, &lives).await;
    assert!(lives.keys().len() > 50);
    let listed = node.queue.list(Some(JobState::Running), None, 10).await.expect("a page");
    assert!(listed.jobs.is_empty());
}
