//! Subscribers that receive what a publisher sends, measured: what `throughput` and `sustained` have in common.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::pace::Pace;
use super::process::Memory;
use super::publisher::{Progress, Publisher, Speed, Style};
use super::report::{Delivery, MemoryUse, reasons};
use super::swarm::{Counted, Marker, Plan, Swarm, Tally, histogram};
use super::target::Target;

/// How long all subscribers may take to join.
pub(super) const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// So many connections are on their way at a time; `storm` is where all come at once.
const JOIN_AT_ONCE: usize = 256;
/// When nothing has come for so long, what lacks is lost.
const DRAIN_STALL: Duration = Duration::from_secs(10);
/// So late may come what was overtaken by all others.
const LATE: Duration = Duration::from_secs(1);
/// How long it is listened after all has come.
pub(super) const LINGER: Duration = Duration::from_millis(200);
/// How often the server's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// What was published so long ago should have been delivered.
const MOMENT: Duration = Duration::from_secs(1);

/// What is to be measured.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) subscribers: usize,
    pub(super) rooms: usize,
    pub(super) batch: bool,
    pub(super) threads: usize,
    pub(super) speed: Speed,
    pub(super) style: Style,
    /// Delivered and accounted for, but not measured.
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    /// How often the interval's figures are told.
    pub(super) interval: Duration,
}

/// The figures of an interval.
#[derive(Debug)]
pub(super) struct Interval {
    /// Since the measured time began.
    pub(super) at: Duration,
    /// Since the interval before.
    pub(super) latency: Histogram<u64>,
    /// Messages that came until now, and those that should have: published a moment ago, times their subscribers.
    pub(super) delivered: u64,
    pub(super) expected: u64,
    pub(super) memory: Option<Memory>,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) delivery: Delivery,
    /// The measured time, without what came after the last publication.
    pub(super) time: Duration,
    /// In that time.
    pub(super) published: u64,
    pub(super) deliveries: u64,
    /// From then until everything had come.
    pub(super) deliveries_in_all: u64,
    pub(super) bytes: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) requests: Histogram<u64>,
    pub(super) server_cpu: Option<Duration>,
    pub(super) swarm_cpu: Duration,
    pub(super) memory: Option<MemoryUse>,
    /// What went wrong, for people.
    pub(super) faults: Vec<String>,
}

/// A place in time: what had been used and done until then.
struct Mark {
    at: Instant,
    published: u64,
    delivered: u64,
    bytes: u64,
    server_cpu: Option<Duration>,
    swarm_cpu: Duration,
}

/// The names of the rooms of a run.
pub(super) fn rooms(run: &str, rooms: usize) -> Vec<String> {
    (0..rooms).map(|room| format!("test-progress-bench-{run}-{room}")).collect()
}

/// A name that no other run on the same server has.
pub(super) fn new_run() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(6).collect()
}

/// Lets all subscribers join, some at a time; fails unless all of them do.
pub(super) fn join_all(swarm: &Swarm, look: impl FnMut(u64)) -> anyhow::Result<()> {
    swarm.connect(JOIN_AT_ONCE, false)?;
    swarm.wait_joined(JOIN_DEADLINE, look)?;
    if swarm.failed() > 0 {
        let reasons = reasons(&swarm.count()?.reasons).join("; ");
        anyhow::bail!("{} of {} clients failed: {reasons}", swarm.failed(), swarm.subscribers());
    }
    Ok(())
}

/// Waits until all of `published` has come to everybody, or nothing comes any more; when the last message came.
pub(super) fn drain(swarm: &Swarm, pace: &Pace, published: &[u64], mut look: impl FnMut(u64)) -> Instant {
    let expected = expected(published, swarm.subscribers());
    let (mut last, mut since) = (swarm.delivered(), Instant::now());
    while last < expected {
        // Who has the newest message, but not all before it, can only get those late.
        let newest = || published.iter().enumerate().all(|(room, &n)| pace.floor(room) >= n);
        let silence = since.elapsed();
        if silence >= DRAIN_STALL || (silence >= LATE && newest()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        let delivered = swarm.delivered();
        look(delivered);
        if delivered != last {
            (last, since) = (delivered, Instant::now());
        }
    }
    since
}

/// Messages times their subscribers, who are spread over the rooms in turn.
pub(super) fn expected(published: &[u64], subscribers: usize) -> u64 {
    let rooms = published.len();
    let members = |room| subscribers / rooms + usize::from(room < subscribers % rooms);
    published.iter().enumerate().map(|(room, &n)| n * members(room) as u64).sum()
}

impl Load {
    /// Runs it; `tell` is called once per interval, `look` often, with what goes on and the time that has passed.
    pub(super) fn run(
        &self,
        target: &Target,
        mut tell: impl FnMut(&Interval),
        mut look: impl FnMut(&str, Duration),
    ) -> anyhow::Result<Measured> {
        target.check_ports(self.subscribers)?;
        let before = target.memory()?;
        let run = new_run();
        let gather = matches!(self.speed, Speed::FlatOut { .. });
        let plan =
            Arc::new(Plan::new(target, rooms(&run, self.rooms), Marker::new(&run), self.batch, gather));
        let pace = Arc::new(Pace::new(self.threads, self.rooms));
        let swarm = Swarm::start(&plan, self.subscribers, self.threads, &pace)?;
        join_all(&swarm, |joined| look(&format!("{joined} clients joined"), Duration::ZERO))?;
        let mut publisher = Publisher::open(target, &plan, &pace, self.style)?;
        let progress = Progress::default();
        let warmup = u64::try_from(self.warmup.as_micros()).unwrap_or(u64::MAX);
        progress.count_from.store(warmup, Ordering::Relaxed);
        let mut watch = Watch::new(target, &swarm, &progress, self);
        let (first, second, ran) = std::thread::scope(|scope| -> anyhow::Result<_> {
            let publishing = scope.spawn(|| publisher.run(self.speed, &progress));
            let watched = watch.run(|| publishing.is_finished(), &mut tell, &mut look);
            progress.stop.store(true, Ordering::SeqCst);
            let ran = publishing.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?;
            // What the publisher has to say is the cause of what was watched.
            let (ran, (first, second)) = (ran?, watched?);
            Ok((first, second, ran))
        })?;
        drain(&swarm, &pace, publisher.published(), |_| look("waiting for the last messages", self.duration));
        let last = watch.mark()?;
        // What is sent twice may come a little after all has come once.
        std::thread::sleep(LINGER);
        watch.mark()?;
        let Watch { total, reasons: failures, peak, .. } = watch;
        let after = target.memory()?;
        let failed = swarm.failed();
        let totals = swarm.finish(publisher.published())?;
        let faults = reasons(&failures).into_iter().chain(ran.stalled).collect();
        Ok(Measured {
            delivery: Delivery::new(&totals, total.astray, total.positions, failed),
            time: second.at - first.at,
            published: second.published - first.published,
            deliveries: second.delivered - first.delivered,
            deliveries_in_all: last.delivered - first.delivered,
            bytes: last.bytes - first.bytes,
            latency: total.latency,
            requests: ran.requests,
            server_cpu: last.server_cpu.zip(first.server_cpu).map(|(last, first)| last.saturating_sub(first)),
            swarm_cpu: last.swarm_cpu - first.swarm_cpu,
            memory: MemoryUse::new(before, after, peak),
            faults,
        })
    }
}

/// Looks on while messages are published and received.
struct Watch<'a> {
    target: &'a Target,
    swarm: &'a Swarm,
    progress: &'a Progress,
    load: &'a Load,
    /// All that was counted; the latencies only since the first mark.
    total: Tally,
    /// Since the interval began.
    interval: Histogram<u64>,
    reasons: BTreeMap<String, u64>,
    /// The most memory that was seen.
    peak: u64,
    /// How many messages had been published when, during the last moment.
    recent: VecDeque<(Instant, u64)>,
}

impl<'a> Watch<'a> {
    fn new(target: &'a Target, swarm: &'a Swarm, progress: &'a Progress, load: &'a Load) -> Self {
        Self {
            target,
            swarm,
            progress,
            load,
            total: Tally::new(),
            interval: histogram(),
            reasons: BTreeMap::new(),
            peak: 0,
            recent: VecDeque::new(),
        }
    }

    /// Looks on until the time is over or the publisher has `ended`; the marks around the measured time.
    fn run(
        &mut self,
        ended: impl Fn() -> bool,
        tell: &mut impl FnMut(&Interval),
        look: &mut impl FnMut(&str, Duration),
    ) -> anyhow::Result<(Mark, Mark)> {
        let start = Instant::now();
        self.wait(start + self.load.warmup, &ended, |_| look("warming up", Duration::ZERO))?;
        let first = self.mark()?;
        (self.total.latency, self.interval) = (histogram(), histogram());
        // All of the same length, so that the last is not a stump of a few microseconds.
        let steps =
            (self.load.duration.as_secs_f64() / self.load.interval.as_secs_f64()).round().max(1.0) as u32;
        let mut step = 0;
        loop {
            step += 1;
            let next = first.at + self.load.duration * step / steps;
            let published = self.progress.published.load(Ordering::Relaxed);
            let text = format!("{} published", super::report::count(published));
            self.wait(next, &ended, |now| look(&text, now - first.at))?;
            let mark = self.mark()?;
            let latency = std::mem::replace(&mut self.interval, histogram());
            tell(&Interval {
                at: mark.at - first.at,
                latency,
                delivered: mark.delivered,
                expected: self.expected(),
                memory: self.target.memory()?,
            });
            if step == steps || ended() {
                return Ok((first, mark));
            }
        }
    }

    fn wait(
        &mut self,
        until: Instant,
        ended: &impl Fn() -> bool,
        mut look: impl FnMut(Instant),
    ) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if now >= until || ended() {
                return Ok(());
            }
            look(now);
            if let Some(memory) = self.target.memory()? {
                self.peak = self.peak.max(memory.rss);
            }
            self.recent.push_back((now, self.progress.published.load(Ordering::Relaxed)));
            while self.recent.get(1).is_some_and(|(at, _)| now - *at >= MOMENT) {
                self.recent.pop_front();
            }
            std::thread::sleep(SAMPLE.min(until - now));
        }
    }

    /// What should have been delivered by now: what was published a moment ago.
    fn expected(&self) -> u64 {
        let published = self.recent.front().map_or(0, |(_, published)| *published);
        published * self.load.subscribers as u64 / self.load.rooms as u64
    }

    fn mark(&mut self) -> anyhow::Result<Mark> {
        let published = self.progress.published.load(Ordering::Relaxed);
        let server_cpu = self.target.cpu()?;
        let at = Instant::now();
        let Counted { tally, cpu, reasons, .. } = self.swarm.count()?;
        self.total.add(&tally);
        self.interval.add(&tally.latency).context("all have the same bounds")?;
        self.reasons = reasons;
        let Tally { delivered, bytes, .. } = self.total;
        Ok(Mark { at, published, delivered, bytes, server_cpu, swarm_cpu: cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_is_expected_to_get_what_its_room_got() {
        assert_eq!(expected(&[10], 3), 30);
        // Five subscribers of three rooms: two, two and one.
        assert_eq!(expected(&[1, 10, 100], 5), 2 + 20 + 100);
        assert_eq!(expected(&[7, 7], 0), 0);
        assert_eq!(expected(&[5, 5, 5], 1), 5);
    }
}
