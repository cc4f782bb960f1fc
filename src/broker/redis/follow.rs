//! Following: who is interested in what, and the thread in which the follower tells the sink.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::time::Instant;

use super::core::Core;
use super::follower::{Done, Entry, Follower, Input, Output, Resync, Told};
use super::read::with_ids;
use crate::broker::{BrokerError, LiveSink, PageLimit};
use crate::model::{ChannelName, Position};
use crate::redis::{Heard, Listener, RedisFault, Subscriber};
use crate::tasks::Tasks;

/// How many things may wait to be heard. What there is no room for is read from history later.
const QUEUE: usize = 8192;
/// How many of them are told together.
const TAKE: usize = 512;
/// How long a channel stays followed that nobody listens to any more: people come back.
const LINGER: Duration = Duration::from_secs(30);
/// The pause between two looks at those.
const LINGER_LOOK: Duration = Duration::from_secs(1);
/// How long a gap may be filled by what is on its way: an answer may overtake a publication.
const GAP: Duration = Duration::from_millis(20);
/// How long an append waits for its messages to be told here.
const TELLING: Duration = Duration::from_secs(1);
/// How many channels are looked at, at once, after something was missed.
const RESYNCS: usize = 32;
/// The pauses after failed looks.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How much is read of history at once.
const PAGE: PageLimit = PageLimit { messages: 256, bytes: 256 * 1024 };

struct Interest {
    life: u64,
    opened: Arc<OnceCell<()>>,
    idle_since: Option<Instant>,
}

/// Who tells the sink of what.
pub(super) struct Follow {
    core: Arc<Core>,
    sink: Arc<OnceLock<Arc<dyn LiveSink>>>,
    inputs: mpsc::Sender<Input>,
    subscriber: Subscriber,
    interests: Mutex<HashMap<ChannelName, Interest>>,
    lives: AtomicU64,
}

impl Follow {
    pub(super) fn start(core: Arc<Core>, tasks: &Tasks) -> Arc<Self> {
        let (inputs, queue) = mpsc::channel(QUEUE);
        let sink = Arc::new(OnceLock::new());
        let weak = inputs.downgrade();
        let same = core.clone();
        let listener: Listener = Arc::new(move |heard| {
            if matches!(heard, Heard::Missed) {
                same.suspicion.notify_one();
            }
            let Some(inputs) = weak.upgrade() else { return true };
            let input = match heard {
                Heard::Message { name, payload } => Input::Publication { name, payload },
                Heard::Missed => Input::Missed,
            };
            inputs.try_send(input).is_ok()
        });
        let subscriber = Subscriber::start(&core.redis, listener, tasks);
        let teller = Teller {
            core: core.clone(),
            sink: sink.clone(),
            inputs: inputs.downgrade(),
            tasks: tasks.clone(),
            turns: Arc::new(Semaphore::new(RESYNCS)),
            runtime: Handle::current(),
        };
        // The sink may wait, so it is not a task that tells it.
        let spawned =
            std::thread::Builder::new().name("redis-follower".to_owned()).spawn(move || teller.run(queue));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for what is published on other nodes: nothing will be heard");
        }
        let (interests, lives) = (Mutex::default(), AtomicU64::new(1));
        let follow = Arc::new(Self { core, sink, inputs, subscriber, interests, lives });
        let lingering = Arc::downgrade(&follow);
        tasks.spawn("redis-linger", async move {
            loop {
                tokio::time::sleep(LINGER_LOOK).await;
                let Some(follow) = lingering.upgrade() else { return };
                follow.forget_idle().await;
            }
        });
        follow
    }

    /// Hands in the sink. Only the first one counts.
    pub(super) fn connect(&self, sink: Arc<dyn LiveSink>) {
        let _ = self.sink.set(sink);
    }

    /// Whether publications are heard.
    pub(super) fn ready(&self) -> Result<(), RedisFault> {
        self.subscriber.ready()
    }

    pub(super) async fn follow(&self, channel: &ChannelName) -> Result<(), BrokerError> {
        let (life, opened) = {
            let mut interests = self.lock();
            let interest = interests.entry(channel.clone()).or_insert_with(|| Interest {
                life: self.lives.fetch_add(1, Ordering::Relaxed),
                opened: Arc::default(),
                idle_since: None,
            });
            interest.idle_since = None;
            (interest.life, interest.opened.clone())
        };
        opened.get_or_try_init(|| self.open(channel, life)).await.map(drop)
    }

    async fn open(&self, channel: &ChannelName, life: u64) -> Result<(), BrokerError> {
        self.send(Input::Open { channel: channel.clone(), life }).await;
        // Before the top is read, or a message falls between.
        self.subscriber.listen(&self.core.redis, self.core.key(channel, self.core.publication())).await?;
        let from = self.core.top(channel).await?.position;
        self.send(Input::Begin { channel: channel.clone(), life, from }).await;
        Ok(())
    }

    pub(super) fn unfollow(&self, channel: &ChannelName) {
        if let Some(interest) = self.lock().get_mut(channel) {
            interest.idle_since = Some(Instant::now());
        }
    }

    /// Whether the sink hears of the channel.
    pub(super) fn wants(&self) -> impl Fn(&ChannelName) -> bool + '_ {
        |channel| self.lock().contains_key(channel)
    }

    async fn forget_idle(&self) {
        let mut idle = Vec::new();
        {
            let mut interests = self.lock();
            interests.retain(|channel, interest| {
                let used = interest.idle_since.is_none_or(|since| since.elapsed() < LINGER);
                // Under the lock: whoever follows it again asks after this.
                let keeps = used || !self.subscriber.forget(self.core.key(channel, self.core.publication()));
                if !keeps {
                    idle.push((channel.clone(), interest.life));
                }
                keeps
            });
        }
        for (channel, life) in idle {
            self.send(Input::Close { channel, life }).await;
        }
    }

    /// Has this node's own messages told, and waits for that, within reason.
    pub(super) async fn tell(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let (done, told) = Done::new();
        let telling = async {
            self.send(Input::Own { entries, done }).await;
            let _ = told.await;
        };
        if tokio::time::timeout(TELLING, telling).await.is_err() {
            tracing::debug!("messages are stored, but not told here yet: something before them is missing");
        }
    }

    async fn send(&self, input: Input) {
        // Without its thread nobody listens; that was logged.
        let _ = self.inputs.send(input).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelName, Interest>> {
        // An entry is never left half changed.
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that tells.
struct Teller {
    core: Arc<Core>,
    sink: Arc<OnceLock<Arc<dyn LiveSink>>>,
    inputs: mpsc::WeakSender<Input>,
    tasks: Tasks,
    turns: Arc<Semaphore>,
    runtime: Handle,
}

impl Teller {
    fn run(self, mut queue: mpsc::Receiver<Input>) {
        let _runtime = self.runtime.enter();
        let mut follower = Follower::default();
        let mut taken = Vec::with_capacity(TAKE);
        while queue.blocking_recv_many(&mut taken, TAKE) > 0 {
            let mut output = Output::default();
            for input in taken.drain(..) {
                follower.hear(&self.core, input, &mut output);
            }
            self.carry_out(output);
        }
    }

    fn carry_out(&self, output: Output) {
        let Output { told, done, resync, gaps } = output;
        if let Some(sink) = self.sink.get() {
            for told in told {
                match told {
                    Told::Messages(messages) => sink.published(messages),
                    Told::Reset(channel, top) => sink.reset(&channel, *top),
                }
            }
        }
        drop(done);
        for (channel, life) in gaps {
            let inputs = self.inputs.clone();
            self.tasks.spawn("redis-gap", async move {
                tokio::time::sleep(GAP).await;
                if let Some(inputs) = inputs.upgrade() {
                    let _ = inputs.send(Input::Overdue { channel, life }).await;
                }
            });
        }
        for resync in resync {
            let reader = Reader { core: self.core.clone(), inputs: self.inputs.clone(), resync };
            let turns = self.turns.clone();
            self.tasks.spawn("redis-resync", async move {
                // It is closed with nobody.
                let _turn = turns.acquire_owned().await;
                reader.run().await;
            });
        }
    }
}

/// Brings one channel up to date.
struct Reader {
    core: Arc<Core>,
    inputs: mpsc::WeakSender<Input>,
    resync: Resync,
}

impl Reader {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        while let Err(error) = self.read().await {
            tracing::debug!(channel = %self.resync.channel, %error, "what was missed cannot be read yet");
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() * 0.5)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if self.resync.alive.upgrade().is_none() {
                return;
            }
        }
        let (channel, life) = (self.resync.channel.clone(), self.resync.life);
        self.send(Input::Settled { channel, life }).await;
    }

    async fn read(&mut self) -> Result<(), BrokerError> {
        let core = self.core.clone();
        let (channel, life) = (self.resync.channel.clone(), self.resync.life);
        let (epoch, top) = core.check(&channel, &self.resync.known).await?;
        if epoch != self.resync.known.epoch {
            return self.reset().await;
        }
        while self.resync.known.offset < top {
            let known = self.resync.known.offset;
            let Some(found) = core.read(&channel, known, PAGE).await? else { return self.reset().await };
            if found.page.epoch != epoch {
                return self.reset().await;
            }
            let position = Position { epoch: epoch.clone(), offset: found.page.top };
            match found.page.messages.first() {
                Some(first) if first.position.offset == known + 1 => {}
                _ if core.history_of(&channel).is_some_and(|history| history.size == 0) => {
                    self.send(Input::Skip { channel, life, to: position }).await;
                    return Ok(());
                }
                _ => return self.reset().await,
            }
            let entries = with_ids(found);
            if let Some((id, last)) = entries.last() {
                self.resync.known.offset = last.position.offset;
                self.resync.known.id = Some(id.clone());
            }
            self.send(Input::Page { channel: channel.clone(), life, entries }).await;
        }
        Ok(())
    }

    /// What was missed cannot be told.
    async fn reset(&mut self) -> Result<(), BrokerError> {
        let (channel, life) = (self.resync.channel.clone(), self.resync.life);
        let top = self.core.top(&channel).await?;
        self.resync.known.epoch = top.position.epoch.clone();
        self.resync.known.offset = top.position.offset;
        self.resync.known.id = None;
        self.send(Input::Reset { channel, life, top: Box::new(top) }).await;
        Ok(())
    }

    async fn send(&self, input: Input) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.send(input).await;
        }
    }
}
