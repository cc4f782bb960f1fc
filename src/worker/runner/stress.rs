//! Puts an HTTP server under load: the test type `stress`. `config` reads what is wanted (docs/stress.md), `schedule` knows
//! how high the load is when, `load` sends by it, `client` has the connections, `metrics` and `latencies` measure,
//! `threshold` judges, and `merge` adds up results.
//!
//! Where there is a rate, requests are due at fixed times, whatever the answers, and latencies count from these. Else users
//! send one request after the other.
//!
//! A load tool that takes orders over the network has to keep to its targets: a redirection is an answer and is not
//! followed, and the addresses of the host are looked up once, for the whole test.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Attempt, Outcome, Runner};
use crate::config::live::Live;
use crate::config::reload::{Follower, PutInForce};
use crate::config::settings::Settings;
use crate::model::test::EtaMs;
use crate::worker::progress::Progress;

mod allow;
mod client;
mod config;
mod load;
mod merge;
mod metrics;
mod schedule;
mod target;
mod threshold;

pub use crate::worker::runner::latencies::InvalidHistogram;
use allow::Allow;
pub use allow::InvalidAllow;
use client::Client;
use config::Config;
pub use merge::{MergeError, merge};
use metrics::Totals;
use target::Target;
use threshold::{Threshold, Verdict};

/// How often the progress is told.
const TICK: Duration = Duration::from_millis(100);

/// How long the last answers hardly take longer than, after the end of the load.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Runs stress tests against the hosts that the operator allows.
#[derive(Debug, Clone)]
pub struct StressRunner {
    allow: Live<Allow>,
}

impl StressRunner {
    /// A runner that only aims at the hosts of `allow`, the setting `stress.allow`: `host`, `host:port`,
    /// `*.example.org`, an address, or a network such as `10.0.0.0/8`. The names of the hosts decide; only to
    /// this machine and its link a name leads no further than the list. Where it is empty, this machine only.
    pub fn new(allow: &[String]) -> Result<Self, InvalidAllow> {
        Ok(Self { allow: Live::new(Allow::parse(allow)?) })
    }

    fn resolve(&self, config: &Map<String, Value>) -> Result<Config, String> {
        let config = Config::parse(config)?;
        let allow = self.allow.read();
        let refused = |field: &str, target: &Target| {
            format!(
                "{field}: `{}:{}` may not be put under load; the operator allows hosts with the setting stress.allow",
                target.host, target.port
            )
        };
        if !allow.permits(&config.target) {
            return Err(refused("url", &config.target));
        }
        // A proxy at an allowed address would pass the requests on to whom they name.
        match config.named_hosts()?.iter().find(|(_, named)| !allow.permits(named)) {
            Some((field, named)) => Err(refused(field, named)),
            None => Ok(config),
        }
    }
}

impl Follower for StressRunner {
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let allow = Allow::parse(&settings.stress.allow).map_err(|mistake| vec![mistake.to_string()])?;
        let live = self.allow.clone();
        Ok(Box::new(move || live.replace(allow)))
    }
}

#[async_trait]
impl Runner for StressRunner {
    fn test_type(&self) -> &str {
        "stress"
    }

    fn check(&self, config: &Map<String, Value>) -> Result<(), String> {
        self.resolve(config).map(drop)
    }

    /// What it takes by its own account, and some time to answer the last requests.
    fn timeout(&self, config: &Map<String, Value>) -> Option<Duration> {
        let config = self.resolve(config).ok()?;
        Some(config.load.schedule().duration() + 2 * config.timeout + Duration::from_secs(20))
    }

    async fn run(&self, attempt: Attempt) -> Outcome {
        let config = match self.resolve(&attempt.job.config) {
            Ok(config) => config,
            Err(message) => return Outcome::runner_error(message),
        };
        // The load's tasks end with their owner, so leaving here leaves nothing behind.
        let allow = self.allow.get();
        tokio::select! {
            outcome = measure(&config, &allow, &attempt.progress) => outcome,
            () = attempt.cancel.cancelled() => Outcome::runner_error("the test was stopped"),
        }
    }
}

async fn measure(config: &Config, allow: &Allow, progress: &Progress) -> Outcome {
    let addresses = match client::resolve(&config.target, allow).await {
        Ok(addresses) => addresses,
        Err(e) => {
            return Outcome::runner_error(format!("url: `{}` cannot be used: {e}", config.target.host));
        }
    };
    // What this takes is no part of the measurement.
    if let Some(reason) = Client::new(config, addresses.clone(), Instant::now()).distrusts().await {
        let hint = "tls.ca names an authority to trust, tls.serverName another name";
        return Outcome::tests_failed(format!("url: `{}`: {reason}; {hint}", config.target.host), Map::new());
    }
    let start = Instant::now();
    let client = Client::new(config, addresses, start);
    let broken = tokio::select! {
        () = config.load.run(&client, start) => None,
        broken = tell(&client, progress, start, config) => Some(broken),
    };
    let now = Instant::now();
    show(&client, progress, now.duration_since(start), config);
    let totals = client.metrics.totals(now);
    let verdicts: Vec<Verdict> = config.thresholds.iter().map(|t| t.judge(&totals)).collect();
    let mut results = totals.results();
    results.insert("durationMs".to_owned(), json!(ms(now.duration_since(start))));
    if !verdicts.is_empty() {
        results.insert("thresholds".to_owned(), verdicts.iter().map(Verdict::told).collect());
    }
    if let Some(message) = broken {
        results.insert("aborted".to_owned(), json!(true));
        return Outcome::tests_failed(message, results);
    }
    verdict(&totals, config, &verdicts, results)
}

/// Tells of the progress until it is dropped; or until a threshold ends the test, and then says which.
async fn tell(client: &Client, progress: &Progress, start: Instant, config: &Config) -> String {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let elapsed = start.elapsed();
        show(client, progress, elapsed, config);
        if Threshold::may_abort(&config.thresholds) {
            let totals = client.metrics.totals(Instant::now());
            let is_over = elapsed >= config.load.schedule().duration();
            if let Some(broken) = config.thresholds.iter().find(|t| t.aborts(&totals, is_over)) {
                let after = humantime::format_duration(Duration::from_millis(ms(elapsed)));
                return format!("ended after {after}: {}", broken.judge(&totals));
            }
        }
    }
}

fn show(client: &Client, progress: &Progress, elapsed: Duration, config: &Config) {
    let schedule = config.load.schedule();
    let duration = schedule.duration();
    let metrics = client.metrics.show(Instant::now(), (config.load.unit(), schedule.at(elapsed)));
    let number = |name: &str| metrics[name].as_f64().unwrap_or_default();
    let (rps, p99, dropped) = (number("rps"), number("p99"), number("dropped"));
    let mut message = format!("{} requests, {rps:.0} per second, p99 {p99:.1} ms", metrics["requests"]);
    if dropped > 0.0 {
        message = format!("{message}, {dropped} dropped");
    }
    if elapsed < config.warm_up {
        "warming up".clone_into(&mut message);
    }
    let rest = duration.saturating_sub(elapsed);
    progress.update(|state| {
        state.progress = (elapsed.as_secs_f64() * 100.0 / duration.as_secs_f64()).min(100.0);
        state.metrics = metrics;
        state.message = Some(message);
        state.eta_ms = Some(EtaMs { low: ms(rest), high: ms(rest.saturating_add(LAST_ANSWERS)) });
    });
}

fn verdict(totals: &Totals, config: &Config, verdicts: &[Verdict], results: Map<String, Value>) -> Outcome {
    if totals.requests == 0 {
        let message = format!("no request was sent ({} were dropped): the test is too short", totals.dropped);
        return Outcome::tests_failed(message, results);
    }
    let broken: Vec<String> = verdicts.iter().filter(|v| !v.kept).map(ToString::to_string).collect();
    if !broken.is_empty() {
        return Outcome::tests_failed(broken.join("; "), results);
    }
    // Whoever expects failures says so.
    if totals.failed == totals.requests && !config.thresholds.iter().any(Threshold::is_about_failures) {
        let reason = totals.first_error.as_deref().unwrap_or("unknown");
        return Outcome::tests_failed(
            format!("all {} requests failed, the first one with: {reason}", totals.requests),
            results,
        );
    }
    Outcome::Passed { results }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
