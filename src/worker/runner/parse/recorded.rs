//! Formats of which a runner's own totals are known, against recorded output of real runs.

use super::tests::{counts, failure, names, read};
use super::*;
use crate::config::suite::Format;

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/samples/", $name))
    };
}

const CARGO: [&str; 3] = ["tiny tests::fails_with_err", "tiny tests::is_wrong", "tiny::it breaks"];

#[test]
fn nextest_tells_of_each_test_and_of_its_output() {
    let state = read(Format::Nextest, sample!("nextest.txt"), 100);
    assert_eq!((state.counts, names(&state)), (counts(3, 3, 1), CARGO.to_vec()));
    let wrong = failure(&state, "tiny tests::is_wrong");
    assert_eq!(wrong.message, "assertion `left == right` failed: two is not three");
    let output = wrong.output.as_deref().unwrap();
    assert!(output.contains("before the panic") && !output.contains("running 1 test"), "{output}");
    assert_eq!(failure(&state, CARGO[0]).message, r#"Error: "no such thing""#);
    assert_eq!((state.slowest[0].name.as_str(), state.slowest[0].duration_ms), ("tiny tests::is_slow", 394));
}

#[test]
fn a_nextest_run_is_followed_through_retries_and_slow_tests() {
    let mut state = ProgressState::default();
    let mut parser = parser(Format::Nextest);
    let lines = [
        "    Starting 3 tests across 1 binary",
        "        SLOW [> 60.000s] tiny tests::long",
        "  TRY 1 FAIL [   0.005s] tiny tests::shaky",
    ];
    lines.iter().for_each(|line| parser.line(line, &mut state));
    assert_eq!((state.counts.done(), state.current.as_slice()), (0, &["tiny tests::long".to_owned()][..]));
    parser.line("  TRY 2 PASS [   0.005s] tiny tests::shaky", &mut state);
    parser.line("     TIMEOUT [  90.000s] tiny tests::long", &mut state);
    parser.line("     SIGSEGV [   0.100s] tiny tests::dies", &mut state);
    assert_eq!((state.counts.passed, state.counts.failed, state.current.len()), (1, 2, 0));
    assert_eq!(failure(&state, "tiny tests::long").message, "TIMEOUT");
    parser.line(
        "     Summary [  90.100s] 3 tests run: 1 passed (1 flaky), 1 failed, 1 timed out, 0 skipped",
        &mut state,
    );
    assert_eq!(state.counts, counts(1, 2, 0));
}

#[test]
fn json_lines_of_libtest_are_read() {
    let state = read(Format::LibtestJson, sample!("nextest-json.txt"), 100);
    assert_eq!(state.counts, counts(3, 3, 1));
    let wrong = failure(&state, "tiny::tiny tests::is_wrong");
    assert_eq!(wrong.message, "assertion `left == right` failed: two is not three");
    assert_eq!(state.slowest[0].name, "tiny::it breaks");
}

#[test]
fn a_case_whose_output_was_cut_counts_all_the_same() {
    let whole = sample!("nextest-json.txt");
    let at = whole.find("no such thing").unwrap();
    let cut: String = whole
        .lines()
        .map(|line| format!("{}\n", line.split_once("no such thing").map_or(line, |(before, _)| before)))
        .collect();
    assert!(cut.len() < whole.len() && at > 0);
    let (whole, cut) = (read(Format::LibtestJson, whole, 100), read(Format::LibtestJson, &cut, 100));
    assert_eq!((whole.counts, names(&whole)), (cut.counts, names(&cut)));
}

#[test]
fn jest_is_counted_by_its_summary_with_and_without_verbose() {
    for text in [sample!("jest.txt"), sample!("jest-verbose.txt")] {
        let state = read(Format::Jest, text, 1);
        assert_eq!(state.counts, counts(3, 2, 2), "{text}");
        assert_eq!(names(&state), ["sum › is wrong", "throws", "tests/broken.test.js"], "{text}");
        assert_eq!(failure(&state, "throws").message, "no such thing");
        assert_eq!(
            failure(&state, "sum › is wrong").message,
            "expect(received).toBe(expected) // Object.is equality"
        );
    }
    let state = read(Format::Jest, sample!("jest-verbose.txt"), 1);
    assert_eq!((state.slowest[0].name.as_str(), state.slowest[0].duration_ms), ("is slow", 327));
}

#[test]
fn vitest_is_counted_by_its_summary_whatever_the_reporter() {
    for text in [sample!("vitest.txt"), sample!("vitest-verbose.txt")] {
        let plain: Vec<_> = text.lines().map(|line| plain_text(line).into_owned()).collect();
        let state = read(Format::Vitest, &plain.join("\n"), 1);
        assert_eq!(state.counts, counts(3, 2, 2), "{text}");
        let expected = [
            "vt/broken.test.mjs [ vt/broken.test.mjs ]",
            "vt/other.test.mjs > throws",
            "vt/sum.test.mjs > sum > is wrong",
        ];
        assert_eq!(names(&state), expected, "{text}");
        assert_eq!(failure(&state, expected[1]).message, "Error: no such thing");
    }
}

#[test]
fn vitest_is_counted_as_it_goes() {
    let mut state = ProgressState::default();
    let mut parser = parser(Format::Vitest);
    parser.line(" ❯ vt/sum.test.mjs (5 tests | 1 failed | 1 skipped | 1 todo) 347ms", &mut state);
    parser.line("     ✓ adds 1ms", &mut state);
    assert_eq!((state.counts.passed, state.counts.failed, state.counts.skipped), (2, 1, 2));
    parser.line(" ✓ a.test.ts > adds 2ms", &mut state);
    assert_eq!((state.counts.passed, state.slowest[0].name.as_str()), (3, "a.test.ts > adds"));
}

#[test]
fn playwright_counts_what_passed_in_the_end() {
    let wrong = "pw/a.spec.js:4:3 › sum › is wrong";
    for text in
        [sample!("playwright-list.txt"), sample!("playwright-line.txt"), sample!("playwright-dot.txt")]
    {
        let state = read(Format::Playwright, text, 1);
        assert_eq!((state.counts, names(&state)), (counts(4, 1, 1), vec![wrong]), "{text}");
        assert_eq!(
            failure(&state, wrong).message,
            "Error: expect(received).toBe(expected) // Object.is equality"
        );
    }
    let mut state = ProgressState::default();
    let mut parser = parser(Format::Playwright);
    let before: Vec<_> =
        sample!("playwright-list.txt").lines().take_while(|line| !line.contains("1) pw/")).collect();
    before.iter().for_each(|line| parser.line(line, &mut state));
    assert_eq!((state.counts, state.progress), (counts(4, 1, 1), 100.0), "as it goes");
}

#[test]
fn the_spec_reporter_of_node_is_counted_by_its_totals() {
    let state = read(Format::NodeSpec, sample!("node-spec.txt"), 1);
    assert_eq!((state.counts, names(&state)), (counts(4, 2, 2), vec!["is wrong", "throws"]));
    assert_eq!(failure(&state, "throws").message, "Error: no such thing");
    assert_eq!(state.slowest[0].name, "sum > nested > is slow");
}

#[test]
fn reports_of_junit_are_read() {
    let read = |text: &str| {
        let mut state = ProgressState::default();
        junit::read(text.as_bytes(), &mut state).unwrap_or_else(|e| panic!("{e}: {text}"));
        state
    };
    let pytest = read(sample!("junit-pytest.xml"));
    assert_eq!(
        (pytest.counts, names(&pytest)),
        (counts(4, 2, 2), vec!["test_a.test_bad", "test_a.test_error"])
    );
    assert_eq!(failure(&pytest, "test_a.test_bad").message, "assert (1 + 1) == 3");
    assert!(
        failure(&pytest, "test_a.test_bad").output.as_deref().unwrap().contains(">       assert 1 + 1 == 3")
    );
    assert_eq!(pytest.slowest[0].name, "test_a.TestC.test_slow");
    assert_eq!(read(sample!("junit-vitest.xml")).counts, counts(3, 3, 2));
    assert_eq!(read(sample!("junit-nextest.xml")).counts, counts(3, 3, 0));
    // Node counts a test with subtests, but has no case for it.
    assert_eq!(read(sample!("junit-node.xml")).counts, counts(4, 1, 2));
}

#[test]
fn what_is_no_report_of_junit_says_so() {
    let read =
        |text: &str| junit::read(text.as_bytes(), &mut ProgressState::default()).unwrap_err().to_string();
    assert!(read("<html><body/></html>").contains("<html>"));
    assert!(read("<testsuite><testcase name='a'/>").contains("ends too early"));
    assert!(read(&"<testsuite>".repeat(1000)).contains("too deep"));
    assert!(read("<testsuite></wrong>").starts_with("at byte "));
}

#[test]
fn events_beside_the_output_are_exact() {
    let lines = [
        r#"{"event":"plan","total":4}"#,
        r#"{"event":"started","name":"a"}"#,
        r#"{"event":"ended","name":"a","outcome":"passed","durationMs":12.7}"#,
        r#"{"event":"ended","name":"b","outcome":"failed","message":"why","output":"noise"}"#,
        r#"{"event":"ended","name":"c","outcome":"skipped"}"#,
        r#"{"event":"reopened","name":"b","outcome":"failed"}"#,
        r#"{"event":"ended","name":"b","outcome":"passed"}"#,
        r#"{"event":"from the future","name":"b"}"#,
        "no JSON",
    ];
    let (mut state, mut events) = (ProgressState::default(), events::Events::default());
    for line in lines {
        events.line(line, &mut state);
    }
    assert_eq!((state.counts.passed, state.counts.failed, state.counts.skipped), (2, 0, 1));
    assert_eq!((state.counts.total, state.progress, state.failures.len()), (Some(4), 75.0, 0));
    assert_eq!(state.slowest[0].duration_ms, 12);
    assert!(events::is_event(lines[0]) && !events::is_event(lines[8]));
}

#[test]
fn a_pattern_says_what_lines_mean() {
    let read = |pattern: &str, lines: &[&str]| {
        let (mut state, mut parser) = (ProgressState::default(), by_pattern(pattern).unwrap());
        lines.iter().for_each(|line| parser.line(line, &mut state));
        parser.finish(Exit::Code(0), &mut state);
        state
    };
    let cases =
        r"^(?:(?<pass>OK)|(?<fail>BAD)|(?<skip>--)) (?<name>\S+)(?: (?<ms>\d+)ms)?(?:: (?<message>.*))?$";
    let state = read(cases, &["OK a 12ms", "noise", "BAD b: broken", "-- c"]);
    assert_eq!((state.counts, names(&state)), (counts(1, 1, 1), vec!["b"]));
    assert_eq!((state.failures[0].message.as_str(), state.slowest[0].duration_ms), ("broken", 12));
    let state = read(r"(?<done>\d+) of (?<total>\d+)", &["step 3 of 12", "step 6 of 12"]);
    assert_eq!((state.progress, state.counts.total), (50.0, Some(12)));
    assert_eq!(read(r"(?<percent>[\d.]+) percent", &["now 12.5 percent"]).progress, 12.5);
    let fault = |pattern: &str| by_pattern(pattern).err().unwrap().to_string();
    assert!(fault("(").contains("no regular expression"));
    assert!(fault("x").contains("no named group"));
    assert!(fault("(?<passed>x)").contains("`passed` means nothing"));
}
