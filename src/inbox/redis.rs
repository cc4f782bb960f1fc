//! The inbox of many machines: entries in Redis, under the hash tag of the channel that they came by.
//!
//! Entries are made by the script that appends their message (`note`); what becomes of them is changed here, by a
//! script for each change. `entry.lua` says what lies where. What is about all users lies in `shard`s.

mod note;
mod rows;
mod shard;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{FromRedisValue, cmd};
use async_trait::async_trait;
use futures_util::future::try_join_all;

pub(crate) use note::Notes;

use self::rows::{Listed, Row};
use self::shard::Shards;
use super::{Entry, Inbox, InboxError, InboxPage, Marked, PageOf, Receipt, channels_of};
use crate::config::channels::Rules;
use crate::config::settings::INBOX_RETENTION_ON_REDIS;
use crate::fault::Fault;
use crate::model::{ChannelName, Epoch, MessageId, Position, UserId, now_ms};
use crate::redis::{Call, Redis, RedisFault, Script};

/// How many entries one script removes at most; others wait for Redis no longer than that takes.
const STEP: usize = 500;
/// How many inboxes one call of retention looks at.
const INBOXES: usize = 64;
/// Scripts count with floating point numbers, which are exact up to here.
const MAX_OFFSET: u64 = 1 << 53;

macro_rules! with_entry {
    ($file:literal) => {
        Script::new(concat!("#!lua\n", include_str!("redis/entry.lua"), include_str!($file)))
    };
}

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(static $name: LazyLock<Script> = LazyLock::new(|| with_entry!($file));)+
    };
}

scripts!(
    LIST = "redis/list.lua",
    GET = "redis/get.lua",
    HAS = "redis/has.lua",
    MARK = "redis/mark.lua",
    ACKNOWLEDGE = "redis/acknowledge.lua",
    RECEIPTS = "redis/receipts.lua",
    WAITING = "redis/waiting.lua",
    RETAIN = "redis/retain.lua",
);

/// Inboxes in Redis.
#[derive(Debug, Clone)]
pub struct RedisInbox {
    redis: Redis,
    rules: Arc<Rules>,
    shards: Shards,
    retention: Duration,
}

impl RedisInbox {
    /// The inboxes in `redis` that `rules` know, whose entries are kept for `retention`, but no longer than
    /// [`INBOX_RETENTION_ON_REDIS`].
    #[must_use]
    pub fn new(redis: Redis, rules: Arc<Rules>, retention: Duration) -> Self {
        Self {
            shards: Shards::new(redis.clone()),
            redis,
            rules,
            retention: retention.min(INBOX_RETENTION_ON_REDIS),
        }
    }

    /// A call of `script` about the inbox that `channel` is.
    fn about<'a>(&self, script: &'a Script, channel: &ChannelName) -> Call<'a> {
        let mut call = script.call(&[base(&self.redis, channel), self.shards.key_for(channel)]);
        call.arg(channel.as_str());
        call
    }

    /// Asks the same of every inbox of `user`.
    async fn ask<T: FromRedisValue>(
        &self,
        user: &UserId,
        script: &Script,
        words: impl Fn(&mut Call<'_>),
    ) -> Result<Vec<T>, RedisFault> {
        let channels = channels_of(&self.rules, user);
        let calls = channels.iter().map(|channel| {
            let mut call = self.about(script, channel);
            words(&mut call);
            async move { self.redis.call(&call).await }
        });
        try_join_all(calls).await
    }

    async fn list(
        &self,
        user: &UserId,
        which: &str,
        until_ms: Option<i64>,
        page: PageOf,
    ) -> Result<InboxPage, InboxError> {
        let limit = page.limit.clamp(1, 1 << 20);
        let until = until_ms.map(|until| until.to_string()).unwrap_or_default();
        let after = page.after.unwrap_or(0).to_string();
        let listed: Vec<Listed> = self
            .ask(user, &LIST, |call| {
                call.arg(which).arg(&after).arg(&until).arg(limit).arg(page.bytes.min(1 << 30));
            })
            .await?;
        Ok(rows::merge(listed, limit)?)
    }

    /// Marks all of `ids`, or none.
    async fn mark(&self, user: &UserId, how: &str, ids: &[MessageId]) -> Result<Marked, InboxError> {
        let (now, several) = (now_ms(), channels_of(&self.rules, user).len() > 1);
        let names = |call: &mut Call<'_>| {
            for id in ids {
                call.arg(id.as_str());
            }
        };
        if several {
            // Entries of several inboxes: each has to be in one of them. None goes between this and the change
            // but by retention.
            let known: Vec<Vec<bool>> = self.ask(user, &HAS, names).await?;
            let missing =
                (0..ids.len()).find(|index| !known.iter().any(|known| known.get(*index) == Some(&true)));
            if let Some(missing) = missing.and_then(|index| ids.get(index)) {
                return Err(InboxError::NotFound(missing.clone()));
            }
        }
        let marked: Vec<(u64, u64, String)> = self
            .ask(user, &MARK, |call| {
                call.arg(how).arg(now).arg(if several { "known" } else { "all" });
                names(call);
            })
            .await?;
        let mut sum = Marked { changed: 0, left: 0 };
        for (changed, left, missing) in marked {
            if let Ok(missing) = MessageId::parse(&missing) {
                return Err(InboxError::NotFound(missing));
            }
            sum = Marked { changed: sum.changed + changed, left: sum.left + left };
        }
        Ok(sum)
    }

    async fn receipts(&self, what: &str, receipts: &[Receipt]) -> Result<(), InboxError> {
        let now = now_ms();
        // In runs of one user, which keep their order; different users have nothing to do with each other.
        let mut by_user: std::collections::BTreeMap<&UserId, Vec<&Receipt>> = Default::default();
        for receipt in receipts {
            by_user.entry(&receipt.user_id).or_default().push(receipt);
        }
        let calls = by_user.into_iter().map(|(user, receipts)| async move {
            let words = |call: &mut Call<'_>| {
                call.arg(what).arg(now);
                for Receipt { position, live, taker, .. } in &receipts {
                    let taker = if *live { &**taker } else { "" };
                    call.arg(position.epoch.as_str()).arg(position.offset).arg(taker);
                }
            };
            self.ask::<()>(user, &RECEIPTS, words).await
        });
        try_join_all(calls).await?;
        Ok(())
    }

    /// Removes what is too old from one inbox; whether there may be more.
    async fn retain_in(&self, channel: &str, before: i64) -> Result<bool, RedisFault> {
        let Ok(channel) = ChannelName::parse(channel) else { return Ok(false) };
        let mut call = self.about(&RETAIN, &channel);
        call.arg(before).arg(STEP);
        let removed: usize = self.redis.call(&call).await?;
        Ok(removed == STEP)
    }
}

/// The key of the inbox that `channel` is.
fn base(redis: &Redis, channel: &ChannelName) -> String {
    redis.key(&format!("c:{channel}"), "n")
}

impl From<RedisFault> for InboxError {
    fn from(fault: RedisFault) -> Self {
        Fault::from(fault).into()
    }
}

#[async_trait]
impl Inbox for RedisInbox {
    async fn unread(&self, user: &UserId, page: PageOf) -> Result<InboxPage, InboxError> {
        self.list(user, "unread", None, page).await
    }

    async fn offline(
        &self,
        user: &UserId,
        on_the_way_ms: Option<i64>,
        page: PageOf,
    ) -> Result<InboxPage, InboxError> {
        self.list(user, "offline", on_the_way_ms, page).await
    }

    async fn find(&self, id: &MessageId, limit: usize) -> Result<Vec<Entry>, InboxError> {
        let shards = self.shards.keys().await?;
        let asked = shards.iter().map(|shared| async move {
            let mut command = cmd("ZRANGE");
            command.arg(format!("{shared}f:{id}")).arg(0).arg(limit.saturating_sub(1));
            self.redis.query::<Vec<String>>(&command).await
        });
        let channels = try_join_all(asked).await?.into_iter().flatten();
        let channels = channels.filter_map(|name| ChannelName::parse(&name).ok()).take(limit);
        let found = channels.map(|channel| async move {
            let mut call = self.about(&GET, &channel);
            call.arg(id.as_str());
            self.redis.call::<Vec<Row>>(&call).await
        });
        let mut rows: Vec<Row> = try_join_all(found).await?.into_iter().flatten().collect();
        rows.sort_by_key(Row::seq);
        Ok(rows.into_iter().map(Row::entry).collect::<Result<_, _>>()?)
    }

    async fn mark_read(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError> {
        self.mark(user, "read", &ids).await
    }

    async fn confirm(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError> {
        self.mark(user, "confirm", &ids).await
    }

    async fn acknowledge(&self, user: &UserId, position: &Position) -> Result<u64, InboxError> {
        let (offset, now) = (position.offset.min(MAX_OFFSET), now_ms());
        let confirmed: Vec<u64> = self
            .ask(user, &ACKNOWLEDGE, |call| {
                call.arg(position.epoch.as_str()).arg(offset).arg(now);
            })
            .await?;
        Ok(confirmed.into_iter().sum())
    }

    async fn delivered(&self, receipts: Vec<Receipt>) -> Result<(), InboxError> {
        self.receipts("delivered", &receipts).await
    }

    async fn failed(&self, receipts: Vec<Receipt>) -> Result<(), InboxError> {
        self.receipts("failed", &receipts).await
    }

    async fn waiting(&self, user: &UserId, channel: &ChannelName) -> Result<Option<Position>, InboxError> {
        if !channels_of(&self.rules, user).contains(channel) {
            return Ok(None);
        }
        let (base, shared) = (base(&self.redis, channel), self.shards.key_for(channel));
        let own = self.redis.key(&format!("c:{channel}"), "m");
        let mut call = WAITING.call(&[base, shared, own]);
        call.arg(channel.as_str());
        let (epoch, offset): (String, u64) = self.redis.call(&call).await?;
        Ok((offset > 0).then(|| Position { epoch: Epoch::new(&epoch), offset }))
    }

    async fn unread_in_all(&self) -> Result<u64, InboxError> {
        let shards = self.shards.keys().await?;
        let counts = shards.iter().map(|shared| async move {
            let mut command = cmd("HGET");
            command.arg(shared).arg("all");
            self.redis.query::<Option<u64>>(&command).await
        });
        Ok(try_join_all(counts).await?.into_iter().flatten().sum())
    }

    async fn retain(&self) -> Result<bool, InboxError> {
        let kept_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(kept_ms);
        let mut more = false;
        for shared in self.shards.keys().await? {
            let mut command = cmd("ZRANGE");
            command.arg(format!("{shared}r")).arg("-inf").arg(format!("({before}")).arg("BYSCORE");
            command.arg("LIMIT").arg(0).arg(INBOXES);
            let old: Vec<String> = self.redis.query(&command).await?;
            more |= old.len() == INBOXES;
            for channel in old {
                more |= self.retain_in(&channel, before).await?;
            }
        }
        Ok(more)
    }
}
