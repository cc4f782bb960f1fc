//! `tidings bench throughput`: how much a server delivers, at which cost, how fast.

use std::time::Duration;

use serde::Serialize;

use super::Threads;
use super::load::{Load, Measured};
use super::progress::Bar;
use super::publisher::{Speed, Style};
use super::report::{Delivery, MemoryUse, Percentiles, count, or_unknown, per, rate, rounded};
use super::target::{ServerArgs, Target};
use tidings::model::Priority;

/// Arguments of `bench throughput`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) target: ServerArgs,
    /// Subscribers, spread over the rooms in turn; with 0, publishing alone is measured.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(super) subscribers: usize,
    /// Rooms that messages are published in.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    rooms: usize,
    /// Messages per second, over all rooms; without it, as many as the slowest subscriber takes.
    #[arg(long, value_name = "N", value_parser = super::a_rate)]
    rate: Option<f64>,
    /// How long is measured.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = super::a_duration)]
    duration: Duration,
    /// How long messages are sent before that, delivered and checked but not measured.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    style: StyleArgs,
    /// Flat out: so many messages of a room may be lacked by its slowest subscriber.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// How messages look and travel, for the command line.
#[derive(Debug, clap::Args)]
pub(super) struct StyleArgs {
    /// The priority of the messages.
    #[arg(long, default_value = "normal", value_name = "NAME", value_parser = super::a_priority)]
    pub(super) priority: Priority,
    /// Ask for `message:batch` with every join.
    #[arg(long)]
    pub(super) batch: bool,
    /// The length of each message's data in bytes; the default makes messages of about 235 bytes on the wire.
    #[arg(long, default_value_t = 36, value_name = "BYTES", value_parser = super::a_payload)]
    pub(super) payload: usize,
    /// Messages in the largest request of the publisher.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) publish_batch: u64,
    /// Connections that publish, if there are as many rooms.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = super::at_least_one)]
    pub(super) publishers: usize,
    #[command(flatten)]
    pub(super) threads: Threads,
}

/// The figures of a load; the names are stable.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) benchmark: &'static str,
    server: String,
    server_pid: Option<u32>,
    subscribers: usize,
    rooms: usize,
    batch: bool,
    priority: &'static str,
    /// Messages per second that were asked for; none: flat out.
    rate: Option<f64>,
    payload_bytes: usize,
    /// The measured time.
    seconds: f64,
    /// In the measured time.
    published: u64,
    publish_per_second: f64,
    /// Of the whole run, the warm-up too.
    #[serde(flatten)]
    pub(super) delivery: Delivery,
    deliveries_per_second: f64,
    /// As they were read from the socket, framing included.
    bytes_per_delivery: Option<f64>,
    latency_us: Percentiles,
    publish_us: Percentiles,
    server_cpu_seconds: Option<f64>,
    server_cpu_us_per_delivery: Option<f64>,
    server_cpu_us_per_publish: Option<f64>,
    server_rss_kb: Option<MemoryUse>,
    generator_cpu_us_per_delivery: Option<f64>,
    /// What went wrong, in words.
    pub(super) faults: Vec<String>,
}

impl StyleArgs {
    pub(super) fn style(&self) -> Style {
        let Self { priority, payload, publish_batch, publishers, .. } = *self;
        Style { priority, payload, batch: publish_batch, connections: publishers }
    }
}

/// Measures; whether everything was delivered exactly once and in order.
pub(super) fn run(args: &Args, target: &Target) -> anyhow::Result<bool> {
    let speed = match args.rate {
        Some(per_second) => Speed::Rate { per_second, during: args.warmup + args.duration },
        None => Speed::FlatOut { in_flight: args.in_flight, each: None },
    };
    let load = Load {
        subscribers: args.subscribers,
        rooms: args.rooms,
        batch: args.style.batch,
        threads: args.style.threads.threads,
        speed,
        style: args.style.style(),
        warmup: args.warmup,
        duration: args.duration,
        interval: args.duration,
    };
    let bar = Bar::new(args.duration);
    let measured = load.run(target, |_| {}, |text, at| bar.show(text, at));
    bar.finish();
    let report = Report::new("throughput", target, &load, args.style.priority, measured?);
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&report.text())?;
    }
    Ok(report.is_sound())
}

impl Report {
    pub(super) fn new(
        benchmark: &'static str,
        target: &Target,
        load: &Load,
        priority: Priority,
        measured: Measured,
    ) -> Self {
        let Measured { delivery, time, published, deliveries, deliveries_in_all: all, .. } = measured;
        let rate_asked = match load.speed {
            Speed::Rate { per_second, .. } => Some(per_second),
            Speed::FlatOut { .. } => None,
        };
        Self {
            benchmark,
            server: target.url.clone(),
            server_pid: target.process.map(super::process::Process::pid),
            subscribers: load.subscribers,
            rooms: load.rooms,
            batch: load.batch,
            priority: priority.name(),
            rate: rate_asked,
            payload_bytes: load.style.payload,
            seconds: rounded(time.as_secs_f64()),
            published,
            publish_per_second: rate(published, time),
            delivery,
            deliveries_per_second: rate(deliveries, time),
            bytes_per_delivery: (all > 0).then(|| rounded(measured.bytes as f64 / all as f64)),
            latency_us: Percentiles::of(&measured.latency),
            publish_us: Percentiles::of(&measured.requests),
            server_cpu_seconds: measured.server_cpu.map(|cpu| rounded(cpu.as_secs_f64())),
            server_cpu_us_per_delivery: per(measured.server_cpu, all),
            server_cpu_us_per_publish: per(measured.server_cpu, published),
            server_rss_kb: measured.memory,
            generator_cpu_us_per_delivery: per(Some(measured.swarm_cpu), all),
            faults: measured.faults,
        }
    }

    /// Whether everything was delivered exactly once and in order.
    pub(super) fn is_sound(&self) -> bool {
        self.delivery.is_exact() && self.faults.is_empty()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let speed = self.rate.map_or("flat out".to_owned(), |rate| format!("{rate} messages/s"));
        let mut lines = vec![format!(
            "{}: {} subscribers of {} rooms, {speed}, {} priority{}, {} s, {}",
            self.benchmark,
            count(self.subscribers as u64),
            count(self.rooms as u64),
            self.priority,
            if self.batch { ", batches" } else { "" },
            self.seconds,
            self.server,
        )];
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
        let requests = self.publish_us.text();
        line(
            "published",
            format!("{} messages/s; a request: {requests}", count(self.publish_per_second as u64)),
        );
        if self.subscribers > 0 {
            line(
                "delivered",
                format!("{} /s; {}", count(self.deliveries_per_second as u64), self.delivery.text()),
            );
            line("latency", self.latency_us.text());
        }
        let per_publish = or_unknown(self.server_cpu_us_per_publish, "µs a message published");
        line(
            "server CPU",
            match self.subscribers {
                0 => per_publish,
                _ => or_unknown(self.server_cpu_us_per_delivery, "µs a delivery"),
            },
        );
        if let Some(memory) = &self.server_rss_kb {
            line("server RSS", memory.text());
        }
        if let Some(cpu) = self.generator_cpu_us_per_delivery {
            line("generator", format!("{cpu:.2} µs of CPU a delivery"));
        }
        if self.rate.is_some_and(|rate| self.publish_per_second < rate * 0.98) {
            line("too slow", "fewer messages were published than asked for".to_owned());
        }
        for fault in &self.faults {
            line("fault", fault.clone());
        }
        lines.join("\n")
    }
}
