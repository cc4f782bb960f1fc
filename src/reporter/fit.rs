//! Keeps what is told within what a server takes at once: the counts always get there, output of failures as far as
//! there is room.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::worker::progress::ProgressState;
use crate::worker::runner::parse::cut;

/// A server takes 64 KiB unless it is told otherwise; fields are added there.
const MAX_BYTES: usize = 48 * 1024;
/// What is left of the output of a failure where there are many.
const SHORT_OUTPUT: usize = 400;
/// How many failures are named where their names alone are too much.
const FEW: usize = 10;
/// The results that are small whatever happened.
const SMALL_RESULTS: [&str; 4] = ["exitCode", "signal", "counts", "durationMs"];

/// The data of a progress event.
pub(super) fn progress(mut state: ProgressState) -> Option<Box<RawValue>> {
    for step in 0..4 {
        let (_, data) = state.told()?;
        if data.get().len() <= MAX_BYTES || step == 3 {
            return Some(data);
        }
        match step {
            0 => state.failures.iter_mut().for_each(|failure| {
                failure.output = failure.output.take().map(|text| cut(&text, SHORT_OUTPUT).to_owned());
            }),
            1 => state.failures.iter_mut().for_each(|failure| failure.output = None),
            _ => {
                state.failures.truncate(FEW);
                state.current.truncate(FEW);
                state.metrics.clear();
            }
        }
    }
    None
}

/// The results, without the output of failures, and then without the failures, where they are too much.
pub(super) fn results(mut results: Map<String, Value>) -> Map<String, Value> {
    let is_small =
        |results: &Map<String, Value>| serde_json::to_vec(results).is_ok_and(|json| json.len() <= MAX_BYTES);
    if is_small(&results) {
        return results;
    }
    if let Some(Value::Array(failures)) = results.get_mut("failures") {
        failures
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(|failure| drop(failure.remove("output")));
    }
    if is_small(&results) { results } else { least(&results) }
}

/// What of the results nothing is refused for.
pub(super) fn least(results: &Map<String, Value>) -> Map<String, Value> {
    let kept = SMALL_RESULTS.into_iter().filter_map(|key| Some((key.to_owned(), results.get(key)?.clone())));
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::test::{Failure, MAX_FAILURES};

    fn failing(message: usize, output: usize) -> ProgressState {
        let mut state = ProgressState::default();
        for i in 0..MAX_FAILURES {
            let output = Some("o".repeat(output));
            state.note_failure(Failure {
                name: format!("case {i}"),
                message: "m".repeat(message),
                output,
                history: None,
            });
        }
        state.counts.failed = 50;
        state
    }

    #[test]
    fn many_failures_fit_with_what_there_is_room_for() {
        let told = |message, output| -> Value {
            let data = progress(failing(message, output)).expect("data");
            assert!(data.get().len() <= MAX_BYTES, "{message} {output}");
            serde_json::from_str(data.get()).expect("JSON")
        };
        assert_eq!(told(10, 500)["failures"][49]["output"].as_str().map(str::len), Some(500));
        assert_eq!(told(10, 2048)["failures"][49]["output"].as_str().map(str::len), Some(SHORT_OUTPUT));
        assert_eq!(told(600, 2048)["failures"][49].get("output"), None);
        let most = told(1000, 2048);
        assert_eq!(
            (most["failures"].as_array().map(Vec::len), &most["counts"]["failed"]),
            (Some(FEW), &json!(50))
        );
    }

    #[test]
    fn results_lose_what_is_large_first() {
        let all = |output: usize, name: usize| {
            let failures: Vec<_> =
                (0..50).map(|_| json!({ "name": "n".repeat(name), "output": "o".repeat(output) })).collect();
            let Value::Object(all) = json!({ "exitCode": 1, "counts": {}, "failures": failures }) else {
                panic!()
            };
            all
        };
        assert_eq!(results(all(10, 10)), all(10, 10));
        let thin = results(all(2048, 10));
        assert_eq!(
            (thin["failures"][0].get("output"), thin["failures"].as_array().map(Vec::len)),
            (None, Some(50))
        );
        assert_eq!(results(all(2048, 2000)).keys().collect::<Vec<_>>(), ["counts", "exitCode"]);
    }
}
