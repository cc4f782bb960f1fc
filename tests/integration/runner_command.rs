//! Commands behind the guard, with the real program.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidings::config::suite::Suite;
use tidings::worker::progress::Progress;
use tidings::worker::runner::command::CommandRunner;
use tidings::worker::runner::{Attempt, Outcome, Runner as _};
use tokio_util::sync::CancellationToken;

/// Starts, and prints the ids of, a grandchild that listens to nothing, then waits.
const FAMILY: &str =
    "trap '' TERM HUP INT; (trap '' TERM HUP INT; exec sleep 1000) & echo $! $$; wait; sleep 1000";
/// Set for the process that stands in for a server.
const HOLDER: &str = "HOLDER_OF_A_COMMAND";

fn guarded(script: &[&str]) -> (CommandRunner, Attempt) {
    let command = script.iter().map(|&s| s.to_owned()).collect();
    let suites = BTreeMap::from([("s".to_owned(), Suite { command, ..Suite::default() })]);
    let job = json!({"jobId": "j", "testId": "t", "testType": "command", "config": {"suite": "s"},
        "state": "running", "priority": 2, "attempt": 1, "maxAttempts": 1, "createdAt": 0});
    let attempt = Attempt {
        job: Arc::new(serde_json::from_value(job).expect("a job")),
        progress: Progress::new(),
        cancel: CancellationToken::new(),
    };
    (CommandRunner::new(suites).with_guard(PathBuf::from(env!("CARGO_BIN_EXE_tidings"))), attempt)
}

async fn first_line(progress: &Progress) -> String {
    loop {
        if let Some(line) = progress.take_log(1, usize::MAX).and_then(|c| c.lines.into_iter().next()) {
            return line;
        }
        progress.changed().await;
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie has ended; in a container nobody may ever fetch it.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn all_gone(pids: &str, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while pids.split(' ').any(is_alive) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn error_of(outcome: Outcome) -> (String, String) {
    match outcome {
        Outcome::Failed { error, .. } => (error.code, error.message),
        Outcome::Passed { results } => panic!("passed with {results:?}"),
    }
}

#[tokio::test]
async fn the_guard_passes_output_and_exit_codes_on() {
    let (runner, attempt) = guarded(&["sh", "-c", "echo out; echo err >&2; cat; exit 7"]);
    let (code, message) = error_of(runner.run(attempt.clone()).await);
    assert_eq!(code, "tests_failed");
    assert!(message.starts_with("exited with code 7: ") && message.contains("err"), "{message}");
    let (runner, attempt) = guarded(&["sh", "-c", "kill -KILL $$"]);
    let (code, message) = error_of(runner.run(attempt).await);
    assert!(code == "runner_error" && message.contains("signal 9"), "{message}");
}

#[tokio::test]
async fn a_program_that_the_guard_cannot_start_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("not-a-program");
    std::fs::write(&file, [0x7f, 0, 1]).expect("a file");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("permissions");
    let (runner, attempt) = guarded(&[file.to_str().expect("a path")]);
    let (code, message) = error_of(runner.run(attempt).await);
    assert!(code == "runner_error" && message.contains("not-a-program` cannot be started"), "{message}");
}

#[tokio::test]
async fn a_cancel_ends_a_guarded_group_within_a_second() {
    let (runner, attempt) = guarded(&["sh", "-c", FAMILY]);
    let cancel = async {
        let pids = first_line(&attempt.progress).await;
        attempt.cancel.cancel();
        (pids, Instant::now())
    };
    let (_, (pids, cancelled)) = tokio::join!(runner.run(attempt.clone()), cancel);
    let left = Duration::from_secs(1).saturating_sub(cancelled.elapsed());
    assert!(!left.is_zero() && all_gone(&pids, left), "{:?}", cancelled.elapsed());
}

/// Kills what it holds when the test fails.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_is_killed_leaves_no_command_behind() {
    // This very program, as a server that runs one command.
    let this = std::env::current_exe().expect("this program");
    let mut holder = Holder(
        Command::new(this)
            .args(["--exact", "runner_command::stands_in_for_a_server", "--nocapture"])
            .env(HOLDER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts"),
    );
    let out = BufReader::new(holder.0.stdout.take().expect("a pipe"));
    let pids = out
        .lines()
        .find_map(|line| Some(line.ok()?.split_once("pids: ")?.1.to_owned()))
        .expect("the holder tells of its command");
    assert!(pids.split(' ').all(is_alive), "{pids}");
    holder.0.kill().expect("it can be killed");
    holder.0.wait().expect("it ends");
    assert!(all_gone(&pids, Duration::from_secs(2)), "{pids} live on");
}

/// Not a test by itself: what the test above starts and kills.
#[tokio::test]
async fn stands_in_for_a_server() {
    if std::env::var_os(HOLDER).is_none() {
        return;
    }
    let (runner, attempt) = guarded(&["sh", "-c", FAMILY]);
    let tell = async {
        println!("pids: {}", first_line(&attempt.progress).await);
    };
    tokio::join!(runner.run(attempt.clone()), tell);
}
