//! The `tidings` program: one binary, a subcommand per job.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration; `run` passes on the one of its command.

mod bench;
mod check;
mod client;
mod control;
mod demo;
mod doctor;
mod follow;
mod plain;
mod run;
mod serve;
mod signals;
mod stress;
mod token;
mod wait;
mod watch;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Gives back what a crowd left behind, seconds after it went; the system's own would keep it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something in the configuration is wrong.
const BAD_CONFIGURATION: u8 = 64;

/// Live, loss-free news of long-running tests.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, with an embedded worker.
    Serve(serve::Args),
    /// Run jobs, and nothing else, for servers that share a Redis.
    Worker(worker::Args),
    /// Run a server, three real tests and a live view, in a temporary directory.
    Demo(demo::Args),
    /// Check tidings.toml and channels.toml, and report every mistake at once.
    Check(check::Args),
    /// Look at this machine, the store and Redis, and say what to change.
    Doctor(doctor::Args),
    /// Run any test command here, and tell a server how it is doing.
    Run(run::Args),
    /// Submit a job.
    Submit(client::SubmitArgs),
    /// Cancel a job, queued or running.
    Cancel(control::CancelArgs),
    /// Give a job that waits another priority.
    Priority(control::PriorityArgs),
    /// Run an ended job again as a new one: all of it, or only what failed.
    Rerun(control::RerunArgs),
    /// List what the clock submits.
    Schedules(control::SchedulesArgs),
    /// Hold jobs back: all, or those of a test type or suite.
    Pause(control::PauseArgs),
    /// Let jobs go that were paused.
    Resume(control::ResumeArgs),
    /// Publish a message.
    Publish(client::PublishArgs),
    /// Add up the results of stress tests.
    Stress(stress::Args),
    /// Measure a server.
    Bench(bench::Args),
    /// Make a token, for development.
    Token(token::Args),
    /// Watch running tests, follow rooms, or talk to a server at a prompt.
    Watch(watch::Args),
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self { code: BAD_CONFIGURATION, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything is started: it stands between the server and a command, and has to be as small as can be.
    if args.next().is_some_and(|command| command == "guard") {
        let args: Vec<OsString> = args.collect();
        std::process::exit(tidings::worker::runner::guard::guard(&args));
    }
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        // Whoever read our output has enough.
        Err(Failure { error, .. }) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure { code, error }) => {
            eprintln!("tidings: {}", plain::plain(&told(&error)));
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The error and its causes; a cause that a sentence before names already is not told again.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(args) => Ok(check::run(&args)),
        Command::Token(args) => token::run(&args),
        command => run_async(command),
    }
}

fn run_async(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args).await,
            Command::Worker(args) => worker::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Run(args) => run::run(args).await,
            Command::Submit(args) => client::submit(args).await,
            Command::Cancel(args) => control::cancel(args).await,
            Command::Priority(args) => control::priority(args).await,
            Command::Rerun(args) => control::rerun(args).await,
            Command::Schedules(args) => control::schedules(args).await,
            Command::Pause(args) => control::pause(args).await,
            Command::Resume(args) => control::resume(args).await,
            Command::Publish(args) => client::publish(args).await,
            Command::Stress(args) => stress::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Check(args) => Ok(check::run(&args)),
            Command::Token(args) => token::run(&args),
        }
    });
    // A blocking read of a terminal must not keep an ended command alive.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
