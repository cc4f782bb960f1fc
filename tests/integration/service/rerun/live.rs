//! What failed runs again alone, by the templates of docs/control.md, each with its real runner.

use std::path::Path;

use serde_json::json;

use super::super::run::runners::{found, tools};
use super::super::{Server, Site};
use super::ran;

/// A suite of four cases, of which `failing` fail until the file `fixed` is there; each notes in the file `ran` that it ran.
struct Suite<'a> {
    command: &'a [&'a str],
    rerun: &'a [&'a str],
    env: &'a [(&'a str, &'a Path)],
    files: &'a [(&'a str, &'a str)],
    /// As the runner calls them.
    failing: [&'a str; 2],
}

impl Suite<'_> {
    async fn proves_that_what_failed_runs_alone(&self) {
        let words = |words: &[&str]| toml::Value::from(words.to_vec()).to_string();
        let env: toml::Table = self
            .env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_str().expect("a path").into()))
            .collect();
        let config = format!(
            "[suites.live]\ncommand = {}\nrerun = {}\ncwd = \".\"\n\
             pass_env = [\"CARGO_HOME\", \"RUSTUP_HOME\", \"RUSTUP_TOOLCHAIN\"]\n[suites.live.env]\n{env}",
            words(self.command),
            words(self.rerun),
        );
        let site = Site::new(&config);
        for (name, content) in self.files {
            let path = site.path(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            site.write(name, content);
        }
        let server = site.start();
        let first = server.submit_suite("live", "first").await;
        let ended = server.wait_for_job(&first, "failed").await;
        assert_eq!(ran(&site), ["bad", "bad_too", "good", "good_too"], "{ended}");
        let mut failed = names_of_failures(&server).await;
        failed.sort_unstable();
        assert_eq!(failed, self.failing);
        // Still broken, and then mended: exactly these, both times.
        for (test, state) in [("second", "failed"), ("third", "completed")] {
            if state == "completed" {
                site.write("fixed", "");
            }
            let body = json!({ "failedOnly": true, "testId": test });
            let again = super::rerun(&server, &first, &body).await.expect("it is taken");
            server.wait_for_job(again["jobId"].as_str().expect("a job"), state).await;
            assert_eq!(ran(&site), ["bad", "bad_too"], "{test}");
            let counts = server.get(&format!("/api/v1/tests/{test}")).await["counts"].clone();
            let (passed, failed) = if state == "completed" { (2, 0) } else { (0, 2) };
            assert_eq!(
                (&counts["passed"], &counts["failed"]),
                (&json!(passed), &json!(failed)),
                "{test}: {counts}"
            );
        }
    }
}

async fn names_of_failures(server: &Server) -> Vec<String> {
    let test = server.get("/api/v1/tests/first").await;
    let failures = test["failures"].as_array().expect("failures");
    failures.iter().map(|failure| failure["name"].as_str().expect("a name").to_owned()).collect()
}

/// `bad` is a beginning of `bad_too`, and `good` is in the same file.
const CRATE: [(&str, &str); 2] = [
    ("Cargo.toml", "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
    (
        "src/lib.rs",
        "#[cfg(test)]\nmod tests {\n\
         fn ran(name: &str) {\nuse std::io::Write;\nlet mut file = std::fs::File::options().create(true).append(true).open(\"ran\").unwrap();\n\
         file.write_all(format!(\"{name}\\n\").as_bytes()).unwrap();\n}\n\
         fn broken() { assert!(std::path::Path::new(\"fixed\").exists()); }\n\
         #[test] fn good() { ran(\"good\"); }\n#[test] fn good_too() { ran(\"good_too\"); }\n\
         #[test] fn bad() { ran(\"bad\"); broken(); }\n#[test] fn bad_too() { ran(\"bad_too\"); broken(); }\n}\n",
    ),
];

#[tokio::test]
async fn of_cargo_test() {
    let target = tempfile::tempdir().expect("a directory");
    let suite = Suite {
        command: &["cargo", "test", "--offline", "--no-fail-fast"],
        rerun: &["cargo", "test", "--offline", "--no-fail-fast", "--", "--exact", "{cases}"],
        env: &[("CARGO_TARGET_DIR", target.path())],
        files: &CRATE,
        failing: ["tests::bad", "tests::bad_too"],
    };
    suite.proves_that_what_failed_runs_alone().await;
}

#[tokio::test]
async fn of_node_where_tests_are_below_others() {
    const FILE: &str = "const { test, describe } = require('node:test');\nconst fs = require('node:fs');\n\
        const ran = (name) => fs.appendFileSync('ran', name + '\\n');\n\
        const broken = () => { if (!fs.existsSync('fixed')) throw new Error('not fixed'); };\n\
        test('good', () => ran('good'));\n\
        describe('outer (1)', () => { test('good too', () => ran('good_too'));\n\
        describe('inner', () => { test('bad', () => { ran('bad'); broken(); }); test('bad too', () => { ran('bad_too'); broken(); }); }); });\n";
    let Some(_) = found("node") else { return };
    for (reporter, failing) in
        [("tap", ["outer (1) > inner > bad", "outer (1) > inner > bad too"]), ("spec", ["bad", "bad too"])]
    {
        let reporter = format!("--test-reporter={reporter}");
        let suite = Suite {
            command: &["node", "--test", &reporter, "t.test.js"],
            rerun: &["node", "--test", &reporter, "--test-name-pattern=^({pattern})$", "t.test.js"],
            env: &[],
            files: &[("t.test.js", FILE)],
            failing,
        };
        suite.proves_that_what_failed_runs_alone().await;
    }
}

#[tokio::test]
#[ignore = "make runners"]
async fn of_nextest() {
    let nextest = tools("nextest/bin/cargo-nextest");
    let nextest = nextest.to_str().expect("a path");
    let target = tempfile::tempdir().expect("a directory");
    let suite = Suite {
        command: &[nextest, "nextest", "run", "--offline", "--no-fail-fast"],
        rerun: &[nextest, "nextest", "run", "--offline", "--no-fail-fast", "--", "--exact", "{tests}"],
        env: &[("CARGO_TARGET_DIR", target.path())],
        files: &CRATE,
        failing: ["tiny tests::bad", "tiny tests::bad_too"],
    };
    suite.proves_that_what_failed_runs_alone().await;
}

#[tokio::test]
async fn of_pytest() {
    const FILE: &str = "import os\n\
        def ran(name):\n    open('ran', 'a').write(name + '\\n')\n\
        def broken():\n    assert os.path.exists('fixed')\n\
        def test_good(): ran('good')\n\
        def test_good_too(): ran('good_too')\n\
        def test_bad(): ran('bad'); broken()\n\
        class TestMore:\n    def test_bad(self): ran('bad_too'); broken()\n";
    let lib = tools("pytest");
    let Some(_) = found("python3").filter(|_| lib.exists()) else {
        eprintln!("SKIPPED: tests/setup could not install pytest");
        return;
    };
    let suite = Suite {
        command: &["python3", "-m", "pytest", "-p", "no:cacheprovider"],
        rerun: &["python3", "-m", "pytest", "-p", "no:cacheprovider", "{cases}"],
        env: &[("PYTHONPATH", &lib), ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", Path::new("1"))],
        files: &[("tests/test_a.py", FILE)],
        failing: ["tests/test_a.py::TestMore::test_bad", "tests/test_a.py::test_bad"],
    };
    suite.proves_that_what_failed_runs_alone().await;
}

#[tokio::test]
#[ignore = "make runners"]
async fn of_go_test() {
    const FILE: &str = "package tiny\nimport (\"os\"; \"testing\")\n\
        func ran(name string) { file, _ := os.OpenFile(\"ran\", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); defer file.Close(); file.WriteString(name + \"\\n\") }\n\
        func broken(t *testing.T) { if _, err := os.Stat(\"fixed\"); err != nil { t.Error(err) } }\n\
        func TestGood(t *testing.T) { ran(\"good\") }\nfunc TestGoodToo(t *testing.T) { ran(\"good_too\") }\n\
        func TestBad(t *testing.T) { ran(\"bad\"); broken(t) }\nfunc TestBadToo(t *testing.T) { ran(\"bad_too\"); t.Run(\"of two\", broken) }\n";
    // Kept, as the standard library takes a minute to compile.
    let cache = tools("go/cache");
    let suite = Suite {
        command: &["go", "test", "-json", "-count=1", "./..."],
        rerun: &["go", "test", "-json", "-count=1", "-run", "^({go})$", "./..."],
        env: &[("GOCACHE", &cache), ("GOFLAGS", Path::new("-mod=mod"))],
        files: &[("go.mod", "module example.org/tiny\n\ngo 1.19\n"), ("a_test.go", FILE)],
        failing: ["example.org/tiny.TestBad", "example.org/tiny.TestBadToo/of_two"],
    };
    suite.proves_that_what_failed_runs_alone().await;
}
