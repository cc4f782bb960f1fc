//! Two thousand jobs at once, on the real queue and the real worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{Broker, PageLimit};
use tidings::config::channels::Rules;
use tidings::inbox::Inbox;
use tidings::inbox::embedded::EmbeddedInbox;
use tidings::model::{ChannelName, JobId, JobState, Message, Priority};
use tidings::queue::embedded::EmbeddedQueue;
use tidings::queue::{NewJob, Queue, QueueOptions};
use tidings::store::{Store, Synchronous};
use tidings::sync::SyncState;
use tidings::sync::embedded::EmbeddedSync;
use tidings::tasks::Tasks;
use tidings::upkeep;
use tidings::worker::pool::{Pool, PoolOptions};
use tidings::worker::runner::{Attempt, Outcome, Runner, RunnerSet};

const JOBS: usize = 2_000;
const SLOTS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// Notes which job ran, in the order of their beginnings, and passes.
#[derive(Default)]
struct Noter(Mutex<Vec<(Priority, JobId)>>);

#[async_trait]
impl Runner for Noter {
    fn test_type(&self) -> &'static str {
        "note"
    }

    fn check(&self, _: &Map<String, Value>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, attempt: Attempt) -> Outcome {
        let job = &attempt.job;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((job.priority, job.job_id.clone()));
        tokio::task::yield_now().await;
        Outcome::Passed { results: Map::new() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_jobs_end_in_priority_order_each_with_one_terminal_event() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let rules = Arc::new(Rules::builtin());
    let broker: Arc<dyn Broker> =
        Arc::new(EmbeddedBroker::new(store.clone(), rules.clone(), Live::default()));
    let queue = EmbeddedQueue::open(store.clone(), rules, Live::default(), options());
    let queue: Arc<dyn Queue> = Arc::new(queue.await.expect("the queue opens"));
    submit_all_at_once(&queue).await;

    let (tasks, noter) = (Tasks::new(), Arc::new(Noter::default()));
    let sync: Arc<dyn SyncState> = Arc::new(EmbeddedSync::new(store.clone(), DEADLINE));
    let inbox: Arc<dyn Inbox> = Arc::new(EmbeddedInbox::new(store.clone(), Duration::from_secs(3600)));
    upkeep::start(&queue, &broker, &sync, &inbox, &tasks);
    let runners: RunnerSet = [noter.clone() as Arc<dyn Runner>].into_iter().collect();
    let options =
        PoolOptions { concurrency: SLOTS, lease: Duration::from_secs(15), default_timeout: DEADLINE };
    let pool = Pool::start(queue.clone(), Arc::new(runners), options, &tasks);
    let ended = async {
        while queue.counts().await.expect("counts")[JobState::Completed.name()] < JOBS as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("all jobs end in time");
    pool.stop(Duration::ZERO).await;
    assert!(tasks.stop(DEADLINE).await, "all tasks end");

    assert_in_priority_order(&noter.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert_one_end_each(&*broker).await;
    store.close().await;
}

async fn submit_all_at_once(queue: &Arc<dyn Queue>) {
    let mut submissions = tokio::task::JoinSet::new();
    for n in 0..JOBS {
        let (queue, priority) = (queue.clone(), Priority::ALL[n % 4]);
        submissions.spawn(async move { queue.submit(new_job(priority)).await.expect("submitted") });
    }
    assert_eq!(submissions.join_all().await.len(), JOBS);
}

/// Claims are made in the right order one by one; up to `SLOTS` attempts then begin side by side, so a
/// beginning may be noted that many places off.
fn assert_in_priority_order(noted: &[(Priority, JobId)]) {
    assert_eq!(noted.len(), JOBS);
    let mut right: Vec<Priority> = noted.iter().map(|(priority, _)| *priority).collect();
    right.sort_by_key(|priority| std::cmp::Reverse(*priority));
    for (place, (priority, job)) in noted.iter().enumerate() {
        let near = &right[place.saturating_sub(SLOTS)..(place + SLOTS + 1).min(JOBS)];
        assert!(near.contains(priority), "{job} with {priority} began at place {place}");
    }
}

async fn assert_one_end_each(broker: &dyn Broker) {
    let channel = ChannelName::parse("queue-updates").expect("a name");
    let all = PageLimit { messages: 100_000, bytes: usize::MAX };
    let page = broker.history(&channel, 0, all).await.expect("history");
    assert_eq!(page.oldest, 1, "the whole story is still there");
    let mut ends: HashMap<String, Vec<String>> = HashMap::new();
    for (index, message) in page.messages.iter().enumerate() {
        assert_eq!(message.position.offset, index as u64 + 1);
        let read: Message = serde_json::from_str(message.json().get()).expect("a message");
        if let "queue:job:completed" | "queue:job:failed" | "queue:job:cancelled" = read.event.as_str() {
            let job = read.data["jobId"].as_str().expect("a job id").to_owned();
            ends.entry(job).or_default().push(read.event.to_string());
        }
    }
    assert_eq!(ends.len(), JOBS);
    for (job, ends) in ends {
        assert_eq!(ends, ["queue:job:completed"], "{job}");
    }
}

fn new_job(priority: Priority) -> NewJob {
    NewJob {
        test_type: "note".to_owned(),
        name: None,
        config: Map::new(),
        test_id: None,
        priority,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: None,
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

fn options() -> QueueOptions {
    QueueOptions {
        max_attempts: 3,
        lease: Duration::from_secs(15),
        backoff_base: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        retention: Duration::from_secs(3600),
        max_jobs_kept: 100_000,
    }
}
