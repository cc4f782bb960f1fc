//! Ticks by clocks that are made up, against a real queue.

use std::collections::BTreeSet;

use super::*;
use crate::broker::embedded::Live;
use crate::config::channels::Rules;
use crate::model::WorkerId;
use crate::queue::embedded::EmbeddedQueue;
use crate::queue::{Ending, QueueOptions};
use crate::store::{Store, Synchronous};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A queue that keeps no ended jobs for long.
struct Stage {
    queue: EmbeddedQueue,
    _dir: tempfile::TempDir,
}

/// A node: its own idea of the time, and up to when it has looked.
#[derive(Default)]
struct Node {
    ahead: i64,
    seen: Option<i64>,
}

impl Node {
    async fn look(&mut self, stage: &Stage, planned: &Planned, now: i64) {
        let upto = look(&stage.queue, "nightly", planned, self.seen, now + self.ahead).await.unwrap();
        self.seen = Some(upto);
    }
}

impl Stage {
    async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Synchronous::Normal).unwrap();
        let options = QueueOptions {
            max_attempts: 1,
            lease: Duration::from_secs(30),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            retention: Duration::ZERO,
            max_jobs_kept: 0,
        };
        let rules = Arc::new(Rules::builtin());
        let queue = EmbeddedQueue::open(store, rules, Live::default(), options).await.unwrap();
        Self { queue, _dir: dir }
    }

    /// The ticks whose jobs are there, oldest first; one that has two is there twice.
    async fn ticks(&self) -> Vec<i64> {
        let jobs = self.queue.list(None, None, 1000).await.unwrap().jobs;
        let tick = |key: &str| key.strip_prefix("schedule:nightly:").unwrap().parse().unwrap();
        let mut ticks: Vec<i64> = jobs.iter().map(|job| tick(job.dedupe_key.as_deref().unwrap())).collect();
        ticks.sort_unstable();
        ticks
    }

    /// All jobs end, and are forgotten.
    async fn forget_all(&self) {
        let worker: WorkerId = "w".parse().unwrap();
        loop {
            let claims = self.queue.claim(&worker, &["command".to_owned()], 50).await.unwrap();
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                let passed = Ending::Passed { results: serde_json::Map::new() };
                self.queue.finish(&claim.lease, Vec::new(), passed).await.unwrap();
            }
        }
        // What ended in this very millisecond is kept still.
        while !self.ticks().await.is_empty() {
            self.queue.retain().await.unwrap();
        }
    }
}

fn planned(text: &str) -> Planned {
    let schedule: Schedule = toml::from_str(text).unwrap();
    Planned { timing: schedule.timing("nightly").unwrap(), schedule }
}

/// Now, at a whole minute.
fn start() -> i64 {
    let now = now_ms();
    now - now.rem_euclid(MINUTE)
}

#[tokio::test]
async fn each_tick_is_fired_once_whichever_clock_is_ahead() {
    let (stage, planned, start) = (Stage::set().await, planned("cron = '* * * * * *'"), start());
    let mut nodes = [-3500, 0, 2900].map(|ahead| Node { ahead, seen: None });
    for step in 0..60 {
        for node in &mut nodes {
            node.look(&stage, &planned, start + step * 300).await;
        }
    }
    let ticks = stage.ticks().await;
    let distinct: BTreeSet<i64> = ticks.iter().copied().collect();
    assert_eq!(ticks.len(), distinct.len(), "some were fired twice: {ticks:?}");
    let (first, last) = (ticks[0], *ticks.last().unwrap());
    let expected: Vec<i64> = (0..=(last - first) / SECOND).map(|n| first + n * SECOND).collect();
    assert_eq!(ticks, expected, "some were left out");
    assert!(expected.len() >= 18, "{}", expected.len());
}

#[tokio::test]
async fn a_tick_whose_job_has_ended_and_is_forgotten_is_not_fired_again() {
    let (stage, planned, start) = (Stage::set().await, planned("cron = '* * * * *'"), start());
    let (mut ahead, mut behind) = (Node { ahead: 5000, seen: None }, Node::default());
    ahead.look(&stage, &planned, start + 10 * SECOND).await;
    behind.look(&stage, &planned, start + 10 * SECOND).await;
    ahead.look(&stage, &planned, start + 56 * SECOND).await;
    assert_eq!(stage.ticks().await, [start + MINUTE]);
    stage.forget_all().await;
    behind.look(&stage, &planned, start + 61 * SECOND).await;
    // Nor by one that comes only now.
    Node::default().look(&stage, &planned, start + 62 * SECOND).await;
    assert_eq!(stage.ticks().await, [0; 0]);
}

#[tokio::test]
async fn of_what_was_missed_while_nobody_ran_the_newest_is_fired_once_if_it_is_not_too_old() {
    for (catch_up, down, fired) in
        [("2h", HOUR, true), ("2h", 3 * HOUR + MINUTE * 30, true), ("10m", HOUR, false), ("0s", HOUR, false)]
    {
        let stage = Stage::set().await;
        // Every two hours; the tick is an hour before the return.
        let planned = planned(&format!("cron = '0 */2 * * *'\ncatch_up = '{catch_up}'"));
        let now = start();
        let even = planned.timing.latest_at(now).unwrap();
        let back = even + HOUR;
        Node::default().look(&stage, &planned, back - down - HOUR).await;
        // Those who come back have clocks of their own.
        for ahead in [0, 4000, -4000] {
            let mut node = Node { ahead, seen: None };
            for late in [0, 300, 30_000] {
                node.look(&stage, &planned, back + late).await;
            }
        }
        let expected: &[i64] = if fired { &[even] } else { &[] };
        assert_eq!(stage.ticks().await, expected, "{catch_up} after {down} ms");
    }
}

#[tokio::test]
async fn a_schedule_that_is_new_fires_nothing_of_the_past() {
    let (stage, planned, start) = (Stage::set().await, planned("cron = '* * * * *'"), start());
    let mut node = Node::default();
    node.look(&stage, &planned, start + 5 * SECOND).await;
    node.look(&stage, &planned, start + 59 * SECOND).await;
    assert_eq!(stage.ticks().await, [0; 0]);
    node.look(&stage, &planned, start + 60 * SECOND).await;
    assert_eq!(stage.ticks().await, [start + MINUTE]);
}

#[tokio::test]
async fn a_process_that_stood_still_for_a_moment_leaves_nothing_out_and_after_long_fires_the_newest() {
    let (stage, planned, start) = (Stage::set().await, planned("cron = '* * * * * *'"), start());
    let mut node = Node::default();
    node.look(&stage, &planned, start).await;
    node.look(&stage, &planned, start + 5 * SECOND).await;
    assert_eq!(stage.ticks().await.len(), 5);
    let back = start + HOUR;
    node.look(&stage, &planned, back).await;
    let ticks = stage.ticks().await;
    // The last ones as if nothing had been, and one for all others.
    assert_eq!(ticks[5..].iter().map(|tick| back - tick).max(), Some(LATE_MS), "{ticks:?}");
    assert_eq!(ticks.len(), 5 + 11);
}

#[tokio::test]
async fn a_clock_that_is_set_back_fires_nothing_twice() {
    let (stage, planned, start) = (Stage::set().await, planned("cron = '* * * * *'"), start());
    let mut node = Node::default();
    for now in [0, 61, 125, 30, 65, 100, 121, 181] {
        node.look(&stage, &planned, start + now * SECOND).await;
    }
    assert_eq!(stage.ticks().await, [1, 2, 3].map(|n| start + n * MINUTE));
}

#[tokio::test]
async fn a_clock_that_was_hours_ahead_stops_nothing_once_it_is_right() {
    let (stage, start) = (Stage::set().await, start());
    let planned = planned("cron = '* * * * *'\ncatch_up = '1h'");
    let mut node = Node::default();
    for now in [2 * HOUR, 10 * SECOND, 61 * SECOND] {
        node.look(&stage, &planned, start + now).await;
    }
    assert_eq!(stage.ticks().await, [start + MINUTE]);
    // Nor where all that is kept was fired by it.
    let ahead = Stage::set().await;
    let mut node = Node::default();
    for n in 0..=300 {
        node.look(&ahead, &planned, start + 10 * HOUR + n * MINUTE).await;
    }
    let before = ahead.ticks().await.len();
    for now in [10 * SECOND, 61 * SECOND, 121 * SECOND] {
        node.look(&ahead, &planned, start + now).await;
    }
    assert_eq!(ahead.ticks().await.len(), before + 2);
    // Nor is what a server misses taken for fired, as something later was.
    Node::default().look(&stage, &planned, start + 3 * MINUTE).await;
    assert_eq!(stage.ticks().await, [1, 3].map(|n| start + n * MINUTE));
    // What is known of a time to come alone says nothing of when the schedule began.
    let stage = Stage::set().await;
    Node::default().look(&stage, &planned, start + 2 * HOUR).await;
    Node::default().look(&stage, &planned, start + 3 * MINUTE).await;
    assert_eq!(stage.ticks().await, [0; 0]);
}

#[test]
fn a_missed_tick_is_fired_unless_it_was_or_is_given_up() {
    let Planned { schedule, .. } = planned("cron = '* * * * *'\ncatch_up = '1h'");
    let (now, missed) = (10 * HOUR, 10 * HOUR - MINUTE);
    for (fired, missed, expected) in [
        (vec![missed - HOUR], missed, Missed::Due),
        (vec![missed], missed, Missed::Done),
        (vec![now + SECOND], missed, Missed::Done),
        (vec![now + 2 * HOUR], missed, Missed::Due),
        (vec![], now - HOUR - 1, Missed::TooOld),
        (vec![now - HOUR], now - HOUR - 1, Missed::Done),
    ] {
        assert_eq!(judge(&schedule, &fired, missed, now), expected, "{fired:?}, {missed}");
    }
}

#[tokio::test]
async fn another_expression_fires_nothing_from_before_it_was_there() {
    let (stage, now) = (Stage::set().await, start());
    let (old, new) = (planned("cron = '0 0 1 1 *'"), planned("cron = '* * * * *'\ncatch_up = '1h'"));
    look(&stage.queue, "nightly", &old, None, now - HOUR).await.unwrap();
    let mut seen = HashMap::from([("nightly".to_owned(), (old.schedule, now - SECOND))]);
    carry_over(&mut seen, &Plan::from([("nightly".to_owned(), new.clone())]), now);
    let (schedule, since) = seen.get("nightly").cloned().unwrap();
    assert_eq!((&schedule, since), (&new.schedule, now));
    look(&stage.queue, "nightly", &new, Some(since), now + 59 * SECOND).await.unwrap();
    assert_eq!(stage.ticks().await, [0; 0]);
    // Other changes begin as after a restart.
    let other = planned("cron = '* * * * *'\ncatch_up = '2h'");
    carry_over(&mut seen, &Plan::from([("nightly".to_owned(), other)]), now + MINUTE);
    assert!(seen.is_empty());
}

#[tokio::test]
async fn a_job_of_somebody_else_is_not_taken_for_one_of_the_schedule() {
    let (stage, planned) = (Stage::set().await, planned("cron = '* * * * *'"));
    let ours = job("nightly", &planned, start());
    for (new, expected) in [
        (ours.clone(), true),
        (NewJob { name: None, test_id: None, dedupe_key: None, ..ours.clone() }, false),
        (NewJob { user_id: "eve".parse().ok(), test_id: None, dedupe_key: None, ..ours }, false),
    ] {
        let found = stage.queue.submit(new).await.unwrap().job;
        assert_eq!(is_ours(&found, "nightly"), expected, "{found:?}");
    }
}

#[tokio::test]
async fn its_jobs_have_what_the_schedule_says() {
    let stage = Stage::set().await;
    let planned = planned(
        "cron = '* * * * *'\nsuite = 'unit'\nconfig = { params = { A = 'b' } }\npriority = 3\ntimeout = '5m'\nmax_attempts = 2",
    );
    let mut node = Node::default();
    node.look(&stage, &planned, start()).await;
    node.look(&stage, &planned, start() + MINUTE).await;
    let job = stage.queue.list(None, None, 10).await.unwrap().jobs.remove(0);
    assert_eq!(
        serde_json::Value::from(job.config.clone()),
        serde_json::json!({"params": {"A": "b"}, "suite": "unit"})
    );
    assert_eq!((job.test_type.as_str(), job.priority.number(), job.max_attempts), ("command", 3, 2));
    assert_eq!((job.timeout_ms, job.name.as_deref()), (Some(300_000), Some("nightly")));
    assert!(
        job.test_id.as_str().starts_with("nightly-20") && job.test_id.as_str().ends_with("00Z"),
        "{job:?}"
    );
    assert_eq!(job.series(), "command:nightly");
}
