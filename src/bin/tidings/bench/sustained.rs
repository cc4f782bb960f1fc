//! `tidings bench sustained`: a load for a long time; whether all is delivered and memory stays flat.

use std::time::Duration;

use serde::Serialize;

use super::load::{Interval, Load};
use super::progress::Bar;
use super::publisher::Speed;
use super::report::{Percentiles, count, rounded, time};
use super::target::{ServerArgs, Target};
use super::throughput::{Report, StyleArgs};

/// Lines that a run prints, unless told how often.
const LINES: u32 = 12;
/// Memory is flat if it grew by less than this part of itself, and a little.
const FLAT_PART: f64 = 0.05;
const FLAT_KB: f64 = 2_048.0;

/// Arguments of `bench sustained`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) target: ServerArgs,
    /// Clients, spread over the rooms in turn.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = super::at_least_one)]
    pub(super) clients: usize,
    /// Rooms that messages are published in.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    rooms: usize,
    /// Messages per second, over all rooms.
    #[arg(long, default_value = "500", value_name = "N", value_parser = super::a_rate)]
    rate: f64,
    /// How long.
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = super::a_duration)]
    duration: Duration,
    /// How often figures are told; twelve times by default.
    #[arg(long, value_name = "DURATION", value_parser = super::a_duration)]
    interval: Option<Duration>,
    #[command(flatten)]
    style: StyleArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The figures; the names are stable.
#[derive(Debug, Serialize)]
struct Sustained {
    #[serde(flatten)]
    load: Report,
    intervals: Vec<Line>,
    /// Unknown where the server's memory cannot be seen, or was not seen often enough.
    memory_flat: Option<bool>,
}

/// The figures of an interval.
#[derive(Debug, Serialize)]
struct Line {
    /// Seconds since the start.
    at: f64,
    /// Of what was published until a second before.
    delivered_percent: f64,
    latency_us: Percentiles,
    server_rss_kb: Option<u64>,
}

impl Line {
    fn of(interval: &Interval) -> Self {
        let part = match interval.expected {
            0 => 1.0,
            // What was published within the last second may have come as well.
            expected => (interval.delivered as f64 / expected as f64).min(1.0),
        };
        Self {
            at: rounded(interval.at.as_secs_f64()),
            // Cut, not rounded: 100 means all.
            delivered_percent: (part * 1e5).floor() / 1e3,
            latency_us: Percentiles::of(&interval.latency),
            server_rss_kb: interval.memory.map(|memory| memory.rss),
        }
    }

    fn text(&self) -> String {
        let memory = self.server_rss_kb.map_or("unknown".to_owned(), |kb| format!("{} kB", count(kb)));
        format!(
            "{:>7.1} s  {:>7.3} % delivered  p99 {:>9}  max {:>9}  server RSS {memory}",
            self.at,
            self.delivered_percent,
            time(self.latency_us.p99),
            time(self.latency_us.max)
        )
    }
}

/// Measures; whether everything was delivered exactly once and in order.
pub(super) fn run(args: &Args, target: &Target) -> anyhow::Result<bool> {
    let load = Load {
        subscribers: args.clients,
        rooms: args.rooms,
        batch: args.style.batch,
        threads: args.style.threads.threads,
        speed: Speed::Rate { per_second: args.rate, during: args.duration },
        style: args.style.style(),
        warmup: Duration::ZERO,
        duration: args.duration,
        interval: args.interval.unwrap_or(args.duration / LINES),
    };
    let bar = Bar::new(args.duration);
    let mut intervals = Vec::new();
    let mut printed = Ok(());
    let tell = |interval: &Interval| {
        let line = Line::of(interval);
        if !args.json && printed.is_ok() {
            bar.above(|| printed = super::print(&line.text()));
        }
        intervals.push(line);
    };
    let measured = load.run(target, tell, |text, at| bar.show(text, at));
    bar.finish();
    let load = Report::new("sustained", target, &load, args.style.priority, measured?);
    printed?;
    let memory: Vec<u64> = intervals.iter().filter_map(|line| line.server_rss_kb).collect();
    let done = Sustained { load, memory_flat: is_flat(&memory), intervals };
    if args.json {
        super::print_json(&done)?;
    } else {
        let flat = match done.memory_flat {
            Some(true) => "flat",
            Some(false) => "growing",
            None => "unknown",
        };
        super::print(&format!("{}\n  memory       {flat}", done.load.text()))?;
    }
    Ok(done.load.is_sound())
}

/// Whether the last quarter is about as high as the second: what is cached is cached by then.
fn is_flat(memory: &[u64]) -> Option<bool> {
    let quarter = memory.len() / 4;
    if quarter == 0 {
        return None;
    }
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let (early, late) = (mean(&memory[quarter..2 * quarter]), mean(&memory[memory.len() - quarter..]));
    Some(late <= early * (1.0 + FLAT_PART) + FLAT_KB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_flat_if_it_stays_where_it_was_after_the_start() {
        let grown_once = [10_000, 90_000, 90_500, 91_000, 90_200, 90_800, 91_100, 90_400];
        assert_eq!(is_flat(&grown_once), Some(true));
        let growing: Vec<u64> = (1..=12).map(|n| n * 10_000).collect();
        assert_eq!(is_flat(&growing), Some(false));
        assert_eq!(is_flat(&[1, 2, 3]), None);
    }

    #[test]
    fn a_hundred_percent_means_all() {
        let of = |delivered, expected| {
            let latency = super::super::swarm::histogram();
            Line::of(&Interval { at: Duration::ZERO, latency, delivered, expected, memory: None })
                .delivered_percent
        };
        assert!(of(999_999_999, 1_000_000_000) < 100.0);
        assert_eq!(of(1_000, 1_000), 100.0);
        assert_eq!(of(1_200, 1_000), 100.0);
        assert_eq!(of(500, 1_000), 50.0);
    }
}
