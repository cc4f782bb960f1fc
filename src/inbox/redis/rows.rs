//! Reading: what the scripts answer, as entries.

use std::error::Error;
use std::fmt::Write as _;

use ::redis::{FromRedisValue, ParsingError, Value};
use serde_json::value::RawValue;

use crate::inbox::{Entry, InboxPage, Status};
use crate::model::{ChannelName, Epoch, MessageId, Position, UserId};
use crate::redis::RedisFault;

/// An entry as `box.row` of `entry.lua` makes it.
#[derive(Debug)]
pub(super) struct Row(Fields);

/// Sequence number, channel, id, epoch, offset, status, delivered at, read at, user, sender, message.
type Fields = (i64, String, String, String, u64, String, i64, i64, String, String, String);

/// What `list.lua` answers.
#[derive(Debug)]
pub(super) struct Listed {
    total: u64,
    more: bool,
    rows: Vec<Row>,
}

impl FromRedisValue for Row {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Fields::from_redis_value(value).map(Self)
    }
}

impl FromRedisValue for Listed {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (total, more, rows): (u64, bool, Vec<Value>) = FromRedisValue::from_redis_value(value)?;
        let rows = rows.into_iter().map(Row::from_redis_value).collect::<Result<_, _>>()?;
        Ok(Self { total, more, rows })
    }
}

impl Row {
    pub(super) fn seq(&self) -> i64 {
        self.0.0
    }

    pub(super) fn entry(self) -> Result<Entry, RedisFault> {
        let (_, channel, id, epoch, offset, status, delivered_at, read_at, user, sender, body) = self.0;
        let status =
            Status::from_name(&status).ok_or_else(|| unreadable(format!("there is no status {status:?}")))?;
        let mut json = body;
        // Writing to memory cannot fail.
        let _ = write!(json, r#","epoch":"{epoch}","offset":{offset},"status":"{}""#, status.name());
        for (name, at) in [("deliveredAt", delivered_at), ("readAt", read_at)] {
            if at != 0 {
                let _ = write!(json, r#","{name}":{at}"#);
            }
        }
        json.push('}');
        Ok(Entry {
            user_id: UserId::parse(&user).map_err(unreadable)?,
            channel: ChannelName::parse(&channel).map_err(unreadable)?,
            id: MessageId::parse(&id).map_err(unreadable)?,
            position: Position { epoch: Epoch::new(&epoch), offset },
            sender_id: (!sender.is_empty())
                .then(|| UserId::parse(&sender))
                .transpose()
                .map_err(unreadable)?,
            status,
            json: RawValue::from_string(json).map_err(unreadable)?,
        })
    }
}

fn unreadable(detail: impl Into<Box<dyn Error>>) -> RedisFault {
    RedisFault::Broken(format!("an entry of an inbox is damaged: {}", detail.into()))
}

/// One page of the lists of several inboxes, by sequence number.
pub(super) fn merge(listed: Vec<Listed>, limit: usize) -> Result<InboxPage, RedisFault> {
    let total = listed.iter().map(|list| list.total).sum();
    // A list that goes on says nothing of what comes after its last row.
    let known =
        listed.iter().filter(|list| list.more).filter_map(|list| list.rows.last()).map(Row::seq).min();
    let mut more = known.is_some();
    let mut rows: Vec<Row> = listed.into_iter().flat_map(|list| list.rows).collect();
    rows.sort_by_key(Row::seq);
    rows.retain(|row| known.is_none_or(|known| row.seq() <= known));
    if rows.len() > limit {
        // Rows of one number belong to one page, or the next page would begin after them.
        let last = rows[limit - 1].seq();
        rows.retain(|row| row.seq() <= last);
        more = true;
    }
    let next = rows.last().filter(|_| more).map(Row::seq);
    let entries = rows.into_iter().map(Row::entry).collect::<Result<_, _>>()?;
    Ok(InboxPage { entries, total, next })
}
