//! What a benchmark tells: figures with stable names as JSON, or a few lines for people.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::process::Memory;
use super::swarm::Totals;

/// Percentiles, in µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// The server's memory in RAM, in kB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct MemoryUse {
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) peak: u64,
}

/// What became of the messages: the words of every benchmark that delivers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Delivery {
    /// Messages times their subscribers.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) misordered: u64,
    /// Positions that did not continue the one before.
    pub(super) offset_faults: u64,
    /// Messages whose position was checked; 0 for a server that gives none.
    pub(super) offsets_checked: u64,
    /// Messages that came to the wrong subscriber, or that nobody had published.
    pub(super) foreign: u64,
    pub(super) failed_clients: u64,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { p50, p90, p99, p999, max } = *self;
        format!(
            "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            time(p50),
            time(p90),
            time(p99),
            time(p999),
            time(max)
        )
    }
}

impl Delivery {
    pub(super) fn new(totals: &Totals, astray: u64, offsets_checked: u64, failed_clients: u64) -> Self {
        Self {
            expected: totals.expected,
            delivered: totals.delivered,
            lost: totals.lost,
            duplicated: totals.duplicated,
            misordered: totals.misordered,
            offset_faults: totals.offset_faults,
            offsets_checked,
            foreign: totals.foreign + astray,
            failed_clients,
        }
    }

    /// Whether every message came to everybody exactly once and in order.
    pub(super) fn is_exact(&self) -> bool {
        let faults = self.lost + self.duplicated + self.misordered + self.offset_faults;
        self.expected == self.delivered && faults + self.foreign + self.failed_clients == 0
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} of {}: {} lost, {} doubled, {} out of order",
            count(self.delivered),
            count(self.expected),
            count(self.lost),
            count(self.duplicated),
            count(self.misordered)
        );
        for (n, what) in [
            (self.offset_faults, "positions that do not follow"),
            (self.foreign, "that nobody should have got"),
            (self.failed_clients, "clients failed"),
        ] {
            if n > 0 {
                text.push_str(&format!(", {} {what}", count(n)));
            }
        }
        if self.offsets_checked > 0 && self.offset_faults == 0 {
            text.push_str(", positions unbroken");
        }
        text
    }
}

impl MemoryUse {
    /// From what was seen before and after; `sampled` is the most that was seen between.
    pub(super) fn new(before: Option<Memory>, after: Option<Memory>, sampled: u64) -> Option<Self> {
        let (before, after) = (before?, after?);
        // The kernel's own mark is exact, but may be older than the benchmark.
        let peak = if after.highest > before.highest { after.highest } else { sampled.max(after.rss) };
        Some(Self { before: before.rss, after: after.rss, peak: peak.max(before.rss) })
    }

    pub(super) fn text(&self) -> String {
        format!("{} -> {} MB, peak {} MB", self.before / 1024, self.after / 1024, self.peak / 1024)
    }
}

/// Microseconds of `cpu` for each of `n`; nothing to tell if there were none.
pub(super) fn per(cpu: Option<Duration>, n: u64) -> Option<f64> {
    let cpu = cpu?;
    (n > 0).then(|| rounded(cpu.as_secs_f64() * 1e6 / n as f64))
}

/// To three digits behind the point; more is noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// So many per second.
pub(super) fn rate(n: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (n as f64 / seconds).round() } else { 0.0 }
}

/// Microseconds, for people.
pub(super) fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A number with its thousands apart, for people.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure that may be unknown, for people.
pub(super) fn or_unknown(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "unknown (--pid)".to_owned(), |value| format!("{value:.2} {unit}"))
}

/// Why clients failed, for people.
pub(super) fn reasons(reasons: &BTreeMap<String, u64>) -> Vec<String> {
    let clients = |n| if n == 1 { "1 client".to_owned() } else { format!("{} clients", count(n)) };
    reasons.iter().map(|(reason, &n)| format!("{}: {reason}", clients(n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0, 999, 1_000, 12_345_678].map(count));
        assert_eq!(["7 µs", "1.5 ms", "2.25 s"], [7, 1_500, 2_250_000].map(time));
    }

    #[test]
    fn cost_is_told_per_piece_where_there_are_any() {
        assert_eq!(per(Some(Duration::from_secs(1)), 4_000_000), Some(0.25));
        assert_eq!(per(Some(Duration::from_secs(1)), 0), None);
        assert_eq!(per(None, 1), None);
    }

    #[test]
    fn a_peak_from_before_the_benchmark_is_not_its_own() {
        let memory = |rss, highest| Some(Memory { rss, highest });
        let peak = |before, after, sampled| MemoryUse::new(before, after, sampled).map(|memory| memory.peak);
        assert_eq!(peak(memory(10, 90), memory(20, 90), 30), Some(30));
        assert_eq!(peak(memory(10, 10), memory(20, 40), 30), Some(40));
        assert_eq!(peak(None, None, 0), None);
    }

    #[test]
    fn any_fault_at_all_is_a_failure() {
        let exact = Totals { expected: 5, delivered: 5, ..Totals::default() };
        assert!(Delivery::new(&exact, 0, 5, 0).is_exact());
        assert!(!Delivery::new(&exact, 1, 5, 0).is_exact());
        assert!(!Delivery::new(&exact, 0, 5, 1).is_exact());
        for totals in [
            Totals { delivered: 4, lost: 1, ..exact },
            Totals { duplicated: 1, ..exact },
            Totals { misordered: 1, ..exact },
            Totals { offset_faults: 1, ..exact },
            Totals { foreign: 1, ..exact },
        ] {
            assert!(!Delivery::new(&totals, 0, 5, 0).is_exact(), "{totals:?}");
        }
    }
}
