//! Runners of JavaScript, and k6, which `make runners` installs.

use std::path::Path;

use serde_json::{Value, json};

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

/// A load that is bounded by its number, of checks that hold and one that does not.
const K6: &str = "import http from 'k6/http';\nimport { check, group, sleep } from 'k6';\n\
    export const options = { vus: 3, iterations: 30, thresholds: { checks: ['rate>0.9'], http_req_failed: ['rate<0.01'],\n\
    http_req_duration: ['p(95)<60000', 'max<60000'] } };\n\
    export default function () {\n  const got = http.get(`${__ENV.TARGET}/healthz`);\n\
    group('pages', () => check(got, { 'is there': (r) => r.status === 200, 'has words': (r) => r.body.includes('no such word') }));\n\
    sleep(0.02);\n}\n";

#[tokio::test]
#[ignore = "make runners"]
async fn k6() {
    let k6 = tools("go/k6");
    if !k6.exists() {
        eprintln!("SKIPPED: there is no go here to install k6 with");
        return;
    }
    let k6 = k6.to_str().expect("a path");
    for (ours, more) in [
        (&[][..], &[][..]),
        (&[], &["--out", "json=-"]),
        (&[], &["--out", "json=-", "--quiet", "--no-summary"]),
        (&["--report", "summary.json"], &["--quiet"]),
    ] {
        let project = Project::new(&[("load.js", K6)]);
        let target = format!("TARGET={}", project.url());
        let command = ["run", "--summary-export", "summary.json", "-e", &target, "load.js"];
        let command = [&[k6][..], &command[..1], more, &command[1..]].concat();
        let (out, seen) = project.run(ours, &command, &[("HOME", project.path())]).await;
        assert_eq!(out.status.code(), Some(99), "{}", text(&out.stderr));
        assert_counts(&seen, 3, 1, 0);
        assert_eq!(failed_names(&seen), ["checks: rate>0.9"], "{more:?}");
        let Ok(summary) = std::fs::read(project.path().join("summary.json")) else {
            assert!(more.contains(&"--no-summary"), "k6 writes one");
            continue;
        };
        // k6's own numbers.
        let own: Value = serde_json::from_slice(&summary).expect("JSON");
        let own = &own["metrics"];
        assert_eq!((&own["http_reqs"]["count"], &own["checks"]["fails"]), (&json!(30), &json!(30)), "{own}");
        if more.contains(&"json=-") {
            let metrics = &seen["metrics"];
            assert_eq!(metrics["requests"], own["http_reqs"]["count"], "{metrics}");
            assert_eq!(metrics["checksPassed"], own["checks"]["passes"], "{metrics}");
            assert_eq!(metrics["checksFailed"], own["checks"]["fails"], "{metrics}");
            let (ours, theirs) = (metrics["max"].as_f64(), own["http_req_duration"]["max"].as_f64());
            let (ours, theirs) = (ours.expect("a number"), theirs.expect("a number"));
            assert!((ours - theirs).abs() <= theirs * 0.002 + 0.002, "{ours} {theirs}");
        }
    }
}
