//! `tidings bench recovery`: many clients come back at the same moment, and each gets what it missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use super::load::{JOIN_DEADLINE, LINGER, drain, expected, join_all, new_run, rooms};
use super::pace::Pace;
use super::process::Process;
use super::progress::Spinner;
use super::publisher::{Progress, Publisher, Speed};
use super::report::{Delivery, MemoryUse, Percentiles, count, per, rate, reasons, rounded};
use super::swarm::{Marker, Plan, Swarm};
use super::target::{ServerArgs, Target};
use super::throughput::StyleArgs;

/// Messages that everybody gets before the connection is lost, so that there is a place to come back to.
const FIRST: u64 = 10;
/// How long the server has to get over the lost connections and the publications, before its CPU time counts.
const SETTLE: Duration = Duration::from_millis(500);

/// Arguments of `bench recovery`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) target: ServerArgs,
    /// Clients that come back at once; several numbers, e.g. 100,1000, show whether the cost stays the same.
    #[arg(long, default_values_t = [1_000], value_name = "N,…", value_delimiter = ',', value_parser = super::at_least_one)]
    clients: Vec<usize>,
    /// Messages that each of them missed.
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    missed: u64,
    /// Rooms; each client is in one of them, in turn.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    rooms: usize,
    #[command(flatten)]
    style: StyleArgs,
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
    rooms: usize,
    batch: bool,
    missed: u64,
    /// One for each number of clients.
    runs: Vec<Run>,
    /// The last run's cost per replayed message over the first one's, where there are several.
    cost_ratio: Option<f64>,
}

/// The figures of one number of clients.
#[derive(Debug, Serialize)]
struct Run {
    subscribers: usize,
    /// From the moment at which all were to come back until the last message had come.
    seconds: f64,
    /// Messages that were replayed to all clients together.
    replayed: u64,
    replayed_per_second: f64,
    #[serde(flatten)]
    delivery: Delivery,
    /// From the moment at which all were to come back until each one's join was acknowledged.
    rejoin_us: Percentiles,
    server_cpu_seconds: Option<f64>,
    /// Of all that the return cost, connecting and joining too.
    server_cpu_us_per_replayed: Option<f64>,
    /// What connecting and joining cost when there was nothing to replay.
    server_cpu_us_per_join: Option<f64>,
    generator_cpu_us_per_replayed: Option<f64>,
    server_rss_kb: Option<MemoryUse>,
    /// What went wrong, in words.
    faults: Vec<String>,
}

impl Args {
    /// Connections of the largest run.
    pub(super) fn connections(&self) -> usize {
        self.clients.iter().copied().max().unwrap_or_default()
    }
}

/// Measures; whether every client got everything exactly once and in order.
pub(super) fn run(args: &Args, target: &Target) -> anyhow::Result<bool> {
    target.check_ports(args.connections())?;
    let mut report = Report {
        benchmark: "recovery",
        server: target.url.clone(),
        server_pid: target.process.map(Process::pid),
        rooms: args.rooms,
        batch: args.style.batch,
        missed: args.missed,
        runs: Vec::new(),
        cost_ratio: None,
    };
    let spinner = Spinner::new();
    for &clients in &args.clients {
        let run = measure(args, target, clients, &spinner)?;
        if !args.json {
            let mut printed = Ok(());
            spinner.above(|| printed = super::print(&run.text(args.missed)));
            printed?;
        }
        report.runs.push(run);
    }
    spinner.finish();
    if let [first, .., last] = report.runs.as_slice() {
        let costs = first.server_cpu_us_per_replayed.zip(last.server_cpu_us_per_replayed);
        report.cost_ratio =
            costs.filter(|(first, _)| *first > 0.0).map(|(first, last)| rounded(last / first));
    }
    if args.json {
        super::print_json(&report)?;
    } else if let Some(ratio) = report.cost_ratio {
        let [first, .., last] = args.clients.as_slice() else { return Ok(false) };
        let (first, last) = (count(*first as u64), count(*last as u64));
        super::print(&format!(
            "from {first} to {last} clients: {ratio:.2} times the cost per replayed message"
        ))?;
    }
    Ok(report.runs.iter().all(|run| run.delivery.is_exact() && run.faults.is_empty()))
}

/// Lets `clients` join, lose their connections, miss something and come back.
fn measure(args: &Args, target: &Target, clients: usize, spinner: &Spinner) -> anyhow::Result<Run> {
    let name = new_run();
    let threads = args.style.threads.threads;
    let plan =
        Arc::new(Plan::new(target, rooms(&name, args.rooms), Marker::new(&name), args.style.batch, true));
    let pace = Arc::new(Pace::new(threads, args.rooms));
    let swarm = Swarm::start(&plan, clients, threads, &pace)?;
    let mut publisher = Publisher::open(target, &plan, &pace, args.style.style())?;
    let memory = target.memory()?;

    let begun = target.cpu()?;
    join_all(&swarm, |n| spinner.show(&format!("{} of {} clients joined", count(n), count(clients as u64))))?;
    let joins = spent(begun, target.cpu()?);
    publish(&mut publisher, FIRST)?;
    let first = expected(publisher.published(), clients);
    drain(&swarm, &pace, publisher.published(), |n| {
        spinner.show(&format!("{} messages delivered", count(n)))
    });
    ensure!(swarm.delivered() == first, "{} of the first {first} messages came", swarm.delivered());
    let mut tally = swarm.count()?.tally;
    ensure!(tally.positions == first, "the server gives no positions, so nobody can come back to one");

    swarm.disconnect()?;
    spinner.show(&format!("{} messages are missed", count(args.missed)));
    publish(&mut publisher, args.missed)?;
    let replayed = expected(publisher.published(), clients) - first;
    std::thread::sleep(SETTLE);

    let (begun, before) = (target.cpu()?, swarm.count()?);
    tally.add(&before.tally);
    let started = Instant::now();
    swarm.connect(usize::MAX, true)?;
    let late =
        swarm.wait_joined(JOIN_DEADLINE, |n| spinner.show(&format!("{} clients are back", count(n)))).err();
    let last = drain(&swarm, &pace, publisher.published(), |n| {
        spinner.show(&format!("{} messages delivered", count(n)))
    });
    let took = last.saturating_duration_since(started);
    let cpu = spent(begun, target.cpu()?);
    let after = swarm.count()?;
    std::thread::sleep(LINGER);
    let end = swarm.count()?;
    tally.add(&after.tally);
    tally.add(&end.tally);
    let failed = swarm.failed();
    let totals = swarm.finish(publisher.published())?;
    let mut faults = reasons(&end.reasons);
    faults.extend(late.map(|e| e.to_string()));
    Ok(Run {
        subscribers: clients,
        seconds: rounded(took.as_secs_f64()),
        replayed,
        replayed_per_second: rate(after.tally.delivered, took),
        delivery: Delivery::new(&totals, tally.astray, tally.positions, failed),
        rejoin_us: Percentiles::of(&after.tally.joins),
        server_cpu_seconds: cpu.map(|cpu| rounded(cpu.as_secs_f64())),
        server_cpu_us_per_replayed: per(cpu, after.tally.delivered),
        server_cpu_us_per_join: per(joins, clients as u64),
        generator_cpu_us_per_replayed: per(Some(after.cpu - before.cpu), after.tally.delivered),
        server_rss_kb: MemoryUse::new(memory, target.memory()?, 0),
        faults,
    })
}

/// Publishes `each` messages in every room, whoever is there.
fn publish(publisher: &mut Publisher, each: u64) -> anyhow::Result<()> {
    let speed = Speed::FlatOut { in_flight: u64::MAX, each: Some(each) };
    publisher.run(speed, &Progress::default()).map(|_| ())
}

fn spent(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    after.zip(before).map(|(after, before)| after.saturating_sub(before))
}

impl Run {
    /// For people.
    fn text(&self, missed: u64) -> String {
        let mut lines = vec![format!(
            "recovery: {} clients come back at once, each missed {} messages",
            count(self.subscribers as u64),
            count(missed)
        )];
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
        line(
            "replayed",
            format!("all after {} s, {} messages/s", self.seconds, count(self.replayed_per_second as u64)),
        );
        line("delivered", self.delivery.text());
        line("rejoined", self.rejoin_us.text());
        if let (Some(replayed), Some(join)) = (self.server_cpu_us_per_replayed, self.server_cpu_us_per_join) {
            line(
                "server CPU",
                format!(
                    "{replayed:.2} µs a replayed message, the return itself included ({join:.0} µs a join)"
                ),
            );
        }
        if let Some(memory) = &self.server_rss_kb {
            line("server RSS", memory.text());
        }
        for fault in &self.faults {
            line("fault", fault.clone());
        }
        lines.join("\n")
    }
}
