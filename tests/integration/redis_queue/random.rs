//! Random lives on several nodes, whose way to the channels fails now and then: whoever tells of them, each is told once
//! and in its order.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tidings::model::{JobId, TestId, now_ms};
use tidings::queue::{Ending, Lease, NewJob, Queue, QueueError, QueueOptions, Report};

use super::{Channels, Node, job, options, passed, worker};
use crate::conformance::queue::random::{check_story, is_end};
use crate::support::redis::{connect, shared_url};
use crate::support::{history, raw, read, seed, wait_until};

const NODES: usize = 3;
const PLAYERS: u64 = 8;
const STEPS: usize = 60;
/// So many tests have several jobs, one after the other; all others have one.
const TESTS: usize = 4;

/// Short enough that some leases run out on the way.
fn quick() -> QueueOptions {
    QueueOptions { lease: Duration::from_millis(150), max_attempts: 2, ..options() }
}

/// The nodes, which others take the places of.
struct Stage {
    url: String,
    channels: Channels,
    nodes: Mutex<Vec<Arc<Node>>>,
    /// How many lives each job has had.
    lives: Mutex<HashMap<JobId, usize>>,
}

impl Stage {
    fn node(&self, random: &mut Rng) -> Arc<Node> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes[random.usize(0..nodes.len())].clone()
    }

    async fn start(&self) -> Arc<Node> {
        let node = Node::start_with(&self.url, &self.channels, quick()).await;
        node.gate.moody.store(true, Ordering::SeqCst);
        Arc::new(node)
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, usize>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step may be answered with: it came too late, or another job has the test.
fn may_be(error: &QueueError) {
    use QueueError::{Ended, LeaseLost, NotEnded, TestActive};
    assert!(
        matches!(error, Ended { .. } | LeaseLost { .. } | NotEnded { .. } | TestActive { .. }),
        "{error}"
    );
}

async fn play(stage: Arc<Stage>, n: u64, mut random: Rng) {
    let (by, types) = (worker(&format!("w{n}")), ["command".to_owned()]);
    let mut leases: Vec<Lease> = Vec::new();
    for _ in 0..STEPS {
        let node = stage.node(&mut random);
        let queue = &node.queue;
        let some_job = { random.choice(stage.lives().keys()).cloned() };
        let lease = random.choice(&leases).cloned();
        match (random.u8(0..20), some_job, lease) {
            (0..=4, ..) => {
                let run_at = random.bool().then(|| now_ms() + random.i64(-5..5));
                let test = random.usize(0..2 * TESTS);
                let test_id = (test < TESTS).then(|| TestId::parse(&format!("again-{test}")).expect("an id"));
                match queue.submit(NewJob { run_at, test_id, ..job() }).await {
                    Ok(made) => drop(stage.lives().insert(made.job.job_id, 1)),
                    Err(error) => may_be(&error),
                }
            }
            (5..=9, ..) => {
                let claims = queue.claim(&by, &types, random.usize(1..4)).await.expect("a claim");
                leases.extend(claims.into_iter().map(|claim| claim.lease));
            }
            (10..=12, _, Some(lease)) => {
                let data = raw(&serde_json::json!({ "progress": 5.0 }));
                let reports = vec![Report::Progress { percent: 5.0, data }; random.usize(0..4)];
                drop(queue.report(&lease, reports).await.inspect_err(may_be));
            }
            (13 | 14, _, Some(lease)) => {
                let ending = match random.u8(0..3) {
                    0 => Ending::Cancelled,
                    _ => passed(),
                };
                drop(queue.finish(&lease, Vec::new(), ending).await.inspect_err(may_be));
            }
            (15, Some(job), _) => drop(queue.cancel(&job, None, None).await.inspect_err(may_be)),
            (16, Some(job), _) => match queue.retry(&job).await {
                Ok(_) => *stage.lives().entry(job).or_default() += 1,
                Err(error) => may_be(&error),
            },
            (17, ..) => drop(queue.leave(&by).await.expect("a leave")),
            (18, ..) => drop(queue.sweep().await.expect("a sweep")),
            (19, ..) if random.bool() => {
                let new = stage.start().await;
                let place = random.usize(0..NODES);
                stage.nodes.lock().unwrap_or_else(PoisonError::into_inner)[place] = new;
            }
            _ => tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_tells_of_it_each_life_is_told_once_and_in_its_order() {
    let (seed, url) = (seed(), shared_url());
    on(seed, url, Channels::new()).await;
    let url = shared_url();
    on(seed, url.clone(), Channels::in_redis(&url).await).await;
}

async fn on(seed: u64, url: String, channels: Channels) {
    let stage = Arc::new(Stage { url, channels, nodes: Mutex::default(), lives: Mutex::default() });
    for _ in 0..NODES {
        let node = stage.start().await;
        stage.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node);
    }
    let players: Vec<_> = (0..PLAYERS)
        .map(|n| tokio::spawn(play(stage.clone(), n, Rng::with_seed(seed.wrapping_add(n)))))
        .collect();
    for player in players {
        player.await.expect("a player ends");
    }
    let node = stage.start().await;
    node.gate.moody.store(false, Ordering::SeqCst);
    let (redis, _tasks) = connect(&stage.url).await;
    wait_until("every life has ended and is told", async || {
        node.queue.sweep().await.expect("a sweep");
        for claim in node.queue.claim(&worker("last"), &["command".to_owned()], 100).await.expect("a claim") {
            drop(node.queue.finish(&claim.lease, Vec::new(), passed()).await);
        }
        let counts = node.queue.counts().await.expect("counts");
        let over = |state: &str| ["completed", "failed", "cancelled"].contains(&state);
        let untold: i64 =
            redis.query(::redis::cmd("ZCARD").arg(redis.key("q", ":out"))).await.expect("a look");
        untold == 0 && counts.iter().all(|(state, n)| over(state) || *n == 0)
    })
    .await;
    check(&stage, &node).await;
}

/// Checks what all channels tell of what was done.
async fn check(stage: &Stage, node: &Node) {
    let lives = stage.lives().clone();
    assert!(lives.len() > 20);
    let (broker, mut all) = (&*stage.channels.broker, HashMap::new());
    for message in history(broker, "queue-updates").await {
        let message = read(&message);
        let id = message["data"]["jobId"].as_str().expect("a job").to_owned();
        all.entry(id).or_insert_with(Vec::new).push(message);
    }
    let mut jobs_of = HashMap::new();
    for (id, lives) in lives {
        let job = node.queue.get(&id).await.expect("a look").expect("a job");
        let read_all = async |name: String| -> Vec<_> {
            history(broker, &name).await.iter().map(|message| read(message)).collect()
        };
        check_story(&read_all(format!("job-status-{id}")).await, lives);
        check_story(&all[id.as_str()], lives);
        let own = read_all(format!("test-progress-{}", job.test_id)).await;
        let of_job = own.iter().filter(|message| whose(message) == id.as_str());
        assert_eq!(of_job.filter(|message| is_end(message)).count(), lives, "{own:#?}");
        check_turns(&own);
        let snapshot = stage.channels.broker_snapshot(&job).await.expect("a test");
        if snapshot.job_id.as_ref() == Some(&id) {
            assert_eq!(
                (snapshot.state, snapshot.attempt.max(1)),
                (job.state, job.attempt.max(1)),
                "{own:#?}"
            );
            let last = own.iter().rfind(|message| is_end(message)).expect("an end");
            assert_eq!(whose(last), id.as_str(), "{own:#?}");
        }
        *jobs_of.entry(job.test_id).or_insert(0) += 1;
    }
    assert!(jobs_of.values().any(|jobs| *jobs > 1), "no test had another job");
}

/// The job that a message of a test is of.
pub(super) fn whose(message: &Value) -> &str {
    let id = message["id"].as_str().expect("an id");
    id.split_once('.').expect("a job before it").0
}

/// Whoever began a test ends it before another job does anything in it.
fn check_turns(events: &[Value]) {
    let mut turn = None;
    for event in events {
        let job = whose(event);
        assert!(turn.is_none_or(|turn| turn == job), "{event} in the middle of another: {events:#?}");
        turn = (!is_end(event)).then_some(job);
    }
}
