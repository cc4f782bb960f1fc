//! The runner against real processes.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::suite::Format;
use crate::worker::progress::MAX_PENDING_LINES;
use crate::worker::runner::testing::{attempt, config, failed, passed};

fn sh(script: &str) -> Suite {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Suite { command, ..Suite::default() }
}

fn runner(suite: Suite) -> CommandRunner {
    CommandRunner::new(BTreeMap::from([("s".to_owned(), suite)]))
}

fn start(suite: Suite) -> (Attempt, impl Future<Output = Outcome>) {
    let attempt = attempt("command", &json!({"suite": "s"}));
    let runner = runner(suite);
    let mine = attempt.clone();
    (mine, async move { timeout(Duration::from_secs(60), runner.run(attempt)).await.expect("it ends") })
}

async fn run(suite: Suite) -> (Attempt, Outcome) {
    let (attempt, outcome) = start(suite);
    (attempt, outcome.await)
}

fn log(attempt: &Attempt) -> Vec<String> {
    attempt.progress.take_log(usize::MAX, usize::MAX).map(|c| c.lines).unwrap_or_default()
}

/// Waits until the process is gone, or only waits for its parent to take notice.
async fn gone(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => return true,
        }
    }
    false
}

async fn first_line(attempt: &Attempt) -> String {
    loop {
        if let Some(line) = log(attempt).into_iter().next() {
            return line;
        }
        attempt.progress.changed().await;
    }
}

#[tokio::test]
async fn a_command_that_succeeds_passes_with_its_counts() {
    let (attempt, outcome) =
        run(sh("echo 1..2; echo ok 1 - a; echo to stderr >&2; echo 'ok 2 # SKIP'")).await;
    let results = passed(outcome);
    assert_eq!((&results["exitCode"], &results["counts"]["passed"]), (&json!(0), &json!(1)));
    assert_eq!(results["counts"]["skipped"], 1);
    let mut lines = log(&attempt);
    lines.sort();
    assert_eq!(lines, ["1..2", "ok 1 - a", "ok 2 # SKIP", "to stderr"]);
    assert_eq!(attempt.progress.state().progress, 100.0);
}

#[tokio::test]
async fn failed_cases_fail_the_test_whatever_the_exit_code() {
    for code in [0, 1] {
        let script = format!("echo 1..3; echo ok 1; echo not ok 2 - b; echo '# why'; echo ok 3; exit {code}");
        let (code, message, results) = failed(run(sh(&script)).await.1);
        assert_eq!((code.as_str(), message.as_str()), ("tests_failed", "1 of 3 tests failed"));
        assert_eq!(results["failures"], json!([{"name": "b", "message": "why", "output": "why"}]));
    }
}

#[tokio::test]
async fn an_exit_code_without_cases_is_told_with_the_last_lines() {
    let (code, message, results) = failed(run(sh("echo first; printf 'no such file'; exit 3")).await.1);
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("tests_failed", "exited with code 3: first\nno such file")
    );
    assert_eq!(results["exitCode"], 3);
}

#[tokio::test]
async fn a_signal_is_the_runners_error() {
    let (code, message, _) = failed(run(sh("kill -SEGV $$")).await.1);
    assert_eq!((code.as_str(), message.as_str()), ("runner_error", "killed by signal 11 (SIGSEGV)"));
}

#[tokio::test]
async fn what_cannot_start_is_named_with_its_remedy() {
    let suite = |command: &str| Suite { command: vec![command.to_owned()], ..Suite::default() };
    let message = |(code, message, _): (String, String, _)| {
        assert_eq!(code, "runner_error");
        message
    };
    let missing = message(failed(run(suite("no-such-program-here")).await.1));
    assert!(missing.contains("`no-such-program-here` in PATH; install it"), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("script"), "true").unwrap();
    let plain = Suite { cwd: Some(dir.path().to_path_buf()), ..suite("./script") };
    let plain = message(failed(run(plain).await.1));
    assert!(plain.contains("chmod +x"), "{plain}");
    let nowhere = message(failed(run(Suite { cwd: Some(dir.path().join("gone")), ..sh("true") }).await.1));
    assert!(nowhere.contains("gone` does not exist; create it"), "{nowhere}");
}

#[tokio::test]
async fn the_environment_is_ours_then_the_suites_then_the_submitters() {
    let mut suite =
        sh("echo $A $B $TIDINGS_TEST_ID $TIDINGS_JOB_ID $TIDINGS_ATTEMPT; test -n \"$PATH\"; pwd");
    let dir = tempfile::tempdir().unwrap();
    suite.cwd = Some(dir.path().canonicalize().unwrap());
    suite.env = [("A", "suite"), ("B", "suite")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    suite.params = BTreeMap::from([("B".to_owned(), vec!["given".to_owned()])]);
    let attempt = attempt("command", &json!({"suite": "s", "params": {"B": "given"}}));
    passed(runner(suite).run(attempt.clone()).await);
    let cwd = dir.path().canonicalize().unwrap().display().to_string();
    assert_eq!(log(&attempt), ["suite given test_1 job_1 1".to_owned(), cwd]);
}

#[tokio::test]
async fn a_chosen_argument_arrives_whole_and_is_no_variable() {
    let script = "for a; do echo \"<$a>\"; done; echo \"[$SHARD]\"";
    let command = ["sh", "-c", script, "sh", "{SHARD}", "last"].map(str::to_owned).to_vec();
    let args =
        BTreeMap::from([("SHARD".to_owned(), vec!["--shard=1 2; echo no".to_owned(), "b".to_owned()])]);
    let suite = Suite { command, args, ..Suite::default() };
    let chosen = attempt("command", &json!({"suite": "s", "params": {"SHARD": "--shard=1 2; echo no"}}));
    passed(runner(suite.clone()).run(chosen.clone()).await);
    assert_eq!(log(&chosen), ["<--shard=1 2; echo no>", "<last>", "[]"]);
    let (without, outcome) = run(suite.clone()).await;
    passed(outcome);
    assert_eq!(log(&without), ["<last>", "[]"]);
    let refused = runner(suite).check(&config(&json!({"suite": "s", "params": {"SHARD": "--shard=3"}})));
    assert!(refused.unwrap_err().starts_with("params.SHARD: `--shard=3` is not allowed"));
}

#[tokio::test]
async fn what_the_log_has_no_room_for_is_said_and_its_end_comes() {
    let script = "head -c 10000 /dev/zero | tr '\\0' x; echo; seq 100000; echo the end";
    let output = crate::config::suite::OutputLimits { bytes_per_second: 64 * 1024, ..Default::default() };
    let (attempt, outcome) = run(Suite { output, ..sh(script) }).await;
    let results = passed(outcome);
    let lines = log(&attempt);
    assert!(lines[0].ends_with("x [… 5944 bytes left out]"), "{}", lines[0]);
    assert_eq!(lines.last().map(String::as_str), Some("the end"));
    let said = lines.iter().filter(|line| line.starts_with("[tidings: ")).count();
    assert!(said >= 1, "{lines:?}");
    assert!(results["logLeftOut"]["lines"].as_u64() > Some(90_000), "{results:?}");
}

#[tokio::test]
async fn a_confined_suite_without_a_guard_is_refused() {
    let rlimits = crate::config::suite::Rlimits { nofile: Some(64), ..Default::default() };
    let (code, message, _) = failed(run(Suite { rlimits, ..sh("true") }).await.1);
    assert!(code == "runner_error" && message.contains("tidings guard"), "{message}");
}

#[test]
fn a_config_is_checked_and_the_way_out_is_named() {
    let mut suite = sh("true");
    suite.timeout = Some(Duration::from_secs(60));
    suite.params = BTreeMap::from([("FILTER".to_owned(), vec!["fast".to_owned(), "all".to_owned()])]);
    let runner = runner(suite);
    let error = |c| runner.check(&config(&c)).unwrap_err();
    assert_eq!(runner.check(&config(&json!({"suite": "s", "params": {"FILTER": "all"}}))), Ok(()));
    assert_eq!(runner.timeout(&config(&json!({"suite": "s"}))), Some(Duration::from_secs(60)));
    assert_eq!(error(json!({"suite": "x"})), "there is no suite `x`; there is: s");
    assert!(error(json!({"suite": "s", "parms": {}})).contains("unknown field `parms`"));
    assert_eq!(error(json!({})), "config.suite is missing; there is: s");
    assert_eq!(error(json!({"suite": "s", "params": {"X": "1"}})), "params.X: the suite `s` takes: FILTER");
    let value = error(json!({"suite": "s", "params": {"FILTER": "none"}}));
    assert_eq!(value, "params.FILTER: `none` is not allowed; allowed: fast, all");
    let none = CommandRunner::new(BTreeMap::new()).check(&config(&json!({"suite": "s"})));
    assert!(none.unwrap_err().contains("[suites.NAME]"));
}

#[tokio::test]
async fn a_cancel_ends_the_whole_group_within_a_second() {
    // Neither the shell nor its child listens to SIGTERM.
    let (attempt, outcome) =
        start(sh("trap '' TERM; sleep 1000 & echo $!; while :; do wait; sleep 0.1; done"));
    let cancel = async {
        let pid = first_line(&attempt).await;
        attempt.cancel.cancel();
        (pid, Instant::now())
    };
    let (_, (pid, cancelled)) = tokio::join!(outcome, cancel);
    assert!(cancelled.elapsed() < Duration::from_secs(1), "{:?}", cancelled.elapsed());
    assert!(gone(&pid).await);
}

#[tokio::test]
async fn a_cancel_lets_a_command_clean_up() {
    let script = "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let (attempt, outcome) = start(sh(script));
    let cancel = async {
        first_line(&attempt).await;
        attempt.cancel.cancel();
    };
    tokio::join!(outcome, cancel);
    assert!(log(&attempt).iter().any(|line| line == "cleaned up"));
}

#[tokio::test]
async fn who_is_left_behind_with_the_pipes_is_ended() {
    let (attempt, outcome) = run(sh("sleep 1000 & echo $!; exit 0")).await;
    passed(outcome);
    assert!(gone(&log(&attempt)[0]).await);
}

#[tokio::test]
async fn a_dropped_run_takes_its_group_along() {
    let (attempt, outcome) = start(sh("sleep 1000 & echo $!; wait"));
    let pid = tokio::select! {
        _ = outcome => panic!("it does not end"),
        pid = first_line(&attempt) => pid,
    };
    assert!(gone(&pid).await);
}

#[tokio::test]
async fn a_flood_and_rubbish_neither_block_nor_are_kept() {
    let script =
        "head -c 20000000 /dev/zero; head -c 3000000 /dev/urandom >&2; yes | head -n 200000; echo end";
    let (attempt, outcome) = run(Suite { format: Format::Auto, ..sh(script) }).await;
    passed(outcome);
    let lines = log(&attempt);
    assert!(lines.len() <= MAX_PENDING_LINES);
    assert!(lines.iter().any(|line| line == "end"), "{:?}", lines.last());
}

#[tokio::test]
async fn a_bar_is_progress_and_only_its_end_is_logged() {
    let (attempt, outcome) = run(sh(r"printf '10%%\r20%%\r[3/4]\r\n'")).await;
    passed(outcome);
    assert_eq!((attempt.progress.state().progress, log(&attempt)), (75.0, vec!["[3/4]".to_owned()]));
}

#[tokio::test]
async fn a_live_run_of_node_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "import test from 'node:test'; test('a', () => {}); test('b', () => { throw new Error('no'); });";
    std::fs::write(dir.path().join("a.test.mjs"), text).unwrap();
    let command = ["node", "--test", "--test-reporter=tap"].map(str::to_owned).to_vec();
    let suite = Suite { command, cwd: Some(dir.path().to_path_buf()), ..Suite::default() };
    let (code, message, results) = failed(run(suite).await.1);
    assert_eq!((code.as_str(), message.as_str()), ("tests_failed", "1 of 2 tests failed"), "{results:?}");
    assert_eq!(results["failures"][0]["message"], "no");
}

#[test]
fn the_names_of_single_cases_are_checked_before_anything_starts() {
    let rerun = ["echo", "{cases}"].map(str::to_owned).to_vec();
    let runner = runner(Suite { rerun, ..sh("true") });
    for (only, says) in [
        (json!([]), "1 to 100 cases"),
        (json!(["-x"]), "an option of it"),
        (json!(["x".repeat(400)]), "may have been cut"),
        (json!("x"), "config"),
    ] {
        let refused = runner.check(&config(&json!({"suite": "s", "only": only}))).unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(runner.check(&config(&json!({"suite": "s", "only": ["b"]}))), Ok(()));
}
