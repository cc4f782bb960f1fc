//! Wraps a command: its output goes where it would go without us, and what it says is told to a server.
//!
//! Each of the two pipes has a thread that reads it, writes the same bytes to our own standard output or error, and
//! then reads them for progress. Nothing in it waits for the network; only a reader of ours that is slow slows the
//! command, as it would without us. What the runner tells beside its output (`side`) and its reports (`reports`) are
//! more exact, where there are any. The command runs below a guard, so that it dies with this process.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::side::Side;
use super::{Cancelled, End, EndOutcome, Reporter, lock};
use crate::config::suite::{OutputLimits, RESERVED_ENV};
use crate::model::TestId;
use crate::model::test::TestError;
use crate::tasks::Tasks;
use crate::worker::progress::Progress;
use crate::worker::runner::command::feed::{Feed, Printed};
use crate::worker::runner::command::group::Group;
use crate::worker::runner::command::lines::Lines;
use crate::worker::runner::command::verdict;
use crate::worker::runner::parse::{Exit, LineParser};
use crate::worker::runner::{Outcome, guard};

pub use crate::worker::runner::command::group::Ask;

/// How long a command that was asked to end may take, before it is killed.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// How long the output is waited for after the command itself ended: somebody it left behind may hold it. The time
/// that whoever reads our output takes does not count.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// How often is looked whether that time counts.
const OUTPUT_TICK: Duration = Duration::from_millis(20);
const BUFFER: usize = 64 * 1024;
/// What a shell says of a program that it does not find.
const NOT_FOUND: i32 = 127;

/// What is to be run.
pub struct Wrapped {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// The `tidings` program, which guards the command.
    pub guard: PathBuf,
    /// The test; the command finds it in its environment.
    pub test_id: TestId,
    /// Reads its output.
    pub parser: Box<dyn LineParser>,
    /// How long it may take to end once it was asked to.
    pub grace: Duration,
    /// Reports that it writes, which count where there are any.
    pub reports: Vec<PathBuf>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code to pass on.
    pub code: u8,
    /// What the server is to be told.
    pub end: End,
    /// What did not go as its user wished.
    pub remarks: Vec<String>,
}

/// Runs a command to its end, its own or the one that `stop` or the server asks for. What comes through `stop` is
/// passed on; the second one, whatever it is, kills.
///
/// # Errors
/// The guard could not be started. Of a program that cannot be started the guard tells.
pub async fn run(
    wrapped: Wrapped,
    progress: Progress,
    reporter: &Reporter,
    mut stop: mpsc::Receiver<Ask>,
) -> io::Result<Ended> {
    let (started, started_at) = (Instant::now(), SystemTime::now());
    let (grace, reports) = (wrapped.grace, wrapped.reports.clone());
    let mut process = Process::start(wrapped, &progress)?;
    let mut cancelled = None;
    let status = tokio::select! {
        status = &mut process.ended => Some(status),
        Some(ask) = stop.recv() => {
            process.group.ask(ask);
            cancelled = Some(TestError { code: "interrupted".to_owned(), message: format!("stopped by {}", ask.name()) });
            None
        }
        () = reporter.cancel().cancelled() => {
            process.group.ask(Ask::Terminate);
            cancelled = Some(on_request(reporter.cancelled().unwrap_or_default()));
            None
        }
    };
    let status = match status {
        Some(status) => status,
        None => {
            tokio::select! {
                status = &mut process.ended => status,
                _ = stop.recv() => process.kill().await,
                () = tokio::time::sleep(grace) => process.kill().await,
            }
        }
    };
    let exit = exit(status.map_err(io::Error::other)??);
    let printed = process.settle(exit, &mut stop).await;
    let remarks = super::reports::take(&reports, started_at, &progress);
    let outcome = verdict::outcome(exit, &progress.state(), &printed, started.elapsed());
    let code = match exit {
        Exit::Code(guard::FAILED) if verdict::could_not_start(&printed) => NOT_FOUND,
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    let (outcome, results) = match (cancelled, outcome) {
        (Some(why), Outcome::Passed { results } | Outcome::Failed { results, .. }) => {
            (EndOutcome::Cancelled(why), results)
        }
        (None, Outcome::Passed { results }) => (EndOutcome::Passed, results),
        (None, Outcome::Failed { error, results }) => (EndOutcome::Failed(error), results),
    };
    let end = End { outcome, results, took: started.elapsed() };
    Ok(Ended { code: u8::try_from(code).unwrap_or(1), end, remarks })
}

fn on_request(Cancelled { reason, by }: Cancelled) -> TestError {
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    TestError { code: "cancelled".to_owned(), message: format!("cancelled{by}{reason}") }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        // The guard says so of a command that a signal ended.
        (Some(code @ 129..=192), _) => Exit::Signal(code - 128),
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// The command, and the threads that read it.
struct Process {
    group: Group,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    feed: Arc<Mutex<Option<Feed>>>,
    drained: mpsc::Receiver<()>,
    // How many readers are in the middle of writing what they read.
    writing: Arc<AtomicUsize>,
    aside: Arc<Aside>,
    tasks: Tasks,
}

/// What comes beside the output, and where it goes.
struct Aside {
    side: Side,
    lines: Mutex<Lines>,
    feed: Arc<Mutex<Option<Feed>>>,
}

impl Aside {
    fn take(&self, bytes: &[u8]) {
        let mut found = Vec::new();
        lock(&self.lines).push(bytes, |line| found.push(line));
        if let Some(feed) = &mut *lock(&self.feed) {
            feed.told(&found);
        }
    }
}

impl Process {
    fn start(wrapped: Wrapped, progress: &Progress) -> io::Result<Self> {
        let Wrapped { argv, guard, test_id, parser, .. } = wrapped;
        let side = Side::open()?;
        let mut child = spawn(&guard, &argv, &test_id, side.environment(&argv)?)?;
        let group = Group::led_by(Some(child.id()));
        let feed = Feed::new(parser, OutputLimits::default(), progress.clone());
        let feed = Arc::new(Mutex::new(Some(feed)));
        // Closed when both readers are gone.
        let (reading, drained) = mpsc::channel(1);
        let to = To { feed: feed.clone(), writing: Arc::default(), _reading: reading };
        let writing = to.writing.clone();
        if let Some(pipe) = child.stdout.take() {
            reader("stdout", pipe, io::stdout(), to.clone())?;
        }
        if let Some(pipe) = child.stderr.take() {
            reader("stderr", pipe, io::stderr(), to)?;
        }
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new().name("wait".to_owned()).spawn(move || {
            let _ = tell.send(child.wait());
        })?;
        let aside = Arc::new(Aside { side, lines: Mutex::default(), feed: feed.clone() });
        let (tasks, told) = (Tasks::new(), aside.clone());
        tasks.spawn_draining("events", async move { told.side.read(|bytes| told.take(bytes)).await });
        Ok(Self { group, ended, feed, drained, writing, aside, tasks })
    }

    async fn kill(&mut self) -> Result<io::Result<ExitStatus>, oneshot::error::RecvError> {
        self.group.kill();
        (&mut self.ended).await
    }

    /// Waits for the rest of the output, and ends whatever the command left behind.
    async fn settle(mut self, exit: Exit, stop: &mut mpsc::Receiver<Ask>) -> Printed {
        let mut is_hurried = false;
        self.drain(stop, &mut is_hurried).await;
        self.group.kill();
        self.drain(stop, &mut is_hurried).await;
        let _ = tokio::time::timeout(OUTPUT_GRACE, self.aside.side.close()).await;
        self.tasks.stop(OUTPUT_GRACE).await;
        // A reader that still waits finds nobody to tell.
        lock(&self.feed).take().map(|feed| feed.finish(exit)).unwrap_or_default()
    }

    /// Waits for the end of both pipes, at most [`OUTPUT_GRACE`]. A slow reader of ours is waited for as long as it
    /// takes, as the command itself would wait, until somebody is in a hurry: what comes through `stop` lets all time
    /// count.
    async fn drain(&mut self, stop: &mut mpsc::Receiver<Ask>, is_hurried: &mut bool) {
        let mut left = OUTPUT_GRACE;
        let mut ticks = tokio::time::interval(OUTPUT_TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !left.is_zero() {
            tokio::select! {
                _ = self.drained.recv() => return,
                Some(_) = stop.recv() => *is_hurried = true,
                _ = ticks.tick() => {
                    if *is_hurried || self.writing.load(Ordering::Relaxed) == 0 {
                        left = left.saturating_sub(OUTPUT_TICK);
                    }
                }
            }
        }
    }
}

fn spawn(
    guard: &Path,
    argv: &[OsString],
    test_id: &TestId,
    environment: Vec<(&'static str, OsString)>,
) -> io::Result<Child> {
    let mut command = Command::new(guard);
    command.arg("guard").arg(guard::watching_this_process()).arg("--").args(argv);
    // In the background of a terminal, a process that reads from it is stopped.
    let stdin = if io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env(RESERVED_ENV[0], test_id.as_str()).envs(environment);
    command.process_group(0).spawn()
}

/// What a reader of a pipe tells of.
#[derive(Clone)]
struct To {
    feed: Arc<Mutex<Option<Feed>>>,
    writing: Arc<AtomicUsize>,
    // Dropped at the end.
    _reading: mpsc::Sender<()>,
}

/// Copies a pipe to its end, and feeds what was copied.
fn reader(
    name: &str,
    mut pipe: impl Read + Send + 'static,
    mut out: impl Write + Send + 'static,
    to: To,
) -> io::Result<()> {
    let read = move || {
        let (mut buffer, mut lines) = (vec![0; BUFFER], Lines::default());
        loop {
            let n = match pipe.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // An error of a pipe is its end, as far as we are concerned.
                read => read.unwrap_or(0),
            };
            let mut found = Vec::new();
            lines.push(&buffer[..n], |line| found.push(line));
            // Whoever read our output has enough: the command has to notice, as it would without us.
            let gone =
                n > 0 && to.while_writing(|| out.write_all(&buffer[..n]).and_then(|()| out.flush())).is_err();
            if n == 0 || gone {
                lines.finish(|line| found.push(line));
            }
            if let Some(feed) = &mut *lock(&to.feed) {
                feed.lines(found);
            }
            if n == 0 || gone {
                return;
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(read).map(drop)
}

impl To {
    fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.writing.fetch_add(1, Ordering::Relaxed);
        let written = write();
        self.writing.fetch_sub(1, Ordering::Relaxed);
        written
    }
}
