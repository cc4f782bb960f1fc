//! What all parts of the broker share: the way to Redis, the names of keys, the scripts, and what was seen last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::record::Unreadable;
use crate::broker::BrokerError;
use crate::config::channels::{History, Rules};
use crate::fault::{Cause, Fault};
use crate::inbox::redis::Notes;
use crate::model::{ChannelName, Epoch, MessageId, Snapshot, now_ms};
use crate::redis::{Redis, RedisFault, Script};

/// A script with what it shares with others before it.
macro_rules! script {
    ($name:ident, $head:literal, $($file:literal),+) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($head, $(include_str!($file)),+)));
    };
}
script!(
    APPEND,
    "#!lua\n",
    "../../inbox/redis/entry.lua",
    "../../inbox/redis/note.lua",
    "entries.lua",
    "keep.lua",
    "tests.lua",
    "append.lua"
);
script!(TOGETHER, "#!lua\n", "entries.lua", "keep.lua", "tests.lua", "together.lua");
script!(BEGIN, "#!lua\n", "tests.lua", "begin.lua");
script!(CHECK, "#!lua\n", "entries.lua", "check.lua");
script!(HISTORY, "#!lua flags=no-writes\n", "entries.lua", "history.lua");
script!(SURVEY, "#!lua flags=no-writes\n", "entries.lua", "survey.lua");
script!(TOP, "#!lua\n", "top.lua");
script!(NOTE, "#!lua\n", "note.lua");

/// How long a channel's epoch and top, and a test's snapshot, outlive their last change at least.
pub(super) const KEPT: Duration = Duration::from_hours(30 * 24);
/// The longest life of any key; beyond it arithmetic in milliseconds would be at its end.
const LONGEST: Duration = Duration::from_hours(3650 * 24);
/// How many channels are remembered by what was seen of them last, and snapshots by what they were.
const REMEMBERED: usize = 4096;

/// The last message of a channel that this node knows of: what the store must not fall back behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    pub(super) offset: u64,
    /// The message there, if it is known which one.
    pub(super) id: Option<MessageId>,
}

/// The state of a test as it lies in Redis.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    /// Rises by one with each change; 0 while there is none.
    pub(super) version: u64,
    pub(super) snapshot: Option<Arc<Snapshot>>,
}

pub(super) struct Core {
    pub(super) redis: Redis,
    publication: String,
    pub(super) rules: Arc<Rules>,
    /// The newest messages that were appended here: a store that lost them has gone back.
    pub(super) tops: Recent<ChannelName, Known>,
    /// The snapshots that were written or read here last, by their channels. They may be old: the scripts look.
    pub(super) snapshots: Recent<ChannelName, Stored>,
    /// What messages are to inboxes.
    pub(super) notes: Notes,
    /// Told when the store may have gone back.
    pub(super) suspicion: Notify,
}

impl Core {
    pub(super) fn new(redis: Redis, rules: Arc<Rules>) -> Self {
        let (tops, snapshots) = (Recent::new(REMEMBERED), Recent::new(REMEMBERED));
        let notes = Notes::new(redis.clone());
        let publication = match redis.options().url.database() {
            0 => "p".to_owned(),
            database => format!("p{database}"),
        };
        Self { redis, publication, rules, tops, snapshots, notes, suspicion: Notify::new() }
    }

    /// The key `name` of a channel: `m`eta, `h`istory.
    pub(super) fn key(&self, channel: &ChannelName, name: &str) -> String {
        self.redis.key(&format!("c:{channel}"), name)
    }

    /// The key of the index of tests.
    pub(super) fn index(&self) -> String {
        self.redis.key("t", "")
    }

    /// The channel whose publications have this name.
    pub(super) fn channel_of(&self, name: &[u8]) -> Option<ChannelName> {
        let name = std::str::from_utf8(name).ok()?;
        let name = name.strip_prefix(&self.redis.options().prefix)?;
        ChannelName::parse(name.strip_prefix("{c:")?.strip_suffix(self.publication())?.strip_suffix('}')?)
            .ok()
    }

    /// What the names of publications end with. They know no databases, so the name has to.
    pub(super) fn publication(&self) -> &str {
        &self.publication
    }

    /// The command that publishes.
    pub(super) fn publish(&self) -> &'static str {
        if self.redis.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    pub(super) fn history_of(&self, channel: &ChannelName) -> Option<History> {
        self.rules.resolve(channel.as_str()).map(|resolved| resolved.namespace.history)
    }

    /// Compares what is known of a channel with what is there; the epoch and the top, which are new ones if the
    /// store went back.
    pub(super) async fn check(
        &self,
        channel: &ChannelName,
        known: &Known,
    ) -> Result<(Epoch, u64), RedisFault> {
        let keys = [self.key(channel, "m"), self.key(channel, "h")];
        let mut call = CHECK.call(&keys);
        call.arg(known.epoch.as_str()).arg(known.offset);
        call.arg(known.id.as_ref().map_or("", MessageId::as_str)).arg(Epoch::generate().as_str());
        call.arg(self.publish()).arg(ms(KEPT)).arg(self.publication());
        let (epoch, top): (String, u64) = self.redis.call(&call).await?;
        if epoch != known.epoch.as_str() {
            tracing::warn!(%channel, known = %known.epoch, offset = known.offset, now = epoch, top, "Redis does not have what it had: the channel has another past");
        }
        Ok((Epoch::new(&epoch), top))
    }
}

/// Milliseconds, as far as they can be counted.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.min(LONGEST).as_millis()).unwrap_or(u64::MAX)
}

/// What is older than this is forgotten.
pub(super) fn cutoff(history: History) -> i64 {
    now_ms().saturating_sub(i64::try_from(ms(history.ttl)).unwrap_or(i64::MAX))
}

impl From<RedisFault> for BrokerError {
    fn from(fault: RedisFault) -> Self {
        Fault::from(fault).into()
    }
}

impl From<Unreadable> for BrokerError {
    fn from(error: Unreadable) -> Self {
        Self::Unavailable(Cause::new(error))
    }
}

/// A map that forgets what was not used for long: at least the `size` newest entries are there.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    size: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    fn new(size: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { size, generations: Mutex::new(generations) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let generations = self.lock();
        generations.young.get(key).or_else(|| generations.old.get(key)).cloned()
    }

    pub(super) fn put(&self, key: K, value: V) {
        let mut generations = self.lock();
        generations.young.insert(key, value);
        if generations.young.len() > self.size {
            generations.old = std::mem::take(&mut generations.young);
        }
    }

    pub(super) fn remove(&self, key: &K) {
        let mut generations = self.lock();
        generations.young.remove(key);
        generations.old.remove(key);
    }

    pub(super) fn all(&self) -> Vec<(K, V)> {
        let generations = self.lock();
        let old = generations.old.iter().filter(|(key, _)| !generations.young.contains_key(*key));
        generations.young.iter().chain(old).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        // Every entry is right by itself.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_are_there_and_the_oldest_go() {
        let recent = Recent::new(10);
        for n in 0..100 {
            recent.put(n, n);
            for newest in (n - 9).max(0)..=n {
                assert_eq!(recent.get(&newest), Some(newest));
            }
            assert!(recent.all().len() <= 22);
        }
        assert_eq!(recent.get(&0), None);
        recent.remove(&99);
        assert_eq!(recent.get(&99), None);
    }
}
