//! A distribution that costs the same however much is measured: a histogram of Prometheus whose buckets are counted
//! at once.
//!
//! The recorder keeps every single measurement of its histograms until somebody sums them up. For what is measured
//! with each delivery that would be hundreds of megabytes between two sums.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most bounds that a distribution has.
const BOUNDS: usize = 15;

/// Counts whole numbers by the bounds that they do not exceed.
#[derive(Debug)]
pub(super) struct Distribution {
    bounds: &'static [f64],
    // So many of the counted make one of the unit in which it is told.
    per_unit: f64,
    // The last one counts what exceeds all bounds.
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Distribution {
    /// `bounds` rise, are at most 15, and are told in a unit of which one is `per_unit` of what is counted.
    pub(super) const fn new(bounds: &'static [f64], per_unit: f64) -> Self {
        assert!(bounds.len() <= BOUNDS, "there are more bounds than buckets");
        let buckets = [const { AtomicU64::new(0) }; BOUNDS + 1];
        Self { bounds, per_unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts `value`, `n` times.
    pub(super) fn record(&self, value: u64, n: u64) {
        let told = self.told(value);
        let bucket = self.bounds.partition_point(|bound| *bound < told);
        self.buckets[bucket].fetch_add(n, Ordering::Relaxed);
        self.sum.fetch_add(value.saturating_mul(n), Ordering::Relaxed);
    }

    /// How many values fell to each bound and beyond the last one, and the sum of them all in what is counted.
    pub(super) fn read(&self) -> (Vec<u64>, u64) {
        let counts = self.buckets[..=self.bounds.len()].iter().map(|bucket| bucket.load(Ordering::Relaxed));
        (counts.collect(), self.sum.load(Ordering::Relaxed))
    }

    /// Adds the series `name` with `labels`, which are empty or of the form `name="value"`.
    pub(super) fn render(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let mut count = 0;
        let bounds = self.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let sum = self.told(self.sum.load(Ordering::Relaxed));
        let _ = writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}");
    }

    fn told(&self, value: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        let value = value as f64;
        value / self.per_unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_each_bound_that_it_does_not_exceed() {
        let distribution = Distribution::new(&[0.001, 0.5, 10.0], 1000.0);
        for (ms, n) in [(0, 1), (1, 2), (2, 3), (500, 1), (10_000, 1), (10_001, 5)] {
            distribution.record(ms, n);
        }
        let mut text = String::new();
        distribution.render(&mut text, "took_seconds", "priority=\"low\"");
        assert_eq!(
            text,
            "took_seconds_bucket{priority=\"low\",le=\"0.001\"} 3\n\
             took_seconds_bucket{priority=\"low\",le=\"0.5\"} 7\n\
             took_seconds_bucket{priority=\"low\",le=\"10\"} 8\n\
             took_seconds_bucket{priority=\"low\",le=\"+Inf\"} 13\n\
             took_seconds_sum{priority=\"low\"} 60.513\n\
             took_seconds_count{priority=\"low\"} 13\n"
        );
    }

    #[test]
    fn a_series_without_labels_has_no_braces_of_its_own() {
        let (distribution, mut text) = (Distribution::new(&[1.0], 1.0), String::new());
        distribution.record(3, 1);
        distribution.render(&mut text, "batch", "");
        assert_eq!(
            text,
            "batch_bucket{le=\"1\"} 0\nbatch_bucket{le=\"+Inf\"} 1\nbatch_sum 3\nbatch_count 1\n"
        );
    }
}
