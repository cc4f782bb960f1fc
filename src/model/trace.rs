//! Trace contexts (W3C Trace Context, level 1): which trace something belongs to, and below which span.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The header, and the field of a message, that carries one.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace. Written as `00-TRACE-SPAN-FLAGS`, all in lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Names the trace; never 0.
    pub trace_id: u128,
    /// Names the span; never 0.
    pub span_id: u64,
    /// Whether somebody upstream records it.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` for what the standard says is to be ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, digits: usize| {
            let right = part.len() == digits
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if right { u128::from_str_radix(part, 16).ok() } else { None }
        };
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let (trace_id, span_id) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
        let flags = hex(parts.next()?, 2)?;
        // A later version may say more behind this.
        let is_known = version < 0xff && (version > 0 || parts.next().is_none());
        let span_id = u64::try_from(span_id).ok()?;
        (is_known && trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// The beginning of a trace that is recorded.
    #[must_use]
    pub fn root() -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: fastrand::u64(1..), sampled: true }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: fastrand::u64(1..), ..self }
    }

    /// The span below this one that has this name: the same on every node, without a word between them.
    #[must_use]
    pub fn derived(self, name: &str) -> Self {
        // FNV-1a: it only has to spread.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let seed = self.trace_id.to_be_bytes();
        let span_id = seed.into_iter().chain(name.bytes()).fold(0xcbf2_9ce4_8422_2325, hash);
        Self { span_id: span_id.max(1), ..self }
    }

    /// That of a message, as JSON, if its sender or the queue gave it one.
    #[must_use]
    pub fn of_message(json: &str) -> Option<Self> {
        const FIELD: &str = "\"traceparent\":\"";
        let at = json.find(FIELD)? + FIELD.len();
        Self::parse(json.get(at..at + 55)?)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected a W3C trace context"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_allows_is_read_and_written_again() {
        assert_eq!(TraceContext::parse(GIVEN).unwrap().to_string(), GIVEN);
        // Of a later version only what is known counts.
        assert!(TraceContext::parse(&GIVEN.replacen("00", "42", 1)).is_some());
        assert!(TraceContext::parse(&format!("{}-more", GIVEN.replacen("00", "42", 1))).is_some());
    }

    #[test]
    fn what_it_forbids_is_ignored() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let extra = format!("{GIVEN}-more");
        for bad in [
            "",
            "00",
            &GIVEN.to_uppercase(),
            &GIVEN[..54],
            &extra,
            zero_trace,
            zero_span,
            &GIVEN.replacen("00", "ff", 1),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_derived_span_is_the_same_everywhere_and_another_for_another_name() {
        let parent = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(parent.derived("job_1/1"), parent.child().derived("job_1/1"));
        assert_ne!(parent.derived("job_1/1").span_id, parent.derived("job_1/2").span_id);
        assert_eq!(parent.derived("x").trace_id, parent.trace_id);
    }

    #[test]
    fn a_message_tells_its_place() {
        let json = format!(r#"{{"id":"m","data":{{}},"traceparent":"{GIVEN}"}}"#);
        assert_eq!(TraceContext::of_message(&json), TraceContext::parse(GIVEN));
        assert_eq!(TraceContext::of_message(r#"{"traceparent":"00-"}"#), None);
    }
}
