//! `tidings bench`: measures a server from outside, as its clients see it.
//!
//! `queue` times jobs, `jobs` counts them, `urgent` times a critical message. The others measure the fan-out of any server that speaks our small contract (WebSocket,
//! `room:join`, `POST /api/v1/events`): `target` finds or starts the server, `swarm` are the subscribers,
//! `publisher` sends, `pace` keeps the two together, `load` runs and watches them, `report` says what came of it.

mod jobs;
mod load;
mod pace;
mod process;
mod progress;
mod publisher;
mod queue;
mod recovery;
mod report;
mod storm;
mod sustained;
mod swarm;
mod target;
mod throughput;
mod urgent;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tidings::model::Priority;

use crate::Failure;
use crate::signals::StopSignals;
use target::{ServerArgs, Target};

/// Longer data than any server of ours takes by default.
const MOST_PAYLOAD: usize = 60 * 1024;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Many clients connect and join at the same moment.
    Storm(storm::Args),
    /// How much is delivered to many subscribers, at a rate or flat out, and what it costs.
    Throughput(throughput::Args),
    /// A load for a long time, with a line of figures now and then, and whether memory stays flat.
    Sustained(sustained::Args),
    /// Many clients come back at the same moment, and each gets what it missed.
    Recovery(recovery::Args),
    /// From the submission of a job to the message that its test started, one job after the other.
    Queue(queue::Args),
    /// How many jobs a second are submitted, run and told of, when running them takes no time.
    Jobs(jobs::Args),
    /// How long a critical message takes to a client that is owed thousands of low ones.
    Urgent(urgent::Args),
}

/// In how many threads the benchmark receives.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Threads {
    /// Threads that receive; one serves thousands of connections.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    threads: usize,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.what {
        What::Queue(args) => queue::run(args).await,
        What::Jobs(args) => jobs::run(args).await,
        What::Urgent(args) => urgent::run(args).await,
        What::Storm(args) => {
            measure(args.target.clone(), args.clients, move |target| storm::run(&args, target)).await
        }
        What::Recovery(args) => {
            measure(args.target.clone(), args.connections(), move |target| recovery::run(&args, target)).await
        }
        What::Throughput(args) => {
            measure(args.target.clone(), args.subscribers, move |target| throughput::run(&args, target)).await
        }
        What::Sustained(args) => {
            measure(args.target.clone(), args.clients, move |target| sustained::run(&args, target)).await
        }
    }
}

/// Measures a server in threads of its own, until it is done or somebody stops it.
async fn measure(
    args: ServerArgs,
    connections: usize,
    measure: impl FnOnce(&Target) -> anyhow::Result<bool> + Send + 'static,
) -> Result<ExitCode, Failure> {
    let mut signals = StopSignals::listen()?;
    // Before a server is started, which gets the same limit.
    process::allow_connections(connections)?;
    let target = tokio::task::spawn_blocking(move || Target::open(&args, connections)).await??;
    let target = Arc::new(target);
    let measured = Arc::clone(&target);
    let done = tokio::select! {
        done = tokio::task::spawn_blocking(move || measure(&measured)) => done?,
        () = signals.next() => Err(anyhow::anyhow!("the benchmark was stopped")),
    };
    // Not left to whoever drops it last: a thread that still measures would not get to it.
    tokio::task::spawn_blocking(move || target.close()).await?;
    let exact = done?;
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints one line, or several.
fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn print_json(figures: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(figures).context("the figures are not JSON")?)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number from 1".to_owned()),
        Ok(n) => Ok(n),
    }
}

fn a_priority(text: &str) -> Result<Priority, String> {
    Priority::from_name(text).map_err(|_| "expected low, normal, high or critical".to_owned())
}

fn a_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=1e7).contains(&rate) => Ok(rate),
        _ => Err("expected messages per second, from 0.1 to 10000000".to_owned()),
    }
}

fn a_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("expected some time".to_owned()),
        Ok(duration) => Ok(duration),
        Err(e) => Err(e.to_string()),
    }
}

fn a_payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= MOST_PAYLOAD => Ok(bytes),
        _ => Err(format!("expected a number of bytes up to {MOST_PAYLOAD}")),
    }
}
