//! Puts an HTTP server under load: the test type `stress`, config
//! `{ url, method?, headers?, body?, concurrency?, rate?, durationMs, thresholds? }`.
//!
//! Without `rate`, `concurrency` users send one request after the other. With it, requests follow a fixed
//! schedule and latencies count from it. A request fails if it gets no complete answer within 10 s, or one
//! with a status of 400 or more.
//!
//! A load tool that takes orders over the network has to keep to its targets: a redirection is an answer and is not
//! followed, and the addresses of the host are looked up once, for the whole test.

use std::sync::Arc;
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
mod metrics;

use allow::Allow;
pub use allow::InvalidAllow;
use client::{Client, REQUEST_TIMEOUT};
use config::{Config, Target, Thresholds};
use metrics::Totals;

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
        match config.named_host()? {
            Some(named) if !allow.permits(&named) => Err(refused("headers.Host", &named)),
            _ => Ok(config),
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
        Some(self.resolve(config).ok()?.duration + REQUEST_TIMEOUT + Duration::from_secs(20))
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
    let Config { duration, concurrency, rate, thresholds, .. } = *config;
    let client = Client::new(config, addresses);
    let start = Instant::now();
    let end = start + duration;
    let load = async {
        match rate {
            Some(rate) => load::scheduled(Arc::clone(&client), rate, concurrency, start, end).await,
            None => {
                load::closed(Arc::clone(&client), concurrency, end).await;
                0
            }
        }
    };
    let unsent = tokio::select! {
        unsent = load => unsent,
        () = tell(&client, progress, start, duration) => 0,
    };
    let elapsed = start.elapsed();
    show(&client, progress, elapsed, duration);
    let totals = client.metrics.totals(elapsed);
    let mut results = totals.results();
    results.insert("unsent".to_owned(), json!(unsent));
    results.insert("durationMs".to_owned(), json!(ms(elapsed)));
    verdict(&totals, &thresholds, results)
}

/// Tells of the progress until it is dropped.
async fn tell(client: &Client, progress: &Progress, start: Instant, duration: Duration) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        show(client, progress, start.elapsed(), duration);
    }
}

fn show(client: &Client, progress: &Progress, elapsed: Duration, duration: Duration) {
    let metrics = client.metrics.show(Instant::now());
    let number = |name: &str| metrics[name].as_f64().unwrap_or_default();
    let (rps, p99) = (number("rps"), number("p99"));
    let message = format!("{} requests, {rps:.0} per second, p99 {p99:.1} ms", metrics["requests"]);
    let rest = duration.saturating_sub(elapsed);
    progress.update(|state| {
        state.progress = (elapsed.as_secs_f64() * 100.0 / duration.as_secs_f64()).min(100.0);
        state.metrics = metrics;
        state.message = Some(message);
        state.eta_ms = Some(EtaMs { low: ms(rest), high: ms(rest.saturating_add(LAST_ANSWERS)) });
    });
}

fn verdict(totals: &Totals, thresholds: &Thresholds, results: Map<String, Value>) -> Outcome {
    if totals.requests == 0 {
        return Outcome::tests_failed("no request was sent: durationMs is too short", results);
    }
    let broken = broken(totals, thresholds);
    if !broken.is_empty() {
        return Outcome::tests_failed(broken.join("; "), results);
    }
    if !thresholds.are_set() && totals.failed == totals.requests {
        let reason = totals.first_error.as_deref().unwrap_or("unknown");
        return Outcome::tests_failed(
            format!("all {} requests failed, the first one with: {reason}", totals.requests),
            results,
        );
    }
    Outcome::Passed { results }
}

/// The thresholds that the measurements do not keep.
fn broken(totals: &Totals, thresholds: &Thresholds) -> Vec<String> {
    let latencies = &totals.latencies;
    let upper = [
        ("p50Ms", latencies.p50, thresholds.p50_ms),
        ("p90Ms", latencies.p90, thresholds.p90_ms),
        ("p99Ms", latencies.p99, thresholds.p99_ms),
        ("errorRate", totals.error_rate(), thresholds.error_rate),
    ];
    let mut broken: Vec<String> = upper
        .into_iter()
        .filter_map(|(name, value, limit)| Some((name, value, limit.filter(|limit| value > *limit)?)))
        .map(|(name, value, limit)| format!("{name} is {value:.3}, above {limit}"))
        .collect();
    if let Some(limit) = thresholds.min_rps.filter(|limit| totals.rps < *limit) {
        broken.push(format!("minRps: {:.3} requests per second, below {limit}", totals.rps));
    }
    broken
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
