//! The demo and the benchmarks, as a newcomer runs them.

use serde_json::Value;

use super::tidings;

#[test]
fn the_demo_runs_three_tests_and_delivers_every_message() {
    let output = tidings(&["demo", "--exit"]).output().expect("the demo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in
        ["stress-healthz   passed", "suite-healthy    passed", "suite-flawed     failed: 2 of 8 tests failed"]
    {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(text.contains("0 duplicates, 0 gaps"), "{text}");
}

#[test]
fn the_queue_benchmark_prints_its_figures() {
    let output = tidings(&["bench", "queue", "--jobs", "5", "--json"]).output().expect("the benchmark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(figures["jobs"], 5);
    assert!(figures["p50"].as_u64().is_some_and(|us| us > 0), "{figures}");
}
