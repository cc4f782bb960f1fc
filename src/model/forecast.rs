//! Forecasts: when a running test will end, by what its series took before and by how fast it goes.
//!
//! The past gives a range for the whole duration, of those runs that took longer than this one has so far. The rate of
//! progress gives another. The further the test is, the more the rate counts, within what the past allows. Both are
//! ranges, in which the end lies in at least four of five cases (`tests` has recorded and made-up series). So the lower
//! bound is far below the median: from there on, the end would come sooner in half of the cases.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};

use super::past::Past;
use super::test::{Counts, EtaMs};

/// So many of the latest runs count: older ones may have been another test.
const LATEST: usize = 20;
/// So many runs have to be known before they say anything.
const FEW: usize = 3;
/// Without progress for so long, a test without a past is stalled.
const STALLED_MS: u64 = 60_000;
/// The same of a test with a past, at least and at most; between them it is a quarter of what its runs take.
const STALLED_WITHIN_MS: std::ops::RangeInclusive<u64> = 30_000..=600_000;

/// A test that takes longer than nearly all of its runs before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slower {
    /// What half of them took at most, in ms.
    pub usual_ms: u64,
    /// What nearly all of them took at most, in ms.
    pub limit_ms: u64,
}

/// A test that is alive and makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stalled {
    /// For how long, in ms.
    pub since_ms: u64,
}

/// What can be said of a running test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prospect {
    /// When it ends.
    pub eta_ms: Option<EtaMs>,
    /// It takes longer than usual.
    pub slower: Option<Slower>,
    /// It makes no progress.
    pub stalled: Option<Stalled>,
}

/// How far a test is.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// 0 to 100.
    pub progress: f64,
    /// Cases by outcome.
    pub counts: Counts,
    /// Cases that run now.
    pub current: &'a [String],
}

/// Looks ahead for one attempt.
#[derive(Debug, Clone)]
pub struct Outlook {
    durations: Vec<u64>,
    began_ms: i64,
    stage: Option<u64>,
    changed_ms: i64,
}

impl Outlook {
    /// For an attempt that began at `began_ms`, and has not been looked at before `now_ms`.
    #[must_use]
    pub fn new(past: &Past, began_ms: i64, now_ms: i64) -> Self {
        let mut durations = past.durations();
        durations.drain(..durations.len().saturating_sub(LATEST));
        Self { durations, began_ms, stage: None, changed_ms: now_ms }
    }

    /// What can be said at `now_ms`, when the test is at `stage`. What its reporter says of its end, `own`, counts where
    /// there is no past, or where the reporter `knows`: it can see no further than its own rate otherwise.
    pub fn look(&mut self, stage: Stage<'_>, own: Option<EtaMs>, knows: bool, now_ms: i64) -> Prospect {
        let mut hasher = DefaultHasher::new();
        let Counts { passed, failed, skipped, .. } = stage.counts;
        (stage.progress.to_bits(), passed, failed, skipped, stage.current).hash(&mut hasher);
        let seen = Some(hasher.finish());
        if self.stage != seen {
            (self.stage, self.changed_ms) = (seen, now_ms);
        }
        let elapsed = u64::try_from(now_ms - self.began_ms).unwrap_or(0);
        Prospect {
            eta_ms: own
                .filter(|_| knows || self.durations.len() < FEW)
                .or_else(|| remaining(&self.durations, elapsed, stage.progress)),
            slower: slower(&self.durations, elapsed),
            stalled: self.stalled(now_ms),
        }
    }

    /// Whether it makes no progress, as far as was looked.
    #[must_use]
    pub fn stalled(&self, now_ms: i64) -> Option<Stalled> {
        let since_ms = u64::try_from(now_ms - self.changed_ms).unwrap_or(0);
        let patience = match sorted(&self.durations) {
            known if known.len() < FEW => STALLED_MS,
            known => (known[known.len() / 2] / 4).clamp(*STALLED_WITHIN_MS.start(), *STALLED_WITHIN_MS.end()),
        };
        (since_ms >= patience).then_some(Stalled { since_ms })
    }
}

fn sorted(durations: &[u64]) -> Vec<u64> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted
}

fn slower(durations: &[u64], elapsed_ms: u64) -> Option<Slower> {
    let sorted = sorted(durations);
    // Of fewer, the slowest says little about what is usual.
    if sorted.len() < 5 {
        return None;
    }
    let usual_ms = sorted[sorted.len() / 2];
    let limit_ms = sorted[(sorted.len() * 19 / 20).min(sorted.len() - 1)];
    (elapsed_ms > limit_ms).then_some(Slower { usual_ms, limit_ms })
}

/// A range of ms.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

/// How long a test still takes that has run for `elapsed_ms` and is at `progress`, when its runs took `durations`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a forecast is no measurement, and never negative"
)]
pub fn remaining(durations: &[u64], elapsed_ms: u64, progress: f64) -> Option<EtaMs> {
    let done = if progress.is_finite() { (progress / 100.0).clamp(0.0, 1.0) } else { 0.0 };
    let (past, rate) = (by_past(durations, elapsed_ms), by_rate(elapsed_ms, done, durations.len() < FEW));
    let Range { low, high } = match (past, rate) {
        (Some(past), Some(rate)) => blended(past, rate, done),
        (Some(range), None) | (None, Some(range)) => range,
        (None, None) => return None,
    };
    Some(EtaMs { low: low.min(high).max(0.0).floor() as u64, high: high.max(0.0).ceil() as u64 })
}

/// By the runs that took longer than this one has so far.
#[expect(clippy::cast_precision_loss, reason = "a forecast needs no 53 bits")]
fn by_past(durations: &[u64], elapsed_ms: u64) -> Option<Range> {
    let latest = &durations[durations.len().saturating_sub(LATEST)..];
    if latest.len() < FEW {
        return None;
    }
    let longer: Vec<u64> = sorted(latest).into_iter().filter(|ms| *ms > elapsed_ms).collect();
    let (first, last) = (*longer.first()? as f64, *longer.last()? as f64);
    let median = longer[longer.len() / 2] as f64;
    // The next one is outside of n others in 2 of n + 1 cases, and then by not much.
    let few = 1.0 / (longer.len() as f64 + 1.0);
    let margin = |from: f64| (median - from).abs() * few + median * (0.02 + 0.3 * few);
    let elapsed = elapsed_ms as f64;
    Some(Range { low: first - margin(first) - elapsed, high: last + margin(last) - elapsed })
}

/// By how fast it went so far.
#[expect(clippy::cast_precision_loss, reason = "a forecast needs no 53 bits")]
fn by_rate(elapsed_ms: u64, done: f64, alone: bool) -> Option<Range> {
    // Too early, one case says nothing about the others.
    if (alone && (done < 0.05 || elapsed_ms < 2000)) || done <= 0.0 || elapsed_ms == 0 {
        return None;
    }
    let left = elapsed_ms as f64 * (1.0 - done) / done;
    let factor = 1.6 + if alone { 1.5 } else { 0.75 } * (1.0 - done);
    Some(Range { low: left / factor, high: left * factor })
}

/// The rate brings the upper bound of the past down as the test goes on; beyond its bounds it counts as far as the test
/// is.
fn blended(past: Range, rate: Range, done: f64) -> Range {
    // Steps may be of different lengths, the last ones too.
    let mix = |past: f64, rate: f64| past + (rate - past) * done * 0.85;
    if rate.low > past.high {
        return Range { low: mix(past.low, past.high), high: mix(past.high, rate.high) };
    }
    if rate.high < past.low {
        return Range { low: mix(past.low, rate.low), high: mix(past.high, past.low) };
    }
    Range {
        // The last steps may be the short ones.
        low: past.low,
        high: mix(past.high, rate.high.clamp(past.low, past.high)),
    }
}

#[cfg(test)]
mod tests;
