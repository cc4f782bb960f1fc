//! The results of stress tests that ran side by side, as those of one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::metrics::{Delays, Totals};
use crate::worker::runner::latencies::{InvalidHistogram, Latencies};

/// What cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("there are no results")]
    Empty,
    /// These are not the results of a stress test.
    #[error("results {index} (from 1) are not those of a stress test: {reason}")]
    NotStress {
        /// Which ones, from 1.
        index: usize,
        /// What is missing or wrong.
        reason: String,
    },
    /// Their latencies cannot be read.
    #[error("the histogram of results {index} (from 1): {reason}")]
    Histogram {
        /// Which ones, from 1.
        index: usize,
        /// What is wrong with it.
        reason: InvalidHistogram,
    },
}

/// What is read of the results of a stress test.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    requests: u64,
    failed: u64,
    dropped: u64,
    #[serde(default)]
    interrupted: u64,
    #[serde(default)]
    send_delay_ms: Delays,
    statuses: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    #[serde(default)]
    first_errors: BTreeMap<String, String>,
    bytes: u64,
    measured_ms: u64,
    histogram: String,
}

/// Adds up the `results` of stress tests: counts are summed, latencies are those of all requests together, and rates are
/// over the longest time that one of them measured. Which thresholds held is not part of it.
///
/// # Errors
/// [`MergeError`] with the first results that cannot be taken.
pub fn merge(all: &[Map<String, Value>]) -> Result<Map<String, Value>, MergeError> {
    let mut whole: Option<Totals> = None;
    for (at, results) in all.iter().enumerate() {
        let totals = read(results, at + 1)?;
        match &mut whole {
            None => whole = Some(totals),
            Some(whole) => {
                add(whole, totals).map_err(|reason| MergeError::Histogram { index: at + 1, reason })?;
            }
        }
    }
    whole.map(|totals| totals.results()).ok_or(MergeError::Empty)
}

fn read(results: &Map<String, Value>, index: usize) -> Result<Totals, MergeError> {
    let not_stress = |reason: String| MergeError::NotStress { index, reason };
    let read: Results =
        serde_json::from_value(Value::Object(results.clone())).map_err(|e| not_stress(e.to_string()))?;
    if read.failed > read.requests {
        return Err(not_stress("more requests failed than there were".to_owned()));
    }
    let latencies = Latencies::decode(&read.histogram);
    Ok(Totals {
        requests: read.requests,
        failed: read.failed,
        dropped: read.dropped,
        interrupted: read.interrupted,
        delays: read.send_delay_ms,
        latencies: latencies.map_err(|reason| MergeError::Histogram { index, reason })?,
        elapsed: std::time::Duration::from_millis(read.measured_ms),
        first_error: None,
        bytes: read.bytes,
        statuses: read.statuses,
        errors: read.errors,
        reasons: read.first_errors,
    })
}

fn add(whole: &mut Totals, more: Totals) -> Result<(), InvalidHistogram> {
    // Whoever wrote these numbers may have written any.
    let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
    sum(&mut whole.requests, more.requests);
    sum(&mut whole.failed, more.failed);
    sum(&mut whole.dropped, more.dropped);
    sum(&mut whole.interrupted, more.interrupted);
    whole.delays = whole.delays.at_most(more.delays);
    sum(&mut whole.bytes, more.bytes);
    for (into, from) in [(&mut whole.statuses, more.statuses), (&mut whole.errors, more.errors)] {
        from.into_iter().for_each(|(name, n)| sum(into.entry(name).or_default(), n));
    }
    for (kind, reason) in more.reasons {
        whole.reasons.entry(kind).or_insert(reason);
    }
    whole.elapsed = whole.elapsed.max(more.elapsed);
    whole.latencies.add(&more.latencies)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::super::metrics::{Ended, Metrics};
    use super::*;

    /// The results of requests with these latencies in ms; every third one fails.
    fn results(latencies: impl Iterator<Item = u64> + Clone) -> Map<String, Value> {
        let now = Instant::now();
        let start = now - Duration::from_secs(3000);
        let metrics = Metrics::new(start, start + Duration::from_secs(10));
        for (i, ms) in latencies.enumerate() {
            let as_expected = i % 3 != 0;
            let status = if as_expected { 200 } else { 500 };
            // Measured from then to now, and some µs.
            metrics.end(
                Instant::now() - Duration::from_millis(ms),
                Instant::now(),
                Ended::Answered { status, bytes: 1, as_expected },
                None,
            );
        }
        metrics.totals(start + Duration::from_secs(10)).results()
    }

    #[test]
    fn merged_results_are_those_of_all_requests_together() {
        let (fast, slow) = ((0..300).map(|i| 1 + i % 20), (0..60).map(|i| 500 + 10 * i));
        let merged = merge(&[results(fast.clone()), results(slow.clone())]).unwrap();
        let whole = results(fast.chain(slow));
        for field in ["requests", "failed", "statuses", "errors", "bytes", "rps", "errorRate"] {
            assert_eq!(merged[field], whole[field], "{field}");
        }
        for name in ["p50", "p90", "p95", "p99", "max", "min", "mean"] {
            let of = |results: &Map<String, Value>| results["latencyMs"][name].as_f64().unwrap();
            // Each was measured by itself: within a few ms of this machine's time.
            assert!(
                (of(&merged) - of(&whole)).abs() <= 5.0 + of(&whole) * 0.001,
                "{name}: {merged:?} {whole:?}"
            );
        }
        assert_eq!(merge(std::slice::from_ref(&merged)).unwrap(), merged, "merged results merge");
    }

    #[test]
    fn what_cannot_be_merged_is_named() {
        let good = results([1].into_iter());
        assert_eq!(merge(&[]), Err(MergeError::Empty));
        let mut bad = good.clone();
        bad.remove("bytes");
        let message = merge(&[good.clone(), bad]).unwrap_err().to_string();
        assert!(message.contains("results 2 (from 1)") && message.contains("bytes"), "{message}");
        let mut bad = good;
        bad.insert("histogram".to_owned(), json!("x"));
        assert!(matches!(merge(&[bad]), Err(MergeError::Histogram { index: 1, .. })));
    }
}
