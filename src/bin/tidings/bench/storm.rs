//! `tidings bench storm`: many clients connect and join at the same moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Threads;
use super::load::{JOIN_DEADLINE, new_run};
use super::pace::Pace;
use super::process::Process;
use super::progress::Spinner;
use super::report::{MemoryUse, Percentiles, count, per, rate, reasons, rounded};
use super::swarm::{Marker, Plan, Swarm};
use super::target::{ServerArgs, Target};

/// Arguments of `bench storm`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) target: ServerArgs,
    /// Clients, all of which connect at once.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = super::at_least_one)]
    pub(super) clients: usize,
    /// Rooms that they join, one each, in turn.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    rooms: usize,
    /// The rooms' names, with {room} for the number and {run} for a name that no other run has.
    #[arg(long, default_value = "test-progress-bench-{run}-{room}", value_name = "PATTERN")]
    join: String,
    /// How long they stay before the server's memory is read.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    hold: Duration,
    #[command(flatten)]
    threads: Threads,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The figures; the names are stable.
#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    server: String,
    server_pid: Option<u32>,
    subscribers: usize,
    rooms: usize,
    joined: u64,
    failed_clients: u64,
    /// From the first connection until the last join.
    seconds: f64,
    joins_per_second: f64,
    /// From the moment at which all were to connect until each one's join was acknowledged.
    latency_us: Percentiles,
    server_cpu_seconds: Option<f64>,
    server_cpu_us_per_client: Option<f64>,
    server_rss_kb: Option<MemoryUse>,
    server_rss_kb_per_client: Option<f64>,
    /// What went wrong, in words.
    faults: Vec<String>,
}

/// Measures; whether all clients joined.
pub(super) fn run(args: &Args, target: &Target) -> anyhow::Result<bool> {
    target.check_ports(args.clients)?;
    let run = new_run();
    let name = |room: usize| args.join.replace("{run}", &run).replace("{room}", &room.to_string());
    let rooms: Vec<String> = (0..args.rooms).map(name).collect();
    let plan = Arc::new(Plan::new(target, rooms, Marker::new(&run), false, false));
    let threads = args.threads.threads;
    let pace = Arc::new(Pace::new(threads, args.rooms));
    let swarm = Swarm::start(&plan, args.clients, threads, &pace)?;
    let (memory, cpu) = (target.memory()?, target.cpu()?);
    let spinner = Spinner::new();
    let started = Instant::now();
    swarm.connect(usize::MAX, false)?;
    // Those who do not join in time are a result, not the end.
    let late =
        swarm.wait_joined(JOIN_DEADLINE, |n| spinner.show(&format!("{} clients joined", count(n)))).err();
    let took = started.elapsed();
    let cpu = target.cpu()?.zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let joined = swarm.joined();
    spinner.show("all are there");
    std::thread::sleep(args.hold);
    spinner.finish();
    let after = target.memory()?;
    let counted = swarm.count()?;
    let mut faults = reasons(&counted.reasons);
    faults.extend(late.map(|e| e.to_string()));
    let gone = counted.stages.get("joined").copied().unwrap_or_default() < joined;
    if gone {
        faults.push("some that had joined were gone again before the end".to_owned());
    }
    let growth = memory.zip(after).map(|(before, after)| after.rss.saturating_sub(before.rss));
    let report = Report {
        benchmark: "storm",
        server: target.url.clone(),
        server_pid: target.process.map(Process::pid),
        subscribers: args.clients,
        rooms: args.rooms,
        joined,
        failed_clients: args.clients as u64 - joined,
        seconds: rounded(took.as_secs_f64()),
        joins_per_second: rate(joined, took),
        latency_us: Percentiles::of(&counted.tally.joins),
        server_cpu_seconds: cpu.map(|cpu| rounded(cpu.as_secs_f64())),
        server_cpu_us_per_client: per(cpu, joined),
        server_rss_kb: MemoryUse::new(memory, after, 0),
        server_rss_kb_per_client: growth.filter(|_| joined > 0).map(|kb| rounded(kb as f64 / joined as f64)),
        faults,
    };
    swarm.finish(&vec![0; args.rooms])?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&report.text())?;
    }
    Ok(report.failed_clients == 0 && report.faults.is_empty())
}

impl Report {
    /// For people.
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "storm: {} clients at once, {} rooms, {}",
            count(self.subscribers as u64),
            count(self.rooms as u64),
            self.server
        )];
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
        line(
            "joined",
            format!("{} in {} s, {} failed", count(self.joined), self.seconds, count(self.failed_clients)),
        );
        line("latency", self.latency_us.text());
        if let Some(cpu) = self.server_cpu_us_per_client {
            line("server CPU", format!("{cpu:.0} µs a client"));
        }
        if let (Some(memory), Some(kb)) = (&self.server_rss_kb, self.server_rss_kb_per_client) {
            line("server RSS", format!("{}; {kb:.1} kB a client", memory.text()));
        }
        for fault in &self.faults {
            line("fault", fault.clone());
        }
        lines.join("\n")
    }
}
