//! The sync state of many machines: a key in Redis for each place, which forgets itself.
//!
//! A place lies under the hash tag of its channel, because the channel's epoch and top decide whether it is
//! stored.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use ::redis::cmd;
use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Basis, Device, Place, Saved, SyncState};
use crate::fault::Fault;
use crate::model::{ChannelName, Epoch, Position, UserId};
use crate::redis::{Redis, RedisFault, Script};

/// How many places one call stores at most: others wait for Redis no longer than that takes.
const PLACES: usize = 256;
/// How many calls are on the way at once.
const CALLS: usize = 32;

static SAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/save.lua")));

/// Places in Redis.
#[derive(Debug, Clone)]
pub struct RedisSync {
    redis: Redis,
    retention_ms: u64,
}

impl RedisSync {
    /// Places in `redis`, kept for `retention` after they were last saved.
    #[must_use]
    pub fn new(redis: Redis, retention: Duration) -> Self {
        // Redis takes no expiry of nothing, and none that its clock cannot reach.
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 42);
        Self { redis, retention_ms }
    }

    fn key(&self, channel: &ChannelName, device: &Device, basis: Basis) -> String {
        let basis = match basis {
            Basis::Acknowledged => "ya",
            Basis::Written => "yw",
        };
        let user = device.user_id.as_ref().map_or("", UserId::as_str);
        // A user's name has no space.
        self.redis.key(&tag(channel), &format!("{basis}:{user} {}", device.client_id))
    }

    async fn save_in(&self, channel: &ChannelName, places: &[&Saved]) -> Result<(), RedisFault> {
        let mut keys = vec![self.redis.key(&tag(channel), "m")];
        keys.extend(places.iter().map(|saved| self.key(channel, &saved.device, saved.place.basis)));
        let mut call = SAVE.call(&keys);
        call.arg(self.retention_ms);
        for saved in places {
            let Position { epoch, offset } = &saved.place.position;
            call.arg(epoch.as_str()).arg(*offset);
        }
        self.redis.call(&call).await
    }
}

fn tag(channel: &ChannelName) -> String {
    format!("c:{channel}")
}

#[async_trait]
impl SyncState for RedisSync {
    async fn load(&self, device: &Device, channel: &ChannelName) -> Result<Option<Place>, Fault> {
        let both = [Basis::Acknowledged, Basis::Written];
        let mut command = cmd("MGET");
        for basis in both {
            command.arg(self.key(channel, device, basis));
        }
        let found: [Option<String>; 2] = self.redis.query(&command).await?;
        let places = found.into_iter().zip(both).filter_map(|(text, basis)| {
            let text = text?;
            let (epoch, offset) = text.rsplit_once(' ')?;
            let position = Position { epoch: Epoch::new(epoch), offset: offset.parse().ok()? };
            Some(Place { position, basis })
        });
        Ok(places.into_iter().next())
    }

    async fn save(&self, places: Vec<Saved>) -> Result<(), Fault> {
        let mut by_channel: HashMap<&ChannelName, Vec<&Saved>> = HashMap::new();
        for saved in &places {
            by_channel.entry(&saved.channel).or_default().push(saved);
        }
        let calls = by_channel.iter().flat_map(|(channel, places)| {
            places.chunks(PLACES).map(|places| self.save_in(channel, places)).collect::<Vec<_>>()
        });
        // Not one after the other: on one connection they go together.
        let calls: Vec<_> = calls.collect();
        let saving = stream::iter(calls).buffer_unordered(CALLS).try_collect::<Vec<()>>();
        saving.await?;
        Ok(())
    }

    async fn retain(&self) -> Result<bool, Fault> {
        // Redis forgets places by itself.
        Ok(false)
    }
}
