//! What a claim costs in front of 100,000 jobs that are held back: figures for docs/control.md, not a check.
//!
//! `cargo test --test integration -- --ignored --nocapture backlog`

use std::time::{Duration, Instant};

use serde_json::{Map, json};
use tidings::model::Scope;
use tidings::queue::{Ending, NewJob, QueueOptions};

use crate::conformance::queue::job;
use crate::conformance::{Backend, Embedded, Node, OnRedis, options};
use crate::support::redis::shared_url;
use crate::support::rules;

const JOBS: usize = 100_000;
const ROUNDS: usize = 200;

fn of_suite(suite: &str) -> NewJob {
    let config = Map::from_iter([("suite".to_owned(), json!(suite))]);
    NewJob { config, ..job("command") }
}

/// Sorted times of one claim each: of a job that may run, and of none.
async fn claims(node: &Node) -> [Vec<Duration>; 2] {
    let (worker, types) = ("w".parse().expect("a worker"), ["command".to_owned(), "held".to_owned()]);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        node.queue.submit(of_suite("free")).await.expect("submitted");
        for (n, times) in times.iter_mut().enumerate() {
            let begun = Instant::now();
            let claims = node.queue.claim(&worker, &types, 1).await.expect("a look");
            times.push(begun.elapsed());
            assert_eq!(claims.len(), 1 - n);
            for claim in claims {
                let passed = Ending::Passed { results: Map::new() };
                node.queue.finish(&claim.lease, Vec::new(), passed).await.expect("an end");
            }
        }
    }
    times.each_mut().iter_mut().for_each(|times| times.sort_unstable());
    times
}

async fn measure(what: &str, backend: &dyn Backend) {
    let node = backend.open(rules(), QueueOptions { max_jobs_kept: 1_000_000, ..options() }).await;
    let show = |name: &str, [one, none]: [Vec<Duration>; 2]| {
        let at = |times: &[Duration], percent| times[times.len() * percent / 100];
        println!(
            "{what}, {name}: one p50 {:?} p99 {:?}; none p50 {:?} p99 {:?}",
            at(&one, 50),
            at(&one, 99),
            at(&none, 50),
            at(&none, 99)
        );
    };
    show("nothing held back", claims(&node).await);
    for (scope, held) in [
        (Scope::Suite("held".to_owned()), of_suite("held")),
        (Scope::TestType("held".to_owned()), job("held")),
    ] {
        node.queue.pause(&scope, None, None).await.expect("a pause");
        let begun = Instant::now();
        for _ in 0..JOBS / 500 {
            let some = (0..500).map(|_| node.queue.submit(held.clone()));
            futures_util::future::try_join_all(some).await.expect("submitted");
        }
        println!("{what}: {JOBS} submitted in {:?}", begun.elapsed());
        show(&format!("{JOBS} of {scope} held back"), claims(&node).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn a_claim_in_front_of_what_is_paused() {
    measure("SQLite", &Embedded::new()).await;
    measure("Redis", &OnRedis::at(shared_url())).await;
}
