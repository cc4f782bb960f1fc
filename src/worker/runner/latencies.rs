//! Latencies of stress tests and of what tells of them: counted exactly, kept with three digits, and written so that those of
//! several workers can be added up.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// Latencies are kept in µs; this many are a day and a minute.
const MAX_LATENCY_US: u64 = 86_460_000_000;
/// The digits that are kept, and fewer where the text would become too long.
const DIGITS: [u8; 3] = [3, 2, 1];
/// The longest text of them.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The longest text that is read, and the most bytes that it may unfold to: others write three digits without a limit.
const MAX_READ_BYTES: usize = 1 << 20;
/// What a histogram in its bytes begins with (V2), and one that is compressed.
const COOKIE: [u8; 4] = [0x1c, 0x84, 0x93, 0x13];
const COMPRESSED_COOKIE: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];
/// The length of what stands before the counts; its second four bytes say how many bytes these are.
const HEADER_BYTES: usize = 40;
/// More requests than these nobody sends, and counts stay numbers that can be written.
const MAX_COUNT: u64 = 1 << 53;

/// How long requests took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latencies(Histogram<u64>);

/// A text that is no histogram of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no HdrHistogram (V2, compressed, as base64): {0}")]
pub struct InvalidHistogram(String);

impl Default for Latencies {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS[0]);
        Self(empty.expect("the bounds are constants that a histogram accepts"))
    }
}

impl Latencies {
    /// Notes one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.max(1));
    }

    /// Adds those of `other`.
    ///
    /// # Errors
    /// [`InvalidHistogram`], where they become more than can be written.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), InvalidHistogram> {
        if self.0.len().saturating_add(other.0.len()) > MAX_COUNT {
            return Err(InvalidHistogram("it counts more than 2^53 requests".to_owned()));
        }
        self.0.add(&other.0).map_err(|e| InvalidHistogram(e.to_string()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ms: `percent` of the requests took at most so long.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let count = self.0.len().max(1) as f64;
        // 99.9 % of 1,000 are 999, and 999.0000000000001 in floating point, which would be the 1,000th.
        let hair = (1e-9 / count).max(4.0 * f64::EPSILON);
        let quantile = (percent / 100.0 - hair).max(0.0);
        ms(self.0.value_at_quantile(quantile).min(self.0.max()))
    }

    /// In ms.
    pub(crate) fn min(&self) -> f64 {
        ms(if self.0.is_empty() { 0 } else { self.0.min() })
    }

    /// In ms.
    pub(crate) fn max(&self) -> f64 {
        ms(self.0.max())
    }

    /// In ms.
    pub(crate) fn mean(&self) -> f64 {
        (self.0.mean()).round() / 1000.0
    }

    /// As a text of bounded length that every HdrHistogram library reads; the unit is the µs.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for digits in DIGITS {
            let mut coarse = Histogram::<u64>::new_with_bounds(1, MAX_LATENCY_US, digits)
                .expect("the bounds are constants that a histogram accepts");
            coarse.add(&self.0).expect("both have the same bounds");
            let mut bytes = Vec::new();
            V2DeflateSerializer::new()
                .serialize(&coarse, &mut bytes)
                .expect("counts are far below 2^63, and memory takes every write");
            text = STANDARD.encode(bytes);
            if text.len() <= MAX_TEXT_BYTES {
                break;
            }
        }
        text
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`InvalidHistogram`]
    pub(crate) fn decode(text: &str) -> Result<Self, InvalidHistogram> {
        let invalid = |reason: &str| InvalidHistogram(reason.to_owned());
        if text.len() > MAX_READ_BYTES {
            return Err(invalid("it is longer than 1 MiB"));
        }
        let bytes = STANDARD.decode(text).map_err(|e| invalid(&e.to_string()))?;
        let bytes = inflate(&bytes)?;
        // Memory for the counts is taken by what the header says, so that has to be true.
        let header = bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(&COOKIE));
        let header = header.ok_or_else(|| invalid("it does not begin as one"))?;
        let said = header[4..8].iter().fold(0_usize, |said, byte| (said << 8) | usize::from(*byte));
        if said > bytes.len() - HEADER_BYTES {
            return Err(invalid("it ends before its counts do"));
        }
        // The table is as wide as its digits say.
        if header[12..16] > [0, 0, 0, DIGITS[0]][..] {
            return Err(invalid(&format!("it has more than {} digits", DIGITS[0])));
        }
        let read: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|e| invalid(&e.to_string()))?;
        let mut latencies = Self::default();
        latencies.add(&Self(read))?;
        Ok(latencies)
    }
}

/// What a compressed histogram holds.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, InvalidHistogram> {
    // Behind the length, which the stream tells by itself.
    let stream = bytes.strip_prefix(&COMPRESSED_COOKIE).and_then(|rest| rest.get(4..));
    let stream = stream.ok_or_else(|| InvalidHistogram("it does not begin as one".to_owned()))?;
    let mut inflated = Vec::new();
    let most = u64::try_from(MAX_READ_BYTES).unwrap_or(u64::MAX);
    let mut reader = ZlibDecoder::new(stream).take(most + 1);
    reader.read_to_end(&mut inflated).map_err(|e| InvalidHistogram(e.to_string()))?;
    if inflated.len() > MAX_READ_BYTES {
        return Err(InvalidHistogram("it unfolds to more than 1 MiB".to_owned()));
    }
    Ok(inflated)
}

#[expect(clippy::cast_precision_loss, reason = "a day in µs fits into 53 bits")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latencies of many orders of magnitude, in µs.
    fn some(n: u64, seed: u64) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(seed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1e8")]
        (0..n).map(|_| 10f64.powf(random.f64() * 8.0) as u64).collect()
    }

    #[test]
    fn what_several_wrote_adds_up_to_what_one_would_have_measured() {
        let parts = [some(5000, 1), some(40, 2), some(900, 3)];
        let mut merged = Latencies::default();
        for part in &parts {
            let mut latencies = Latencies::default();
            part.iter().for_each(|us| latencies.record(Duration::from_micros(*us)));
            let text = latencies.encode();
            assert!(text.len() <= MAX_TEXT_BYTES && text.starts_with("HIST"), "{} bytes", text.len());
            merged.add(&Latencies::decode(&text).unwrap()).unwrap();
        }
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(merged.0.len(), all.len() as u64);
        for percent in [1.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index"
            )]
            let rank = ((percent / 100.0 * all.len() as f64).ceil() as usize).max(1) - 1;
            let (exact, read) = (ms(all[rank]), merged.percentile(percent));
            // Three digits, or two where the text would have been too long.
            assert!((read - exact).abs() <= exact * 0.01 + 0.001, "p{percent}: {read}, not {exact}");
        }
    }

    #[test]
    fn a_few_thousand_of_a_usual_spread_keep_their_three_digits() {
        let mut latencies = Latencies::default();
        (0..20_000_u64).for_each(|i| latencies.record(Duration::from_micros(800 + i % 400 + (i % 97) * 31)));
        let again = Latencies::decode(&latencies.encode()).unwrap();
        assert_eq!(again, latencies);
    }

    #[test]
    fn a_percentile_that_falls_on_a_request_is_that_one() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        for (percent, us) in [(99.9, 999), (50.0, 500), (99.0, 990), (0.1, 1), (100.0, 1000), (99.95, 1000)] {
            assert_eq!(latencies.percentile(percent), ms(us), "p{percent}");
        }
    }

    /// A compressed histogram whose header says that its counts have `said` bytes.
    fn hostile(said: u32, counts: &[u8]) -> String {
        hostile_of(3, said, counts)
    }

    fn hostile_of(digits: u32, said: u32, counts: &[u8]) -> String {
        let mut inner = [&COOKIE[..], &said.to_be_bytes(), &[0; 4], &digits.to_be_bytes()].concat();
        inner
            .extend([&1_u64.to_be_bytes()[..], &MAX_LATENCY_US.to_be_bytes(), &1_f64.to_be_bytes()].concat());
        inner.extend(counts);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut zlib, &inner).unwrap();
        let stream = zlib.finish().unwrap();
        let length = u32::try_from(stream.len()).unwrap().to_be_bytes();
        STANDARD.encode([&COMPRESSED_COOKIE[..], &length, &stream].concat())
    }

    #[test]
    fn a_histogram_takes_no_more_memory_than_it_has_bytes() {
        assert!(Latencies::decode(&hostile(2, &[0, 2])).is_ok(), "the others differ from a good one");
        let message = |text: &str| Latencies::decode(text).unwrap_err().to_string();
        let text = hostile(u32::MAX, &[0, 2]);
        assert!(message(&text).contains("ends before its counts do"), "{}", message(&text));
        let text = hostile(2, &vec![0; 64 << 20]);
        assert!(message(&text).contains("unfolds to more than 1 MiB"), "{} bytes", text.len());
        for digits in [4, 5, 259] {
            let text = hostile_of(digits, 2, &[0, 2]);
            assert!(message(&text).contains("more than 3 digits"), "{}", message(&text));
        }
    }

    #[test]
    fn more_requests_than_can_be_counted_are_refused() {
        // A count of i64::MAX: zigzag, then seven bits to a byte.
        let huge = hostile(10, &[0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(Latencies::decode(&huge).unwrap_err().to_string().contains("2^53"));
        let mut half = Latencies::default();
        half.0.record_n(5, MAX_COUNT).unwrap();
        let whole = Latencies::decode(&half.encode()).unwrap();
        assert!(half.add(&whole).is_err());
        half.encode();
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        for text in ["", "%", "HISTFAAA", "aGVsbG8="] {
            assert!(Latencies::decode(text).is_err(), "{text}");
        }
    }
}
