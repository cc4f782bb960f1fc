//! Runners of JavaScript, which `make runners` installs.

use std::path::Path;

use super::runners::{Project, assert_counts, failed_names, tools};
use super::text;

/// A project that finds what is installed.
fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::new(files);
    std::os::unix::fs::symlink(tools("js/node_modules"), project.path().join("node_modules"))
        .expect("a link");
    project
}

fn bin(name: &str) -> String {
    let bin = tools("js/node_modules/.bin").join(name);
    assert!(bin.exists(), "{} is missing: use `make runners`", bin.display());
    bin.to_str().expect("a path").to_owned()
}

#[tokio::test]
#[ignore = "make runners"]
async fn jest() {
    const FILE: &str = "describe('sum', () => { test('adds', () => { expect(1 + 2).toBe(3); });\n\
        test('is wrong', () => { expect(1 + 1).toBe(3); }); test.skip('later', () => {}); test.todo('one day'); });\n";
    for more in [&[][..], &["--verbose"]] {
        let project =
            project(&[("package.json", "{}"), ("a.test.js", FILE), ("b.test.js", "test('b', () => {});")]);
        let jest = bin("jest");
        let (out, seen) = project.run(&[], &[&[jest.as_str()], more].concat(), &[]).await;
        assert!(text(&out.stderr).contains("Tests:       1 failed, 1 skipped, 1 todo, 2 passed, 5 total"));
        assert_counts(&seen, 2, 1, 2);
        assert_eq!(failed_names(&seen), ["sum › is wrong"]);
    }
    // The JSON on standard output, and in a file.
    for (ours, more) in [
        (&["--format", "jest-json"][..], &["--json"][..]),
        (&["--report", "report.json"], &["--json", "--outputFile=report.json", "--silent"]),
    ] {
        let project =
            project(&[("package.json", "{}"), ("a.test.js", FILE), ("b.test.js", "test('b', () => {});")]);
        let jest = bin("jest");
        let (_, seen) = project.run(ours, &[&[jest.as_str()], more].concat(), &[]).await;
        assert_counts(&seen, 2, 1, 2);
        assert_eq!(failed_names(&seen), ["sum › is wrong"], "{more:?}");
    }
}

#[tokio::test]
#[ignore = "make runners"]
async fn vitest() {
    const FILE: &str = "import { test, expect } from 'vitest';\ntest('adds', () => {});\n\
        test('is wrong', () => { expect(2).toBe(3); });\ntest.skip('later', () => {});\n";
    for more in [&[][..], &["--reporter=verbose"]] {
        let project = project(&[("package.json", "{\"type\":\"module\"}"), ("a.test.js", FILE)]);
        let vitest = bin("vitest");
        let (out, seen) = project.run(&[], &[&[vitest.as_str(), "run"], more].concat(), &[]).await;
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        assert_counts(&seen, 1, 1, 1);
        assert_eq!(failed_names(&seen), ["a.test.js > is wrong"]);
    }
    let project = project(&[("package.json", "{\"type\":\"module\"}"), ("a.test.js", FILE)]);
    let (_, seen) = project.run(&[], &[&bin("vitest"), "run", "--reporter=json"], &[]).await;
    assert_counts(&seen, 1, 1, 1);
    assert_eq!(failed_names(&seen), ["is wrong"]);
}

#[tokio::test]
#[ignore = "make runners"]
async fn playwright() {
    const FILE: &str = "const { test, expect } = require('@playwright/test');\ntest('adds', () => {});\n\
        test('is wrong', () => { expect(2).toBe(3); });\ntest.skip('later', () => {});\n\
        test('flaky', ({}, info) => { if (info.retry === 0) throw new Error('once'); });\n";
    for reporter in ["list", "line", "dot", "json"] {
        let project = project(&[("package.json", "{}"), ("a.spec.js", FILE)]);
        let reporter = format!("--reporter={reporter}");
        let command = [&bin("playwright"), "test", "--retries=1", &reporter];
        let (out, seen) = project.run(&[], &command, &[("HOME", Path::new("/tmp"))]).await;
        let said = if reporter.ends_with("json") { "\"unexpected\": 1" } else { "1 failed" };
        assert!(text(&out.stdout).contains(said), "{}", text(&out.stdout));
        assert_counts(&seen, 2, 1, 1);
        assert_eq!(failed_names(&seen), ["a.spec.js:3:1 › is wrong"]);
    }
}
