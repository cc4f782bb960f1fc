//! Shards: where what all inboxes share lies, so that one script can change it together with an inbox.
//!
//! On one Redis there is one shard. In a cluster a script has only keys of one slot: there each slot is a shard,
//! with a hash tag that lies in it, and a bitmap says which shards were ever used.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::cmd;

use crate::model::ChannelName;
use crate::redis::{Redis, RedisFault};

/// The slots of a cluster.
const SLOTS: u16 = 16_384;
/// So often this process says again that a shard is used, should the cluster have forgotten.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// For each slot a hash tag that lies in it.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut tags = vec![String::new(); usize::from(SLOTS)];
    let mut missing = tags.len();
    for n in 0_u32.. {
        let tag = format!("x{n}");
        let place = &mut tags[usize::from(slot(&tag))];
        if place.is_empty() {
            *place = tag;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags
});

/// The shards of one Redis. Clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    redis: Redis,
    said: Arc<Mutex<HashMap<u16, Instant>>>,
}

impl Shards {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis, said: Arc::default() }
    }

    /// The key of what the inboxes in the shard of `channel` share.
    pub(crate) fn key_for(&self, channel: &ChannelName) -> String {
        let tag = match self.redis.is_cluster() {
            true => &TAGS[usize::from(slot(&format!("c:{channel}")))],
            false => "x",
        };
        self.redis.key(tag, "n")
    }

    /// Has to be called before an entry is made in `channel`: then [`Shards::keys`] has its shard.
    pub(crate) async fn enter(&self, channel: &ChannelName) -> Result<(), RedisFault> {
        if !self.redis.is_cluster() {
            return Ok(());
        }
        let slot = slot(&format!("c:{channel}"));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).get(&slot).copied();
        if said.is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return Ok(());
        }
        self.redis.query::<()>(cmd("SETBIT").arg(self.used()).arg(slot).arg(1)).await?;
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, Instant::now());
        Ok(())
    }

    /// The keys of all shards that have something.
    pub(crate) async fn keys(&self) -> Result<Vec<String>, RedisFault> {
        if !self.redis.is_cluster() {
            return Ok(vec![self.redis.key("x", "n")]);
        }
        let used: Vec<u8> = self.redis.query(cmd("GET").arg(self.used())).await?;
        let is_used = |slot: usize| used.get(slot / 8).is_some_and(|byte| byte & (0x80 >> (slot % 8)) != 0);
        let slots = (0..usize::from(SLOTS)).filter(|slot| is_used(*slot));
        Ok(slots.map(|slot| self.redis.key(&TAGS[slot], "n")).collect())
    }

    fn used(&self) -> String {
        self.redis.key("x", "slots")
    }
}

/// The slot of a hash tag: CRC-16/XMODEM, as the specification of Redis Cluster says.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_and_each_has_a_tag() {
        // From the specification, and from `CLUSTER KEYSLOT`.
        assert_eq!((slot("123456789"), slot("foo"), slot("c:x")), (0x31C3 % SLOTS, 12_182, 6_138));
        assert!(TAGS.iter().enumerate().all(|(index, tag)| usize::from(slot(tag)) == index));
    }
}
