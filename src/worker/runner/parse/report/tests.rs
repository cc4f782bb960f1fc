use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::super::tests::read as read_lines;
use super::super::tests::{counts, failure, names};
use super::*;
use crate::config::suite::Format;
use crate::worker::runner::command::lines::Lines;

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/samples/", $name))
    };
}

fn from(report: &str) -> ProgressState {
    let mut state = ProgressState::default();
    read(report.as_bytes(), &mut state).unwrap();
    state
}

#[test]
fn jest_and_vitest_are_counted_as_they_count() {
    for (text, broken) in [
        (sample!("jest.json"), "/home/user/project/tests/broken.test.js"),
        (sample!("vitest.json"), "/home/user/project/vt/broken.test.mjs"),
    ] {
        let state = from(text);
        assert_eq!(state.counts, counts(3, 2, 2), "{text}");
        let mut found = names(&state);
        found.sort_unstable();
        assert_eq!(found, [broken, "sum › is wrong", "throws"]);
        assert_eq!(failure(&state, "throws").message, "Error: no such thing");
        assert!(failure(&state, "sum › is wrong").message.contains("Object.is equality"), "{state:?}");
        assert!(failure(&state, broken).message.starts_with("Cannot find module"), "{state:?}");
        assert_eq!(state.slowest[0].name, "is slow");
        // Printed, with and without being asked for.
        let printed = format!("before\n{text}\nafter");
        assert_eq!(read_lines(Format::JestJson, &printed, 1), state);
        assert_eq!(read_lines(Format::Auto, &printed, 1), state);
    }
}

#[test]
fn playwright_counts_what_passed_in_the_end() {
    let text = sample!("playwright.json");
    let state = from(text);
    let wrong = "pw/a.spec.js:4:3 › sum › is wrong";
    assert_eq!((state.counts, names(&state)), (counts(4, 1, 1), vec![wrong]));
    assert_eq!(
        failure(&state, wrong).message,
        "Error: expect(received).toBe(expected) // Object.is equality"
    );
    assert_eq!(read_lines(Format::PlaywrightJson, text, 1), state);
    assert_eq!(read_lines(Format::Auto, text, 1), state);
}

#[test]
fn a_file_that_does_not_load_is_a_failure_without_a_test() {
    let state = from(
        r#"{"errors":[{"message":"\u001b[31mError\u001b[39m: no such module\nat b.spec.js"}],"suites":[]}"#,
    );
    assert_eq!((state.counts.done(), names(&state)), (0, vec!["outside of the tests"]));
    assert_eq!(state.failures[0].message, "Error: no such module");
}

#[test]
fn the_thresholds_of_k6_are_its_tests() {
    let state = from(sample!("k6-summary.json"));
    assert_eq!(
        (state.counts, names(&state)),
        (counts(1, 2, 0), vec!["checks: rate>0.9", "http_req_failed: rate<0.5"])
    );
    let other = from(
        r#"{"metrics":{"checks":{"type":"rate","thresholds":{"rate>0.9":{"ok":false},"rate>0":{"ok":true}}}}}"#,
    );
    assert_eq!(other.counts, counts(1, 1, 0));
}

#[test]
fn of_a_report_that_breaks_off_the_beginning_counts() {
    let text = sample!("jest.json");
    for at in (0..text.len()).step_by(97) {
        let at = text.floor_char_boundary(at);
        let mut state = ProgressState::default();
        read(&text.as_bytes()[..at], &mut state).unwrap_err();
        let printed = read_lines(Format::JestJson, &text[..at], 1);
        assert_eq!(printed.counts.done(), if at > 200 { 7 } else { printed.counts.done() }, "{at}");
    }
    for text in ["", "[]", "{}", r#"{"a":1}"#, r#"{"suites":3}"#, "{\"numPassedTests\":-1}"] {
        assert!(read(text.as_bytes(), &mut ProgressState::default()).is_err(), "{text}");
    }
}

#[test]
fn many_tests_below_long_titles_take_no_longer_than_others() {
    let title = "t".repeat(64 << 10);
    let tests = format!(r#"{{"specs":[{{"title":"s","file":"f","tests":[{}{{}}]}}]}}"#, "{},".repeat(9999));
    let open = format!(r#"{{"title":"{title}","suites":["#);
    let report = format!(r#"{{"suites":[{}{tests}{}]}}"#, open.repeat(50), "]}".repeat(50));
    // Of this thread's CPU: others may have the machine for as long as they like.
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
    let start = now();
    let state = from(&report);
    let took = now() - start;
    // Some 30 GB would be copied otherwise.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(state.counts.failed, 10_000);
    assert!(names(&state)[0].starts_with("f:0:0 › ttt") && names(&state)[0].len() <= 300);
}

#[test]
fn a_line_that_was_cut_does_not_cost_the_totals() {
    let report = sample!("playwright.json");
    let cut = report.replacen("      \"title\": \"", "      \"title\": \"cut\n      \"title\": \"", 1);
    assert_ne!(cut, report, "there is such a line");
    assert_eq!(read_lines(Format::PlaywrightJson, &cut, 1).counts, counts(4, 1, 1));
    // Of totals that break off, none counts.
    let at = cut.find("\"unexpected\": ").unwrap();
    assert_eq!(read_lines(Format::PlaywrightJson, &cut[..at], 1).counts.passed, 0);
}

/// What is read of `text` where a command prints it.
fn printed(format: Format, text: &str) -> ProgressState {
    let (mut parser, mut state, mut lines) =
        (super::super::parser(format), ProgressState::default(), Lines::default());
    for bytes in text.as_bytes().chunks(32 << 10) {
        lines.push(bytes, |line| parser.line(&line.text, &mut state));
    }
    lines.finish(|line| parser.line(&line.text, &mut state));
    parser.finish(super::super::Exit::Code(1), &mut state);
    state
}

#[test]
fn a_report_of_one_long_line_tells_of_its_last_failure() {
    let passed = format!(
        r#"{{"assertionResults":[{{"ancestorTitles":[],"title":"t","status":"passed"}}],"message":"{}"}}"#,
        "x".repeat(4000)
    );
    let failed = r#"{"assertionResults":[{"ancestorTitles":["a"],"title":"last","status":"failed","failureMessages":["no"]}]}"#;
    for (files, names_of) in [(500, vec!["a › last"]), (3000, vec![])] {
        let report = format!(
            r#"{{"numFailedTestSuites":1,"numFailedTests":1,"numPassedTests":{files},"testResults":[{}{failed}]}}"#,
            format!("{passed},").repeat(files)
        );
        for format in [Format::JestJson, Format::Auto] {
            let state = printed(format, &format!("before\n{report}\n"));
            // Above 8 MiB the totals remain.
            assert_eq!(
                (state.counts, names(&state)),
                (counts(files as u64, 1, 0), names_of.clone()),
                "{files}"
            );
        }
    }
}

#[test]
fn a_report_with_a_long_line_keeps_its_names() {
    let report = sample!("playwright.json");
    let line = "      \"title\": \"";
    let long = report.replacen(line, &format!("      \"stdout\": \"{}\",\n{line}", "x".repeat(1 << 20)), 1);
    assert!(long.len() > report.len() + (1 << 20), "there is such a line");
    assert_eq!(printed(Format::Auto, &long), from(report));
}

#[test]
fn a_long_report_costs_bounded_memory_and_keeps_its_totals() {
    let line = format!("      \"stdout\": \"{}\",", "x".repeat(60_000));
    let mut parser = super::super::parser(Format::PlaywrightJson);
    let mut state = ProgressState::default();
    parser.line("{", &mut state);
    parser.line("  \"suites\": [", &mut state);
    (0..200).for_each(|_| parser.line(&line, &mut state));
    for line in [
        "  ],",
        "  \"stats\": {",
        "    \"expected\": 7,",
        "    \"unexpected\": 2,",
        "    \"flaky\": 1",
        "  }",
        "}",
    ] {
        parser.line(line, &mut state);
    }
    parser.finish(super::super::Exit::Code(1), &mut state);
    assert_eq!(state.counts, counts(8, 2, 0));
}
