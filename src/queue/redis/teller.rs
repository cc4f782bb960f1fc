//! The teller: appends the news of jobs, those of one job in their order, and then forgets them.
//!
//! A few tasks, each for its own tests, take what waits together, so that many changes become few calls; while one
//! waits for Redis, others prepare theirs. A change that could not be told stays in its job; whoever changes the job
//! next is handed it again, and so is whoever sweeps. Telling twice does no harm, because the ids of the messages are
//! those of the change.
//!
//! A test may have another job before whoever ended its last one has told of that: the beginning then names the job before,
//! and whoever is to tell it tells first what is left of that one. A test that had begun anew would refuse its end.
//!
//! Where much is to be told, that an attempt began waits a moment: if the attempt tells something else meanwhile, both go
//! together, in one append to each channel of the job.

mod before;
mod memory;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::row::News;
use super::story::story;
use crate::broker::{AppendGroup, Broker, BrokerError};
use crate::config::channels::Rules;
use crate::model::{JobId, Snapshot, TestId};
use crate::tasks::Tasks;
use before::Before;
use memory::Memory;

/// How many tasks tell.
const TELLERS: usize = 2;
/// How many requests may wait for each of them; beyond it their senders do.
const WAITING: usize = 256;
/// How many requests are taken at once.
const TOGETHER: usize = 256;
/// How many groups go to the broker in one step at most, unless one change has more.
const GROUPS: usize = 128;
/// News that were asked for so long ago may have been told by others, and have been forgotten by the channel: they are
/// left to the sweep, which reads them anew.
const FRESH: Duration = Duration::from_secs(10);
/// So many requests under way are much.
const MUCH: usize = 8;
/// How long a beginning waits for more of its attempt then.
const PATIENCE: Duration = Duration::from_millis(20);

/// Where news are handed in.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    requests: Arc<[mpsc::Sender<Request>]>,
    /// Where beginnings wait.
    patient: mpsc::Sender<Patient>,
    /// How many requests are not answered yet.
    under_way: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Request {
    news: Vec<News>,
    asked_at: Instant,
    done: oneshot::Sender<bool>,
    _under_way: UnderWay,
}

/// A request that is told now: all that has to be, each with when Redis was asked for it at the earliest.
#[derive(Debug)]
struct Fresh {
    news: Vec<(News, Instant)>,
    done: oneshot::Sender<bool>,
    _under_way: UnderWay,
}

/// News that are handed over at `due`; what somebody has told until then is not told again.
#[derive(Debug)]
struct Patient {
    news: Vec<News>,
    asked_at: Instant,
    due: Instant,
}

/// Counts a request until it is answered.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

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
    /// What has messages in this step, and may not begin anew in it, be it for another job: they would come too late.
    tests: HashSet<TestId>,
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
        let (patient, mut waiting) = mpsc::channel::<Patient>(WAITING);
        let under_way = Arc::new(AtomicUsize::new(0));
        let teller = Self { requests: (0..TELLERS).map(start).collect(), patient, under_way };
        let own = teller.clone();
        tasks.spawn("queue-teller-patient", async move {
            // All wait equally long, so that the first is due first.
            while let Some(Patient { news, asked_at, due }) = waiting.recv().await {
                tokio::time::sleep_until(due.into()).await;
                own.hand_over(news, asked_at).await;
            }
        });
        teller
    }

    /// Tells `news`, which Redis was asked for at `asked_at` or later, and waits until they were told; whether they were.
    /// If not, the sweep will.
    pub(super) async fn tell(&self, news: Vec<News>, asked_at: Instant) -> bool {
        let mut all = true;
        for told in self.hand_over(news, asked_at).await {
            all &= told.await.unwrap_or(false);
        }
        all
    }

    /// Hands over `news` of attempts that begin, at once if little is to be told.
    pub(super) async fn hand_over_beginnings(&self, news: Vec<News>, asked_at: Instant) {
        if self.under_way.load(Ordering::Relaxed) < MUCH {
            self.hand_over(news, asked_at).await;
        } else {
            // Its task ends with the process.
            let _ = self.patient.send(Patient { news, asked_at, due: Instant::now() + PATIENCE }).await;
        }
    }

    /// Hands over `news`, which are told as soon as it is their turn, those of a test in their order. Each of the answers
    /// is there when some of them were told.
    pub(super) async fn hand_over(&self, news: Vec<News>, asked_at: Instant) -> Vec<oneshot::Receiver<bool>> {
        let mut parts = [const { Vec::new() }; TELLERS];
        for news in news {
            parts[turn(&news.job.test_id)].push(news);
        }
        let mut telling = Vec::new();
        for (news, requests) in parts.into_iter().zip(&*self.requests).filter(|(news, _)| !news.is_empty()) {
            let (done, told) = oneshot::channel();
            // They end with the process; then the answer is that nothing was told.
            let _under_way = UnderWay::new(&self.under_way);
            let _ = requests.send(Request { news, asked_at, done, _under_way }).await;
            telling.push(told);
        }
        telling
    }
}

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        let (mut requests, mut memory) = (Vec::new(), Memory::default());
        while waiting.recv_many(&mut requests, TOGETHER).await > 0 {
            let fresh = self.fresh(std::mem::take(&mut requests), &memory).await;
            let mut told = HashSet::new();
            for step in self.steps(&fresh, &memory) {
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
                let is_told = |(news, asked_at): &(News, Instant)| {
                    told.contains(&news.id()) || memory.has(news, *asked_at)
                };
                let _ = request.done.send(request.news.iter().all(is_told));
            }
            memory.add(told);
            if let Some(forgetting) = forgetting {
                self.tasks.spawn("queue-forgetting", forgetting);
            }
        }
    }

    /// The requests that are not left to the sweep, each with what has to be told before it.
    async fn fresh(&self, requests: Vec<Request>, memory: &Memory) -> Vec<Fresh> {
        let news =
            requests.iter().flat_map(|request| request.news.iter().map(|news| (news, request.asked_at)));
        let wanted = Before::wanted(news, memory);
        let before = Before::read(&self.link, wanted).await;
        let mut fresh = Vec::with_capacity(requests.len());
        for Request { news, asked_at, done, _under_way } in requests {
            // The reading may have taken its time.
            if asked_at.elapsed() <= FRESH
                && let Some(news) = before.in_order(news, asked_at, memory)
            {
                fresh.push(Fresh { news, done, _under_way });
            }
        }
        fresh
    }

    /// Puts the news into as few steps as keep the order of each job, and are not too large.
    fn steps(&self, requests: &[Fresh], memory: &Memory) -> Vec<Step> {
        let (mut steps, mut step, mut known) = (Vec::new(), Step::default(), HashSet::new());
        for (news, asked_at) in requests.iter().flat_map(|request| &request.news) {
            if memory.has(news, *asked_at) {
                continue;
            }
            let id = news.id();
            if !known.insert(id.clone()) {
                continue;
            }
            let told = story(&self.rules, news);
            let begins = told.begun.is_some() && step.tests.contains(&news.job.test_id);
            if begins || step.groups.len() + told.groups.len() > GROUPS {
                steps.push(std::mem::take(&mut step));
            }
            step.begun.extend(told.begun);
            if !told.groups.is_empty() {
                step.tests.insert(news.job.test_id.clone());
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
        let mut changes: BTreeMap<JobId, Vec<i64>> = BTreeMap::new();
        for (job, number) in told {
            changes.entry(job.clone()).or_default().push(*number);
        }
        let link = self.link.clone();
        let mut forgetting = Box::pin(async move {
            if let Err(error) = link.told(&changes).await {
                // The sweep tells it again, and then it is forgotten.
                tracing::debug!(%error, "told news could not be forgotten");
            }
        });
        let sent = futures_util::poll!(&mut forgetting);
        sent.is_pending().then_some(forgetting)
    }
}
