//! The parsers against recorded output of real runs, and against rubbish.

use proptest::prelude::*;

use super::text::{MAX_MESSAGE_BYTES, MAX_OUTPUT_BYTES};
use super::*;
use crate::model::test::{Counts, Failure, MAX_FAILURES};

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/samples/", $name, ".txt"))
    };
}

const SAMPLES: [(&str, Format); 24] = [
    (sample!("cargo-test"), Format::CargoTest),
    (sample!("cargo-test-nocapture"), Format::CargoTest),
    (sample!("cargo-test-nocapture-threads"), Format::CargoTest),
    (sample!("cargo-test-quiet"), Format::CargoTest),
    (sample!("cargo-test-abort"), Format::CargoTest),
    (sample!("cargo-test-build"), Format::CargoTest),
    (sample!("go-json"), Format::GoJson),
    (sample!("node-tap"), Format::Tap),
    (sample!("prove"), Format::Tap),
    (sample!("pytest"), Format::Pytest),
    (sample!("pytest-v"), Format::Pytest),
    (sample!("pytest-s"), Format::Pytest),
    (sample!("pytest-xdist-v"), Format::Pytest),
    (sample!("pytest-collect"), Format::Pytest),
    (sample!("nextest"), Format::Nextest),
    (sample!("nextest-json"), Format::LibtestJson),
    (sample!("node-spec"), Format::NodeSpec),
    (sample!("jest"), Format::Jest),
    (sample!("jest-verbose"), Format::Jest),
    (sample!("playwright-list"), Format::Playwright),
    (sample!("playwright-line"), Format::Playwright),
    (sample!("playwright-dot"), Format::Playwright),
    (sample!("k6"), Format::K6),
    (sample!("k6-json"), Format::K6),
];

pub(super) fn read(format: Format, text: &str, code: i32) -> ProgressState {
    let mut state = ProgressState::default();
    let mut parser = parser(format);
    for line in text.lines() {
        parser.line(line, &mut state);
    }
    parser.finish(Exit::Code(code), &mut state);
    state
}

pub(super) fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
    Counts { passed, failed, skipped, total: Some(passed + failed + skipped) }
}

pub(super) fn names(state: &ProgressState) -> Vec<&str> {
    state.failures.iter().map(|f| f.name.as_str()).collect()
}

pub(super) fn failure<'a>(state: &'a ProgressState, name: &str) -> &'a Failure {
    state
        .failures
        .iter()
        .find(|f| f.name == name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", state.failures))
}

#[test]
fn the_format_of_every_sample_is_found() {
    for (text, format) in SAMPLES {
        // A build that fails says nothing about tests.
        if !text.contains("could not compile") {
            assert_eq!(read(Format::Auto, text, 1), read(format, text, 1), "{text}");
        }
    }
}

#[test]
fn cargo_test_adds_its_binaries_up() {
    let all = ["tests::fails_with_err", "tests::is_wrong", "breaks", "src/lib.rs - two (line 5)"];
    for text in [
        sample!("cargo-test"),
        sample!("cargo-test-quiet"),
        sample!("cargo-test-nocapture"),
        sample!("cargo-test-nocapture-threads"),
    ] {
        let state = read(Format::CargoTest, text, 101);
        assert_eq!(state.counts, counts(5, 4, 1), "{text}");
        let mut found = names(&state);
        found.sort_unstable();
        let mut all = all;
        all.sort_unstable();
        assert_eq!(found, all, "{text}");
    }
    let state = read(Format::CargoTest, sample!("cargo-test"), 101);
    let wrong = failure(&state, "tests::is_wrong");
    assert_eq!(wrong.message, "assertion `left == right` failed: two is not three");
    assert!(wrong.output.as_ref().unwrap().starts_with("before the panic"));
    assert_eq!(failure(&state, "tests::fails_with_err").message, r#"Error: "no such thing""#);
}

#[test]
fn a_test_binary_that_dies_is_a_failure() {
    let state = read(Format::CargoTest, sample!("cargo-test-abort"), 101);
    assert_eq!(state.counts, counts(0, 1, 0));
    let died = failure(&state, "tests/it.rs");
    assert!(died.message.contains("signal: 6"), "{died:?}");
    let build = read(Format::CargoTest, sample!("cargo-test-build"), 101);
    assert_eq!((build.counts, build.failures.len()), (Counts::default(), 0));
}

#[test]
fn cargo_test_shows_progress_on_the_way() {
    let mut state = ProgressState::default();
    let mut parser = parser(Format::CargoTest);
    for line in ["     Running tests/it.rs (target/debug/deps/it-0)", "running 4 tests", "test a ... ok"] {
        parser.line(line, &mut state);
    }
    assert_eq!((state.progress, state.message.as_deref()), (25.0, Some("tests/it.rs")));
    parser.line("test b has been running for over 60 seconds", &mut state);
    assert_eq!(state.current, ["b"]);
    parser.line("test b ... FAILED", &mut state);
    assert_eq!((state.progress, state.current.len(), state.counts.failed), (50.0, 0, 1));
}

#[test]
fn go_json_counts_leaves_and_packages_that_break() {
    let state = read(Format::GoJson, sample!("go-json"), 1);
    let tiny = "example.org/tiny";
    assert_eq!(
        names(&state),
        [
            "example.org/tiny.TestFail",
            "example.org/tiny.TestSubs/two",
            "example.org/tiny/exits",
            "example.org/tiny/sub",
            "example.org/tiny/pan.TestPanics"
        ]
    );
    assert_eq!(state.counts, counts(3, 5, 1));
    assert_eq!(failure(&state, &format!("{tiny}.TestFail")).message, "a_test.go:4: got 1, want 2");
    let panics = failure(&state, &format!("{tiny}/pan.TestPanics"));
    assert!(panics.message.starts_with("panic: assignment to entry in nil map"), "{panics:?}");
    let build = failure(&state, &format!("{tiny}/sub"));
    assert_eq!(build.message, "the build failed");
    assert!(build.output.as_ref().unwrap().contains("undefined: undefined"));
    assert!(failure(&state, &format!("{tiny}/exits")).output.as_ref().unwrap().contains("exit status 3"));
}

#[test]
fn a_json_line_behind_unfinished_text_is_found() {
    let text = r#"{"Action":"run","Package":"p","Test":"TestA"}
printed {"a":1} {"Time":"2026-01-01T00:00:00Z","Action":"pass","Package":"p","Test":"TestA","Elapsed":0}"#;
    assert_eq!(read(Format::GoJson, text, 0).counts, counts(1, 0, 0));
}

#[test]
fn tap_of_node_is_counted_as_node_counts() {
    let state = read(Format::Tap, sample!("node-tap"), 1);
    assert_eq!(state.counts, counts(6, 2, 4));
    assert_eq!(names(&state), ["subtracts", "a suite > breaks"]);
    assert_eq!(failure(&state, "subtracts").message, "Expected values to be strictly equal:");
    let breaks = failure(&state, "a suite > breaks");
    assert_eq!(breaks.message, "broken");
    assert!(breaks.output.as_ref().unwrap().contains("in two lines"));
}

/// A test that fails by its subtest alone is a failed test of node's, a suite is none.
const NESTED: &str = "TAP version 13\n# Subtest: par\n    # Subtest: s1\n    not ok 1 - s1\n      ---\n      error: 'e'\n      ...\n\
    \x20   ok 2 - s2\n    1..2\nnot ok 1 - par\n  ---\n  duration_ms: 8\n  failureType: 'subtestsFailed'\n  error: '1 subtest failed'\n  ...\n\
    # Subtest: suite\n    not ok 1 - s3\n    1..1\nnot ok 2 - suite\n  ---\n  type: 'suite'\n  failureType: 'subtestsFailed'\n  ...\n1..2\n";
const TOTALS: &str =
    "# tests 4\n# suites 1\n# pass 1\n# fail 3\n# cancelled 0\n# skipped 0\n# todo 0\n# duration_ms 1.5\n";

#[test]
fn each_run_of_node_has_its_totals() {
    let state = read(Format::Tap, &format!("{NESTED}{TOTALS}"), 1);
    assert_eq!((state.counts, names(&state)), (counts(1, 3, 0), vec!["par > s1", "suite > s3", "par"]));
    let state = read(Format::Tap, &format!("{NESTED}{TOTALS}TAP version 13\n{NESTED}{TOTALS}"), 1);
    assert_eq!(state.counts, counts(2, 6, 0));
    // A test's own output stands before the plan.
    let printed = format!(
        "TAP version 13\n{TOTALS}# Subtest: a\nok 1 - a\n1..1\n# tests 1\n# suites 0\n# pass 1\n# fail 0\n# cancelled 0\n# skipped 0\n# todo 0\n"
    );
    assert_eq!(read(Format::Tap, &printed, 0).counts, counts(1, 0, 0));
    // Without them, or with some of them, the leaves count.
    for totals in ["", "# tests 4\n# pass 9\n", "# tests 4\n# suites 1\n# pass 9\nx\n# fail 3\n"] {
        let state = read(Format::Tap, &format!("{NESTED}{totals}"), 1);
        assert_eq!((state.counts, names(&state).len()), (counts(1, 2, 0), 2), "{totals}");
    }
}

#[test]
fn a_case_that_should_panic_has_one_name() {
    let text = "running 2 tests\ntest tests::a - should panic ... FAILED\ntest tests::b - should panic ... ok\n\nfailures:\n\n\
        ---- tests::a stdout ----\nnote: test did not panic as expected at src/lib.rs:3:5\n\nfailures:\n    tests::a\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    let state = read(Format::CargoTest, text, 101);
    assert_eq!((state.counts, names(&state)), (counts(1, 1, 0), vec!["tests::a"]));
    assert!(failure(&state, "tests::a").message.contains("did not panic"), "{state:?}");
    // What a test prints is no result of its binary.
    let fake = text.replace("running 2 tests\n", "running 2 tests\ntest result: ok. 5 passed; 0 failed\n");
    assert_eq!(read(Format::CargoTest, &fake, 101).counts, counts(1, 1, 0));
}

/// A failed test's own output: that of another `cargo test`, with as many tests as `RESULT` says.
const INNER: &str = "     Running unittests src/lib.rs (target/debug/deps/x-1)\n\nrunning 3 tests\n\
    test a ... FAILED\ntest b ... FAILED\ntest c ... ok\n\nfailures:\n\n---- a stdout ----\ninner:\n\nrunning 2 tests\n\
    test x ... FAILED\ntest y ... ok\n\n---- x stdout ----\n\nRESULT\n\n  process didn't exit successfully: `x` (signal: 6)\n\
    thread 'a' panicked at src/lib.rs:3:5:\ninner failed\n\n---- b stdout ----\n\nthread 'b' panicked at src/lib.rs:9:5:\n\
    b says no\n\n\nfailures:\n    a\n    b\n\n";
const OUTER_RESULT: &str =
    "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

#[test]
fn a_cargo_test_in_the_output_of_a_failed_test_does_not_count() {
    for inner in [
        "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ] {
        let run = INNER.replace("RESULT", inner) + OUTER_RESULT;
        let state = read(Format::CargoTest, &format!("{run}{run}"), 101);
        assert_eq!((state.counts, names(&state)), (counts(2, 4, 0), vec!["a", "b", "a", "b"]), "{inner}");
        assert_eq!(
            (failure(&state, "a").message.as_str(), failure(&state, "b").message.as_str()),
            ("inner failed", "b says no")
        );
    }
}

#[test]
fn a_result_of_fewer_tests_than_announced_counts_where_nothing_follows() {
    let text = "running 9 tests\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nno\n\nfailures:\n    a\n\n\
        test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\nerror: test failed\n";
    let state = read(Format::CargoTest, text, 101);
    assert_eq!((state.counts, names(&state)), (counts(0, 1, 0), vec!["a"]));
}

#[test]
fn a_pytest_in_the_output_of_a_failed_test_does_not_count() {
    let run = |failed: [&str; 2], inner: &str, passed: u64, file: &str| {
        let [first, second] = failed;
        format!(
            "===== test session starts =====\ncollected {} items\n\n{file} F{}F   [100%]\n\n===== FAILURES =====\n\
            _____ {first} _____\nE  first\n----- Captured stdout call -----\n{inner}\n_____ {second} _____\nE  second\n\
            ===== short test summary info =====\nFAILED {file}::{first} - first\nFAILED {file}::{second} - second\n\
            ===== 2 failed, {passed} passed in 0.10s =====\n",
            passed + 2,
            ".".repeat(usize::try_from(passed).unwrap())
        )
    };
    let inner = run(["test_x", "test_y"], "", 1, "inner.py");
    let state = read(Format::Auto, &run(["test_a", "test_b"], &inner, 2, "a.py"), 1);
    assert_eq!((state.counts, names(&state)), (counts(2, 2, 0), vec!["a.py::test_a", "a.py::test_b"]));
}

#[test]
fn a_nextest_in_the_output_of_a_failed_test_does_not_count() {
    let (whole, at) = (sample!("nextest"), "  stdout ───\n");
    let inner: String = whole.lines().map(|line| format!("    {line}\n")).collect();
    let nested = whole.replacen(at, &format!("{at}{}", inner.replace("tests::", "inner::")), 1);
    let (whole, nested) = (read(Format::Nextest, whole, 100), read(Format::Nextest, &nested, 100));
    assert_eq!((nested.counts, names(&nested)), (whole.counts, names(&whole)));
    assert_eq!(failure(&nested, "tiny::it breaks"), failure(&whole, "tiny::it breaks"));
}

#[test]
fn what_a_test_of_jest_prints_is_no_summary() {
    let text = sample!("jest");
    let state = read(Format::Jest, &format!("Tests: of the parser\n{text}"), 1);
    assert_eq!(state, read(Format::Jest, text, 1));
}

#[test]
fn pytest_is_known_by_its_errors_where_nothing_ran() {
    let text = "\n==================================== ERRORS ====================================\n\
        _________________________ ERROR collecting test_b.py __________________________\nE   ModuleNotFoundError: No module named 'x'\n\
        =========================== short test summary info ============================\nERROR test_b.py\n1 error in 0.37s\n";
    let state = read(Format::Auto, text, 2);
    assert_eq!((state.counts, names(&state)), (counts(0, 1, 0), vec!["test_b.py"]));
}

#[test]
fn spec_names_tests_that_failed_by_their_subtests() {
    let tests = "▶ par\n  ▶ in\n    ✖ s1 (0.8ms)\n      Error: e\n\n  ✖ in (1ms)\n✖ par (2.1ms)\n";
    let end = "\n✖ failing tests:\n\ntest at a.mjs:2:36\n✖ s1 (0.8ms)\n  Error: e\n";
    let totals = |suites, failed| format!("ℹ tests {failed}\nℹ suites {suites}\nℹ pass 0\nℹ fail {failed}\n");
    let state = read(Format::NodeSpec, &format!("{tests}{}{end}", totals(0, 3)), 1);
    assert_eq!((state.counts, names(&state)), (counts(0, 3, 0), vec!["s1", "par > in", "par"]));
    // Suites are none, and which of these is one cannot be told.
    for (suites, failed) in [(2, 1), (1, 2)] {
        let state = read(Format::NodeSpec, &format!("{tests}{}{end}", totals(suites, failed)), 1);
        assert_eq!((state.counts, names(&state)), (counts(0, failed, 0), vec!["s1"]));
    }
}

#[test]
fn the_dots_of_node_name_what_failed() {
    let text = ".X.X\n\nFailed tests:\n\n✖ b (0.37ms)\n  Error: x\n✖ d (0.1ms) # TODO\n  Error: t\n✖ outer (20.5ms)\n  '1 subtest failed'\n";
    let state = read(Format::Auto, text, 1);
    assert_eq!((state.counts.failed, names(&state)), (1, vec!["b"]));
}

#[test]
fn tap_of_prove_counts_all_files() {
    let state = read(Format::Tap, sample!("prove"), 1);
    assert_eq!(state.counts, counts(3, 2, 2));
    assert_eq!(names(&state), ["numbers agree", "inner > inner two"]);
}

#[test]
fn tap_fails_where_fewer_ran_than_planned_or_it_bails_out() {
    let short = read(Format::Tap, "1..3\nok 1\nok 2", 0);
    assert_eq!((short.counts.failed, short.failures[0].message.as_str()), (1, "3 were planned, only 2 ran"));
    let bail = read(Format::Tap, "1..3\nok 1\nBail out! no disk", 0);
    assert_eq!((bail.counts.failed, bail.failures[0].message.as_str()), (1, "no disk"));
    // A parent may fail although all of its children passed.
    let parent = read(Format::Tap, "# Subtest: p\n    ok 1 - c\n    1..1\nnot ok 1 - p\n1..1", 1);
    assert_eq!((parent.counts.passed, parent.counts.failed), (1, 1));
    // A block that never ends does not swallow what follows.
    let open = read(Format::Tap, "not ok 1 - a\n  ---\n  error: 'no'\nok 2 - b\n1..2", 1);
    assert_eq!((open.counts, open.failures[0].message.as_str()), (counts(1, 1, 0), "no"));
}

#[test]
fn pytest_is_read_with_dots_names_and_workers() {
    let all =
        ["test_a.py::test_bad", "test_a.py::test_error", "test_a.py::test_param[2]", "test_b.py::test_two"];
    for text in [sample!("pytest"), sample!("pytest-v"), sample!("pytest-xdist-v")] {
        let state = read(Format::Pytest, text, 1);
        assert_eq!(state.counts, counts(6, 4, 2), "{text}");
        let mut found = names(&state);
        found.sort_unstable();
        assert_eq!(found, all, "{text}");
        let bad = failure(&state, "test_a.py::test_bad");
        assert_eq!(bad.message, "AssertionError: sums are wrong");
        assert!(bad.output.as_ref().unwrap().contains("printed by bad"));
        assert!(state.failures.iter().all(|f| f.output.is_some()), "{:?}", state.failures);
    }
}

#[test]
fn pytest_counts_before_its_summary() {
    for text in [sample!("pytest"), sample!("pytest-v"), sample!("pytest-xdist-v")] {
        let begun = text.split("=== ERRORS").next().unwrap();
        let mut state = ProgressState::default();
        let mut parser = parser(Format::Pytest);
        begun.lines().for_each(|line| parser.line(line, &mut state));
        assert_eq!(state.counts, counts(6, 4, 2), "{text}");
        assert!(state.current.is_empty(), "{:?}", state.current);
    }
}

#[test]
fn pytest_tells_of_errors_in_collection_and_of_uncaptured_tests() {
    let state = read(Format::Pytest, sample!("pytest-collect"), 2);
    assert_eq!((state.counts.failed, names(&state)), (1, vec!["test_c.py"]));
    assert_eq!(state.failures[0].message, "ModuleNotFoundError: No module named 'nothere'");
    assert_eq!(read(Format::Pytest, sample!("pytest-s"), 1).counts, counts(1, 1, 0));
    let glued =
        "collected 2 items\na.py::b hello\nPASSED\na.py::c bye FAILED\n== 1 failed, 1 passed in 0.1s ==";
    assert_eq!(read(Format::Pytest, glued, 1).counts, counts(1, 1, 0));
}

#[test]
fn many_failures_are_counted_but_not_all_kept() {
    let text: String = (0..500).map(|i| format!("not ok {i} - {}\n# why\n", "n".repeat(2000))).collect();
    let state = read(Format::Tap, &text, 1);
    assert_eq!((state.counts.failed, state.failures.len()), (500, MAX_FAILURES));
    assert!(state.failures[0].name.len() < 400);
}

/// What holds of the state whatever was read.
fn check(state: &ProgressState) {
    assert!((0.0..=100.0).contains(&state.progress), "{}", state.progress);
    assert!(state.counts.total.is_none_or(|t| t >= state.counts.done()), "{:?}", state.counts);
    assert!(state.current.len() <= MAX_CURRENT && state.failures.len() <= MAX_FAILURES);
    for failure in &state.failures {
        assert!(failure.name.len() <= 700 && failure.message.len() <= MAX_MESSAGE_BYTES);
        assert!(failure.output.as_ref().is_none_or(|o| o.len() <= MAX_OUTPUT_BYTES));
    }
}

fn survives(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for format in Format::ALL {
        let mut state = ProgressState::default();
        let mut parser = parser(format);
        for line in text.split('\n') {
            parser.line(line, &mut state);
            check(&state);
        }
        parser.finish(Exit::Code(1), &mut state);
        check(&state);
        assert!(state.current.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rubbish_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        survives(&bytes);
    }

    #[test]
    fn words_of_the_formats_in_any_order_do_no_harm(
        words in proptest::collection::vec(prop::sample::select(&[
            "ok", "not ok", " 1", " - ", "# ", "SKIP", "1..", "99999999999999999999", "\n", "\n", "\n", "    ", "---",
            "...", "test ", " ... ", "FAILED", "ignored", "failures:", "---- ", " stdout ----", "test result: ", " passed;",
            "running ", " tests", "{\"Action\":\"", "fail\",\"Package\":\"p\",\"Test\":\"a/b\"}", "a.py::t", " PASSED",
            "[gw0] [ 5%] ", "== ", " ==", "FAILURES", "___ t ___", "E  x", "collected ", "✓ ", "✘  1 ", "  ● ", " › ", " > ", "ℹ pass ", "▶ ", "Running ", " using 1 worker", "        PASS [   0.1s] ", "     Summary [", "    Starting ", "Tests: ", " total", " (retry #1)", " (2ms)", "{\"type\":\"test\",\"event\":\"ok\",\"name\":\"a\"}", " items", " in 0.1s", "é", "[3/10]",
        ][..]), 0..200)
    ) {
        survives(words.concat().as_bytes());
    }

    #[test]
    fn damaged_samples_do_no_harm(
        which in 0..SAMPLES.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..40usize, any::<u8>()), 0..12),
    ) {
        let mut bytes = SAMPLES[which].0.as_bytes().to_vec();
        for (at, length, byte) in damage {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, std::iter::repeat_n(byte, length / 3));
            bytes.push(byte);
        }
        survives(&bytes);
    }
}
