//! The server without its sockets: the real store, broker, fan-out and sync state, which can be ended and begun
//! again on the same files.

use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use rusqlite::Connection;
use tidings::broker::append::{Append, Draft, Fold};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker, LiveSink, Top};
use tidings::config::channels::Rules;
use tidings::fanout::Fanout;
use tidings::model::event::TestEvent;
use tidings::model::test::TestData;
use tidings::model::{ChannelName, EventName, MessageId, Priority, Published, TestId, now_ms};
use tidings::store::{Store, Synchronous};
use tidings::sync::embedded::EmbeddedSync;
use tidings::tasks::Tasks;

use super::ops::{End, Room};
use super::past::{News, Sent};
use crate::support::stored::lose;
use crate::support::{channel, raw};

/// Short windows, so that nobody waits long for the end of one.
const CHANNELS: &str = r#"
[defaults]
publish = ["worker"]
history = { size = 10000, ttl = "7d" }
batch = { max = 4, interval = "10ms" }

[channel.plain]
pattern = "plain-{id}"
events = ["custom:*"]

[channel.short]
pattern = "short-{id}"
events = ["custom:*"]
history = { size = 10 }

[channel.keyed]
pattern = "keyed-{id}"
events = ["custom:*"]
conflate = { "custom:state" = "key" }
history = { size = 40 }

[channel.test-progress]
pattern = "test-progress-{testId}"
events = ["test:started", "test:progress", "test:log", "test:completed", "custom:*"]
conflate = { "test:progress" = "testId" }
snapshot = true
[channel.test-progress.priority]
"test:started" = "high"
"test:progress" = "normal"
"test:log" = "low"
"test:completed" = "high"
"custom:*" = "normal"

[channel.lossy]
pattern = "lossy-{id}"
events = ["custom:*"]
history = { size = 0 }
"#;

/// How long the parts of a node may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn rules() -> Arc<Rules> {
    static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| {
        Arc::new(Rules::parse("channels.toml", CHANNELS).expect("the channels of the model have no mistake"))
    });
    RULES.clone()
}

/// Lets go of a fan-out that has ended: its broker and it would hold each other, and the store's files with them.
struct Ear(Weak<Fanout>);

impl LiveSink for Ear {
    fn published(&self, messages: Vec<Arc<Published>>) {
        if let Some(fanout) = self.0.upgrade() {
            fanout.published(messages);
        }
    }

    fn reset(&self, channel: &ChannelName, top: Top) {
        if let Some(fanout) = self.0.upgrade() {
            fanout.reset(channel, top);
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) store: Store,
    pub(super) broker: Arc<EmbeddedBroker>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) sync: Arc<EmbeddedSync>,
    tasks: Tasks,
}

impl Node {
    pub(super) async fn open(dir: &Path) -> Self {
        let store = loop {
            match Store::open(dir, Synchronous::Normal) {
                Ok(store) => break store,
                // A process that another test is just starting has a copy of the lock until it becomes itself.
                Err(tidings::store::OpenError::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("the store opens: {error}"),
            }
        };
        let (tasks, live) = (Tasks::new(), Live::default());
        let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules(), live.clone()));
        let fanout = Fanout::start(broker.clone(), rules(), 2, &tasks);
        live.connect(Arc::new(Ear(Arc::downgrade(&fanout))));
        let sync = Arc::new(EmbeddedSync::new(store.clone(), Duration::from_secs(3600)));
        Self { store, broker, fanout, sync, tasks }
    }

    /// Ends it; nothing of it is in memory any more afterwards.
    pub(super) async fn end(self) {
        assert!(self.tasks.stop(PATIENCE).await, "the tasks end");
        self.store.close().await;
    }
}

/// Makes the files look as `end` leaves them.
pub(super) fn leave_behind(dir: &Path, end: End) {
    let set = match end {
        End::Clean => return,
        End::Killed => "clean = 0",
        End::HostDown { .. } => "clean = 0, boot_id = 'another'",
    };
    let conn = Connection::open(dir.join("tidings.db")).expect("the database opens");
    assert_eq!(conn.execute(&format!("UPDATE run SET {set}"), []).expect("a note"), 1);
    let End::HostDown { lost } = end else { return };
    // The state of a test cannot be rolled back from outside.
    for room in Room::ALL.into_iter().filter(|room| *room != Room::Test) {
        lose(&conn, room.name(), lost.into()).expect("a loss");
    }
}

/// The message as the broker takes it.
pub(super) fn group(room: Room, sent: &Sent) -> AppendGroup {
    let mut data = serde_json::json!({ "serial": sent.serial });
    // Also where the event is none that is conflated.
    data[if room == Room::Test { "testId" } else { "key" }] = sent.key.as_deref().unwrap_or("t").into();
    match sent.news {
        Some(News::Started { attempt }) => data["attempt"] = attempt.into(),
        Some(News::Progress(progress)) => data["progress"] = progress.into(),
        Some(News::Log | News::Completed) | None => {}
    }
    if sent.large {
        data["pad"] = "x".repeat(6_000).into();
    }
    let data = raw(&data);
    let fold = sent.news.map(|_| {
        let event = TestEvent::from_name(sent.event).expect("an event of tests");
        let told = TestData::parse(event, &data).expect("the data of the event");
        Fold { test_id: TestId::parse("t").expect("a test id"), job_id: None, event, data: told }
    });
    let draft = Draft {
        id: MessageId::parse(&sent.id).expect("a message id"),
        fresh: false,
        event: EventName::parse(sent.event).expect("an event"),
        priority: Priority::from_number(sent.priority.into()).ok(),
        timestamp_ms: now_ms(),
        user_id: None,
        data: &data,
        extra: &[],
    };
    let resolved = rules().resolve(room.name()).expect("a channel of this test").namespace;
    let first = Append::new(channel(room.name()), resolved, draft, fold);
    AppendGroup { first, mirrors: Vec::new() }
}

/// The row of a channel: the top, and the oldest message that is still stored.
pub(super) async fn row(node: &Node, room: Room) -> (tidings::model::Position, u64) {
    let position = node.broker.top(&channel(room.name())).await.expect("a top").position;
    let read = node.store.read(move |conn| {
        conn.query_row("SELECT oldest FROM channel WHERE name = ?1", [room.name()], |row| row.get(0))
    });
    (position, read.await.expect("a row"))
}
