//! What is held back: pauses, limits of suites, and the order of those who may run.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tidings::model::{Job, JobId, JobState, Priority, Scope, UserId, now_ms};
use tidings::queue::{Claim, MAX_PAUSES, NewJob, QueueError, QueueOptions};

use super::{claim, failed, get, job, lose_worker, passed, submit, sweep, types, view, worker};
use crate::conformance::{Backend, Node, for_each_backend, options};
use crate::support::{history, in_time, read, rules};

for_each_backend!(a cluster too:
    what_is_paused_begins_no_attempt_until_it_is_resumed,
    what_runs_when_its_queue_is_paused_goes_on,
    a_pause_outlives_those_who_asked_for_it,
    what_is_paused_stands_in_nobodys_way,
    each_pause_and_each_resumption_is_told_once,
    no_more_can_be_paused_than_there_is_room_for,
    a_waiting_job_says_what_holds_it_back,
    a_suite_runs_as_often_at_once_as_it_may,
    a_suite_at_its_limit_stands_in_nobodys_way,
    however_an_attempt_ends_its_place_is_free,
    a_limit_holds_as_soon_as_it_is_changed,
    a_waiting_job_takes_its_place_in_another_priority,
    another_priority_is_told_once,
    what_does_not_wait_keeps_its_priority,
    whatever_is_asked_who_is_claimed_next_is_who_should_be,
);

/// A job that runs a suite.
fn of_suite(suite: &str) -> NewJob {
    let config = json!({ "suite": suite }).as_object().expect("an object").clone();
    NewJob { config, ..job("command") }
}

fn suite(name: &str) -> Scope {
    Scope::Suite(name.to_owned())
}

fn command() -> Scope {
    Scope::TestType("command".to_owned())
}

async fn pause(node: &Node, scope: &Scope) {
    node.queue.pause(scope, None, None).await.expect("a pause");
}

async fn unpause(node: &Node, scope: &Scope) {
    assert!(node.queue.unpause(scope, None).await.expect("a resumption").is_some(), "{scope} was paused");
}

async fn limit(node: &Node, suite: &str, most: Option<u32>) {
    let limits = BTreeMap::from([(suite.to_owned(), most)]);
    node.queue.limit_suites(&limits).await.expect("a limit");
}

async fn claim_up_to(node: &Node, max: usize) -> Vec<Claim> {
    node.queue.claim(&worker("w"), &types(), max).await.expect("a look for jobs")
}

fn ids(claims: &[Claim]) -> Vec<JobId> {
    claims.iter().map(|claim| claim.job.job_id.clone()).collect()
}

async fn end(node: &Node, claim: &Claim) {
    node.queue.finish(&claim.lease, Vec::new(), passed()).await.expect("an end");
}

async fn what_is_paused_begins_no_attempt_until_it_is_resumed(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    for scope in [Scope::All, command(), suite("unit")] {
        let before = submit(&node, of_suite("unit")).await;
        pause(&node, &scope).await;
        let after = submit(&node, of_suite("unit")).await;
        assert_eq!(after.state, JobState::Queued, "submissions are taken");
        sweep(&*node.queue).await;
        assert!(claim_up_to(&node, 9).await.is_empty(), "{scope} is paused");
        // Whoever looked in vain before is woken.
        let waiting = tokio::spawn({
            let node = node.clone();
            async move {
                loop {
                    let claims = claim_up_to(&node, 9).await;
                    if !claims.is_empty() {
                        return claims;
                    }
                    node.queue.wait_for_jobs().await;
                }
            }
        });
        unpause(&node, &scope).await;
        let claims = in_time("who waits is woken", waiting).await.expect("a worker ends");
        assert_eq!(ids(&claims), [before.job_id, after.job_id]);
        for claim in &claims {
            end(&node, claim).await;
        }
        assert!(node.queue.unpause(&scope, None).await.expect("a look").is_none(), "it goes already");
    }
    // One scope resumed, another holds it back still.
    let made = submit(&node, of_suite("unit")).await;
    for scope in [Scope::All, command(), suite("unit")] {
        pause(&node, &scope).await;
    }
    for scope in [suite("unit"), Scope::All, command()] {
        assert!(claim_up_to(&node, 9).await.is_empty());
        unpause(&node, &scope).await;
    }
    assert_eq!(ids(&claim_up_to(&node, 9).await), [made.job_id]);
}

async fn what_runs_when_its_queue_is_paused_goes_on(backend: &dyn Backend) {
    let options = QueueOptions { max_attempts: 2, ..options() };
    let node = backend.open(rules(), options).await;
    let runs = submit(&node, of_suite("unit")).await;
    let lease = claim(&node, "w").await.lease;
    pause(&node, &Scope::All).await;
    node.queue.report(&lease, vec![super::progress(50.0)]).await.expect("it goes on");
    let ended = node.queue.finish(&lease, Vec::new(), failed("timeout")).await.expect("an end");
    assert_eq!(ended.state, JobState::Retrying);
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    sweep(&*node.queue).await;
    assert_eq!(get(&node, &runs.job_id).await.state, JobState::Queued);
    assert!(claim_up_to(&node, 9).await.is_empty(), "its next attempt is after the pause");
    // People may still do with it what they want.
    node.queue.cancel(&runs.job_id, None, None).await.expect("it is cancelled");
    node.queue.retry(&runs.job_id).await.expect("and comes back");
    assert!(claim_up_to(&node, 9).await.is_empty());
    unpause(&node, &Scope::All).await;
    assert_eq!(ids(&claim_up_to(&node, 9).await), [runs.job_id]);
}

async fn a_pause_outlives_those_who_asked_for_it(backend: &dyn Backend) {
    let node = backend.start().await;
    let by: UserId = "ada".parse().expect("a user");
    let made = submit(&node, of_suite("unit")).await;
    let (first, began) =
        node.queue.pause(&suite("unit"), Some("moving".to_owned()), Some(by.clone())).await.expect("a pause");
    assert!(began);
    assert_eq!((first.by.as_ref(), first.reason.as_deref()), (Some(&by), Some("moving")));
    assert!((now_ms() - first.since).abs() < 60_000, "{first:?}");
    let (again, began) =
        node.queue.pause(&suite("unit"), Some("other".to_owned()), None).await.expect("again");
    assert_eq!((&again, began), (&first, false), "it stays as it was paused first");
    node.stop().await;
    let node = backend.start().await;
    assert_eq!(node.queue.pauses().await.expect("a look"), std::slice::from_ref(&first));
    assert!(claim_up_to(&node, 9).await.is_empty());
    let resumed = node.queue.unpause(&suite("unit"), Some(by.clone())).await.expect("a resumption");
    assert_eq!(resumed.map(|resumed| (resumed.pause, resumed.by)), Some((first, Some(by))));
    assert!(node.queue.pauses().await.expect("a look").is_empty());
    assert_eq!(ids(&claim_up_to(&node, 9).await), [made.job_id]);
}

async fn what_is_paused_stands_in_nobodys_way(backend: &dyn Backend) {
    let node = backend.start().await;
    pause(&node, &suite("held")).await;
    for n in 0..150 {
        let priority = if n % 2 == 0 { Priority::Critical } else { Priority::Normal };
        submit(&node, NewJob { priority, ..of_suite("held") }).await;
    }
    let low = |new| NewJob { priority: Priority::Low, ..new };
    let other = submit(&node, low(of_suite("other"))).await;
    let plain = submit(&node, low(job("command"))).await;
    // One at a time: the first look finds it.
    assert_eq!(claim(&node, "w").await.job.job_id, other.job_id);
    assert_eq!(claim(&node, "w").await.job.job_id, plain.job_id);
    pause(&node, &command()).await;
    let stress = submit(&node, low(job("stress"))).await;
    let both = ["command".to_owned(), "stress".to_owned()];
    let claims = node.queue.claim(&worker("w"), &both, 5).await.expect("a look");
    assert_eq!(ids(&claims), [stress.job_id]);
}

/// What `queue-updates` told of pauses: event, data.
async fn told(node: &Node) -> Vec<(String, Value)> {
    let all = history(&*node.broker, "queue-updates").await.into_iter().map(|message| read(&message));
    let of_pauses = all.filter(|message| !message["event"].as_str().is_some_and(|e| e.contains(":job:")));
    of_pauses.map(|m| (m["event"].as_str().expect("an event").to_owned(), m["data"].clone())).collect()
}

async fn each_pause_and_each_resumption_is_told_once(backend: &dyn Backend) {
    let node = backend.start().await;
    let ada = || Some("ada".parse().expect("a user"));
    let mut expected = Vec::new();
    for (scope, fields) in [
        (Scope::All, json!({})),
        (command(), json!({ "testType": "command" })),
        (suite("a/b \"c\" ü"), json!({ "testType": "command", "suite": "a/b \"c\" ü" })),
    ] {
        let (pause, _) =
            node.queue.pause(&scope, Some("why \u{1F600}".to_owned()), ada()).await.expect("a pause");
        node.queue.pause(&scope, None, None).await.expect("again");
        node.queue.unpause(&scope, ada()).await.expect("a resumption");
        node.queue.unpause(&scope, ada()).await.expect("again");
        let mut data = fields;
        data["since"] = pause.since.into();
        data["by"] = "ada".into();
        data["reason"] = "why \u{1F600}".into();
        expected.push(("queue:paused".to_owned(), data.clone()));
        data["resumedBy"] = "ada".into();
        expected.push(("queue:resumed".to_owned(), data));
    }
    sweep(&*node.queue).await;
    assert_eq!(told(&node).await, expected);
}

async fn no_more_can_be_paused_than_there_is_room_for(backend: &dyn Backend) {
    let node = backend.start().await;
    for n in 0..MAX_PAUSES {
        pause(&node, &Scope::TestType(format!("type-{n}"))).await;
    }
    let refused = node.queue.pause(&command(), None, None).await.expect_err("there is no room");
    assert!(matches!(refused, QueueError::TooManyPauses), "{refused}");
    assert!(
        !node.queue.pause(&Scope::TestType("type-5".to_owned()), None, None).await.expect("it is known").1
    );
    assert_eq!(node.queue.pauses().await.expect("a look").len(), MAX_PAUSES);
    submit(&node, job("command")).await;
    claim(&node, "w").await;
}

async fn a_waiting_job_says_what_holds_it_back(backend: &dyn Backend) {
    let node = backend.start().await;
    node.queue.join(&worker("w"), &types()).await.expect("a worker");
    limit(&node, "unit", Some(1)).await;
    let first = submit(&node, of_suite("unit")).await;
    let second = submit(&node, of_suite("unit")).await;
    let waiting = async |job: &Job| get(&node, &job.job_id).await.waiting;
    assert_eq!(waiting(&second).await, None);
    let claimed = claim(&node, "w").await;
    assert_eq!(claimed.job.job_id, first.job_id);
    let full = "the suite `unit` runs 1 of at most 1 at once (`concurrency`)";
    assert_eq!(waiting(&second).await.as_deref(), Some(full));
    assert_eq!(waiting(&first).await, None, "it runs");
    node.queue.pause(&Scope::All, Some("moving".to_owned()), "ada".parse().ok()).await.expect("a pause");
    let paused = waiting(&second).await.expect("a reason");
    assert!(paused.starts_with("the queue has been paused since 20"), "{paused}");
    assert!(paused.ends_with("Z, by ada: moving"), "{paused}");
    let listed = node.queue.list(Some(JobState::Queued), None, 10).await.expect("a list").jobs;
    assert_eq!(listed[0].waiting.as_ref(), Some(&paused));
    unpause(&node, &Scope::All).await;
    end(&node, &claimed).await;
    assert_eq!(waiting(&second).await, None);
}

async fn a_suite_runs_as_often_at_once_as_it_may(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    limit(&node, "unit", Some(2)).await;
    for _ in 0..20 {
        submit(&node, of_suite("unit")).await;
    }
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers = (0..6).map(|n| {
        let (node, running) = (node.clone(), running.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while node.queue.counts().await.expect("counts")["completed"] < 20 {
                let claims = node.queue.claim(&worker(&format!("w{n}")), &types(), 3).await.expect("a look");
                let now = running.fetch_add(claims.len(), std::sync::atomic::Ordering::SeqCst) + claims.len();
                assert!(now <= 2, "{now} run at once");
                for claim in &claims {
                    running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    end(&node, claim).await;
                    done += 1;
                }
                tokio::task::yield_now().await;
            }
            done
        })
    });
    let mut done = 0;
    for worker in workers.collect::<Vec<_>>() {
        done += in_time("all of them run", worker).await.expect("a worker ends");
    }
    assert_eq!(done, 20);
}

async fn a_suite_at_its_limit_stands_in_nobodys_way(backend: &dyn Backend) {
    let node = backend.start().await;
    limit(&node, "unit", Some(1)).await;
    for _ in 0..150 {
        submit(&node, NewJob { priority: Priority::Critical, ..of_suite("unit") }).await;
    }
    let other = submit(&node, of_suite("other")).await;
    let plain = submit(&node, NewJob { priority: Priority::Low, ..job("command") }).await;
    let claims = claim_up_to(&node, 50).await;
    assert_eq!(claims.len(), 3);
    assert_eq!(ids(&claims[1..]), [other.job_id, plain.job_id]);
    assert!(claim_up_to(&node, 50).await.is_empty());
}

async fn however_an_attempt_ends_its_place_is_free(backend: &dyn Backend) {
    let short = QueueOptions { lease: std::time::Duration::from_millis(200), ..options() };
    let node = backend.open(rules(), short).await;
    limit(&node, "unit", Some(1)).await;
    let mut known: HashSet<JobId> = HashSet::new();
    for how in ["passed", "failed", "again", "cancelled", "lost", "left"] {
        let made = submit(&node, NewJob { max_attempts: Some(2), ..of_suite("unit") }).await;
        let claimed = claim(&node, "w").await;
        assert!(known.insert(claimed.job.job_id.clone()), "{how}");
        let next = submit(&node, of_suite("unit")).await;
        assert!(claim_up_to(&node, 9).await.is_empty(), "one of them runs: {how}");
        let lease = &claimed.lease;
        match how {
            "passed" => end(&node, &claimed).await,
            "failed" | "again" => {
                let code = if how == "again" { "timeout" } else { "tests_failed" };
                node.queue.finish(lease, Vec::new(), failed(code)).await.expect("an end");
            }
            "cancelled" => {
                node.queue.cancel(&made.job_id, None, None).await.expect("a wish");
                assert!(claim_up_to(&node, 9).await.is_empty(), "it has not stopped yet");
                node.queue
                    .finish(lease, Vec::new(), tidings::queue::Ending::Cancelled)
                    .await
                    .expect("an end");
            }
            "lost" => lose_worker(&node, &made.job_id).await,
            _ => {
                node.queue.leave(&worker("w")).await.expect("it leaves");
            }
        }
        // The next one, or the same again, but only one of them.
        let claims = claim_up_to(&node, 9).await;
        assert_eq!(claims.len(), 1, "{how}");
        assert!(claim_up_to(&node, 9).await.is_empty(), "{how}");
        end(&node, &claims[0]).await;
        for left in [&made, &next] {
            if !get(&node, &left.job_id).await.state.is_terminal() {
                node.queue.cancel(&left.job_id, None, None).await.expect("it waits");
            }
            known.insert(left.job_id.clone());
        }
    }
}

async fn a_limit_holds_as_soon_as_it_is_changed(backend: &dyn Backend) {
    let node = backend.start().await;
    for _ in 0..8 {
        submit(&node, of_suite("unit")).await;
    }
    limit(&node, "unit", Some(2)).await;
    let mut claims = claim_up_to(&node, 9).await;
    assert_eq!(claims.len(), 2);
    limit(&node, "unit", Some(3)).await;
    claims.extend(claim_up_to(&node, 9).await);
    assert_eq!(claims.len(), 3);
    limit(&node, "unit", Some(1)).await;
    for _ in 0..3 {
        assert!(claim_up_to(&node, 9).await.is_empty());
        end(&node, &claims.pop().expect("one that runs")).await;
    }
    claims.extend(claim_up_to(&node, 9).await);
    assert_eq!(claims.len(), 1);
    limit(&node, "unit", None).await;
    claims.extend(claim_up_to(&node, 9).await);
    assert_eq!(claims.len(), 5);
}

async fn a_waiting_job_takes_its_place_in_another_priority(backend: &dyn Backend) {
    let node = backend.start().await;
    let mut jobs = Vec::new();
    for n in 0..6 {
        let new = if n % 2 == 0 { of_suite("unit") } else { job("command") };
        jobs.push(submit(&node, new).await.job_id);
    }
    let later = submit(&node, NewJob { run_at: Some(now_ms() + 3_600_000), ..job("command") }).await;
    let set = async |n: usize, priority| {
        let changed = node.queue.prioritise(&jobs[n], priority).await.expect("it waits");
        assert_eq!((changed.priority, changed.state), (priority, JobState::Queued));
        assert_eq!(get(&node, &jobs[n]).await.priority, priority);
    };
    set(4, Priority::High).await;
    set(1, Priority::High).await;
    set(0, Priority::Low).await;
    set(5, Priority::Critical).await;
    set(5, Priority::Normal).await;
    let changed = node.queue.prioritise(&later.job_id, Priority::Critical).await.expect("it waits");
    assert_eq!((changed.priority, changed.state), (Priority::Critical, JobState::Scheduled));
    // Among those of one priority, by their submission.
    let expected = [1, 4, 2, 3, 5, 0].map(|n: usize| jobs[n].clone());
    let mut claimed = ids(&claim_up_to(&node, 2).await);
    claimed.extend(ids(&claim_up_to(&node, 9).await));
    assert_eq!(claimed, expected);
}

async fn another_priority_is_told_once(backend: &dyn Backend) {
    let node = backend.start().await;
    let made = submit(&node, job("command")).await;
    node.queue.prioritise(&made.job_id, Priority::High).await.expect("it waits");
    node.queue.prioritise(&made.job_id, Priority::High).await.expect("it has that already");
    node.queue.prioritise(&made.job_id, Priority::Low).await.expect("it waits");
    sweep(&*node.queue).await;
    for channel in [format!("job-status-{}", made.job_id), "queue-updates".to_owned()] {
        let told: Vec<Value> =
            history(&*node.broker, &channel).await.iter().map(|message| read(message)).collect();
        let told: Vec<_> =
            told.iter().map(|m| (m["event"].as_str().expect("an event"), &m["data"]["priority"])).collect();
        let none = &Value::Null;
        let updated = "queue:job:updated";
        assert_eq!(
            told,
            [("queue:job:added", none), (updated, &3.into()), (updated, &1.into())],
            "{channel}"
        );
    }
}

async fn what_does_not_wait_keeps_its_priority(backend: &dyn Backend) {
    let node = Arc::new(backend.start().await);
    let made = submit(&node, job("command")).await;
    let lease = claim(&node, "w").await.lease;
    for expected in [JobState::Running, JobState::Completed] {
        let before = view(&node, &made.job_id).await;
        let refused =
            node.queue.prioritise(&made.job_id, Priority::High).await.expect_err("it does not wait");
        assert!(matches!(refused, QueueError::NotWaiting { state, .. } if state == expected), "{refused}");
        assert_eq!(view(&node, &made.job_id).await, before);
        if expected == JobState::Running {
            node.queue.finish(&lease, Vec::new(), passed()).await.expect("an end");
        }
    }
    let nobody = "job_nobody".parse().expect("a job id");
    let missing = node.queue.prioritise(&nobody, Priority::High).await;
    assert!(matches!(missing, Err(QueueError::NotFound(_))), "{missing:?}");
}

const SUITES: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

/// The queue as one would write it without a thought of how long it takes.
#[derive(Default)]
struct Naive {
    /// Priority, number, suite of those who wait.
    waiting: Vec<(Priority, usize, Option<&'static str>)>,
    running: Vec<(Option<&'static str>, Claim)>,
    paused: HashSet<Scope>,
    limits: BTreeMap<&'static str, u32>,
    ids: Vec<JobId>,
}

impl Naive {
    fn next(&mut self) -> Option<usize> {
        self.waiting.sort_by_key(|(priority, number, _)| (std::cmp::Reverse(*priority), *number));
        let at = self.waiting.iter().position(|(_, _, of)| {
            let held = |scope: &Scope| self.paused.contains(scope);
            let running = self.running.iter().filter(|(suite, _)| suite == of).count();
            let full = of.and_then(|of| self.limits.get(of)).is_some_and(|most| running >= *most as usize);
            !(held(&Scope::All) || held(&command()) || of.is_some_and(|of| held(&suite(of))) || full)
        })?;
        Some(self.waiting.remove(at).1)
    }

    /// Claims from both.
    async fn check_claim(&mut self, node: &Node, max: usize) {
        let claims = claim_up_to(node, max).await;
        for claim in &claims {
            let expected = self.next().map(|n| self.ids[n].clone());
            assert_eq!(Some(&claim.job.job_id), expected.as_ref());
            let of = claim.job.suite().and_then(|of| SUITES.into_iter().flatten().find(|s| *s == of));
            self.running.push((of, claim.clone()));
        }
        if claims.len() < max {
            assert_eq!(self.next(), None, "somebody was forgotten");
        }
    }
}

async fn whatever_is_asked_who_is_claimed_next_is_who_should_be(backend: &dyn Backend) {
    let node = backend.start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut naive = Naive::default();
    for _ in 0..250 {
        let priority = random.choice(Priority::ALL).expect("one");
        let scope = match random.u8(..8) {
            0 => Scope::All,
            1 => command(),
            2..4 => suite("a"),
            4..6 => suite("b"),
            _ => suite("c"),
        };
        match random.u8(..20) {
            0..8 => {
                let of = random.choice(SUITES).expect("one");
                let new = of.map_or_else(|| job("command"), of_suite);
                let made = submit(&node, NewJob { priority, ..new }).await;
                naive.waiting.push((priority, naive.ids.len(), of));
                naive.ids.push(made.job_id);
            }
            8..13 => naive.check_claim(&node, random.usize(1..4)).await,
            13..16 if !naive.running.is_empty() => {
                let (_, claim) = naive.running.swap_remove(random.usize(..naive.running.len()));
                end(&node, &claim).await;
            }
            16 if !naive.waiting.is_empty() => {
                let at = random.usize(..naive.waiting.len());
                naive.waiting[at].0 = priority;
                let id = naive.ids[naive.waiting[at].1].clone();
                node.queue.prioritise(&id, priority).await.expect("it waits");
            }
            17 => {
                let of = random.choice(["a", "b"]).expect("one");
                let most = random.choice([None, Some(1), Some(2)]).expect("one");
                match most {
                    Some(most) => naive.limits.insert(of, most),
                    None => naive.limits.remove(of),
                };
                limit(&node, of, most).await;
            }
            18.. if naive.paused.remove(&scope) => unpause(&node, &scope).await,
            18.. => {
                pause(&node, &scope).await;
                naive.paused.insert(scope);
            }
            _ => {}
        }
    }
}
