//! The stamp that every published message carries in its `data`, and how it is found again without reading JSON.
//!
//! `{"b":"RUN:ROOM:SEQUENCE:AT","p":"padding"}`: sequences count from 0 in each room; `AT` is when the message was
//! *meant* to leave, in nanoseconds since the benchmark's start, so that a late publisher counts as latency.

use std::io::Write as _;

use memchr::memmem::Finder;

/// What a received message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) room: usize,
    pub(super) seq: u64,
    pub(super) at_ns: u64,
    /// The message's own position, where the server gives one; it has to stand behind the data.
    pub(super) offset: Option<u64>,
    pub(super) conflated: u64,
}

/// Reads and writes the stamps of one run.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Marker {
    run: String,
    stamp: Finder<'static>,
    offset: Finder<'static>,
}

impl Marker {
    /// For a run that nobody else on this server shares: `run` is made of letters and digits.
    pub(in crate::bench) fn new(run: &str) -> Self {
        let stamp = format!("\"{run}:");
        let finder = |text: &str| Finder::new(text).into_owned();
        Self { run: run.to_owned(), stamp: finder(&stamp), offset: finder("\"offset\":") }
    }

    /// Appends the `data` of a message, padded to `bytes` if it is shorter.
    pub(in crate::bench) fn write(&self, out: &mut Vec<u8>, room: usize, seq: u64, at_ns: u64, bytes: usize) {
        const PADDING: &[u8] = br#","p":""#;
        let start = out.len();
        // Writing to memory does not fail.
        let _ = write!(out, "{{\"b\":\"{}:{room}:{seq}:{at_ns}\"", self.run);
        let unpadded = out.len() - start + 1;
        if let Some(padding) = bytes.checked_sub(unpadded + PADDING.len() + 1) {
            out.extend(PADDING);
            out.resize(out.len() + padding, b'x');
            out.push(b'"');
        }
        out.push(b'}');
    }

    /// Tells `each` of every message in the text of an event: one, or several of a batch.
    pub(super) fn scan(&self, text: &[u8], mut each: impl FnMut(Stamp)) {
        let width = self.stamp.needle().len();
        let mut next = self.stamp.find(text);
        while let Some(found) = next {
            let rest = &text[found + width..];
            // What stands before the next stamp belongs to this message, up to the beginning of the next one's
            // fields; a position stands behind the data, so it cannot be that of the next.
            let end = self.stamp.find(rest);
            next = end.map(|end| found + width + end);
            if let Some(stamp) = self.read(&rest[..end.unwrap_or(rest.len())]) {
                each(stamp);
            }
        }
    }

    /// Reads what follows the run's name.
    fn read(&self, text: &[u8]) -> Option<Stamp> {
        let (room, text) = number(text)?;
        let (seq, text) = number(text.strip_prefix(b":")?)?;
        let (at_ns, text) = number(text.strip_prefix(b":")?)?;
        let mut stamp = Stamp { room: usize::try_from(room).ok()?, seq, at_ns, offset: None, conflated: 0 };
        if let Some(at) = self.offset.find(text)
            && let Some((offset, text)) = number(&text[at + self.offset.needle().len()..])
        {
            stamp.offset = Some(offset);
            if let Some(text) = text.strip_prefix(b",\"conflated\":") {
                stamp.conflated = number(text).map_or(0, |(n, _)| n);
            }
        }
        Some(stamp)
    }
}

/// The number at the beginning of `text`, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut digits = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        digits += 1;
    }
    (digits > 0).then(|| (value, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn data(marker: &Marker, room: usize, seq: u64, at_ns: u64, bytes: usize) -> Value {
        let mut out = Vec::new();
        marker.write(&mut out, room, seq, at_ns, bytes);
        serde_json::from_slice(&out).expect("the data is JSON")
    }

    fn scan(marker: &Marker, text: &str) -> Vec<Stamp> {
        let mut stamps = Vec::new();
        marker.scan(text.as_bytes(), |stamp| stamps.push(stamp));
        stamps
    }

    /// A message as tidings sends it: the position behind the data.
    fn message(data: &Value, tail: &str) -> String {
        format!(
            r#"{{"id":"m","event":"custom:bench","channel":"test-progress-bench-run1-3","data":{data}{tail}}}"#
        )
    }

    #[test]
    fn every_message_of_a_batch_is_found_with_its_own_position() {
        let marker = Marker::new("run1");
        let batch = format!(
            r#"2["message:batch",[{},{},{}]]"#,
            message(&data(&marker, 3, 0, 5, 64), r#","epoch":"e","offset":7"#),
            message(&data(&marker, 3, 1, u64::MAX / 2, 0), ""),
            message(&data(&marker, 3, 2, 6, 200), r#","epoch":"e","offset":11,"conflated":2"#),
        );
        let stamp = |seq, at_ns, offset, conflated| Stamp { room: 3, seq, at_ns, offset, conflated };
        assert_eq!(
            scan(&marker, &batch),
            [stamp(0, 5, Some(7), 0), stamp(1, u64::MAX / 2, None, 0), stamp(2, 6, Some(11), 2)]
        );
    }

    #[test]
    fn the_messages_of_another_run_and_cut_ones_are_not_counted() {
        let marker = Marker::new("run1");
        let other = message(&data(&Marker::new("run2"), 0, 0, 0, 64), "");
        assert_eq!(scan(&marker, &other), []);
        for text in ["\"run1:", "\"run1:1", "\"run1:1:", "\"run1:1:2:", "\"run1:x:2:3", "\"run1:1;2:3"] {
            assert_eq!(scan(&marker, text), [], "{text}");
        }
    }

    #[test]
    fn data_is_padded_to_the_byte_and_never_cut() {
        let marker = Marker::new("run1");
        for bytes in 0..200 {
            let mut out = Vec::new();
            marker.write(&mut out, 1, 2, 3, bytes);
            assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON")["b"], json!("run1:1:2:3"));
            let least = r#"{"b":"run1:1:2:3"}"#.len();
            if bytes >= least + r#","p":"""#.len() {
                assert_eq!(out.len(), bytes);
            } else {
                assert_eq!(out.len(), least);
            }
        }
    }
}
