//! Real runners below `tidings run`, against the real server: the counts are those that each runner itself tells.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use super::super::{Server, Site};
use super::{run, text};

/// A project in a directory of its own, and a server.
pub(super) struct Project {
    site: Site,
    server: Server,
    dir: tempfile::TempDir,
}

impl Project {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let site = Site::new("");
        let server = site.start();
        let dir = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        Self { site, server, dir }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command in it as the test `t`; what it printed, and what the server knows in the end.
    pub(super) async fn run(
        &self,
        args: &[&str],
        command: &[&str],
        env: &[(&str, &Path)],
    ) -> (Output, Value) {
        let mut run = run(&self.server.url, &[&["--test-id", "t"], args].concat(), command);
        run.current_dir(self.dir.path()).envs(env.iter().copied());
        let out = run.output().await.expect("it runs");
        let said = text(&out.stderr);
        assert!(!said.contains("tidings: "), "{said}");
        (out, self.server.get("/api/v1/tests/t").await)
    }

    pub(super) fn url(&self) -> &str {
        &self.server.url
    }

    fn end(self) {
        drop(self.server);
        drop(self.site);
    }
}

/// Passed, failed and skipped, all there were.
pub(super) fn assert_counts(snapshot: &Value, passed: u64, failed: u64, skipped: u64) {
    let total = passed + failed + skipped;
    let counts = json!({ "passed": passed, "failed": failed, "skipped": skipped, "total": total });
    assert_eq!(snapshot["counts"], counts, "{snapshot}");
    let state = if failed > 0 { "failed" } else { "completed" };
    assert_eq!((&snapshot["state"], &snapshot["current"]), (&json!(state), &json!([])), "{snapshot}");
}

pub(super) fn failed_names(snapshot: &Value) -> Vec<&str> {
    let failures = snapshot["failures"].as_array().expect("failures");
    failures.iter().map(|failure| failure["name"].as_str().expect("a name")).collect()
}

/// A program of the machine, or a loud word that it is missing.
pub(in super::super) fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no `{program}` here, so that it is not run below `tidings run`");
    }
    found
}

/// Where tests/setup puts what it installs.
pub(in super::super) fn tools(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_tidings")).ancestors().nth(2).expect("target");
    target.join("tools").join(name)
}

const CRATE: [(&str, &str); 3] = [
    ("Cargo.toml", "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
    (
        "src/lib.rs",
        "#[cfg(test)]\nmod tests {\n#[test] fn good() {}\n#[test] fn wrong() { println!(\"noise\"); assert_eq!(2, 3, \"no\"); }\n\
         #[test] #[ignore] fn later() {}\n}\n",
    ),
    ("tests/it.rs", "#[test] fn works() {}\n"),
];

#[tokio::test]
async fn cargo_test() {
    let project = Project::new(&CRATE);
    let target = project.dir.path().join("target");
    let env = [("CARGO_TARGET_DIR", target.as_path())];
    let (out, snapshot) = project.run(&[], &["cargo", "test", "--offline", "--no-fail-fast"], &env).await;
    assert_eq!(out.status.code(), Some(101), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("test result: FAILED. 1 passed; 1 failed; 1 ignored"));
    assert_counts(&snapshot, 2, 1, 1);
    assert_eq!(failed_names(&snapshot), ["tests::wrong"]);
    project.end();
}

#[tokio::test]
async fn cargo_nextest() {
    let nextest = tools("nextest/bin/cargo-nextest");
    if !nextest.exists() {
        eprintln!("SKIPPED: tests/setup could not install cargo-nextest");
        return;
    }
    let project = Project::new(&CRATE);
    let target = project.dir.path().join("target");
    let nextest = nextest.to_str().expect("a path");
    let env = [("CARGO_TARGET_DIR", target.as_path())];
    let command = [nextest, "nextest", "run", "--offline", "--no-fail-fast"];
    let (out, snapshot) = project.run(&[], &command, &env).await;
    assert_eq!(out.status.code(), Some(100), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("3 tests run: 2 passed, 1 failed, 1 skipped"),
        "{}",
        text(&out.stderr)
    );
    assert_counts(&snapshot, 2, 1, 1);
    assert_eq!(failed_names(&snapshot), ["tiny tests::wrong"]);
    assert!(snapshot["failures"][0]["output"].as_str().expect("output").contains("noise"));
    project.end();
}

#[tokio::test]
async fn node_test() {
    const FILE: &str = "import { test, describe, it } from 'node:test'; import assert from 'node:assert';\n\
        describe('sum', () => { it('adds', () => {}); it('is wrong', () => assert.equal(1, 2)); it.skip('later', () => {}); });\n\
        test('top', () => {});\n";
    let Some(_) = found("node") else { return };
    for reporter in ["tap", "spec"] {
        let project = Project::new(&[("a.test.mjs", FILE)]);
        let reporter = format!("--test-reporter={reporter}");
        let (out, snapshot) = project.run(&[], &["node", "--test", &reporter, "a.test.mjs"], &[]).await;
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        assert_counts(&snapshot, 2, 1, 1);
        let names = failed_names(&snapshot);
        assert!(names.len() == 1 && names[0].ends_with("is wrong"), "{names:?}");
        project.end();
    }
}

#[tokio::test]
async fn prove() {
    let Some(_) = found("prove") else { return };
    let project = Project::new(&[(
        "t/a.t",
        "use Test::More tests => 4; ok(1, 'one'); ok(0, 'two'); SKIP: { skip 'no', 1; } pass('four');\n",
    )]);
    let (out, snapshot) = project.run(&[], &["prove", "-v", "t"], &[]).await;
    assert_eq!(out.status.code(), Some(1));
    assert_counts(&snapshot, 2, 1, 1);
    assert_eq!(failed_names(&snapshot), ["two"]);
    project.end();
}

const PYTEST: &str = "import pytest\n\
    def test_good(): pass\n\
    def test_bad():\n    print('noise')\n    assert 1 + 1 == 3\n\
    @pytest.mark.skip\ndef test_later(): pass\n\
    @pytest.mark.xfail\ndef test_expected(): assert False\n\
    @pytest.fixture\ndef broken(): raise RuntimeError('no fixture')\n\
    def test_error(broken): pass\n\
    @pytest.mark.parametrize('n', ['a', 'b'])\ndef test_each(n): pass\n";

#[tokio::test]
async fn pytest_with_our_plugin_and_without() {
    let lib = tools("pytest");
    let Some(python) = found("python3").filter(|_| lib.exists()) else {
        eprintln!("SKIPPED: tests/setup could not install pytest");
        return;
    };
    let python = python.to_str().expect("a path");
    let env = [("PYTHONPATH", lib.as_path()), ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", Path::new("1"))];
    let names = ["test_a.py::test_bad", "test_a.py::test_error"];
    for format in ["auto", "pytest", "plain"] {
        let project = Project::new(&[("test_a.py", PYTEST)]);
        let (out, snapshot) = project.run(&["--format", format], &[python, "-m", "pytest", "-q"], &env).await;
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        let said = text(&out.stdout);
        assert!(said.contains("1 failed, 3 passed, 1 skipped, 1 xfailed, 1 error"), "{said}");
        assert!(!said.contains("tidings"), "nothing of ours in the output: {said}");
        assert_counts(&snapshot, 3, 2, 2);
        assert_eq!(failed_names(&snapshot), names, "{format}");
        let failure = &snapshot["failures"][0];
        assert!(failure["message"].as_str().expect("text").contains("assert (1 + 1) == 3"), "{failure}");
        assert!(failure["output"].as_str().expect("text").contains("noise"), "{failure}");
        project.end();
    }
    // What hides pytest from us is read by its lines.
    let project = Project::new(&[("test_a.py", PYTEST)]);
    let script = format!("exec {python} -m pytest -v");
    let (_, snapshot) = project.run(&[], &["sh", "-c", &script], &env).await;
    assert_counts(&snapshot, 3, 2, 2);
    project.end();
}

#[tokio::test]
async fn go_test() {
    let Some(_) = found("go") else { return };
    let project = Project::new(&[
        ("go.mod", "module example.org/tiny\n\ngo 1.19\n"),
        (
            "a_test.go",
            "package tiny\nimport \"testing\"\nfunc TestGood(t *testing.T) {}\nfunc TestBad(t *testing.T) { t.Error(\"no\") }\n\
             func TestSkip(t *testing.T) { t.Skip() }\n",
        ),
    ]);
    let cache = project.dir.path().join("cache");
    let env = [("GOCACHE", cache.as_path()), ("GOFLAGS", Path::new("-mod=mod"))];
    let (out, snapshot) = project.run(&[], &["go", "test", "-json", "./..."], &env).await;
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_counts(&snapshot, 1, 1, 1);
    assert_eq!(failed_names(&snapshot), ["example.org/tiny.TestBad"]);
    project.end();
}

#[tokio::test]
async fn a_report_of_junit_counts_where_the_output_says_nothing() {
    const REPORT: &str = "<testsuites><testsuite><testcase classname='a' name='good' time='1.5'/>\
        <testcase classname='a' name='bad'><failure message='no'>trace</failure></testcase>\
        <testcase name='later'><skipped/></testcase></testsuite></testsuites>";
    let project = Project::new(&[]);
    let script = format!("echo building; printf %s \"{REPORT}\" > report.xml; exit 1");
    let (out, snapshot) = project.run(&["--junit", "report.xml"], &["sh", "-c", &script], &[]).await;
    assert_eq!(out.status.code(), Some(1));
    assert_counts(&snapshot, 1, 1, 1);
    assert_eq!(snapshot["results"]["slowest"][0], json!({ "name": "a.good", "durationMs": 1500 }));
    // An old report tells of an old run.
    let report = std::fs::File::options()
        .write(true)
        .open(project.dir.path().join("report.xml"))
        .expect("it is there");
    report
        .set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60))
        .expect("made older");
    let mut run = run(&project.server.url, &["--test-id", "t2", "--junit", "report.xml"], &["true"]);
    let out = run.current_dir(project.dir.path()).output().await.expect("it runs");
    assert!(text(&out.stderr).contains("report.xml was not written by this run"), "{}", text(&out.stderr));
    assert_eq!(project.server.get("/api/v1/tests/t2").await["counts"]["failed"], 0);
    project.end();
}

#[tokio::test]
async fn a_report_of_json_counts_and_the_exit_code_stays_the_commands() {
    // What `k6 run --summary-export` writes; 99 is k6's code for crossed thresholds.
    const REPORT: &str = r#"{"metrics":{"checks":{"thresholds":{"rate>0.9":true}},"vus":{},
        "http_req_duration":{"avg":1,"thresholds":{"p(95)<500":false}}},"root_group":{}}"#;
    let project = Project::new(&[]);
    let script = format!("printf %s '{REPORT}' > summary.json; exit 99");
    let (out, snapshot) = project.run(&["--report", "summary.json"], &["sh", "-c", &script], &[]).await;
    assert_eq!(out.status.code(), Some(99), "{}", text(&out.stderr));
    assert_counts(&snapshot, 1, 1, 0);
    assert_eq!(failed_names(&snapshot), ["checks: rate>0.9"]);
    std::fs::write(project.dir.path().join("other.json"), "{\"a\":1}").expect("written");
    let mut run = run(&project.server.url, &["--test-id", "t2", "--report", "other.json"], &["true"]);
    let out = run.current_dir(project.dir.path()).output().await.expect("it runs");
    assert!(text(&out.stderr).contains("other.json is no report"), "{}", text(&out.stderr));
    project.end();
}

#[tokio::test]
async fn lines_that_nobody_knows_are_read_by_a_pattern() {
    let project = Project::new(&[]);
    let pattern = "^(?:(?<pass>OK)|(?<fail>BAD)) (?<name>.*)$";
    let (_, snapshot) = project
        .run(&["--pattern", pattern], &["sh", "-c", "echo OK a; echo BAD b; echo OK c; exit 1"], &[])
        .await;
    assert_counts(&snapshot, 2, 1, 0);
    let out = run(&project.server.url, &["--pattern", "("], &["true"]).output().await.expect("it runs");
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    project.end();
}
