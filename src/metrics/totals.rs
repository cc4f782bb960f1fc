//! What a process did since it began, as a value: for statistics, and to be told to other nodes.

use serde::{Deserialize, Serialize};

use super::{BATCH_MESSAGES, DELIVERY_SECONDS};

/// What a process did since it began. By priority means: low, normal, high, critical.
///
/// Fields that another version does not know count as 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Messages appended, by priority.
    pub publications: [u64; 4],
    /// Messages handed to sockets, by priority.
    pub deliveries: [u64; 4],
    /// Live deliveries by the bound of their latency, by priority.
    latencies: [Vec<u64>; 4],
    /// Flushes by the bound of their messages.
    flushes: Vec<u64>,
    /// Messages of all flushes.
    flushed: u64,
    /// Messages that receivers were spared.
    pub conflated: u64,
    /// Times that a receiver fell behind its bound.
    pub slow: u64,
    /// Joins with a position that got what they had missed.
    pub recovered: u64,
    /// Those that had to start over.
    pub reset: u64,
    /// Messages replayed to them.
    pub replayed: u64,
}

impl Totals {
    /// What this process did until now.
    #[must_use]
    pub fn read() -> Self {
        let [recovered, reset] = super::RECOVERED.read();
        let (flushes, flushed) = super::BATCH.read();
        Self {
            publications: super::PUBLICATIONS.read(),
            deliveries: super::DELIVERIES.read(),
            latencies: super::LATENCY.each_ref().map(|latency| latency.read().0),
            flushes,
            flushed,
            conflated: super::CONFLATED.read()[0],
            slow: super::SLOW.read()[0],
            recovered,
            reset,
            replayed: super::REPLAYED.read()[0],
        }
    }

    /// Adds what another process did.
    pub fn add(&mut self, other: &Self) {
        for priority in 0..4 {
            self.publications[priority] += other.publications[priority];
            self.deliveries[priority] += other.deliveries[priority];
            add_all(&mut self.latencies[priority], &other.latencies[priority]);
        }
        add_all(&mut self.flushes, &other.flushes);
        self.flushed += other.flushed;
        self.conflated += other.conflated;
        self.slow += other.slow;
        self.recovered += other.recovered;
        self.reset += other.reset;
        self.replayed += other.replayed;
    }

    /// The latency that so many of all live deliveries kept below, in seconds, as closely as the buckets tell;
    /// `None` before the first one.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Option<f64> {
        let mut all = Vec::new();
        self.latencies.iter().for_each(|counts| add_all(&mut all, counts));
        self::quantile(quantile, &all, DELIVERY_SECONDS)
    }

    /// How many messages left a connection at once, on average.
    #[must_use]
    pub fn batch_mean(&self) -> Option<f64> {
        let flushes: u64 = self.flushes.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "an average of counts")]
        (flushes > 0).then(|| self.flushed as f64 / flushes as f64)
    }

    /// The number of messages that so many of all flushes kept below.
    #[must_use]
    pub fn batch(&self, quantile: f64) -> Option<f64> {
        self::quantile(quantile, &self.flushes, BATCH_MESSAGES)
    }
}

fn add_all(sums: &mut Vec<u64>, counts: &[u64]) {
    sums.resize(sums.len().max(counts.len()), 0);
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// As `histogram_quantile` of Prometheus does it: within a bucket all values count as evenly spread, and beyond the
/// last bound nothing is known but that bound.
fn quantile(quantile: f64, counts: &[u64], bounds: &[f64]) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "buckets are no more exact than that")]
    let (rank, counts) = (quantile * total as f64, counts.iter().map(|count| *count as f64));
    let (mut below, mut from) = (0.0, 0.0);
    for (count, upto) in counts.zip(bounds) {
        if below + count >= rank && count > 0.0 {
            return Some(from + (upto - from) * ((rank - below) / count).max(0.0));
        }
        (below, from) = (below + count, *upto);
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_what_prometheus_makes_of_the_buckets() {
        let bounds = [1.0, 2.0, 4.0];
        assert_eq!(quantile(0.5, &[0, 0, 0, 0], &bounds), None);
        assert_eq!(quantile(0.5, &[10, 0, 0, 0], &bounds), Some(0.5));
        assert_eq!(quantile(0.75, &[2, 0, 2, 0], &bounds), Some(3.0));
        assert_eq!(quantile(0.99, &[1, 0, 0, 99], &bounds), Some(4.0));
    }

    #[test]
    fn what_nodes_did_adds_up_also_when_one_knows_less() {
        let other = r#"{"publications":[1,2,3,4],"latencies":[[],[0,5],[],[]],"flushes":[2],"flushed":9,"unknown":1}"#;
        let other: Totals = serde_json::from_str(other).unwrap();
        let mut sum = Totals { flushes: vec![1], flushed: 1, slow: 2, ..Totals::default() };
        sum.add(&other);
        sum.add(&other);
        assert_eq!((sum.publications, sum.slow), ([2, 4, 6, 8], 2));
        assert_eq!(sum.batch_mean(), Some(19.0 / 5.0));
        assert!(sum.latency(0.5).is_some_and(|s| s > DELIVERY_SECONDS[0] && s <= DELIVERY_SECONDS[1]));
    }
}
