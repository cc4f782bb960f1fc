//! Records: how a message lies in its channel's history, and how a publication carries it.
//!
//! A record is a line `TIMESTAMP ID PRIORITY EVENT KEYLENGTH`, then the conflation key, then the open envelope.
//! Scripts read the line; `-` for the length says that there is no key. A publication is a line `EPOCH OFFSET`
//! before a record; without a record it only says that the channel has this epoch now. Several messages in a row go
//! together: the line goes on with their lengths then.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::broker::append::Append;
use crate::model::message::OpenEnvelope;
use crate::model::{ChannelName, Epoch, EventName, MessageId, Position, Priority, Published};

/// What is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of a message cannot be read")]
pub(super) struct Unreadable;

/// A message as it is stored.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) id: &'a str,
    timestamp_ms: i64,
    priority: Priority,
    event: &'a str,
    key: Option<&'a str>,
    envelope: &'a str,
}

/// Writes the record of a message.
pub(super) fn write(append: &Append) -> String {
    let mut record = String::new();
    write_to(append, &mut record);
    record
}

/// Writes the record of a message behind what is there already.
pub(super) fn write_to(append: &Append, text: &mut String) {
    let key = append.conflation_key.as_deref();
    let (time, id, priority, event) =
        (append.timestamp_ms, &append.id, append.priority.number(), &append.event);
    text.reserve(96 + key.map_or(0, str::len) + append.open.as_str().len());
    // Writing to a text does not fail.
    let _ = match key {
        Some(key) => writeln!(text, "{time} {id} {priority} {event} {}", key.len()),
        None => writeln!(text, "{time} {id} {priority} {event} -"),
    };
    text.push_str(key.unwrap_or_default());
    text.push_str(append.open.as_str());
}

impl<'a> Record<'a> {
    /// Reads a record.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(bytes).map_err(|_| Unreadable)?;
        let (head, rest) = text.split_once('\n').ok_or(Unreadable)?;
        let mut parts = head.split(' ');
        let mut next = || parts.next().ok_or(Unreadable);
        let timestamp_ms = next()?.parse().map_err(|_| Unreadable)?;
        let id = next()?;
        let priority = next()?.parse().map_err(|_| Unreadable)?;
        let priority = Priority::from_number(priority).map_err(|_| Unreadable)?;
        let event = next()?;
        let (key, envelope) = match next()? {
            "-" => (None, rest),
            length => {
                let length = length.parse().map_err(|_| Unreadable)?;
                let (key, envelope) = rest.split_at_checked(length).ok_or(Unreadable)?;
                (Some(key), envelope)
            }
        };
        Ok(Self { id, timestamp_ms, priority, event, key, envelope })
    }

    /// Its id.
    pub(super) fn message_id(&self) -> Result<MessageId, Unreadable> {
        MessageId::parse(self.id).map_err(|_| Unreadable)
    }

    /// The message at its place.
    pub(super) fn publish(&self, channel: &ChannelName, position: Position) -> Result<Published, Unreadable> {
        Ok(Published::new(
            channel.clone(),
            position,
            EventName::parse(self.event).map_err(|_| Unreadable)?,
            self.priority,
            self.timestamp_ms,
            self.key.map(Arc::from),
            OpenEnvelope::from_stored(self.envelope.to_owned()),
        ))
    }
}

/// What a publication says.
#[derive(Debug)]
pub(super) struct Publication<'a> {
    pub(super) epoch: &'a str,
    /// Where the first one stands.
    pub(super) offset: u64,
    /// The records, in order; none if it only tells of the epoch.
    pub(super) records: Vec<&'a [u8]>,
}

impl<'a> Publication<'a> {
    /// Reads a publication.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Unreadable> {
        let stop = memchr::memchr(b'\n', payload).ok_or(Unreadable)?;
        let (head, mut rest) = (&payload[..stop], &payload[stop + 1..]);
        let mut parts = std::str::from_utf8(head).map_err(|_| Unreadable)?.split(' ');
        let epoch = parts.next().ok_or(Unreadable)?;
        let offset = parts.next().ok_or(Unreadable)?.parse().map_err(|_| Unreadable)?;
        let mut records = Vec::new();
        for length in parts {
            let length = length.parse().map_err(|_| Unreadable)?;
            let (record, others) = rest.split_at_checked(length).ok_or(Unreadable)?;
            records.push(record);
            rest = others;
        }
        match (records.is_empty(), rest.is_empty()) {
            (true, false) => records.push(rest),
            (false, false) => return Err(Unreadable),
            (_, true) => {}
        }
        Ok(Self { epoch, offset, records })
    }
}

/// The message that `append` becomes at its place.
pub(super) fn published(append: &Append, epoch: &Epoch, offset: u64) -> Arc<Published> {
    Arc::new(Published::new(
        append.channel.clone(),
        Position { epoch: epoch.clone(), offset },
        append.event.clone(),
        append.priority,
        append.timestamp_ms,
        append.conflation_key.clone(),
        append.open.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::append::Draft;
    use crate::config::channels::Rules;
    use serde_json::value::RawValue;

    fn append(channel: &str, event: &str, data: &str) -> Append {
        let draft = Draft {
            id: MessageId::parse("a:1").unwrap(),
            fresh: false,
            event: EventName::parse(event).unwrap(),
            priority: None,
            timestamp_ms: 7,
            user_id: None,
            data: &RawValue::from_string(data.to_owned()).unwrap(),
            extra: &[],
        };
        Append::own(&Rules::builtin(), channel, draft, None).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for data in [r#"{"testId":"t \n é"}"#, r#"{"testId":""}"#, r#"{"n":1}"#] {
            let sent = append("test-progress-t", "test:progress", data);
            let bytes = write(&sent);
            let record = Record::read(bytes.as_bytes()).unwrap();
            assert_eq!(record.id, "a:1");
            let epoch = Epoch::new("e");
            let there = record.publish(&sent.channel, Position { epoch: epoch.clone(), offset: 3 }).unwrap();
            let here = published(&sent, &epoch, 3);
            assert_eq!(there.json().get(), here.json().get());
            assert_eq!(there.conflation_key, here.conflation_key);
            assert_eq!((there.timestamp_ms, there.priority), (7, here.priority));
        }
    }

    #[test]
    fn what_was_cut_or_is_something_else_is_no_record() {
        let whole = write(&append("test-progress-t", "test:progress", r#"{"testId":"t"}"#));
        for bytes in
            [&whole.as_bytes()[..4], b"", b"\n", b"1 a 2 e 99\nshort", b"1 a 9 e -\n{", b"x a 2 e -\n{"]
        {
            assert!(Record::read(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&b"e 1"[..], b"e\nabc", b"e x\nabc", b"e 1 2\nabc", b"e 1 4\nabc", b"e 1 3 1\nabc"] {
            assert!(Publication::read(bytes).is_err(), "{bytes:?}");
        }
        let one = Publication::read(b"e 12\na b\nc").unwrap();
        assert_eq!((one.offset, one.records), (12, vec![&b"a b\nc"[..]]));
        let several = Publication::read(b"e 12 1 0 2\nabc").unwrap();
        assert_eq!((several.offset, several.records), (12, vec![&b"a"[..], b"", b"bc"]));
        let notice = Publication::read(b"e 12\n").unwrap();
        assert_eq!((notice.epoch, notice.offset, notice.records.len()), ("e", 12, 0));
    }
}
