//! Latencies of stress tests and of what tells of them: counted exactly, kept with three digits, and written so that those of
//! several workers can be added up.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// Latencies are kept in µs; this many are a day and a minute.
const MAX_LATENCY_US: u64 = 86_460_000_000;
/// The digits that are kept, and fewer where the text would become too long.
const DIGITS: [u8; 3] = [3, 2, 1];
/// The longest text of them.
const MAX_TEXT_BYTES: usize = 16 * 1024;

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
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ms: `percent` of the requests took at most so long.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        ms(self.0.value_at_percentile(percent).min(self.0.max()))
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
        let bytes = STANDARD.decode(text).map_err(|e| InvalidHistogram(e.to_string()))?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|e| InvalidHistogram(e.to_string()))?;
        let mut latencies = Self::default();
        latencies.0.add(&read).map_err(|e| InvalidHistogram(e.to_string()))?;
        Ok(latencies)
    }
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
            merged.add(&Latencies::decode(&text).unwrap());
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
    fn what_is_no_histogram_is_refused() {
        for text in ["", "%", "HISTFAAA", "aGVsbG8="] {
            assert!(Latencies::decode(text).is_err(), "{text}");
        }
    }
}
