//! Publishes stamped messages over HTTP, at a rate or flat out.
//!
//! Each connection has a thread and some of the rooms; a room belongs to one connection, or its messages would have no
//! order. Numbers go on from one run to the next.

mod request;
mod schedule;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tidings::model::Priority;

pub(super) use schedule::Speed;

use request::Connection;
use schedule::{Pick, Schedule};

use super::pace::Pace;
use super::swarm::{Plan, histogram, microseconds};
use super::target::Target;

/// A publisher that may not publish for so long gives up: some subscriber does not take what it was sent.
const STALL: Duration = Duration::from_secs(15);

/// What is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) priority: Priority,
    /// The length of each message's data.
    pub(super) payload: usize,
    /// Messages in the largest request.
    pub(super) batch: u64,
    /// Connections at most.
    pub(super) connections: usize,
}

/// What can be seen of a run at any time, and how it is ended.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Messages that the server has acknowledged.
    pub(super) published: AtomicU64,
    /// Requests that it has answered.
    pub(super) requests: AtomicU64,
    pub(super) stop: AtomicBool,
    /// From then on, in µs since the run's start, the times of requests count.
    pub(super) count_from: AtomicU64,
}

/// What publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    plan: Arc<Plan>,
    pace: Arc<Pace>,
    style: Style,
    connections: Vec<Connection>,
    /// For each room, how many messages were published.
    published: Vec<u64>,
}

/// How a run went.
#[derive(Debug)]
pub(super) struct Ran {
    /// How long requests took, in µs.
    pub(super) requests: Histogram<u64>,
    /// Why it ended early, if it did.
    pub(super) stalled: Option<String>,
}

impl Publisher {
    pub(super) fn open(
        target: &Target,
        plan: &Arc<Plan>,
        pace: &Arc<Pace>,
        style: Style,
    ) -> anyhow::Result<Self> {
        let rooms = plan.rooms.len();
        let connections = (0..style.connections.clamp(1, rooms)).map(|_| Connection::open(target));
        Ok(Self {
            plan: Arc::clone(plan),
            pace: Arc::clone(pace),
            style,
            connections: connections.collect::<anyhow::Result<_>>()?,
            published: vec![0; rooms],
        })
    }

    /// For each room, how many messages were published and acknowledged.
    pub(super) fn published(&self) -> &[u64] {
        &self.published
    }

    /// Publishes until `progress.stop` is set or the speed's end is reached; blocks meanwhile.
    pub(super) fn run(&mut self, speed: Speed, progress: &Progress) -> anyhow::Result<Ran> {
        let (rooms, n) = (self.published.len(), self.connections.len());
        let started = Instant::now();
        let mut ran = Ran { requests: histogram(), stalled: None };
        let (plan, pace, style, published) = (&self.plan, &self.pace, self.style, &self.published);
        let ended: Vec<anyhow::Result<(Ran, Lane<'_>)>> = std::thread::scope(|scope| {
            let lanes = self.connections.iter_mut().enumerate().map(|(index, connection)| {
                let own: Vec<usize> = (index..rooms).step_by(n).collect();
                let published = own.iter().map(|&room| published[room]).collect();
                let schedule = Schedule::new(speed, own, rooms, style.batch);
                let lane = Lane { index, stride: n, plan, pace, style, published, started };
                scope.spawn(move || {
                    let done = lane.run(connection, schedule, progress);
                    // What one cannot do, the others need not go on with.
                    if done.as_ref().map_or(true, |(part, _)| part.stalled.is_some()) {
                        progress.stop.store(true, Ordering::SeqCst);
                    }
                    done
                })
            });
            let lanes: Vec<_> = lanes.collect();
            lanes
                .into_iter()
                .map(|lane| lane.join().unwrap_or_else(|_| bail!("a publisher panicked")))
                .collect()
        });
        let mut totals = self.published.clone();
        for lane in ended {
            let (part, lane) = lane?;
            ran.requests.add(&part.requests).context("all have the same bounds")?;
            ran.stalled = ran.stalled.or(part.stalled);
            for (place, &count) in lane.published.iter().enumerate() {
                totals[lane.index + place * lane.stride] = count;
            }
        }
        self.published = totals;
        Ok(ran)
    }
}

/// What one connection publishes: the rooms `index`, `index + stride`, …
struct Lane<'a> {
    index: usize,
    stride: usize,
    plan: &'a Plan,
    pace: &'a Pace,
    style: Style,
    /// For each of its rooms, how many messages were published.
    published: Vec<u64>,
    started: Instant,
}

impl<'a> Lane<'a> {
    fn run(
        mut self,
        connection: &mut Connection,
        mut schedule: Schedule,
        progress: &Progress,
    ) -> anyhow::Result<(Ran, Lane<'a>)> {
        let mut ran = Ran { requests: histogram(), stalled: None };
        let mut body = Vec::new();
        let mut idle_since = Instant::now();
        self.pace.enter();
        let done = loop {
            if progress.stop.load(Ordering::SeqCst) || schedule.is_done() {
                break Ok(());
            }
            let now = self.started.elapsed();
            let picks = schedule.pick(now, |room| self.lacked(room));
            if picks.is_empty() {
                if let Some(rest) = schedule.rest(now) {
                    // In pieces, so that a stop is seen.
                    std::thread::sleep(rest.min(Duration::from_millis(50)));
                } else if idle_since.elapsed() > STALL {
                    ran.stalled = Some(self.stalled());
                    break Ok(());
                } else {
                    let before: u64 = self.floors();
                    self.pace.wait(Duration::from_millis(100), || self.floors() != before);
                }
                continue;
            }
            let count = self.write(&mut body, &picks);
            let sent = Instant::now();
            if let Err(e) = connection.publish(&body) {
                break Err(e);
            }
            idle_since = Instant::now();
            if microseconds(now) >= progress.count_from.load(Ordering::Relaxed) {
                ran.requests.saturating_record(microseconds(sent.elapsed()));
            }
            progress.published.fetch_add(count, Ordering::Relaxed);
            progress.requests.fetch_add(1, Ordering::Relaxed);
        };
        self.pace.leave();
        done.map(|()| (ran, self))
    }

    fn place(&self, room: usize) -> usize {
        room / self.stride
    }

    /// How many messages the slowest subscriber of `room` lacks.
    fn lacked(&self, room: usize) -> u64 {
        self.published[self.place(room)].saturating_sub(self.pace.floor(room))
    }

    /// Something that changes when a floor does.
    fn floors(&self) -> u64 {
        let rooms = (0..self.published.len()).map(|place| self.index + place * self.stride);
        rooms.fold(0, |sum, room| sum.wrapping_add(self.pace.floor(room)))
    }

    fn stalled(&self) -> String {
        let rooms = (0..self.published.len()).map(|place| self.index + place * self.stride);
        let worst = rooms.max_by_key(|&room| self.lacked(room)).unwrap_or(self.index);
        format!(
            "for {STALL:?} no subscriber took anything: the slowest one of {} lacks {} of {} messages",
            self.plan.rooms[worst],
            self.lacked(worst),
            self.published[self.place(worst)]
        )
    }

    /// Writes the request's body; how many messages it has.
    fn write(&mut self, body: &mut Vec<u8>, picks: &[Pick]) -> u64 {
        body.clear();
        let since_origin = self.started.duration_since(self.plan.origin);
        let count = picks.iter().map(|pick| pick.count).sum();
        for pick in picks {
            let at = pick.due.map_or_else(|| self.plan.origin.elapsed(), |due| since_origin + due);
            let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
            let place = self.place(pick.room);
            for _ in 0..pick.count {
                body.push(if body.is_empty() { b'[' } else { b',' });
                // Writing to memory does not fail.
                let _ = write!(
                    body,
                    r#"{{"event":"custom:bench","channel":"{}","priority":{},"data":"#,
                    self.plan.rooms[pick.room],
                    self.style.priority.number()
                );
                self.plan.marker.write(body, pick.room, self.published[place], at_ns, self.style.payload);
                body.push(b'}');
                self.published[place] += 1;
            }
        }
        if count == 1 {
            body.remove(0);
        } else {
            body.push(b']');
        }
        count
    }
}
