//! What leaves when, by a clock that stands still unless a test moves it.

mod accounting;
mod full;

use std::collections::HashMap;

use super::*;
use crate::fanout::Frame;
use crate::model::message::sample;
use crate::model::{Epoch, Priority};

const WINDOW: Batch = Batch { max: 4, interval: Duration::from_millis(100) };
const LIMITS: Limits = Limits { bytes: 100_000, room: 10_000, stuck: Duration::from_secs(30) };
const MS: Duration = Duration::from_millis(1);

/// A message of channel `name`; `bytes` of data.
fn message(name: &str, offset: u64, priority: Priority, key: Option<&str>, bytes: usize) -> Arc<Published> {
    sample(name, "custom:x", priority, offset, key, &format!("\"{}\"", "x".repeat(bytes)))
}

/// What left: channel, offset, and how many were spared.
type Left = (String, u64, u64);

/// A connection without a transport: what an outbox asks for is done, as `Connection` does it.
struct Desk {
    outbox: Outbox,
    /// How many frames are taken before the transport is full.
    capacity: usize,
    frames: Vec<Vec<Left>>,
    looks: Vec<Instant>,
    offsets: HashMap<String, u64>,
    fallen: Vec<String>,
    was_full: bool,
}

/// Where a desk's frames leave.
struct Door<'a> {
    frames: &'a mut Vec<Vec<Left>>,
    capacity: &'a mut usize,
}

impl Exit for Door<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Result<(), SendError> {
        *self.capacity = self.capacity.checked_sub(1).ok_or(SendError::Full)?;
        let left = |(m, n): (&Arc<Published>, u64)| (m.channel.to_string(), m.position.offset, n);
        self.frames.push(match frame {
            Frame::Message(message, spared) => vec![left((message, spared))],
            Frame::Batch(messages) => {
                messages.iter().map(|(message, spared)| left((message, *spared))).collect()
            }
            Frame::Reset(_) => Vec::new(),
        });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            outbox: Outbox::new(LIMITS, false),
            capacity: usize::MAX,
            frames: Vec::new(),
            looks: Vec::new(),
            offsets: HashMap::new(),
            fallen: Vec::new(),
            was_full: false,
        }
    }

    /// Makes the desk a live member of channel `name`, if it is none yet.
    fn join(&mut self, name: &str, batch: bool) {
        let channel = ChannelName::parse(name).unwrap();
        if self.offsets.contains_key(name) {
            return;
        }
        let membership = self.outbox.enter(&channel, batch);
        self.outbox.set_written(&channel, membership, Position { epoch: Epoch::new("e"), offset: 0 });
        assert!(self.outbox.go_live(&channel, membership));
    }

    /// Pushes the next message of channel `name`, which is joined with `batch` at its first.
    fn push(&mut self, name: &str, priority: Priority, key: Option<&str>, batch: bool) {
        self.push_bytes(name, priority, key, batch, 10);
    }

    fn push_bytes(&mut self, name: &str, priority: Priority, key: Option<&str>, batch: bool, bytes: usize) {
        self.join(name, batch);
        let offset = self.offsets.entry(name.to_owned()).or_default();
        *offset += 1;
        let message = message(name, *offset, priority, key, bytes);
        self.push_all(name, &[message]);
    }

    /// Pushes messages that waited together.
    fn push_all(&mut self, name: &str, mut messages: &[Arc<Published>]) {
        let lane = self.outbox.lanes.iter().find(|lane| lane.channel.as_str() == name);
        let membership = lane.expect("it is joined").membership;
        if let [message] = messages
            && self.pass(membership, message)
        {
            return;
        }
        while !messages.is_empty() {
            let (taken, flush) = self.outbox.push(membership, messages, WINDOW, Instant::now());
            self.act(flush);
            messages = &messages[taken..];
        }
        let fallen = self.outbox.take_fallen();
        self.fallen.extend(fallen.into_iter().map(|(channel, _)| channel.to_string()));
    }

    fn pass(&mut self, membership: Membership, message: &Arc<Published>) -> bool {
        let mut exit = Door { frames: &mut self.frames, capacity: &mut self.capacity };
        let passed = self.outbox.pass(membership, message, WINDOW, Instant::now(), &mut exit);
        if passed == Some(Passed::Waits) {
            self.was_full = true;
            self.looks.extend(self.outbox.next_due(Instant::now(), true));
        }
        passed.is_some()
    }

    fn normal(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.push(name, Priority::Normal, None, false));
    }

    fn act(&mut self, flush: Flush) {
        match flush {
            Flush::Nothing => {}
            Flush::At(due) => self.looks.push(due),
            Flush::Now(scope) => {
                let mut exit = Door { frames: &mut self.frames, capacity: &mut self.capacity };
                let result = self.outbox.drain(scope, Instant::now(), &mut exit);
                self.was_full |= result.is_err();
                self.looks.extend(self.outbox.next_due(Instant::now(), result.is_err()));
            }
        }
    }

    /// Lets time pass; looks where the outbox asked for it.
    async fn wait(&mut self, ms: u32) {
        for _ in 0..ms {
            tokio::time::advance(MS).await;
            let now = Instant::now();
            let due = self.looks.extract_if(.., |look| *look <= now).count();
            for _ in 0..due {
                let flush = self.outbox.due(now);
                self.act(flush);
            }
        }
    }

    /// What left since the last call, frame by frame: `a1 b1 | a2`.
    fn left(&mut self) -> String {
        let frames = std::mem::take(&mut self.frames);
        let frame = |frame: Vec<Left>| {
            let one = |(name, offset, spared): Left| {
                if spared == 0 { format!("{name}{offset}") } else { format!("{name}{offset}+{spared}") }
            };
            frame.into_iter().map(one).collect::<Vec<_>>().join(" ")
        };
        frames.into_iter().map(frame).collect::<Vec<_>>().join(" | ")
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_waited_together_leave_together_and_forget_no_window() {
    let mut desk = Desk::new();
    desk.join("a", false);
    let numbered = |from: u64, priorities: &[Priority]| {
        let messages =
            (from..).zip(priorities).map(|(offset, priority)| message("a", offset, *priority, None, 10));
        messages.collect::<Vec<_>>()
    };
    let (normal, high) = (Priority::Normal, Priority::High);
    desk.push_all("a", &numbered(1, &[normal; 3]));
    assert_eq!(desk.left(), "a1 | a2 | a3", "after a quiet time all at once");
    desk.push_all("a", &numbered(4, &[normal, normal]));
    assert_eq!(desk.left(), "");
    desk.push_all("a", &numbered(6, &[normal, high, normal]));
    assert_eq!(desk.left(), "a4 | a5 | a6 | a7 | a8", "the urgent one takes all with it");
    // Beyond the bound of an outbox in one go: nothing is lost while the transport takes it.
    let large: Vec<_> = (9..=30).map(|offset| message("a", offset, normal, None, 10_000)).collect();
    desk.push_all("a", &large);
    desk.wait(100).await;
    assert_eq!(desk.left().split(" | ").count(), 22);
    assert!(desk.fallen.is_empty());
    desk.push_all("a", &numbered(31, &[normal]));
    desk.wait(100).await;
    assert_eq!(desk.left(), "a31", "its window was not forgotten");
}

#[tokio::test(start_paused = true)]
async fn after_quiet_a_message_leaves_at_once_and_the_next_ones_with_the_window() {
    let mut desk = Desk::new();
    desk.normal(&["a"]);
    assert_eq!(desk.left(), "a1");
    desk.wait(10).await;
    desk.normal(&["a", "b"]);
    desk.wait(89).await;
    assert_eq!(desk.left(), "");
    desk.wait(1).await;
    assert_eq!(desk.left(), "a2 | b1");
    desk.wait(99).await;
    desk.normal(&["a"]);
    assert_eq!(desk.left(), "", "the interval was not quiet");
    desk.wait(1).await;
    assert_eq!(desk.left(), "a3");
    desk.wait(100).await;
    desk.normal(&["b"]);
    assert_eq!(desk.left(), "b2");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_max_do_not_wait() {
    let mut desk = Desk::new();
    desk.normal(&["a", "a", "a", "b"]);
    assert_eq!(desk.left(), "a1");
    desk.normal(&["b"]);
    assert_eq!(desk.left(), "a2 | a3 | b1 | b2");
    desk.normal(&["a"]);
    assert_eq!(desk.left(), "");
    desk.wait(100).await;
    assert_eq!(desk.left(), "a4");
}

#[tokio::test(start_paused = true)]
async fn an_urgent_message_takes_its_own_channels_earlier_ones_and_no_others() {
    for urgent in [Priority::High, Priority::Critical] {
        let mut desk = Desk::new();
        desk.normal(&["a"]);
        desk.left();
        desk.normal(&["a", "b", "c"]);
        desk.push("b", urgent, None, false);
        assert_eq!(desk.left(), "b1 | b2");
        desk.wait(100).await;
        assert_eq!(desk.left(), "a2 | c1");
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_channel_leaves_first_and_each_keeps_its_order() {
    let mut desk = Desk::new();
    desk.capacity = 0;
    for (name, priority) in [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("mixed", Priority::Low),
        ("high", Priority::High),
        ("mixed", Priority::Critical),
        ("mixed", Priority::Low),
        ("later", Priority::Normal),
    ] {
        desk.push(name, priority, None, false);
    }
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "mixed1 | mixed2 | mixed3 | high1 | normal1 | later1 | low1");
}

#[tokio::test(start_paused = true)]
async fn a_batch_mixes_channels_up_to_max() {
    let mut desk = Desk::new();
    desk.capacity = 0;
    for name in ["a", "b", "a", "c", "a", "b", "b"] {
        desk.push(name, Priority::Normal, None, true);
    }
    desk.push("plain", Priority::Normal, None, false);
    desk.push("d", Priority::Normal, None, true);
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "a1 a2 a3 b1 | b2 b3 c1 | plain1 | d1");
}

#[tokio::test(start_paused = true)]
async fn critical_messages_that_are_acknowledged_ride_alone() {
    let mut desk = Desk::new();
    desk.outbox = Outbox::new(LIMITS, true);
    desk.capacity = 0;
    for priority in [Priority::Normal, Priority::Critical, Priority::Normal] {
        desk.push("a", priority, None, true);
    }
    desk.push("b", Priority::Normal, None, true);
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "a1 | a2 | a3 b1");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_does_not_leave_and_gives_its_room_back() {
    let mut desk = Desk::new();
    desk.capacity = 0;
    desk.push_bytes("a", Priority::Normal, None, false, 20_000);
    desk.normal(&["b"]);
    assert!(!desk.outbox.has_room());
    desk.outbox.leave(&ChannelName::parse("a").unwrap());
    assert!(desk.outbox.has_room());
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "b1");
    desk.normal(&["b"]);
    desk.outbox.clear();
    desk.wait(200).await;
    assert_eq!(desk.left(), "");
}
