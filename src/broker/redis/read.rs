//! Reading: tops, stretches of history, and tests.

use std::sync::Arc;
use std::time::Duration;

use super::append::parse;
use super::core::{Core, HISTORY, KEPT, SURVEY, Stored, TOP, cutoff, ms};
use super::record::Record;
use crate::broker::{BrokerError, Page, PageLimit, Survey, TestPage, Top};
use crate::model::event::test_progress_channel;
use crate::model::{ChannelName, Epoch, MessageId, Position, Published, Snapshot, TestId, TestState, now_ms};
use ::redis::{Value, cmd};

/// How many messages one call of a survey looks at: others wait for no more than that.
const SURVEY_STEP: u64 = 512;

/// How many tests one step of retention looks at.
const RETAIN_STEP: usize = 100;
/// When retention looks again at a test that it found still kept.
const SEEN_AGAIN: Duration = Duration::from_hours(24);

/// A page, with the ids of its messages.
pub(super) struct Read {
    pub(super) page: Page,
    pub(super) ids: Vec<MessageId>,
}

impl Core {
    /// The end of a channel, which gets its epoch now if it has none.
    pub(super) async fn top(&self, channel: &ChannelName) -> Result<Top, BrokerError> {
        let keys = ["m", "h"].map(|name| self.key(channel, name));
        let mut call = TOP.call(&keys);
        call.arg(Epoch::generate().as_str()).arg(ms(KEPT));
        let (epoch, offset, version, text): (String, u64, u64, String) = self.redis.call(&call).await?;
        let position = Position { epoch: Epoch::new(&epoch), offset };
        let mut snapshot = None;
        if version > 0 && self.has_snapshots(channel) {
            let stored = parse(&text)?;
            self.snapshots.put(channel.clone(), Stored { version, snapshot: Some(Arc::new(stored.clone())) });
            snapshot = Some(place(stored, &position));
        }
        Ok(Top { position, snapshot })
    }

    fn has_snapshots(&self, channel: &ChannelName) -> bool {
        self.rules.resolve(channel.as_str()).is_some_and(|resolved| resolved.namespace.snapshot)
    }

    /// A stretch of history; nothing if there is no such channel.
    pub(super) async fn read(
        &self,
        channel: &ChannelName,
        after: u64,
        limit: PageLimit,
    ) -> Result<Option<Read>, BrokerError> {
        // Numbers in scripts are exact up to 2^53, and no channel gets there.
        let bounded = |n: usize| u64::try_from(n).unwrap_or(u64::MAX).clamp(1, 1 << 50);
        let mut call = HISTORY.call(&[self.key(channel, "m"), self.key(channel, "h")]);
        call.arg(after.min(1 << 50)).arg(bounded(limit.messages)).arg(bounded(limit.bytes));
        match self.history_of(channel) {
            Some(history) => call.arg(history.size.min(1 << 50)).arg(cutoff(history)),
            None => call.arg("").arg(""),
        };
        let mut answer = self.redis.call::<Vec<Value>>(&call).await?.into_iter();
        let Some(epoch) = answer.next() else { return Ok(None) };
        let epoch = Epoch::new(&read::<String>(epoch)?);
        let (top, oldest) =
            (read(answer.next().unwrap_or(Value::Nil))?, read(answer.next().unwrap_or(Value::Nil))?);
        let (mut messages, mut ids) = (Vec::new(), Vec::new());
        while let (Some(offset), Some(bytes)) = (answer.next(), answer.next()) {
            let (offset, bytes): (u64, Vec<u8>) = (read(offset)?, read(bytes)?);
            let record = Record::read(&bytes)?;
            messages.push(Arc::new(record.publish(channel, Position { epoch: epoch.clone(), offset })?));
            ids.push(record.message_id()?);
        }
        Ok(Some(Read { page: Page { messages, epoch, top, oldest }, ids }))
    }

    /// The same, for a channel that gets its epoch now if it has none.
    pub(super) async fn history(
        &self,
        channel: &ChannelName,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        if let Some(found) = self.read(channel, after, limit).await? {
            return Ok(found.page);
        }
        let Position { epoch, offset } = self.top(channel).await?.position;
        Ok(Page { messages: Vec::new(), epoch, top: offset, oldest: offset + 1 })
    }

    pub(super) async fn survey(
        &self,
        channel: &ChannelName,
        after: u64,
        upto: u64,
    ) -> Result<Survey, BrokerError> {
        let mut survey = Survey::default();
        let mut after = after.min(1 << 50);
        let upto = upto.min(1 << 50);
        while after < upto {
            let mut call = SURVEY.call(&[self.key(channel, "h")]);
            call.arg(after).arg(upto).arg(SURVEY_STEP);
            let mut answer = self.redis.call::<Vec<Value>>(&call).await?.into_iter();
            after = read(answer.next().unwrap_or(Value::Nil))?;
            survey.plain += read::<u64>(answer.next().unwrap_or(Value::Nil))?;
            while let (Some(key), Some(offset)) = (answer.next(), answer.next()) {
                survey.newest.insert(read::<String>(key)?.into(), read(offset)?);
            }
        }
        Ok(survey)
    }

    pub(super) async fn snapshot(&self, test: &TestId) -> Result<Option<Snapshot>, BrokerError> {
        // Read without giving an epoch to a channel that nobody has ever used.
        let Ok(channel) = ChannelName::parse(&test_progress_channel(test)) else { return Ok(None) };
        let text = self.redis.query(cmd("HGET").arg(self.key(&channel, "m")).arg("text")).await?;
        if Option::<String>::is_none(&text) {
            return Ok(None);
        }
        Ok(self.top(&channel).await?.snapshot)
    }

    pub(super) async fn tests(
        &self,
        state: Option<TestState>,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<TestPage, BrokerError> {
        let list = format!("{}{}", self.index(), state.map_or("all", TestState::name));
        let mut before = cursor.map_or_else(|| "+inf".to_owned(), |cursor| format!("({cursor}"));
        let mut tests = Vec::new();
        loop {
            let wanted = limit + 1 - tests.len();
            let mut command = cmd("ZRANGE");
            command.arg(&list).arg(&before).arg("-inf").arg("BYSCORE").arg("REV");
            command.arg("LIMIT").arg(0).arg(wanted).arg("WITHSCORES");
            let found: Vec<(String, f64)> = self.redis.query(&command).await?;
            let more = found.len() == wanted;
            for (test, seq) in found {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the index counts from 1 in whole numbers"
                )]
                let seq = seq as i64;
                before = format!("({seq}");
                let Ok(test) = TestId::parse(&test) else { continue };
                // The list may be a little behind.
                let snapshot = self.snapshot(&test).await?;
                let listed = snapshot.filter(|found| state.is_none_or(|state| found.state == state));
                tests.extend(listed.map(|snapshot| (seq, snapshot)));
            }
            if !more || tests.len() > limit {
                break;
            }
        }
        let next = (tests.len() > limit).then(|| tests[limit.saturating_sub(1)].0);
        tests.truncate(limit);
        Ok(TestPage { tests: tests.into_iter().map(|(_, snapshot)| snapshot).collect(), next })
    }

    /// Removes tests from the lists that were not heard of for so long that nothing of them is left; whether there may
    /// be more.
    pub(super) async fn retain(&self) -> Result<bool, BrokerError> {
        let (index, before) = (self.index(), now_ms().saturating_sub(i64::try_from(ms(KEPT)).unwrap_or(0)));
        let mut command = cmd("ZRANGE");
        command.arg(format!("{index}seen")).arg("-inf").arg(before).arg("BYSCORE").arg("LIMIT").arg(0);
        let old: Vec<String> = self.redis.query(command.arg(RETAIN_STEP)).await?;
        for name in &old {
            let test = TestId::parse(name).ok();
            let kept = match &test {
                Some(test) => self.snapshot(test).await?.is_some(),
                None => false,
            };
            let seen = format!("{index}seen");
            if kept {
                // It was heard of since it was listed. It is looked at again before long: nothing says when it ends.
                let again = before.saturating_add(i64::try_from(ms(SEEN_AGAIN)).unwrap_or(0));
                let () = self.redis.query(cmd("ZADD").arg(&seen).arg("XX").arg(again).arg(name)).await?;
                continue;
            }
            let () = self.redis.query(cmd("HDEL").arg(format!("{index}versions")).arg(name)).await?;
            for list in TestState::ALL.map(TestState::name).into_iter().chain(["all", "seen"]) {
                let () = self.redis.query(cmd("ZREM").arg(format!("{index}{list}")).arg(name)).await?;
            }
        }
        Ok(old.len() == RETAIN_STEP)
    }
}

/// The snapshot at the top of its channel: one script reads, and one writes, both.
fn place(mut snapshot: Snapshot, position: &Position) -> Snapshot {
    snapshot.epoch = position.epoch.clone();
    snapshot.offset = position.offset;
    snapshot
}

fn read<T: ::redis::FromRedisValue>(value: Value) -> Result<T, BrokerError> {
    let unreadable = |error| BrokerError::from(crate::redis::RedisFault::unreadable(&error));
    ::redis::from_redis_value(value).map_err(unreadable)
}

/// The messages of a page with their ids.
pub(super) fn with_ids(read: Read) -> Vec<(MessageId, Arc<Published>)> {
    read.ids.into_iter().zip(read.page.messages).collect()
}
