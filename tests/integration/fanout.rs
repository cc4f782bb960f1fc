//! The fan-out over a real broker: joins, leaves, and receivers that are slow or gone.

mod join;
mod member;
mod slow;
mod urgent;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker};
use tidings::fanout::outbox::Limits;
use tidings::fanout::{Connection, Fanout, Frame, JoinAck, JoinRequest, SendError, Since, Transport};
use tidings::model::{Position, now_ms};
use tidings::store::{Store, Synchronous};
use tidings::tasks::Tasks;

use crate::support::{append, channel, rules, wait_until};

/// After so long without a frame taken a connection is given up.
const STUCK: std::time::Duration = std::time::Duration::from_secs(2);

/// A node without sockets.
struct Node {
    store: Store,
    broker: Arc<EmbeddedBroker>,
    fanout: Arc<Fanout>,
    _dir: TempDir,
}

fn node() -> Node {
    let dir = TempDir::new().expect("a directory");
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let live = Live::default();
    let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules(), live.clone()));
    let fanout = Fanout::start(broker.clone(), rules(), 2, &Tasks::new());
    live.connect(fanout.clone());
    Node { store, broker, fanout, _dir: dir }
}

impl Node {
    /// Publishes `n` messages of `bytes` bytes, several at a time.
    async fn publish(&self, name: &str, n: u32, bytes: usize) {
        let data = json!("x".repeat(bytes));
        let group = || AppendGroup {
            first: append(&rules(), name, &format!("m{}", fastrand::u64(..)), &data, now_ms()),
            mirrors: Vec::new(),
        };
        for chunk in (0..n).collect::<Vec<_>>().chunks(7) {
            self.broker.append(chunk.iter().map(|_| group()).collect()).await.expect("an append");
        }
    }

    async fn top(&self, name: &str) -> Position {
        self.broker.top(&channel(name)).await.expect("a top").position
    }

    fn connect(&self) -> (Arc<Connection>, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        wire.capacity.store(usize::MAX, Ordering::Release);
        (self.fanout.connect(Box::new(End(wire.clone())), Limits { stuck: STUCK, ..Limits::default() }), wire)
    }

    /// Joins from the first word to the last.
    async fn join(&self, connection: &Arc<Connection>, name: &str, since: Since) -> JoinAck {
        let joined = self.fanout.prepare_join(connection, request(name, since)).await.expect("a join");
        let ack = joined.ack.clone();
        self.fanout.complete_join(connection, joined).await.expect("a join");
        ack
    }
}

fn request(name: &str, since: Since) -> JoinRequest {
    JoinRequest { channel: channel(name), since, batch: false, snapshot: false }
}

/// The far end of a connection.
#[derive(Debug, Default)]
struct Wire {
    messages: Mutex<Vec<Value>>,
    resets: Mutex<Vec<Value>>,
    largest_batch: AtomicUsize,
    /// How many more frames are taken.
    capacity: AtomicUsize,
    killed: AtomicBool,
    /// Nobody holds the connection any more.
    dropped: AtomicBool,
}

struct End(Arc<Wire>);

impl Transport for End {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let wire = &self.0;
        let less = |capacity: usize| capacity.checked_sub(1);
        wire.capacity.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).map_err(|_| SendError::Full)?;
        let value = |json: &str| serde_json::from_str::<Value>(json).expect("a frame is JSON");
        let mut messages = wire.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match frame {
            Frame::Message(message, conflated) => {
                messages.push(value(message.json_conflated(conflated).get()))
            }
            Frame::Batch(batch) => {
                wire.largest_batch.fetch_max(batch.len(), Ordering::AcqRel);
                messages.extend(batch.iter().map(|(m, conflated)| value(m.json_conflated(*conflated).get())));
            }
            Frame::Reset(notice) => {
                wire.resets.lock().unwrap_or_else(PoisonError::into_inner).push(value(notice.get()));
            }
        }
        Ok(())
    }

    fn kill(&self) {
        self.0.killed.store(true, Ordering::Release);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Release);
    }
}

impl Wire {
    /// The offsets that arrived of channel `name`.
    fn offsets(&self, name: &str) -> Vec<u64> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let own = messages.iter().filter(|m| m["channel"] == name);
        own.map(|m| m["offset"].as_u64().expect("an offset")).collect()
    }

    /// Everything that arrived, in its order: channel and offset.
    fn places(&self) -> Vec<(String, u64)> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |m: &Value| (m["channel"].as_str().map(str::to_owned), m["offset"].as_u64());
        messages.iter().map(place).map(|(name, at)| (name.expect("one"), at.expect("one"))).collect()
    }

    /// The notices that arrived: reason and offset.
    fn resets(&self) -> Vec<(String, u64)> {
        let resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |r: &Value| (r["reason"].as_str().map(str::to_owned), r["offset"].as_u64());
        resets.iter().map(read).map(|(reason, offset)| (reason.expect("one"), offset.expect("one"))).collect()
    }

    fn set_capacity(&self, frames: usize) {
        self.capacity.store(frames, Ordering::Release);
    }

    /// Waits until offset `last` of `name` arrived, and checks that all after `after` did, once and in order.
    async fn got(&self, name: &str, after: u64, last: u64) {
        wait_until("the newest message arrives", async || self.offsets(name).last() == Some(&last)).await;
        let offsets = self.offsets(name);
        assert!(offsets.iter().copied().eq(after + 1..=last), "{name} after {after}: {offsets:?}");
    }
}
