//! Reports that runners write as one JSON document: those of Jest and Vitest, which share a form, of Playwright Test, and
//! the summary of k6. Test files are taken one after the other, so that the largest report costs no more memory than its
//! largest file; and of one that breaks off, what stood before counts.

mod cases;
mod lines;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::text::{add, settle};
use crate::worker::progress::ProgressState;

pub(super) use lines::{JsonReport, gives_jest_away, gives_playwright_away};

use cases::{GlobalError, Metric, Suite, TestFile};

/// Why a report cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    /// It is no JSON, ends too early, or has other types than expected.
    #[error("{0}")]
    Json(String),
    /// It is JSON, and something else.
    #[error("it is none of Jest, Vitest, Playwright Test or k6")]
    Unknown,
}

/// The totals that the runner itself tells.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    known: bool,
}

/// What the summary of Playwright Test says.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Stats {
    expected: u64,
    unexpected: u64,
    flaky: u64,
    skipped: u64,
}

/// Adds the test cases of a report to `state`.
///
/// # Errors
/// [`ReportError`]; what stood before the fault is in `state`.
pub(crate) fn read(report: impl Read, state: &mut ProgressState) -> Result<(), ReportError> {
    let mut found = ProgressState::default();
    let mut document = Document { state: &mut found, totals: Totals::default(), is_known: false };
    let mut json = serde_json::Deserializer::from_reader(report);
    let read = json.deserialize_map(&mut document).map_err(|e| ReportError::Json(e.to_string()));
    let (totals, is_known) = (document.totals, document.is_known);
    totals.settle(&mut found);
    found.failures.into_iter().for_each(|failure| state.note_failure(failure));
    found.slowest.iter().for_each(|case| state.note_duration(&case.name, case.duration_ms));
    let (counts, more) = (&mut state.counts, found.counts);
    counts.passed = add(counts.passed, more.passed);
    counts.failed = add(counts.failed, more.failed);
    counts.skipped = add(counts.skipped, more.skipped);
    counts.total = None;
    settle(state);
    read.and(if is_known { Ok(()) } else { Err(ReportError::Unknown) })
}

impl Totals {
    /// The runner knows better than we do what counts as what.
    fn settle(self, state: &mut ProgressState) {
        if self.known {
            (state.counts.passed, state.counts.failed, state.counts.skipped) =
                (add(self.passed, 0), add(self.failed, 0), add(self.skipped, 0));
        }
    }
}

impl From<Stats> for Totals {
    fn from(stats: Stats) -> Self {
        let Stats { expected, unexpected, flaky, skipped } = stats;
        Self { passed: expected.saturating_add(flaky), failed: unexpected, skipped, known: true }
    }
}

/// Takes the fields of the document as they come.
struct Document<'a> {
    state: &'a mut ProgressState,
    totals: Totals,
    is_known: bool,
}

impl<'de> Visitor<'de> for &mut Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a report")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Document { state, totals, is_known } = self;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "numPassedTests" => (totals.passed, totals.known) = (map.next_value()?, true),
                "numFailedTests" => (totals.failed, totals.known) = (map.next_value()?, true),
                "numPendingTests" | "numTodoTests" => {
                    totals.skipped = totals.skipped.saturating_add(map.next_value()?);
                }
                "testResults" => map.next_value_seed(Each::new(|file: TestFile| file.show(state)))?,
                "suites" => map.next_value_seed(Each::new(|suite: Suite| suite.show(state)))?,
                "errors" => map.next_value_seed(Each::new(|error: GlobalError| error.show(state)))?,
                "stats" => *totals = map.next_value::<Stats>()?.into(),
                "metrics" => {
                    let metrics: BTreeMap<String, Metric> = map.next_value()?;
                    metrics.into_iter().for_each(|(name, metric)| metric.show(&name, state));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            }
            *is_known = true;
        }
        Ok(())
    }
}

/// Hands over the entries of a list one after the other.
struct Each<T, F>(F, PhantomData<T>);

impl<T, F: FnMut(T)> Each<T, F> {
    fn new(take: F) -> Self {
        Self(take, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut seq: S) -> Result<(), S::Error> {
        while let Some(entry) = seq.next_element()? {
            (self.0)(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
