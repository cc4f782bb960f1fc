//! The format of a pack: the messages that were appended together, as one row of the table `pack`.
//!
//! A pack is two blobs. Its *directory* says of each message where it stands and what it is, so that places and ids are
//! found without the messages themselves; the *bodies* are the envelopes (`model::message::OpenEnvelope`), one behind
//! the other. Checksums tell damage from messages: one of the directory at its end, one of each body in the directory.
//!
//! ```text
//! directory = first timestamp, events: n (text)*, messages: n (message)*, crc32
//! message   = seq, less the one expected · channel · offset · timestamp, less the first · number of its event
//!             · priority and flags · id · conflation key, if it has one · length of its body · crc32 of its body
//! ```

use std::ops::Range;

use super::bytes::{Bytes, put, put_signed, put_text};

/// How many bytes of bodies a pack has when no more come to it: a read of one message reads all of its pack, and a
/// damaged page costs a pack.
const FULL_BYTES: usize = 16 * 1024;
/// The lowest bits of a message's flags are its priority.
const PRIORITY: u8 = 0b111;
/// It has a conflation key.
const KEYED: u8 = 1 << 3;
/// Its id stands in the table `given_id`; else it is one of the server's own, and is found by its time.
const GIVEN: u8 = 1 << 4;
/// Ids of the server are told apart by times of 64 ms: at full speed that is some hundreds of packs to look through.
const TIME_BITS: u32 = 6;

/// A message as it is handed in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'m> {
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) event: &'m str,
    pub(crate) priority: u8,
    pub(crate) id: &'m str,
    /// When the server made the id, if it did.
    pub(crate) made_at_ms: Option<i64>,
    pub(crate) conflation_key: Option<&'m str>,
    /// Empty: the channel has no history. The message has its offset and is gone.
    pub(crate) body: &'m str,
}

/// The time that ids of the server have in common whose packs are looked through for one of them.
pub(super) fn time_of(made_at_ms: i64) -> i64 {
    made_at_ms >> TIME_BITS
}

/// A pack that messages come to.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) first: i64,
    pub(super) last: i64,
    /// The time of the server's ids in it, if it has any.
    pub(super) time: Option<i64>,
    pub(super) messages: u32,
    base_ms: i64,
    events: Vec<String>,
    entries: Vec<u8>,
    bodies: Vec<u8>,
}

impl Builder {
    /// An empty one, whose first message will be `first` at `base_ms`.
    pub(super) fn new(first: i64, base_ms: i64) -> Self {
        Self {
            first,
            last: first - 1,
            time: None,
            messages: 0,
            base_ms,
            events: Vec::new(),
            entries: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// Whether a message with an id of the server's from `time` can come to it.
    pub(super) fn takes(&self, time: Option<i64>) -> bool {
        self.bodies.len() + self.entries.len() < FULL_BYTES
            && (self.time.is_none() || time.is_none() || self.time == time)
    }

    /// Adds a message; how many bytes it takes.
    pub(super) fn push(&mut self, seq: i64, channel: i64, message: &Stored<'_>) -> u32 {
        let before = self.entries.len();
        let event = self.event(message.event);
        let out = &mut self.entries;
        put(out, (seq - self.last - 1) as u64);
        put(out, channel as u64);
        put(out, message.offset);
        put_signed(out, message.timestamp_ms - self.base_ms);
        put(out, event);
        let keyed = if message.conflation_key.is_some() { KEYED } else { 0 };
        let given = if message.made_at_ms.is_none() { GIVEN } else { 0 };
        out.push((message.priority & PRIORITY) | keyed | given);
        put_text(out, message.id);
        if let Some(key) = message.conflation_key {
            put_text(out, key);
        }
        put(out, message.body.len() as u64);
        out.extend_from_slice(&crc32fast::hash(message.body.as_bytes()).to_le_bytes());
        self.bodies.extend_from_slice(message.body.as_bytes());
        self.time = self.time.or(message.made_at_ms.map(time_of));
        self.last = seq;
        self.messages += 1;
        u32::try_from(self.entries.len() - before + message.body.len()).unwrap_or(u32::MAX)
    }

    fn event(&mut self, name: &str) -> u64 {
        // Most packs tell of one or two kinds of event.
        let known = self.events.iter().rposition(|event| event == name);
        known.unwrap_or_else(|| {
            self.events.push(name.to_owned());
            self.events.len() - 1
        }) as u64
    }

    /// The directory and the bodies.
    pub(super) fn finish(&self) -> (Vec<u8>, &[u8]) {
        let mut out = Vec::with_capacity(self.entries.len() + 32 * self.events.len() + 32);
        put_signed(&mut out, self.base_ms);
        put(&mut out, self.events.len() as u64);
        self.events.iter().for_each(|event| put_text(&mut out, event));
        put(&mut out, self.messages.into());
        out.extend_from_slice(&self.entries);
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        (out, &self.bodies)
    }
}

/// What the directory says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'d> {
    pub(super) seq: i64,
    pub(super) channel: i64,
    pub(super) offset: u64,
    pub(super) timestamp_ms: i64,
    pub(super) event: &'d str,
    pub(super) priority: u8,
    pub(super) id: &'d str,
    /// Whether the id stands in the table of ids.
    pub(super) given: bool,
    pub(super) conflation_key: Option<&'d str>,
    /// How many bytes it takes in all.
    pub(super) size: u32,
    body: Range<usize>,
    sum: u32,
}

impl Entry<'_> {
    /// Whether there is a message: a channel without history has but its offset.
    pub(super) fn is_kept(&self) -> bool {
        !self.body.is_empty()
    }

    /// Its envelope, out of the `bodies` of its pack; `None` if it is damaged.
    pub(super) fn body<'b>(&self, bodies: &'b [u8]) -> Option<&'b str> {
        let body = bodies.get(self.body.clone())?;
        std::str::from_utf8(body).ok().filter(|_| crc32fast::hash(body) == self.sum)
    }
}

/// Reads the directory of the pack whose first message is, or was, `first`; `None` if it is damaged.
pub(super) fn read(first: i64, directory: &[u8]) -> Option<Vec<Entry<'_>>> {
    let (content, sum) = directory.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut bytes = Bytes::of(content);
    let base_ms = bytes.signed()?;
    let events = (0..bytes.count()?).map(|_| bytes.text()).collect::<Option<Vec<_>>>()?;
    let messages = bytes.count()?;
    let mut entries = Vec::with_capacity(messages);
    let (mut expected, mut body) = (first, 0);
    for _ in 0..messages {
        let mut entry = read_entry(&mut bytes, &events, expected, body)?;
        entry.timestamp_ms = entry.timestamp_ms.checked_add(base_ms)?;
        expected = entry.seq.checked_add(1)?;
        body = entry.body.end;
        entries.push(entry);
    }
    bytes.is_at_end().then_some(entries)
}

/// One message, whose timestamp still lacks the first one.
fn read_entry<'d>(
    bytes: &mut Bytes<'d>,
    events: &[&'d str],
    expected: i64,
    body: usize,
) -> Option<Entry<'d>> {
    let before = bytes.position();
    let seq = expected.checked_add_unsigned(bytes.number()?)?;
    let channel = i64::try_from(bytes.number()?).ok()?;
    let offset = bytes.number()?;
    let timestamp_ms = bytes.signed()?;
    let event = *events.get(usize::try_from(bytes.number()?).ok()?)?;
    let flags = bytes.byte()?;
    let id = bytes.text()?;
    let conflation_key = if flags & KEYED == 0 { None } else { Some(bytes.text()?) };
    let len = usize::try_from(bytes.number()?).ok()?;
    let sum = u32::from_le_bytes(*bytes.take(4)?.first_chunk()?);
    Some(Entry {
        seq,
        channel,
        offset,
        timestamp_ms,
        event,
        priority: flags & PRIORITY,
        id,
        given: flags & GIVEN != 0,
        conflation_key,
        size: u32::try_from(bytes.position() - before + len).ok()?,
        body: body..body.checked_add(len)?,
        sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "{\"n\":\"ü\"";

    fn message<'m>(n: u64, key: Option<&'m str>, body: &'m str) -> Stored<'m> {
        Stored {
            offset: n,
            timestamp_ms: 1_000 - n as i64,
            event: if n.is_multiple_of(3) { "custom:x" } else { "test:progress" },
            priority: 1 + (n % 4) as u8,
            id: "an-id",
            made_at_ms: n.is_multiple_of(2).then_some(1_000),
            conflation_key: key,
            body,
        }
    }

    fn pack(seqs: &[i64]) -> (Vec<u8>, Vec<u8>, Vec<u32>) {
        let mut builder = Builder::new(10, 900);
        let sizes = seqs.iter().map(|seq| {
            let n = *seq as u64;
            let body = if n.is_multiple_of(5) { "" } else { BODY };
            builder.push(*seq, 3 + seq % 2, &message(n, (n % 4 == 1).then_some("key"), body))
        });
        let sizes = sizes.collect();
        let (directory, bodies) = builder.finish();
        (directory, bodies.to_vec(), sizes)
    }

    #[test]
    fn messages_come_back_as_they_were_packed() {
        let seqs = [10, 11, 13, 14, 15, 99, 100];
        let (directory, bodies, sizes) = pack(&seqs);
        let entries = read(10, &directory).expect("it is whole");
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), seqs);
        for (entry, size) in entries.iter().zip(sizes) {
            let n = entry.seq as u64;
            let expected = message(n, (n % 4 == 1).then_some("key"), "");
            assert_eq!((entry.channel, entry.offset), (3 + entry.seq % 2, n));
            assert_eq!((entry.event, entry.priority), (expected.event, expected.priority));
            assert_eq!((entry.timestamp_ms, entry.id), (expected.timestamp_ms, expected.id));
            assert_eq!(entry.conflation_key, expected.conflation_key);
            assert_eq!((entry.given, entry.size), (n % 2 == 1, size));
            assert_eq!(entry.is_kept(), !n.is_multiple_of(5));
            assert_eq!(entry.body(&bodies), Some(if n.is_multiple_of(5) { "" } else { BODY }));
        }
    }

    #[test]
    fn whichever_bit_of_a_pack_is_wrong_is_noticed() {
        let (directory, bodies, _) = pack(&[10, 11, 12]);
        for bit in 0..directory.len() * 8 {
            let mut damaged = directory.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(10, &damaged), None, "bit {bit}");
        }
        let entries = read(10, &directory).expect("it is whole");
        for bit in 0..bodies.len() * 8 {
            let mut damaged = bodies.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let unreadable = entries.iter().filter(|entry| entry.body(&damaged).is_none()).count();
            assert_eq!(unreadable, 1, "bit {bit} belongs to one message");
        }
        assert_eq!(entries[2].body(&bodies[..bodies.len() - 1]), None, "the end is missing");
    }

    #[test]
    fn nothing_that_is_no_directory_is_read_as_one() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let mut garbage = vec![0; random.usize(0..200)];
            random.fill(&mut garbage);
            // As if the checksum were right.
            let sum = crc32fast::hash(&garbage).to_le_bytes();
            garbage.extend(sum);
            if let Some(entries) = read(1, &garbage) {
                assert!(entries.len() < garbage.len());
            }
        }
    }
}
