//! The teller: appends the news of jobs, those of one job in their order, and then forgets them.
//!
//! A few tasks, each for its own tests, take what waits together, so that many changes become few calls; while one
//! waits for Redis, others prepare theirs. A change that could not be told stays in its job; whoever changes the job
//! next is handed it again, and so is whoever sweeps. Telling twice does no harm, because the ids of the messages are
//! those of the change.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::row::News;
use super::story::story;
use crate::broker::{AppendGroup, Broker, BrokerError};
use crate::config::channels::Rules;
use crate::model::{JobId, Snapshot, TestId};
use crate::tasks::Tasks;

/// How many tasks tell.
const TELLERS: usize = 4;
/// How many requests may wait for each of them; beyond it their senders do.
const WAITING: usize = 256;
/// How many requests are taken at once.
const TOGETHER: usize = 256;
/// How many groups go to the broker in one step at most, unless one change has more.
const GROUPS: usize = 128;
/// News that were read so long ago may have been told by others, and have been forgotten by the channel: they are
/// left to the sweep, which reads them anew.
const FRESH: Duration = Duration::from_secs(10);

/// Where news are handed in.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    requests: Arc<[mpsc::Sender<Request>]>,
}

#[derive(Debug)]
struct Request {
    news: Vec<News>,
    read_at: Instant,
    done: oneshot::Sender<bool>,
}

#[derive(Clone)]
struct Work {
    tasks: Tasks,
    link: Link,
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
}

/// What goes to the broker in one step: beginnings of tests, then messages.
#[derive(Default)]
struct Step {
    begun: Vec<Snapshot>,
    groups: Vec<(TestId, AppendGroup)>,
    /// Who has messages in this step, and may not begin anew in it.
    jobs: HashSet<JobId>,
    news: Vec<(JobId, i64)>,
}

impl Teller {
    pub(super) fn start(link: Link, broker: Arc<dyn Broker>, rules: Arc<Rules>, tasks: &Tasks) -> Self {
        let work = Work { tasks: tasks.clone(), link, broker, rules };
        let start = |n| {
            let (requests, waiting) = mpsc::channel(WAITING);
            tasks.spawn(format!("queue-teller-{n}"), work.clone().run(waiting));
            requests
        };
        Self { requests: (0..TELLERS).map(start).collect() }
    }

    /// Tells `news` and waits until they were told; whether they were. If not, the sweep will.
    pub(super) async fn tell(&self, news: Vec<News>) -> bool {
        let read_at = Instant::now();
        let mut parts = [const { Vec::new() }; TELLERS];
        for news in news {
            parts[turn(&news.job.test_id)].push(news);
        }
        let mut telling = Vec::new();
        for (news, requests) in parts.into_iter().zip(&*self.requests).filter(|(news, _)| !news.is_empty()) {
            let (done, told) = oneshot::channel();
            // They end with the process.
            if requests.send(Request { news, read_at, done }).await.is_err() {
                return false;
            }
            telling.push(told);
        }
        let mut all = true;
        for told in telling {
            all &= told.await.unwrap_or(false);
        }
        all
    }
}

/// Who tells of a test: always the same, because jobs of one test have an order among them.
fn turn(test: &TestId) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(test.as_str());
    usize::try_from(hash % (TELLERS as u64)).unwrap_or(0)
}

/// What is told of several tests, each in its own order, so that what has the same mirrors stands side by side: then
/// each of these has one publication for all of them.
fn in_columns(groups: Vec<(TestId, AppendGroup)>) -> Vec<AppendGroup> {
    let mut heights: HashMap<TestId, usize> = HashMap::new();
    let mut columns: Vec<_> = groups
        .into_iter()
        .map(|(test, group)| {
            let height = heights.entry(test).or_default();
            *height += 1;
            (*height, group)
        })
        .collect();
    let mirror = |group: &AppendGroup| group.mirrors.first().map(|mirror| mirror.channel.clone());
    columns.sort_by_cached_key(|(height, group)| (*height, mirror(group), group.mirrors.len()));
    columns.into_iter().map(|(_, group)| group).collect()
}

impl Work {
    async fn run(self, mut waiting: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        while waiting.recv_many(&mut requests, TOGETHER).await > 0 {
            let stale = |request: &Request| request.read_at.elapsed() > FRESH;
            let fresh: Vec<_> = std::mem::take(&mut requests).into_iter().filter(|r| !stale(r)).collect();
            let mut told = HashSet::new();
            for step in self.steps(&fresh) {
                let (begun, groups) = (step.begun, step.groups);
                if let Err(error) = self.take(begun, in_columns(groups)).await {
                    tracing::warn!(%error, "changes of jobs could not be told; they will be when the broker is back");
                    break;
                }
                told.extend(step.news);
            }
            // On its way before anybody hears of the end, so that whoever changes a job next is not handed this again.
            let forgetting = self.forget(&told).await;
            for request in fresh {
                let all = request.news.iter().all(|n| told.contains(&(n.job.job_id.clone(), n.seq)));
                let _ = request.done.send(all);
            }
            if let Some(forgetting) = forgetting {
                self.tasks.spawn("queue-forgetting", forgetting);
            }
        }
    }

    /// Puts the news into as few steps as keep the order of each job, and are not too large.
    fn steps(&self, requests: &[Request]) -> Vec<Step> {
        let (mut steps, mut step, mut known) = (Vec::new(), Step::default(), HashSet::new());
        for news in requests.iter().flat_map(|request| &request.news) {
            let id = (news.job.job_id.clone(), news.seq);
            if !known.insert(id.clone()) {
                continue;
            }
            let told = story(&self.rules, news);
            let begins = told.begun.is_some() && step.jobs.contains(&news.job.job_id);
            if begins || step.groups.len() + told.groups.len() > GROUPS {
                steps.push(std::mem::take(&mut step));
            }
            step.begun.extend(told.begun);
            if !told.groups.is_empty() {
                step.jobs.insert(id.0.clone());
            }
            step.groups.extend(told.groups.into_iter().map(|group| (news.job.test_id.clone(), group)));
            step.news.push(id);
        }
        steps.push(step);
        steps
    }

    async fn take(&self, begun: Vec<Snapshot>, groups: Vec<AppendGroup>) -> Result<(), BrokerError> {
        if !begun.is_empty() {
            self.broker.begin(begun).await?;
        }
        if groups.is_empty() {
            return Ok(());
        }
        let named = |group: &AppendGroup| (group.first.channel.clone(), group.first.event.clone());
        let names: Vec<_> = groups.iter().map(named).collect();
        let answers = self.broker.append(groups).await?;
        for ((channel, event), answer) in names.iter().zip(answers) {
            if let Err(refused) = answer {
                // The job's own state decides; its test was written to from outside in a way that does not fit.
                tracing::warn!(%channel, %event, %refused, "a test's story does not fit its job");
            }
        }
        Ok(())
    }

    /// Sends that `told` may be forgotten; what is left is to wait for the answer.
    async fn forget(&self, told: &HashSet<(JobId, i64)>) -> Option<impl Future<Output = ()> + use<>> {
        if told.is_empty() {
            return None;
        }
        let pairs = told.iter().flat_map(|(job, seq)| [job.to_string(), seq.to_string()]).collect::<Vec<_>>();
        let link = self.link.clone();
        let mut forgetting = Box::pin(async move {
            if let Err(error) = link.told(pairs).await {
                // The sweep tells it again, and then it is forgotten.
                tracing::debug!(%error, "told news could not be forgotten");
            }
        });
        let sent = futures_util::poll!(&mut forgetting);
        sent.is_pending().then_some(forgetting)
    }
}
