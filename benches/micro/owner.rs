//! The owner's step: from the store's news of a message to the transports of all subscribers.
//!
//! The runtime has one thread, which is that of the benchmark: the owner's task runs while the benchmark waits
//! for it. The transports only count.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use tidings::broker::LiveSink;
use tidings::config::channels::{BUILTIN, Rules};
use tidings::fanout::outbox::Limits;
use tidings::fanout::{Connection, Fanout, Frame, JoinRequest, SendError, Since, Transport};
use tidings::metrics;
use tidings::model::{Epoch, Priority, Published};
use tidings::tasks::Tasks;
use tokio::runtime::{Builder, Runtime};

use crate::nowhere::Nowhere;
use crate::sample::{CHANNELS, Parts, channel};

/// After so many messages the samples of the metrics are summed up, as the server does now and then.
const SUM_UP: u64 = 64;

/// The owner needs no more turns than this for a step.
const TURNS: u32 = 1_000;

/// A transport that takes everything.
struct Counter(Arc<AtomicUsize>);

impl Transport for Counter {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let messages = match frame {
            Frame::Message { .. } => 1,
            Frame::Batch(messages) => messages.len(),
            Frame::Reset(_) => panic!("nothing here breaks a channel's past"),
        };
        self.0.fetch_add(messages, Ordering::Relaxed);
        Ok(())
    }

    fn kill(&self) {
        panic!("nothing here is slow");
    }
}

/// A channel with subscribers.
pub(crate) struct Room {
    runtime: Runtime,
    fanout: Arc<Fanout>,
    counted: Arc<AtomicUsize>,
    parts: Parts,
    offset: Cell<u64>,
    subscribers: Vec<Arc<Connection>>,
}

impl Room {
    /// The channel called `name`, one of [`CHANNELS`]. Its subscribers have had a first message.
    pub(crate) fn new(name: &str, subscribers: usize, batch: bool) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let rules =
            Rules::parse("channels.toml", &format!("{BUILTIN}{CHANNELS}")).expect("no mistake in them");
        let counted = Arc::<AtomicUsize>::default();
        let (fanout, subscribers, epoch) = runtime.block_on(async {
            let fanout = Fanout::start(Arc::new(Nowhere::new()), Arc::new(rules), 1, &Tasks::new());
            let connect = || fanout.connect(Box::new(Counter(counted.clone())), Limits::default());
            let connections: Vec<_> = (0..subscribers).map(|_| connect()).collect();
            let mut epoch = None;
            for connection in &connections {
                epoch = Some(join(&fanout, connection, name, batch).await);
            }
            (fanout, connections, epoch.expect("there is a subscriber"))
        });
        let parts = Parts::of(name, "custom:sample").in_epoch(epoch);
        let offset = Cell::new(0);
        let room = Self { runtime, fanout, counted, parts, offset, subscribers };
        // The first message of all finds quiet outboxes, and pays for what is made once.
        room.step(room.messages(1, Priority::Normal));
        room
    }

    /// The next `n` messages, as the store tells of them.
    pub(crate) fn messages(&self, n: usize, priority: Priority) -> Vec<Arc<Published>> {
        let message = |_| {
            self.offset.set(self.offset.get() + 1);
            if self.offset.get().is_multiple_of(SUM_UP) {
                metrics::sum_up();
            }
            // As after an append: names that no subscription shares, and not encoded yet.
            let known = &self.parts;
            let parts = Parts::of(known.channel.as_str(), known.event.as_str());
            let parts = parts.in_epoch(known.epoch.clone());
            Arc::new(parts.place(parts.open(priority), priority, self.offset.get()))
        };
        (0..n).map(message).collect()
    }

    /// Tells of the messages, and returns once every subscriber's transport has all of them.
    pub(crate) fn step(&self, messages: Vec<Arc<Published>>) {
        let deliveries = messages.len() * self.subscribers.len();
        let wanted = self.counted.load(Ordering::Relaxed) + deliveries;
        self.fanout.published(messages);
        self.runtime.block_on(async {
            let mut turns = TURNS;
            while self.counted.load(Ordering::Relaxed) < wanted {
                turns -= 1;
                assert!(turns > 0, "the owner is idle, and messages are still in outboxes");
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(self.counted.load(Ordering::Relaxed), wanted);
    }
}

async fn join(fanout: &Fanout, connection: &Arc<Connection>, name: &str, batch: bool) -> Epoch {
    let request = JoinRequest { channel: channel(name), since: Since::Now, batch, snapshot: false };
    let joined = fanout.prepare_join(connection, request).await.expect("a join");
    let epoch = joined.ack.epoch.clone();
    fanout.complete_join(connection, joined).await.expect("a join");
    epoch
}

/// Messages come to rooms of so many, `n` at a time.
fn measure(bencher: Bencher<'_, '_>, room: &Room, n: usize, priority: Priority) {
    bencher
        .counter(ItemsCount::new(n * room.subscribers.len()))
        .with_inputs(|| room.messages(n, priority))
        .bench_local_values(|messages| room.step(messages));
}

/// A normal message after a quiet time: it leaves at once.
#[divan::bench(args = [1, 100, 1_000])]
fn quiet(bencher: Bencher<'_, '_>, subscribers: usize) {
    measure(bencher, &Room::new("quiet-room", subscribers, false), 1, Priority::Normal);
}

/// A message that never waits.
#[divan::bench(args = [1, 100, 1_000])]
fn urgent(bencher: Bencher<'_, '_>, subscribers: usize) {
    measure(bencher, &Room::new("window-room", subscribers, false), 1, Priority::High);
}

/// Ten messages, which leave together, one frame each.
#[divan::bench(args = [1, 100, 1_000])]
fn window(bencher: Bencher<'_, '_>, subscribers: usize) {
    measure(bencher, &Room::new("window-room", subscribers, false), 10, Priority::Normal);
}

/// Ten messages, which leave as one array.
#[divan::bench(args = [1, 100, 1_000])]
fn window_batch(bencher: Bencher<'_, '_>, subscribers: usize) {
    measure(bencher, &Room::new("window-room", subscribers, true), 10, Priority::Normal);
}
