//! The guard: stands between the server and a command, so that the command does not outlive the server.
//!
//! `tidings guard -- PROGRAM ARGUMENTS…` leads the command's process group. Its standard input is a pipe
//! whose other end only the server holds; when the server dies, by whatever cause, the pipe closes and the
//! guard kills the whole group, itself included. It has no other use.
//!
//! With `--parent=PID` before everything else the guard watches that process, which started it, instead of the pipe,
//! and the command reads the guard's standard input: for `tidings run`, whose command may be fed by somebody.
//!
//! With `--user`, `--group` or `--rlimit NAME=NUMBER` before the `--` the command is confined. The guard itself is
//! not: it starts this program once more (`CONFINE`), which takes the limits and the user on and then becomes
//! the command.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpgrp, getpid, getppid, kill_current_process_group, setpgid, setrlimit,
};
use tokio::signal::unix::{SignalKind, signal};

/// The exit code when the command could not be started; the last line on standard error then begins with
/// [`COMPLAINT`] and says why.
pub const FAILED: i32 = 125;
/// What the guard's own words begin with.
pub const COMPLAINT: &str = "tidings guard: ";

/// The first argument of the process that becomes a confined command.
const CONFINE: &str = "--confine";
/// What the option of the process to watch begins with.
const PARENT: &str = "--parent=";
/// How often a parent is looked for: a system call.
const LOOK_FOR_PARENT: Duration = Duration::from_millis(100);

/// Who a command is and what its processes may use up, where that is not as for the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Confinement {
    /// The ids of the user and of its only group.
    pub(super) user: Option<(u32, u32)>,
    /// By the names of `setrlimit(2)`, in lower case.
    pub(super) rlimits: Vec<(&'static str, u64)>,
}

impl Confinement {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// As the guard is told of it.
    pub(super) fn options(&self) -> Vec<String> {
        let user = self.user.map(|(uid, gid)| format!("--user={uid}:{gid}"));
        let rlimits = self.rlimits.iter().map(|(name, limit)| format!("--rlimit={name}={limit}"));
        user.into_iter().chain(rlimits).collect()
    }

    fn parse(options: &[OsString]) -> io::Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            let unknown = || io::Error::new(ErrorKind::InvalidInput, format!("{option:?} is not understood"));
            let (name, value) = option.to_str().and_then(|o| o.split_once('=')).ok_or_else(unknown)?;
            let (left, right) = value.split_once([':', '=']).ok_or_else(unknown)?;
            match name {
                "--user" => {
                    let ids = left.parse().ok().zip(right.parse().ok());
                    parsed.user = Some(ids.ok_or_else(unknown)?);
                }
                "--rlimit" => {
                    let known = RESOURCES.iter().find(|(known, _)| *known == left);
                    let limit = known.zip(right.parse().ok());
                    let ((known, _), limit) = limit.ok_or_else(unknown)?;
                    parsed.rlimits.push((known, limit));
                }
                _ => return Err(unknown()),
            }
        }
        Ok(parsed)
    }
}

const RESOURCES: [(&str, Resource); 6] = [
    ("cpu", Resource::Cpu),
    ("as", Resource::As),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("fsize", Resource::Fsize),
    ("core", Resource::Core),
];

/// Runs `[OPTIONS…] -- argv…` in this process' group, with the standard output and error of this process, until it
/// ends or standard input closes (or the parent dies). Returns the exit code to end with: the command's, 128 and the signal's number
/// if a signal ended it, or [`FAILED`]. When standard input closes first it kills the group and does not
/// return.
#[must_use]
pub fn guard(args: &[OsString]) -> i32 {
    let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (options, argv) = (&args[..split], args.get(split + 1..).unwrap_or_default());
    let code = match options.split_first() {
        Some((first, options)) if first == CONFINE => become_command(options, argv),
        _ => lead_group().and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(options, argv))
        }),
    };
    code.unwrap_or_else(|e| {
        let program = argv.first().map(|p| p.to_string_lossy()).unwrap_or_default();
        eprintln!("{COMPLAINT}`{program}` cannot be started: {e}");
        FAILED
    })
}

/// Confines this process and makes it the command; returns only if that fails.
fn become_command(options: &[OsString], argv: &[OsString]) -> io::Result<i32> {
    let Confinement { user, rlimits } = Confinement::parse(options)?;
    let (program, arguments) = split(argv)?;
    // While it is still root, which may raise limits, too.
    for (name, limit) in rlimits {
        let resource = RESOURCES.iter().find(|(known, _)| *known == name);
        if let Some((_, resource)) = resource {
            let both = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(*resource, both)
                .map_err(|e| io::Error::other(format!("rlimits.{name} cannot be set to {limit}: {e}")))?;
        }
    }
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    if let Some((uid, gid)) = user {
        // Root's other groups are dropped with this.
        command.uid(uid).gid(gid);
    }
    Err(command.exec())
}

/// Killing the group must not hit anybody else, whoever started us.
fn lead_group() -> io::Result<()> {
    if getpgrp() != getpid() {
        setpgid(None, None)?;
    }
    Ok(())
}

fn split(argv: &[OsString]) -> io::Result<(&OsString, &[OsString])> {
    argv.split_first().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no program is given"))
}

/// The option with which a guard watches this process.
#[must_use]
pub(crate) fn watching_this_process() -> String {
    format!("{PARENT}{}", getpid().as_raw_nonzero())
}

/// The process to watch, if there is one, and the options of the confinement.
fn parent(options: &[OsString]) -> io::Result<(Option<Pid>, &[OsString])> {
    let named = |option: &OsString| Some(option.to_str()?.strip_prefix(PARENT)?.to_owned());
    let Some((first, rest)) = options.split_first() else { return Ok((None, options)) };
    let Some(id) = named(first) else { return Ok((None, options)) };
    let pid = id.parse().ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, format!("`{id}` is no process id")))?;
    Ok((Some(pid), rest))
}

async fn run(options: &[OsString], argv: &[OsString]) -> io::Result<i32> {
    let (parent, options) = parent(options)?;
    Confinement::parse(options)?;
    let (program, arguments) = split(argv)?;
    // What asks the command to end reaches the whole group. The guard stays, to watch over what does not
    // listen. The handlers, other than ignored signals, are not passed on to the command.
    let _handlers =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
            .map(signal);
    // A thread of its own: it works even if everything else here should hang.
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || match parent {
        Some(parent) => follow_parent(parent),
        None => follow_lifeline(),
    })?;
    let mut command = if options.is_empty() {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments);
        command
    } else {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.args(["guard", CONFINE]).args(options).arg("--").args(argv);
        command
    };
    let stdin = if parent.is_some() { Stdio::inherit() } else { Stdio::null() };
    let mut child = command.stdin(stdin).spawn()?;
    Ok(exit_code(child.wait().await?))
}

/// Returns never: the process ends, or is killed here.
fn follow_lifeline() {
    let mut stdin = io::stdin().lock();
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

/// Returns never: who lost its parent gets another one, and the group is killed then.
fn follow_parent(parent: Pid) {
    while getppid() == Some(parent) {
        std::thread::sleep(LOOK_FOR_PARENT);
    }
    let _ = kill_current_process_group(Signal::KILL);
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
