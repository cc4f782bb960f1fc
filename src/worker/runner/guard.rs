//! The guard: stands between the server and a command, so that the command does not outlive the server.
//!
//! `tidings guard -- PROGRAM ARGUMENTS…` leads the command's process group. Its standard input is a pipe
//! whose other end only the server holds; when the server dies, by whatever cause, the pipe closes and the
//! guard kills the whole group, itself included. It has no other use.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, setpgid};
use tokio::signal::unix::{SignalKind, signal};

/// The exit code when the command could not be started; the last line on standard error then begins with
/// [`COMPLAINT`] and says why.
pub const FAILED: i32 = 125;
/// What the guard's own words begin with.
pub const COMPLAINT: &str = "tidings guard: ";

/// Runs `argv` in this process' group, with the standard output and error of this process, until it ends
/// or standard input closes. Returns the exit code to end with: the command's, 128 and the signal's number
/// if a signal ended it, or [`FAILED`]. When standard input closes first it kills the group and does not
/// return.
#[must_use]
pub fn guard(argv: &[OsString]) -> i32 {
    let code = lead_group().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(argv))
    });
    code.unwrap_or_else(|e| {
        let program = argv.first().map(|p| p.to_string_lossy()).unwrap_or_default();
        eprintln!("{COMPLAINT}`{program}` cannot be started: {e}");
        FAILED
    })
}

/// Killing the group must not hit anybody else, whoever started us.
fn lead_group() -> std::io::Result<()> {
    if getpgrp() != getpid() {
        setpgid(None, None)?;
    }
    Ok(())
}

async fn run(argv: &[OsString]) -> std::io::Result<i32> {
    let [program, arguments @ ..] = argv else {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "no program is given"));
    };
    // What asks the command to end reaches the whole group. The guard stays, to watch over what does not
    // listen. The handlers, other than ignored signals, are not passed on to the command.
    let _handlers =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
            .map(signal);
    // A thread of its own: it works even if everything else here should hang.
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(follow_lifeline)?;
    let mut child = tokio::process::Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
    Ok(exit_code(child.wait().await?))
}

/// Returns never: the process ends, or is killed here.
fn follow_lifeline() {
    let mut stdin = std::io::stdin().lock();
    let mut byte = [0];
    loop {
        match stdin.read(&mut byte) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    let _ = kill_current_process_group(Signal::KILL);
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
