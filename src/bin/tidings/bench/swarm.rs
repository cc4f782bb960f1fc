//! Thousands of subscribers in a few threads, cheap enough that they do not measure themselves.
//!
//! Each thread has one event loop and one read buffer; a connection keeps bytes of its own only while a frame is
//! cut. Messages are found by the stamp that they carry, without reading JSON, and every one is accounted for.

mod account;
mod floor;
mod frame;
mod link;
mod member;
mod packet;
mod stamp;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mio::{Poll, Token, Waker};

pub(super) use account::{Account, Totals};
pub(super) use link::most_connections;
pub(super) use member::Tally;
pub(super) use stamp::Marker;

use packet::Greeting;
use worker::{Command, Told, Worker};

use super::pace::Pace;
use super::target::Target;

/// The token of what wakes a thread; no member has it.
const WAKER: Token = Token(usize::MAX);
/// How long a thread may take to answer; it is never busy for long.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What all threads know.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    greeting: Greeting,
    /// The rooms; subscribers are spread over them in turn.
    pub(super) rooms: Vec<String>,
    pub(super) marker: Marker,
    /// Whether times do not matter to the millisecond: under full load, messages are then read less often and more at
    /// once. Being woken for every few messages would cost most of a core, which the server could use, and the
    /// server itself pays for waking us.
    pub(super) gather: bool,
    /// What the times in messages are counted from.
    pub(super) origin: Instant,
}

/// What can be seen of the threads at any time.
#[derive(Debug, Default)]
struct Shared {
    joined: AtomicU64,
    failed: AtomicU64,
    delivered: AtomicU64,
}

/// The subscribers.
#[derive(Debug)]
pub(super) struct Swarm {
    subscribers: usize,
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    commands: Sender<Command>,
    waker: Waker,
    handle: JoinHandle<std::io::Result<()>>,
}

/// What the swarm counted since it was last asked.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) tally: Tally,
    /// CPU time of all threads, since they started.
    pub(super) cpu: Duration,
    /// Why connections failed since they started.
    pub(super) reasons: BTreeMap<String, u64>,
    /// How many connections are how far.
    pub(super) stages: BTreeMap<&'static str, u64>,
}

/// A histogram of microseconds, up to an hour.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order")
}

/// A duration as it stands in a histogram.
pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Plan {
    pub(super) fn new(
        target: &Target,
        rooms: Vec<String>,
        marker: Marker,
        batch: bool,
        gather: bool,
    ) -> Self {
        let greeting = Greeting::new(&target.authority, &target.base, target.token.as_deref(), batch);
        Self { server: target.address, greeting, rooms, marker, gather, origin: Instant::now() }
    }
}

impl Swarm {
    /// Starts `threads` threads for `subscribers` subscribers, none of which is connected yet.
    pub(super) fn start(
        plan: &Arc<Plan>,
        subscribers: usize,
        threads: usize,
        pace: &Arc<Pace>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut started = Vec::with_capacity(threads);
        for thread in 0..threads {
            let poll = Poll::new().context("no event loop could be made")?;
            let waker = Waker::new(poll.registry(), WAKER).context("no event loop could be made")?;
            let (commands, inbox) = channel();
            let rooms = plan.rooms.len();
            // A room's subscribers are spread over the threads, too.
            let members = (0..subscribers)
                .filter(move |index| index / rooms % threads == thread)
                .map(move |index| (index, index % rooms));
            let seams = (Arc::clone(plan), Arc::clone(&shared), Arc::clone(pace));
            let worker = Worker::new(thread, (poll, inbox), members, seams);
            let handle = std::thread::Builder::new()
                .name(format!("swarm-{thread}"))
                .spawn(move || worker.run())
                .context("a thread could not be started")?;
            started.push(Thread { commands, waker, handle });
        }
        Ok(Self { subscribers, shared, threads: started })
    }

    pub(super) fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Different messages that have come, over all subscribers.
    pub(super) fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// Connections that failed.
    pub(super) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Connections that have joined since they were last told to.
    pub(super) fn joined(&self) -> u64 {
        self.shared.joined.load(Ordering::Relaxed)
    }

    /// Tells everybody to connect and join, `at_once` connections being on their way at a time; `resume`: to come
    /// back to where they were.
    pub(super) fn connect(&self, at_once: usize, resume: bool) -> anyhow::Result<()> {
        self.shared.joined.store(0, Ordering::Relaxed);
        let called = Instant::now();
        let at_once = at_once.div_ceil(self.threads.len());
        self.tell_all(|| Command::Connect { at_once, resume, called })
    }

    /// Waits until everybody has joined or failed; an error says who did not, and how far they are.
    pub(super) fn wait_joined(&self, deadline: Duration, mut look: impl FnMut(u64)) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let (joined, failed) = (self.joined(), self.failed());
            look(joined);
            if joined + failed >= self.subscribers as u64 {
                return Ok(());
            }
            if Instant::now() >= end {
                let mut counted = self.count()?;
                counted.stages.remove("joined");
                let stages: Vec<_> = counted.stages.iter().map(|(stage, n)| format!("{n} {stage}")).collect();
                bail!(
                    "only {joined} of {} clients joined within {deadline:?}: {}{}",
                    self.subscribers,
                    stages.join(", "),
                    counted.reasons.keys().next().map(|reason| format!(" ({reason})")).unwrap_or_default()
                );
            }
            self.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Drops all connections, as a lost network would.
    pub(super) fn disconnect(&self) -> anyhow::Result<()> {
        self.tell_all(|| Command::Disconnect)?;
        // Answered in order: after this, nobody is connected.
        self.ask(Command::Tell).map(|_: Vec<Told>| ())
    }

    /// What was counted since this was last called.
    pub(super) fn count(&self) -> anyhow::Result<Counted> {
        let mut counted = Counted {
            tally: Tally::new(),
            cpu: Duration::ZERO,
            reasons: BTreeMap::new(),
            stages: BTreeMap::new(),
        };
        for Told { tally, cpu, reasons, stages } in self.ask(Command::Tell)? {
            counted.tally.add(&tally);
            counted.cpu += cpu;
            reasons.into_iter().for_each(|(reason, n)| *counted.reasons.entry(reason).or_default() += n);
            stages.into_iter().for_each(|(stage, n)| *counted.stages.entry(stage).or_default() += n);
        }
        Ok(counted)
    }

    /// Ends all connections and closes the accounts, `published` messages having been there in each room.
    pub(super) fn finish(self, published: &[u64]) -> anyhow::Result<Totals> {
        let mut totals = Totals::default();
        for (room, account) in self.ask(Command::Finish)?.into_iter().flatten() {
            account.close(published[room], &mut totals);
        }
        for thread in self.threads {
            thread.handle.join().map_err(|_| anyhow::anyhow!("a thread of the benchmark panicked"))??;
        }
        Ok(totals)
    }

    fn tell_all(&self, command: impl Fn() -> Command) -> anyhow::Result<()> {
        for thread in &self.threads {
            thread.commands.send(command()).ok().context("a thread of the benchmark has ended")?;
            thread.waker.wake()?;
        }
        Ok(())
    }

    fn ask<T>(&self, command: impl Fn(Sender<T>) -> Command) -> anyhow::Result<Vec<T>> {
        let mut answers: Vec<Receiver<T>> = Vec::with_capacity(self.threads.len());
        for thread in &self.threads {
            let (sender, answer) = channel();
            thread.commands.send(command(sender)).ok().context("a thread of the benchmark has ended")?;
            thread.waker.wake()?;
            answers.push(answer);
        }
        let wait = |answer: Receiver<T>| {
            answer.recv_timeout(ANSWER_DEADLINE).context("a thread of the benchmark does not answer")
        };
        answers.into_iter().map(wait).collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.threads.iter().any(|thread| thread.handle.is_finished()) {
            bail!("a thread of the benchmark has ended");
        }
        Ok(())
    }
}
