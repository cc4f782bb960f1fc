//! The past of tests: how long the latest runs of a series took, and how they ended.
//!
//! A series is what runs of the same work have in common ([`super::Job::series`]). It keeps its latest [`MAX_RUNS`]
//! runs; of those that failed, which cases did, as hashes of their names.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How many runs a series keeps.
pub const MAX_RUNS: usize = 50;
/// How many of them outcomes are looked at.
pub const MARKED_RUNS: usize = 20;
/// How many failed cases a run remembers.
const MAX_FAILED: usize = 50;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything passed.
    Passed,
    /// It came to its end, and something had failed.
    TestsFailed,
    /// It ended before that.
    Broken,
}

/// One run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How long it took.
    pub ms: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// The cases that failed.
    failed: Vec<u64>,
}

impl Run {
    /// A run with these results.
    #[must_use]
    pub fn new(ms: u64, verdict: Verdict, results: &Map<String, Value>) -> Self {
        let failures = results.get("failures").and_then(Value::as_array).into_iter().flatten();
        let names = failures.filter_map(|failure| failure.get("name")?.as_str());
        Self { ms, verdict, failed: names.take(MAX_FAILED).map(hash).collect() }
    }

    /// As it is kept: what is written after the number of ms.
    #[must_use]
    pub fn tail(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Passed => 'p',
            Verdict::TestsFailed => 't',
            Verdict::Broken => 'b',
        };
        let failed: Vec<String> = self.failed.iter().map(|hash| format!("{hash:x}")).collect();
        format!("{verdict} {}", failed.join(","))
    }

    /// As it is kept.
    #[must_use]
    pub fn write(&self) -> String {
        format!("{} {}", self.ms, self.tail())
    }

    /// Reads what [`Run::write`] wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let ms = parts.next()?.parse().ok()?;
        let verdict = match parts.next()? {
            "p" => Verdict::Passed,
            "t" => Verdict::TestsFailed,
            "b" => Verdict::Broken,
            _ => return None,
        };
        let failed = parts.next().unwrap_or_default().split(',').filter(|hash| !hash.is_empty());
        let failed = failed.map(|hash| u64::from_str_radix(hash, 16).ok()).collect::<Option<_>>()?;
        Some(Self { ms, verdict, failed })
    }
}

/// FNV-1a: the same in every version and on every node.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How a test, or a case of it, did in the runs before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TrackRecord {
    /// The runs that are looked at: the latest, at most 20.
    pub runs: u64,
    /// In how many of them it failed.
    pub failed: u64,
    /// It changed between passed and failed at least twice: a failure says little.
    pub flaky: bool,
}

/// The latest runs of a series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    runs: Vec<Run>,
}

impl Past {
    /// These runs, oldest first.
    #[must_use]
    pub fn new(runs: Vec<Run>) -> Self {
        Self { runs }
    }

    /// Adds the newest run; the oldest one goes.
    pub fn push(&mut self, run: Run) {
        self.runs.push(run);
        let surplus = self.runs.len().saturating_sub(MAX_RUNS);
        self.runs.drain(..surplus);
        // Nobody looks at the cases of older ones.
        let old = self.runs.len().saturating_sub(MARKED_RUNS);
        self.runs[..old].iter_mut().for_each(|run| run.failed.clear());
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How long those runs took that came to their end, oldest first.
    #[must_use]
    pub fn durations(&self) -> Vec<u64> {
        self.runs.iter().filter(|run| run.verdict != Verdict::Broken).map(|run| run.ms).collect()
    }

    /// How the test did; none where there is no past.
    #[must_use]
    pub fn record(&self) -> Option<TrackRecord> {
        record(self.marked().map(|run| run.verdict != Verdict::Passed))
    }

    /// How the case `name` did in the runs that came to their end.
    #[must_use]
    pub fn record_of(&self, name: &str) -> Option<TrackRecord> {
        let hash = hash(name);
        record(
            self.marked().filter(|run| run.verdict != Verdict::Broken).map(|run| run.failed.contains(&hash)),
        )
    }

    fn marked(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().skip(self.runs.len().saturating_sub(MARKED_RUNS))
    }

    /// Notes beside the results of a run that failed how it, and each of its failures, did before.
    pub fn mark(&self, results: &mut Map<String, Value>) {
        let Some(record) = self.record() else { return };
        results.insert("history".to_owned(), json!(record));
        let failures = results.get_mut("failures").and_then(Value::as_array_mut);
        for failure in failures.into_iter().flatten().filter_map(Value::as_object_mut) {
            let known = failure.get("name").and_then(Value::as_str).and_then(|name| self.record_of(name));
            if let Some(record) = known {
                failure.insert("history".to_owned(), json!(record));
            }
        }
    }
}

fn record(failed: impl Iterator<Item = bool>) -> Option<TrackRecord> {
    let mut record = TrackRecord { runs: 0, failed: 0, flaky: false };
    let (mut before, mut changes) = (None, 0);
    for failed in failed {
        record.runs += 1;
        record.failed += u64::from(failed);
        changes += u32::from(before.is_some_and(|before| before != failed));
        before = Some(failed);
    }
    record.flaky = changes >= 2;
    (record.runs > 0).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(failed: &[&str]) -> Run {
        let failures: Vec<Value> = failed.iter().map(|name| json!({ "name": name })).collect();
        let results = json!({ "failures": failures });
        let verdict = if failed.is_empty() { Verdict::Passed } else { Verdict::TestsFailed };
        Run::new(7, verdict, results.as_object().unwrap())
    }

    #[test]
    fn a_run_is_read_as_it_was_written() {
        for run in [run(&[]), run(&["a", "b c"]), Run { verdict: Verdict::Broken, ..run(&["ü"]) }] {
            assert_eq!(Run::read(&run.write()), Some(run));
        }
        for text in ["", "x p ", "1", "1 q ", "1 t zz", "-1 p "] {
            assert_eq!(Run::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_changes_back_and_forth_is_flaky_and_what_broke_once_is_not() {
        let mut past = Past::default();
        assert_eq!(past.record(), None);
        for failed in [&[][..], &["a"], &[], &["a", "b"], &["b"]] {
            past.push(run(failed));
        }
        assert_eq!(past.record_of("a"), Some(TrackRecord { runs: 5, failed: 2, flaky: true }));
        assert_eq!(past.record_of("b"), Some(TrackRecord { runs: 5, failed: 2, flaky: false }));
        assert_eq!(past.record_of("c"), Some(TrackRecord { runs: 5, failed: 0, flaky: false }));
        assert_eq!(past.record(), Some(TrackRecord { runs: 5, failed: 3, flaky: true }));
        let mut results = json!({ "failures": [{ "name": "a" }, 7] }).as_object().unwrap().clone();
        past.mark(&mut results);
        assert_eq!(results["failures"][0]["history"], json!({ "runs": 5, "failed": 2, "flaky": true }));
        assert_eq!(results["history"]["failed"], 3);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut past = Past::default();
        let names: Vec<String> = (0..200).map(|n| format!("case {n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for _ in 0..200 {
            past.push(run(&names));
        }
        assert_eq!(past.runs().len(), MAX_RUNS);
        let bytes: usize = past.runs().iter().map(|run| run.write().len()).sum();
        assert!(bytes < 20_000, "{bytes}");
        assert_eq!(past.record_of("case 0").unwrap().runs, 20);
    }
}
