//! `tidings run`: a command as it is, and a server that hears how it is doing.

mod dear;
mod fake;
mod hard;
pub(super) mod runners;
mod server_of_moods;

use std::path::Path;
use std::process::{Output, Stdio};

use super::{runs, tidings, wait_until};

/// `tidings run ARGS… -- CMD…` against the server at `url`.
fn run(url: &str, args: &[&str], command: &[&str]) -> tokio::process::Command {
    let mut run = tidings(&["run", "--server", url]);
    run.args(args).arg("--").args(command);
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = tokio::process::Command::from(run);
    run.kill_on_drop(true);
    run
}

/// A script, run to its end.
async fn run_script(url: &str, args: &[&str], script: &str) -> Output {
    run(url, args, &["sh", "-c", script]).output().await.expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a script has written its process ids, one a line, to `file`.
async fn family(file: &Path, size: usize) -> Vec<i32> {
    wait_until("the command has started", async || super::pids(file).len() == size).await;
    super::pids(file)
}

/// Waits until none of these runs any more.
async fn gone(pids: &[i32]) {
    wait_until("the command is gone", async || !pids.iter().any(|pid| runs(*pid))).await;
}
