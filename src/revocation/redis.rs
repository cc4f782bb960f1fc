//! Revocations of many machines: a set of users and a sorted set of tokens in Redis.
//!
//! Each change raises a number, which every node looks at twice a second. That a publication would be faster does not
//! count here, and it could be lost. Where there is no number yet it begins with a random history in its upper bits, so
//! that a Redis which lost its data is not taken for one that has had few changes. So it does where somebody who makes a
//! change has seen a later number.
//!
//! When users were let in is kept as such a number, too: a node that was away when Redis lost its data puts back what it
//! has, and not who was let in meanwhile.

use std::sync::LazyLock;

use ::redis::cmd;
use async_trait::async_trait;

use super::{Change, MOST, RevocationError, Revocations, Revoked, Version};
use crate::fault::Fault;
use crate::model::{UserId, now_ms};
use crate::redis::{Redis, Script};

static APPLY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/apply.lua")));

/// What the script says where there is no room.
const TOO_MANY: i64 = -1;
/// So many bits of the number count changes.
const NUMBER_BITS: u32 = 22;
/// So many are its history: with the others no more than Lua holds exactly.
const HISTORY_BITS: u32 = 30;

/// Revocations in Redis.
#[derive(Debug, Clone)]
pub struct RedisRevocations {
    redis: Redis,
    users: String,
    tokens: String,
    version: String,
    lifted: String,
}

impl RedisRevocations {
    /// Those in `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let key = |name| redis.key("revoked", name);
        Self { users: key("u"), tokens: key("t"), version: key("v"), lifted: key("l"), redis }
    }

    async fn change(&self, change: &Change, known: Version, again: bool) -> Result<bool, RevocationError> {
        let (what, name, until) = match change {
            Change::Block(user) => ("block", user.as_str(), 0),
            Change::Unblock(user) => ("unblock", user.as_str(), 0),
            Change::Revoke(token, until) => ("revoke", token.as_str(), *until),
        };
        let mut call = APPLY.call(&[&self.users, &self.tokens, &self.version, &self.lifted]);
        call.arg(what).arg(name).arg(until).arg(now_ms()).arg(MOST);
        call.arg(fastrand::u64(1..1 << HISTORY_BITS) << NUMBER_BITS);
        call.arg((known.history << NUMBER_BITS) | known.number)
            .arg(1_u64 << NUMBER_BITS)
            .arg(u8::from(again));
        let answer: i64 = self.redis.call(&call).await.map_err(Fault::from)?;
        if answer == TOO_MANY { Err(RevocationError::TooMany) } else { Ok(answer > 0) }
    }
}

#[async_trait]
impl Revocations for RedisRevocations {
    async fn apply(&self, change: Change, known: Version) -> Result<bool, RevocationError> {
        self.change(&change, known, false).await
    }

    async fn put_back(&self, change: Change, known: Version) -> Result<bool, RevocationError> {
        self.change(&change, known, true).await
    }

    async fn load(&self) -> Result<Revoked, Fault> {
        let users: Vec<String> = self.redis.query(cmd("SMEMBERS").arg(&self.users)).await?;
        let mut held = cmd("ZRANGE");
        held.arg(&self.tokens).arg(format!("({}", now_ms())).arg("+inf").arg("BYSCORE").arg("WITHSCORES");
        let tokens: Vec<(String, f64)> = self.redis.query(&held).await?;
        // Times are whole and far below what a float holds exactly.
        #[expect(clippy::cast_possible_truncation, reason = "a time in ms is a whole number")]
        let tokens = tokens.into_iter().map(|(token, until)| (token, until as i64)).collect();
        Ok(Revoked { users: users.iter().filter_map(|user| UserId::parse(user).ok()).collect(), tokens })
    }

    async fn version(&self) -> Result<Version, Fault> {
        let version: Option<u64> = self.redis.query(cmd("GET").arg(&self.version)).await?;
        let version = version.unwrap_or(0);
        Ok(Version { history: version >> NUMBER_BITS, number: version & ((1 << NUMBER_BITS) - 1) })
    }
}
