//! Against a server that hangs, is not there, forgets leases, and cancels.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fake::{Fake, lock};
use super::{family, gone, run, run_script, text};

const SUITE: &str = "echo 1..3; echo 'ok 1 - a'; echo noise >&2; echo 'not ok 2 - b'; echo '# why'; echo 'ok 3 - c # SKIP'; \
                     exit 3";

#[tokio::test]
async fn a_command_is_passed_on_as_it_is_and_told_of() {
    let (url, fake) = Fake::default().start().await;
    let out = run_script(&url, &["--test-id", "t-1", "--name", "suite"], SUITE).await;
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(text(&out.stdout), "1..3\nok 1 - a\nnot ok 2 - b\n# why\nok 3 - c # SKIP\n");
    assert_eq!(text(&out.stderr), "noise\n", "nothing of ours where all is well");
    let registered = &fake.asked("/tests")[0];
    assert_eq!((&registered["testId"], &registered["name"]), (&json!("t-1"), &json!("suite")));
    let ends = fake.asked("/end");
    assert_eq!(ends.len(), 1);
    let end = &ends[0];
    assert_eq!((&end["outcome"], &end["error"]["code"]), (&json!("failed"), &json!("tests_failed")));
    let counts = json!({ "passed": 1, "failed": 1, "skipped": 1, "total": 3 });
    assert_eq!(end["results"]["counts"], counts);
    assert_eq!(end["results"]["failures"][0]["message"], "why");
    let progress = fake.events("progress");
    assert_eq!(progress.last().expect("progress")["data"]["counts"], counts, "the last one is complete");
    let mut lines = fake.lines();
    lines.sort();
    let mut printed: Vec<_> =
        format!("{}{}", text(&out.stdout), text(&out.stderr)).lines().map(str::to_owned).collect();
    printed.sort();
    assert_eq!(lines, printed);
}

#[tokio::test]
async fn bytes_that_are_no_text_and_unfinished_lines_pass_unchanged() {
    let (url, fake) = Fake::default().start().await;
    let out =
        run_script(&url, &[], r"printf '\377\000\001\rx\n1..1\nok 1'; printf 'unfinished \377' >&2").await;
    assert_eq!(out.stdout, b"\xff\0\x01\rx\n1..1\nok 1");
    assert_eq!(out.stderr, b"unfinished \xff");
    assert_eq!(fake.asked("/end")[0]["results"]["counts"]["passed"], 1);
}

#[tokio::test]
async fn what_is_fed_to_it_reaches_the_command() {
    let (url, _fake) = Fake::default().start().await;
    let mut child = run(&url, &[], &["cat"]).stdin(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"fed\n").await.expect("written");
    drop(stdin);
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!(text(&out.stdout), "fed\n");
}

#[tokio::test]
async fn a_server_that_never_answers_slows_nothing_and_is_waited_for_five_seconds() {
    let (url, fake) = Fake { hangs: true, ..Fake::default() }.start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let done = dir.path().join("done");
    let script =
        format!("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; touch {}", done.display());
    let began = Instant::now();
    let mut run = run(&url, &["--test-id", "t-2"], &["sh", "-c", &script]);
    let output = tokio::spawn(async move { run.output().await.expect("it runs") });
    super::wait_until("the command has ended", async || done.exists()).await;
    let output = output.await.expect("it ends");
    assert!(output.status.success());
    assert_eq!(output.stdout.split(|b| *b == b'\n').count(), 20_001);
    let said = text(&output.stderr);
    assert!(said.contains("does not know that test t-2 passed") && said.lines().count() == 1, "{said}");
    assert!(began.elapsed() >= Duration::from_secs(5), "it waits for the confirmation");
    assert_eq!(fake.asked("/tests").len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let out = run_script("http://127.0.0.1:1", &[], "exit 7").await;
    assert_eq!(out.status.code(), Some(7));
    let said = text(&out.stderr);
    assert!(said.contains("cannot reach http://127.0.0.1:1: connection refused"), "{said}");
}

#[tokio::test]
async fn a_lost_lease_is_another_attempt_that_is_told_everything() {
    let (url, fake) = Fake::default().start().await;
    *lock(&fake.forgets) = 2;
    let out = run_script(&url, &[], SUITE).await;
    assert_eq!(out.status.code(), Some(3));
    let ends = fake.asked("/end");
    assert_eq!((ends.len(), &ends[0]["attempt"], &ends[0]["lease"]), (1, &json!(3), &json!("lease 3")));
    assert_eq!(ends[0]["results"]["counts"]["failed"], 1);
    assert_eq!(fake.lines().len(), 6, "lines of a refused report come again: {:?}", fake.lines());
}

#[tokio::test]
async fn a_cancel_through_the_server_ends_the_command_and_all_that_it_started() {
    let (url, fake) = Fake::default().start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pids");
    let script = format!("(sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait)", file.display());
    let child = run(&url, &[], &["sh", "-c", &script]).spawn().expect("it starts");
    let pids = family(&file, 2).await;
    *lock(&fake.cancel) = Some(json!({ "reason": "too slow", "cancelledBy": "kim" }));
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!(out.status.code(), Some(128 + 15));
    gone(&pids).await;
    let end = &fake.asked("/end")[0];
    assert_eq!(
        (&end["outcome"], &end["error"]["message"]),
        (&json!("cancelled"), &json!("cancelled by kim: too slow"))
    );
}

#[tokio::test]
async fn ctrl_c_reaches_the_command_and_the_server_hears_that_it_was_cancelled() {
    let (url, fake) = Fake::default().start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pids");
    let script = format!(
        "trap 'echo tidied up; exit 9' INT; echo $$ > {}; while :; do sleep 0.05; done",
        file.display()
    );
    let child = run(&url, &[], &["sh", "-c", &script]).spawn().expect("it starts");
    family(&file, 1).await;
    let pid = i32::try_from(child.id().expect("it runs")).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT).expect("signalled");
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(9), "tidied up\n"));
    let end = &fake.asked("/end")[0];
    assert_eq!(
        (&end["outcome"], &end["error"]["message"]),
        (&json!("cancelled"), &json!("stopped by SIGINT"))
    );
}

#[tokio::test]
async fn a_second_signal_kills_what_does_not_listen() {
    let (url, fake) = Fake::default().start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pids");
    let script = format!("trap '' INT TERM; echo $$ > {}; while :; do sleep 0.05; done", file.display());
    let child = run(&url, &[], &["sh", "-c", &script]).spawn().expect("it starts");
    let pids = family(&file, 1).await;
    let pid = i32::try_from(child.id().expect("it runs")).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    // Until the first one was taken the second would be one with it.
    super::wait_until("the first signal is taken", async || {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).is_err() || !super::runs(pids[0])
    })
    .await;
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!(out.status.code(), Some(128 + 9));
    assert_eq!(fake.asked("/end")[0]["outcome"], "cancelled");
}

#[tokio::test]
async fn a_killed_run_takes_its_command_along() {
    let (url, _fake) = Fake::default().start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pids");
    let script = format!(
        "trap '' HUP TERM; sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait; sleep 1000",
        file.display()
    );
    let mut child = run(&url, &[], &["sh", "-c", &script]).spawn().expect("it starts");
    let pids = family(&file, 2).await;
    child.kill().await.expect("killed");
    gone(&pids).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_shells_do() {
    let (url, fake) = Fake::default().start().await;
    let out = run(&url, &[], &["no-such-program"]).output().await.expect("it runs");
    assert_eq!(out.status.code(), Some(127));
    assert!(text(&out.stderr).contains("`no-such-program` cannot be started"), "{}", text(&out.stderr));
    let end = &fake.asked("/end")[0];
    assert_eq!((&end["outcome"], &end["error"]["code"]), (&json!("failed"), &json!("runner_error")));
}

#[tokio::test]
async fn a_reader_that_has_enough_ends_the_command_as_it_would_without_us() {
    let (url, _fake) = Fake::default().start().await;
    let tidings = env!("CARGO_BIN_EXE_tidings");
    let script = format!("{tidings} run --server {url} -- yes | head -n 3");
    let out = tokio::process::Command::new("sh").args(["-c", &script]).output().await.expect("it runs");
    assert_eq!(text(&out.stdout), "y\ny\ny\n");
}
