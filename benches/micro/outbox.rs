//! The outbox: from a pushed message to the frames that it leaves in. Its clock moves only by hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use tidings::config::channels::Batch;
use tidings::fanout::outbox::{Exit, Flush, Limits, Membership, Outbox, Scope};
use tidings::fanout::{Frame, SendError};
use tidings::model::{ChannelName, Epoch, Position, Priority, Published};
use tokio::time::Instant;

use crate::sample::{channel, message};

const WINDOW: Batch = Batch { max: 10, interval: Duration::from_millis(100) };
/// Longer than a full transport waits until it is offered its frames again.
const RETRY: Duration = Duration::from_millis(20);
/// How many messages a full transport is behind. All of them fit into an outbox.
const BEHIND: u64 = 200;

/// An outbox, and somebody who does what it asks for, as a connection does.
pub(crate) struct Desk {
    outbox: Outbox,
    memberships: HashMap<ChannelName, Membership>,
    now: Instant,
    transport_is_full: bool,
    left: usize,
}

/// Counts what leaves, or takes nothing.
struct Door<'a> {
    full: bool,
    left: &'a mut usize,
}

impl Exit for Door<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Result<(), SendError> {
        if self.full {
            return Err(SendError::Full);
        }
        *self.left += match frame {
            Frame::Message(..) => 1,
            Frame::Batch(messages) => messages.len(),
            Frame::Reset(_) => 0,
        };
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }
}

impl Desk {
    /// A member of so many channels: `room-0`, `room-1`, …
    pub(crate) fn new(channels: usize, batch: bool) -> Self {
        let mut outbox = Outbox::new(Limits::default(), false);
        let mut memberships = HashMap::new();
        for n in 0..channels {
            let channel = channel(&format!("room-{n}"));
            let membership = outbox.enter(&channel, batch);
            let start = Position { epoch: Epoch::new("h3k9q2m7c4x1"), offset: 0 };
            outbox.set_written(&channel, membership, start);
            assert!(outbox.go_live(&channel, membership), "the membership was just begun");
            memberships.insert(channel, membership);
        }
        Self { outbox, memberships, now: Instant::now(), transport_is_full: false, left: 0 }
    }

    pub(crate) fn push(&mut self, message: &Arc<Published>) {
        let membership = self.memberships[&message.channel];
        let (_, flush) = self.outbox.push(membership, std::slice::from_ref(message), WINDOW, self.now);
        self.act(flush);
    }

    fn act(&mut self, flush: Flush) {
        if let Flush::Now(scope) = flush {
            self.drain(scope);
        }
    }

    fn drain(&mut self, scope: Scope) {
        let mut exit = Door { full: self.transport_is_full, left: &mut self.left };
        let result = self.outbox.drain(scope, self.now, &mut exit);
        self.outbox.next_due(self.now, result.is_err());
    }

    /// Lets so much time pass, and looks at what is due.
    fn look_after(&mut self, time: Duration) {
        self.now += time;
        let flush = self.outbox.due(self.now);
        self.act(flush);
    }

    /// How many messages have left since the last call.
    pub(crate) fn left(&mut self) -> usize {
        std::mem::take(&mut self.left)
    }
}

/// Messages of one channel.
pub(crate) fn messages(n: u64, channel: &str, priority: Priority) -> Vec<Arc<Published>> {
    (1..=n).map(|offset| message(channel, priority, offset, None)).collect()
}

/// Each message comes after a quiet time, and leaves at once.
#[divan::bench(args = [false, true], consts = [1, 20])]
fn quiet<const CHANNELS: usize>(bencher: Bencher<'_, '_>, batch: bool) {
    let mut desk = Desk::new(CHANNELS, batch);
    let message = message(&format!("room-{}", CHANNELS - 1), Priority::Normal, 1, None);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        desk.now += WINDOW.interval;
        desk.push(&message);
        assert_eq!(desk.left(), 1);
    });
}

/// A message that never waits.
#[divan::bench(consts = [1, 20])]
fn urgent<const CHANNELS: usize>(bencher: Bencher<'_, '_>) {
    let mut desk = Desk::new(CHANNELS, false);
    let message = message(&format!("room-{}", CHANNELS - 1), Priority::High, 1, None);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        desk.push(&message);
        assert_eq!(desk.left(), 1);
    });
}

/// Ten messages within a window: the tenth takes all with it.
#[divan::bench(args = [false, true], consts = [1, 20])]
fn window<const CHANNELS: usize>(bencher: Bencher<'_, '_>, batch: bool) {
    let mut desk = Desk::new(CHANNELS, batch);
    let messages = messages(10, &format!("room-{}", CHANNELS - 1), Priority::Normal);
    // The first one of all finds a quiet outbox.
    desk.push(&messages[0]);
    assert_eq!(desk.left(), 1);
    bencher.counter(ItemsCount::new(10usize)).bench_local(|| {
        messages.iter().for_each(|message| desk.push(message));
        assert_eq!(desk.left(), 10);
    });
}

/// Three messages wait for their window, which ends.
#[divan::bench(args = [false, true])]
fn window_ends(bencher: Bencher<'_, '_>, batch: bool) {
    let mut desk = Desk::new(1, batch);
    let messages = messages(3, "room-0", Priority::Normal);
    desk.push(&messages[0]);
    desk.left();
    bencher.counter(ItemsCount::new(3usize)).bench_local(|| {
        messages.iter().for_each(|message| desk.push(message));
        desk.look_after(WINDOW.interval);
        assert_eq!(desk.left(), 3);
    });
}

/// Messages come while the transport is full; then it takes all.
#[divan::bench(args = [false, true])]
fn full(bencher: Bencher<'_, '_>, batch: bool) {
    let messages = messages(BEHIND, "room-0", Priority::Normal);
    let mut desk = Desk::new(1, batch);
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        assert_eq!(fall_behind(&mut desk, &messages), messages.len());
    });
}

/// The same with conflation keys, each of so many different tests in turn: only the newest of each leaves.
#[divan::bench(args = [1, 20, 200])]
fn full_conflating(bencher: Bencher<'_, '_>, keys: u64) {
    let message = |n: u64| {
        message("room-0", Priority::Normal, n, Some(&format!("test:progress stress_{:04}", n % keys)))
    };
    let messages: Vec<_> = (1..=BEHIND * 2).map(message).collect();
    let mut desk = Desk::new(1, true);
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        let left = fall_behind(&mut desk, &messages);
        assert_eq!(u64::try_from(left).ok(), Some(keys));
    });
}

/// Pushes the messages at a transport that is full, and has it take what waits then; how many have left.
fn fall_behind(desk: &mut Desk, messages: &[Arc<Published>]) -> usize {
    desk.now += WINDOW.interval;
    desk.transport_is_full = true;
    messages.iter().for_each(|message| desk.push(message));
    desk.transport_is_full = false;
    desk.look_after(RETRY);
    desk.left()
}
