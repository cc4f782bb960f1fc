//! Counters that are read back: the same numbers are shown to Prometheus, to the statistics and to other nodes.
//!
//! The recorder's own counters can be read only as text; these cost one addition each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Counters of one name, one for each value of a label.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    name: &'static str,
    help: &'static str,
    // Without a label there is one counter.
    label: Option<(&'static str, [&'static str; N])>,
    counts: [AtomicU64; N],
}

impl Counters<1> {
    pub(super) const fn single(name: &'static str, help: &'static str) -> Self {
        Self { name, help, label: None, counts: [const { AtomicU64::new(0) }; 1] }
    }
}

impl<const N: usize> Counters<N> {
    pub(super) const fn by(
        label: &'static str,
        values: [&'static str; N],
        name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, help, label: Some((label, values)), counts: [const { AtomicU64::new(0) }; N] }
    }

    /// Adds `n` to the counter of the label's value at `place`.
    pub(super) fn add(&self, place: usize, n: u64) {
        self.counts[place].fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> [u64; N] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn render(&self, out: &mut String) {
        head(out, self.name, self.help, "counter");
        for (place, count) in self.read().into_iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = match self.label {
                Some((label, values)) => {
                    writeln!(out, "{}{{{label}=\"{}\"}} {count}", self.name, values[place])
                }
                None => writeln!(out, "{} {count}", self.name),
            };
        }
    }
}

/// Counters of one name by namespace and by one more label.
#[derive(Debug)]
pub(super) struct ByNamespace<const N: usize> {
    name: &'static str,
    help: &'static str,
    label: (&'static str, [&'static str; N]),
    // Few, and known from the start: the lock is taken to write only when a process opens another configuration.
    counts: RwLock<BTreeMap<Box<str>, [AtomicU64; N]>>,
}

impl<const N: usize> ByNamespace<N> {
    pub(super) const fn new(
        label: &'static str,
        values: [&'static str; N],
        name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, help, label: (label, values), counts: RwLock::new(BTreeMap::new()) }
    }

    /// Adds `n`, which may be 0 to make the counters of a namespace exist.
    pub(super) fn add(&self, namespace: &str, place: usize, n: u64) {
        let known = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = known.get(namespace) {
            counts[place].fetch_add(n, Ordering::Relaxed);
            return;
        }
        drop(known);
        let mut known = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        let counts = known.entry(namespace.into()).or_insert_with(|| [const { AtomicU64::new(0) }; N]);
        counts[place].fetch_add(n, Ordering::Relaxed);
    }

    /// Over all namespaces.
    pub(super) fn read(&self) -> [u64; N] {
        let known = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|place| known.values().map(|counts| counts[place].load(Ordering::Relaxed)).sum())
    }

    pub(super) fn render(&self, out: &mut String) {
        head(out, self.name, self.help, "counter");
        let (label, values) = self.label;
        for (namespace, counts) in self.counts.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for (value, count) in values.iter().zip(counts) {
                let count = count.load(Ordering::Relaxed);
                // A namespace is named by a key of TOML, which may hold anything.
                let namespace = namespace.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let labels = format!("namespace=\"{namespace}\",{label}=\"{value}\"");
                let _ = writeln!(out, "{}{{{labels}}} {count}", self.name);
            }
        }
    }
}

/// What stands before the series of a metric.
pub(super) fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_told_under_the_value_that_it_was_counted_for() {
        let (counters, mut text) =
            (Counters::by("outcome", ["kept", "lost"], "ends_total", "Ends"), String::new());
        counters.add(1, 2);
        counters.render(&mut text);
        assert_eq!(
            text,
            "# HELP ends_total Ends\n# TYPE ends_total counter\n\
             ends_total{outcome=\"kept\"} 0\nends_total{outcome=\"lost\"} 2\n"
        );
        assert_eq!(counters.read(), [0, 2]);
    }

    #[test]
    fn namespaces_are_counted_apart_and_summed_up() {
        let (counters, mut text) = (ByNamespace::new("kind", ["a", "b"], "n_total", "N"), String::new());
        counters.add("x\"y", 0, 0);
        counters.add("z", 1, 3);
        counters.add("z", 1, 4);
        counters.render(&mut text);
        assert!(text.contains("n_total{namespace=\"x\\\"y\",kind=\"a\"} 0\n"), "{text}");
        assert!(text.contains("n_total{namespace=\"z\",kind=\"b\"} 7\n"), "{text}");
        assert_eq!(counters.read(), [0, 7]);
    }
}
