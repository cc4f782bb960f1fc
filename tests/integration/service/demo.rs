//! The demo, as a newcomer runs it.

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
