//! What decides whether a stress test passes: `"p99 < 200"`, `"error_rate <= 0.01"`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics::Totals;
use crate::worker::runner::latencies::Latencies;

const MAX_THRESHOLDS: usize = 32;
/// A rate over less time than this says nothing.
const MIN_RATE_TIME: Duration = Duration::from_secs(1);
/// What may stand before the operator, for error messages.
const METRICS: &str = "p50 (or another percentile), min, max, mean (all in ms), error_rate (0 to 1), rps, \
                       throughput (both per second), requests, failed, dropped";

/// One entry of the list that is more than a text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    threshold: String,
    #[serde(default)]
    abort_on_fail: bool,
    #[serde(default)]
    delay_abort_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    Percentile(f64),
    Min,
    Max,
    Mean,
    ErrorRate,
    Rps,
    Throughput,
    Requests,
    Failed,
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// What a measurement has to be for the test to pass.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Threshold {
    name: String,
    metric: Metric,
    op: Op,
    limit: f64,
    /// The test ends as soon as it is broken, but not before so much of it was measured.
    abort_after: Option<Duration>,
}

/// What became of a threshold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    threshold: String,
    value: Option<f64>,
    pub(super) kept: bool,
}

impl Threshold {
    /// Reads them all, or says which one is wrong.
    pub(super) fn parse_all(written: Option<Value>) -> Result<Vec<Self>, String> {
        match written {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(table)) => {
                table.into_iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| named(&k, &v)).collect()
            }
            Some(Value::Array(list)) if list.len() > MAX_THRESHOLDS => {
                Err(format!("thresholds: at most {MAX_THRESHOLDS}, not {}", list.len()))
            }
            Some(Value::Array(list)) => {
                let parsed = list.into_iter().enumerate();
                parsed.map(|(i, value)| entry(value).map_err(|e| format!("thresholds.{i}: {e}"))).collect()
            }
            Some(other) => Err(format!("thresholds is a list such as [\"p99 < 200\"], not {other}")),
        }
    }

    /// Reads `METRIC OP NUMBER`.
    fn parse(text: &str) -> Result<Self, String> {
        let shape = || format!("`{text}` has to look like `p99 < 200`: a metric, one of < <= > >=, a number");
        let at = text.find(['<', '>']).ok_or_else(shape)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let ops = [("<=", Op::AtMost), (">=", Op::AtLeast), ("<", Op::Below), (">", Op::Above)];
        let found = ops.into_iter().find_map(|(sign, op)| Some((op, rest.strip_prefix(sign)?)));
        let (op, limit) = found.ok_or_else(shape)?;
        let limit: f64 = limit.trim().parse().map_err(|_| shape())?;
        let metric =
            metric(name).ok_or_else(|| format!("there is no metric `{name}`; there are: {METRICS}"))?;
        let top = if metric == Metric::ErrorRate { 1.0 } else { f64::MAX };
        if !(0.0..=top).contains(&limit) {
            return Err(format!(
                "`{text}`: the number is {}",
                if top > 1.0 { "not negative" } else { "between 0 and 1" }
            ));
        }
        Ok(Self { name: name.to_owned(), metric, op, limit, abort_after: None })
    }

    /// Whether it is about failed requests, so that these do not fail the test by themselves.
    pub(super) fn is_about_failures(&self) -> bool {
        matches!(self.metric, Metric::ErrorRate | Metric::Failed)
    }

    /// Whether the test is to end now, after so much of it was measured. Where its load `is_over` and the last answers are
    /// waited for, there is no rate to judge until they are there.
    pub(super) fn aborts(&self, totals: &Totals, is_over: bool) -> bool {
        let is_rate = matches!(self.metric, Metric::Rps | Metric::Throughput);
        // What only grows may still get there.
        let may_get_there = matches!(self.metric, Metric::Requests | Metric::Failed | Metric::Dropped)
            && matches!(self.op, Op::Above | Op::AtLeast);
        let judged = self.abort_after.is_some_and(|delay| totals.elapsed >= delay)
            && !(is_rate && (is_over || totals.elapsed < MIN_RATE_TIME))
            && !may_get_there;
        judged && self.value(totals).is_some_and(|value| !self.keeps(value))
    }

    /// Whether any of `thresholds` may end the test early.
    pub(super) fn may_abort(thresholds: &[Self]) -> bool {
        thresholds.iter().any(|threshold| threshold.abort_after.is_some())
    }

    /// What becomes of it with these measurements. What could not be measured is not kept.
    pub(super) fn judge(&self, totals: &Totals) -> Verdict {
        let value = self.value(totals);
        Verdict { threshold: self.to_string(), value, kept: value.is_some_and(|value| self.keeps(value)) }
    }

    fn keeps(&self, value: f64) -> bool {
        match self.op {
            Op::Below => value < self.limit,
            Op::AtMost => value <= self.limit,
            Op::Above => value > self.limit,
            Op::AtLeast => value >= self.limit,
        }
    }

    fn value(&self, totals: &Totals) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a count needs no 53 bits")]
        let count = |n: u64| Some(n as f64);
        let latencies = Some(&totals.latencies).filter(|latencies| !latencies.is_empty());
        match self.metric {
            Metric::Percentile(percent) => latencies.map(|l| l.percentile(percent)),
            Metric::Min => latencies.map(Latencies::min),
            Metric::Max => latencies.map(Latencies::max),
            Metric::Mean => latencies.map(Latencies::mean),
            Metric::ErrorRate => (totals.requests > 0).then(|| totals.error_rate()),
            Metric::Rps => Some(totals.rps()),
            Metric::Throughput => Some(totals.throughput()),
            Metric::Requests => count(totals.requests),
            Metric::Failed => count(totals.failed),
            Metric::Dropped => count(totals.dropped),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.op {
            Op::Below => "<",
            Op::AtMost => "<=",
            Op::Above => ">",
            Op::AtLeast => ">=",
        };
        write!(f, "{} {sign} {}", self.name, self.limit)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "`{}` does not hold: it is {value:.3}", self.threshold),
            None => write!(f, "`{}` cannot be told: no request was answered", self.threshold),
        }
    }
}

impl Verdict {
    /// As it is kept with the results.
    pub(super) fn told(&self) -> Value {
        json!({"threshold": self.threshold, "value": self.value, "ok": self.kept})
    }
}

fn metric(name: &str) -> Option<Metric> {
    let percent = |digits: &str| digits.parse().ok().filter(|p| *p > 0.0 && *p < 100.0);
    Some(match name {
        "min" => Metric::Min,
        "max" => Metric::Max,
        "mean" => Metric::Mean,
        "error_rate" => Metric::ErrorRate,
        "rps" => Metric::Rps,
        "throughput" => Metric::Throughput,
        "requests" => Metric::Requests,
        "failed" => Metric::Failed,
        "dropped" => Metric::Dropped,
        _ => Metric::Percentile(percent(name.strip_prefix('p')?)?),
    })
}

fn entry(value: Value) -> Result<Threshold, String> {
    let entry = match value {
        Value::String(threshold) => return Threshold::parse(&threshold),
        other => serde_json::from_value::<Entry>(other).map_err(|e| e.to_string())?,
    };
    let delay = Duration::from_millis(entry.delay_abort_ms);
    let abort_after = entry.abort_on_fail.then_some(delay);
    if abort_after.is_none() && !delay.is_zero() {
        return Err("delayAbortMs means nothing without abortOnFail".to_owned());
    }
    Ok(Threshold { abort_after, ..Threshold::parse(&entry.threshold)? })
}

/// An entry of the table.
fn named(key: &str, value: &Value) -> Result<Threshold, String> {
    let name = match key {
        "p50Ms" | "p90Ms" | "p95Ms" | "p99Ms" => key.trim_end_matches("Ms"),
        "errorRate" => "error_rate",
        "minRps" => "rps",
        _ => {
            return Err(format!(
                "thresholds: there is no `{key}`; a list such as [\"p99 < 200\"] knows more"
            ));
        }
    };
    let number = value.as_f64().ok_or_else(|| format!("thresholds.{key} is a number, not {value}"))?;
    let sign = if key == "minRps" { ">=" } else { "<=" };
    Threshold::parse(&format!("{name} {sign} {number}")).map_err(|e| format!("thresholds.{key}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Vec<Threshold>, String> {
        Threshold::parse_all(Some(value))
    }

    #[test]
    fn both_forms_mean_the_same() {
        let list = parse(json!(["error_rate <= 0.01", "rps>=100", " p99 <= 200.5 "])).unwrap();
        let table = parse(json!({"p99Ms": 200.5, "errorRate": 0.01, "minRps": 100, "p50Ms": null})).unwrap();
        let words = |all: &[Threshold]| {
            let mut words: Vec<_> = all.iter().map(ToString::to_string).collect();
            words.sort();
            words
        };
        assert_eq!(words(&list), words(&table));
        assert_eq!(words(&list), ["error_rate <= 0.01", "p99 <= 200.5", "rps >= 100"]);
    }

    #[test]
    fn a_rate_ends_no_test_whose_load_is_over() {
        let start = tokio::time::Instant::now();
        let end = start + Duration::from_secs(10);
        let totals = crate::worker::runner::stress::metrics::Metrics::new(start, end).totals(end);
        let aborts = |threshold: &str, is_over| {
            parse(json!([{"threshold": threshold, "abortOnFail": true}])).unwrap()[0].aborts(&totals, is_over)
        };
        assert_eq!((aborts("rps >= 95", false), aborts("rps >= 95", true)), (true, false));
        assert_eq!((aborts("throughput > 1", true), aborts("requests < 0", true)), (false, true));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (thresholds, expected) in [
            (json!(["p99 < 200", "p99 = 200"]), "thresholds.1: `p99 = 200` has to look like"),
            (json!(["p100 < 1"]), "thresholds.0: there is no metric `p100`"),
            (json!(["pNaN < 1"]), "there is no metric `pNaN`"),
            (json!(["p99 < inf"]), "not negative"),
            (json!(["p99 < NaN"]), "not negative"),
            (json!(["p99 < -1"]), "not negative"),
            (json!(["error_rate < 2"]), "between 0 and 1"),
            (json!([7]), "thresholds.0"),
            (json!([{"threshold": "p99 < 1", "abort": true}]), "unknown field `abort`"),
            (json!([{"threshold": "p99 < 1", "delayAbortMs": 5}]), "without abortOnFail"),
            (json!({"p98Ms": 1}), "thresholds: there is no `p98Ms`"),
            (json!({"p99Ms": "1"}), "thresholds.p99Ms is a number"),
            (json!("p99 < 1"), "thresholds is a list"),
            (json!(vec!["p99 < 1"; 33]), "at most 32, not 33"),
        ] {
            let message = parse(thresholds.clone()).unwrap_err();
            assert!(message.contains(expected), "{thresholds}: {message}");
        }
    }
}
