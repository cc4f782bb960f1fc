//! The scripts, and where what they are about lies.

use std::sync::LazyLock;
use std::time::Duration;

use crate::presence::table::PENDING;
use crate::redis::{Call, Redis, RedisFault, Script};

/// What nobody writes or takes out any more goes after so long.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many names one script takes out at most; others wait for Redis no longer than that takes.
const STEP: usize = 500;
/// In a cluster the names are spread over so many slots.
const BUCKETS: usize = 16;

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!("#!lua\n", include_str!("tally.lua"), include_str!($file)))
        });)+
    };
}

scripts!(
    BEGIN = "begin.lua",
    CHECK = "check.lua",
    COUNT = "count.lua",
    DROP = "drop.lua",
    TOLD = "told.lua",
    HUSH = "hush.lua",
    BEGIN_OWN = "begin_own.lua",
    OWN = "own.lua",
    RENEW = "renew.lua",
    CLEAR = "clear.lua",
);

/// Milliseconds as scripts take them.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 42)
}

/// The key that those of a node begin with.
pub(super) fn own(redis: &Redis, node: &str) -> String {
    redis.key(&format!("n:{node}"), "p")
}

/// Names that are counted over all nodes: those of users, or those of rooms.
#[derive(Debug, Clone)]
pub(super) struct Names {
    redis: Redis,
    kind: &'static str,
    tells: bool,
}

impl Names {
    /// Users, whose coming and going is told.
    pub(super) fn users(redis: Redis) -> Self {
        Self { redis, kind: "pu", tells: true }
    }

    /// Rooms.
    pub(super) fn rooms(redis: Redis) -> Self {
        Self { redis, kind: "pr", tells: false }
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// In how many places they are kept.
    pub(super) fn buckets(&self) -> usize {
        if self.redis.is_cluster() { BUCKETS } else { 1 }
    }

    /// The key that those of a place begin with.
    pub(super) fn base(&self, bucket: usize) -> String {
        self.redis.key(&format!("{}:{bucket}", self.kind), "p")
    }

    pub(super) fn bases(&self) -> Vec<String> {
        (0..self.buckets()).map(|bucket| self.base(bucket)).collect()
    }

    /// In which place a name is kept: FNV-1a, which no version of a library changes.
    pub(super) fn bucket(&self, name: &str) -> usize {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        usize::try_from(hash % (self.buckets() as u64)).unwrap_or(0)
    }

    /// A batch of a node's counts, to which the caller adds names, counts and times.
    pub(super) fn count(&self, bucket: usize, node: &str, incarnation: &str, number: u64) -> Call<'static> {
        let mut call = COUNT.call(&[self.base(bucket)]);
        call.arg(node).arg(incarnation).arg(number).arg(self.tells).arg(PENDING).arg(ms(KEPT));
        call
    }

    /// Takes an incarnation of a node out of one place; whether there is anything to be told there.
    pub(super) async fn drop(
        &self,
        bucket: usize,
        node: &str,
        incarnation: &str,
    ) -> Result<bool, RedisFault> {
        loop {
            let mut call = DROP.call(&[self.base(bucket)]);
            call.arg(node).arg(incarnation).arg(self.tells).arg(PENDING).arg(ms(KEPT)).arg(STEP);
            let (more, untold): (bool, usize) = self.redis.call(&call).await?;
            if !more {
                return Ok(untold > 0);
            }
        }
    }
}
