//! What several subjects need: waiting with a deadline, a sink that remembers, and the channels of the tests.

pub(crate) mod follows_all;
pub(crate) mod network;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod stored;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tidings::broker::append::{Append, Draft};
use tidings::broker::{AppendGroup, Broker, LiveSink, PageLimit, Top};
use tidings::config::channels::{BUILTIN, Rules};
use tidings::model::{ChannelName, EventName, Incoming, MessageId, Published, now_ms};
use tidings::store::WriteTx;

/// Nothing that the tests wait for takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Beside the compiled-in channels: some with particular histories.
const CHANNELS: &str = r#"
[channel.plain]
pattern = "plain-{id}"
events = ["custom:*"]

[channel.short]
pattern = "short-{id}"
events = ["custom:*"]
history = { size = 10 }

[channel.brief]
pattern = "brief-{id}"
events = ["custom:*"]
history = { ttl = "1m" }

[channel.lossy]
pattern = "lossy-{id}"
events = ["custom:*"]
history = { size = 0 }
"#;

/// More than any page of these tests holds.
pub(crate) const ALL: PageLimit = PageLimit { messages: 1_000_000, bytes: 1 << 40 };

/// The rules of the tests.
pub(crate) fn rules() -> Arc<Rules> {
    static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| {
        let text = format!("{BUILTIN}{CHANNELS}");
        Arc::new(Rules::parse("channels.toml", &text).expect("the channels of the tests have no mistake"))
    });
    RULES.clone()
}

/// Asks again and again until `ready` holds.
pub(crate) async fn wait_until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, asking).await;
    assert!(in_time.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// Ends a future that hangs.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Where a random test begins: given by `TIDINGS_TEST_SEED` to see a failure again, else new each time.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TIDINGS_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("TIDINGS_TEST_SEED={seed}");
    seed
}

/// A live sink that remembers everything.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Arc<Published>>>, Mutex<Vec<(ChannelName, Top)>>);

impl LiveSink for Recorder {
    fn published(&self, messages: Vec<Arc<Published>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
    }

    fn reset(&self, channel: &ChannelName, top: Top) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push((channel.clone(), top));
    }
}

impl Recorder {
    /// What was heard so far.
    pub(crate) fn all(&self) -> Vec<Arc<Published>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a channel was said to go on without continuing what was heard.
    pub(crate) fn resets(&self, channel: &str) -> Vec<Top> {
        let all = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(name, _)| name.as_str() == channel).map(|(_, top)| top.clone()).collect()
    }

    /// What was heard so far of one channel: offsets and ids.
    pub(crate) fn of(&self, channel: &str) -> Vec<(u64, String)> {
        let all = self.all();
        let own = all.iter().filter(|m| m.channel.as_str() == channel);
        own.map(|m| (m.position.offset, id_of(m))).collect()
    }

    /// Where everything was heard: channel and event.
    pub(crate) fn places(&self) -> Vec<(String, String)> {
        self.all().iter().map(|m| (m.channel.to_string(), m.event.to_string())).collect()
    }
}

/// A message as its receivers read it.
pub(crate) fn read(message: &Published) -> Value {
    serde_json::from_str(message.json().get()).expect("a published message is JSON")
}

/// The id of a message.
pub(crate) fn id_of(message: &Published) -> String {
    read(message)["id"].as_str().expect("a message has an id").to_owned()
}

/// The name of a channel.
pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel name")
}

/// JSON as it goes into a message.
pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("a value is JSON")
}

/// A message that is ready for `channel`.
pub(crate) fn append(rules: &Rules, name: &str, id: &str, data: &Value, timestamp_ms: i64) -> Append {
    let draft = Draft {
        id: MessageId::parse(id).expect("a message id"),
        fresh: false,
        event: EventName::parse("custom:test").expect("an event"),
        priority: None,
        timestamp_ms,
        user_id: None,
        data: &raw(data),
        extra: &[],
    };
    Append::own(rules, name, draft, None).expect("the rules of the tests have the channel")
}

/// One message by itself.
pub(crate) fn message(rules: &Rules, name: &str, id: &str) -> AppendGroup {
    AppendGroup { first: append(rules, name, id, &Value::from(id), now_ms()), mirrors: Vec::new() }
}

/// A message as somebody outside offers it.
pub(crate) fn incoming(name: &str, event: &str, data: &Value) -> Incoming {
    Incoming {
        id: None,
        event: EventName::parse(event).expect("an event"),
        channel: channel(name),
        priority: None,
        user_id: None,
        data: raw(data),
        extra: Vec::new(),
    }
}

/// Everything that can be read of a channel.
pub(crate) async fn history(broker: &dyn Broker, name: &str) -> Vec<Arc<Published>> {
    broker.history(&channel(name), 0, ALL).await.expect("history can be read").messages
}

/// The offsets and ids that can be read of a channel.
pub(crate) async fn stored(broker: &dyn Broker, name: &str) -> Vec<(u64, String)> {
    history(broker, name).await.iter().map(|m| (m.position.offset, id_of(m))).collect()
}

/// What retention does to a channel of which nothing is left for a month.
pub(crate) fn forget(tx: &mut WriteTx<'_>, channel: &str) -> rusqlite::Result<()> {
    tx.merge_places()?;
    for of in ["place_run", "given_id"] {
        let remove = format!("DELETE FROM {of} WHERE channel = (SELECT id FROM channel WHERE name = ?1)");
        tx.conn().execute(&remove, [channel])?;
    }
    tx.conn().execute("DELETE FROM channel WHERE name = ?1", [channel]).map(|_| ())
}
