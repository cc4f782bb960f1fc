//! Commands behind the guard, with the real program.

use std::collections::{BTreeMap, BTreeSet};
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
    guarded_suite(Suite { command, ..Suite::default() })
}

fn guarded_suite(suite: Suite) -> (CommandRunner, Attempt) {
    let suites = BTreeMap::from([("s".to_owned(), suite)]);
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

/// What a suite of this TOML prints when it runs `script` in a shell.
async fn printed(confinement: &str, script: &str) -> Result<Vec<String>, (String, String)> {
    let mut suite: Suite =
        toml::from_str(&format!("command = ['sh', '-c', '']\n{confinement}")).expect("a suite");
    suite.check().expect("a good suite");
    suite.command[2] = script.to_owned();
    let (runner, attempt) = guarded_suite(suite);
    match runner.run(attempt.clone()).await {
        Outcome::Passed { .. } => {
            Ok(attempt.progress.take_log(usize::MAX, usize::MAX).map(|c| c.lines).unwrap_or_default())
        }
        failed => Err(error_of(failed)),
    }
}

#[tokio::test]
async fn the_limits_of_a_suite_hold_for_its_processes_and_cannot_be_raised() {
    let rlimits =
        "rlimits = { cpu = '50s', as = 1073741824, nofile = 64, fsize = 1048576, core = 0, nproc = 4000 }";
    let script =
        "for h in -S -H; do ulimit $h -t; ulimit $h -v; ulimit $h -n; ulimit $h -f; ulimit $h -c; done";
    let limits = printed(rlimits, script).await.expect("it passes");
    // Bytes, in the shell's units: kilobytes of memory, blocks of 512 bytes.
    assert_eq!(limits, ["50", "1048576", "64", "2048", "0"].repeat(2));
    let (code, message) =
        printed("rlimits = { fsize = 1000 }", "f=$(mktemp); trap 'rm -f $f' EXIT; yes > $f")
            .await
            .unwrap_err();
    assert!(code == "tests_failed" || code == "runner_error", "{code}: {message}");
    let (_, message) = printed("rlimits = { cpu = '1s' }", "while :; do :; done").await.unwrap_err();
    assert!(message.contains("killed by signal 24") || message.contains("killed by signal 9"), "{message}");
    let files = printed("rlimits = { nofile = 4 }", "exec 3</dev/null 4</dev/null").await.unwrap_err();
    assert!(files.1.contains("exited with code"), "{files:?}");
}

#[tokio::test]
async fn a_suite_of_another_user_is_that_user_and_nobody_else() {
    if !rustix::process::geteuid().is_root() {
        let (_, message) = printed("user = 'nobody'", "true").await.unwrap_err();
        assert!(message.contains("`user` needs a server that runs as root"), "{message}");
        return;
    }
    // The last one would need the rights of the guard, which stays root.
    let script = "id -u; id -g; id -G; id -ru; echo $HOME $USER; test -r /proc/$PPID/environ || echo private";
    let lines = printed("user = 'nobody'", script).await.expect("it passes");
    let passwd = std::fs::read_to_string("/etc/passwd").expect("there are users");
    let nobody: Vec<&str> =
        passwd.lines().find_map(|l| l.strip_prefix("nobody:")).expect("one").split(':').collect();
    let (uid, gid, home) = (nobody[1], nobody[2], nobody[4]);
    assert_eq!(lines, [uid, gid, gid, uid, &format!("{home} nobody"), "private"]);
    let root = printed("user = 'nobody'\ngroup = 'root'", "id -u; id -G").await.expect("it passes");
    assert_eq!(root, [uid, "0"]);
    let (_, message) = printed("user = 'no-such-user'", "true").await.unwrap_err();
    assert!(message.contains("there is no user `no-such-user`"), "{message}");
}

#[tokio::test]
async fn a_cancel_ends_the_command_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let command = ["sh", "-c", FAMILY].map(str::to_owned).to_vec();
    let (runner, attempt) =
        guarded_suite(Suite { command, user: Some("nobody".to_owned()), ..Suite::default() });
    let cancel = async {
        let pids = first_line(&attempt.progress).await;
        attempt.cancel.cancel();
        pids
    };
    let (_, pids) = tokio::join!(runner.run(attempt.clone()), cancel);
    assert!(all_gone(&pids, Duration::from_secs(1)), "{pids} live on");
}

#[tokio::test]
async fn a_command_has_none_of_our_files() {
    // What whoever started this test left open for everybody.
    let handed_down = |fd: &String| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("02000000").trim();
        i64::from_str_radix(flags, 8).expect("octal") & 0o2_000_000 == 0
    };
    let open = std::fs::read_dir("/proc/self/fd").expect("files are listed");
    let open = open.filter_map(|fd| fd.ok()?.file_name().into_string().ok());
    let allowed: BTreeSet<String> =
        open.filter(handed_down).chain(["0", "1", "2"].map(str::to_owned)).collect();
    let files =
        printed("", "for f in /proc/self/fd/*; do echo ${f##*/}; done; readlink /proc/self/fd/0").await;
    let mut files = files.expect("it passes");
    assert_eq!(files.pop().as_deref(), Some("/dev/null"));
    // One more: the directory that is listed.
    let more: Vec<&String> = files.iter().filter(|fd| !allowed.contains(*fd)).collect();
    assert!(more.len() <= 1, "{files:?}, of which {allowed:?} are not ours");
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
