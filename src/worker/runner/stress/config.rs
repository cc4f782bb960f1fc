//! What a stress test is told: the config of a job, and what it means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::load::Load;
use super::schedule::Schedule;
use super::target::{Target, headers, method};
use super::threshold::Threshold;
use crate::tls::{Trust, TrustError};

const MAX_DURATION_MS: u64 = 86_400_000;
const MAX_CONCURRENCY: usize = 10_000;
const MAX_RATE: f64 = 100_000.0;
const MAX_STAGES: usize = 100;
const MAX_TIMEOUT_MS: u64 = 600_000;
const MAX_STATUSES: usize = 32;
const DEFAULT_CONCURRENCY: usize = 10;
const DEFAULT_CONCURRENCY_WITH_RATE: usize = 1000;
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// The config as the submitter writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    body_base64: Option<String>,
    concurrency: Option<usize>,
    rate: Option<f64>,
    duration_ms: Option<u64>,
    stages: Option<Vec<Stage>>,
    #[serde(default)]
    warm_up_ms: u64,
    timeout_ms: Option<u64>,
    keep_alive: Option<bool>,
    expect_status: Option<Vec<Value>>,
    tls: Option<Tls>,
    thresholds: Option<Value>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stage {
    duration_ms: u64,
    rate: Option<f64>,
    vus: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    ca: Option<String>,
    server_name: Option<String>,
    #[serde(default)]
    insecure: bool,
}

/// How the server is spoken to, and by which name.
#[derive(Debug, Clone)]
pub(super) struct Encryption {
    pub(super) client: ClientConfig,
    pub(super) name: ServerName<'static>,
    /// The name, if it is not the URL's host.
    pub(super) other_name: Option<String>,
}

/// The statuses that are no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected(Vec<RangeInclusive<u16>>);

/// A config that makes sense.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) target: Target,
    pub(super) encryption: Option<Encryption>,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) keep_alive: bool,
    pub(super) timeout: Duration,
    pub(super) expected: Expected,
    pub(super) load: Load,
    /// What is due in this first part of the test does not count.
    pub(super) warm_up: Duration,
    pub(super) thresholds: Vec<Threshold>,
}

impl Config {
    /// Reads a job's config, or says which field is wrong.
    pub(super) fn parse(config: &Map<String, Value>) -> Result<Self, String> {
        let raw: Raw =
            serde_json::from_value(Value::Object(config.clone())).map_err(|e| format!("config: {e}"))?;
        let target = Target::parse(&raw.url)?;
        let load = load(&raw)?;
        let warm_up = Duration::from_millis(raw.warm_up_ms);
        if !warm_up.is_zero() && warm_up >= load.schedule().duration() {
            return Err("warmUpMs is a first part of the test, and shorter than it".to_owned());
        }
        let timeout = raw.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout) {
            return Err(format!("timeoutMs is between 1 and {MAX_TIMEOUT_MS}, not {timeout}"));
        }
        let (body, is_json) = body(raw.body.as_ref(), raw.body_base64.as_deref())?;
        let keep_alive = raw.keep_alive.unwrap_or(true);
        Ok(Self {
            encryption: encryption(&target, raw.tls)?,
            method: method(raw.method.as_deref())?,
            headers: headers(&raw.headers, &target, is_json, keep_alive)?,
            target,
            body,
            keep_alive,
            timeout: Duration::from_millis(timeout),
            expected: Expected::parse(raw.expect_status.as_deref())?,
            load,
            warm_up,
            thresholds: Threshold::parse_all(raw.thresholds)?,
        })
    }

    /// The hosts that the requests name beside the one that they are sent to, and the fields that say so.
    pub(super) fn named_hosts(&self) -> Result<Vec<(&'static str, Target)>, String> {
        let mut hosts = Vec::new();
        if let Some(named) = self.headers.get(HOST).filter(|host| *host != self.target.authority().as_str()) {
            let invalid =
                |_| format!("headers.Host: `{}` is no host", String::from_utf8_lossy(named.as_bytes()));
            let text = named.to_str().map_err(|e| invalid(e.to_string()))?;
            hosts.push(("headers.Host", self.target.named(text).map_err(invalid)?));
        }
        if let Some(name) = self.encryption.as_ref().and_then(|e| e.other_name.clone()) {
            hosts.push(("tls.serverName", Target { host: name, ..self.target.clone() }));
        }
        Ok(hosts)
    }
}

impl Expected {
    fn parse(given: Option<&[Value]>) -> Result<Self, String> {
        // Redirections are answers, and not followed.
        let Some(given) = given else { return Ok(Self(vec![100..=399])) };
        if given.is_empty() || given.len() > MAX_STATUSES {
            return Err(format!("expectStatus has 1 to {MAX_STATUSES} entries, not {}", given.len()));
        }
        let range = |value: &Value| match value {
            Value::Number(n) => {
                let status =
                    n.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| (100..600).contains(n));
                status.map(|status| status..=status)
            }
            Value::String(text) => {
                let class = text.strip_suffix("xx")?.parse().ok().filter(|class| (1..6).contains(class));
                class.map(|class: u16| class * 100..=class * 100 + 99)
            }
            _ => None,
        };
        let wrong = |value: &Value| {
            format!("expectStatus: {value} is neither a status such as 200 nor a class such as \"2xx\"")
        };
        given.iter().map(|value| range(value).ok_or_else(|| wrong(value))).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn covers(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

fn load(raw: &Raw) -> Result<Load, String> {
    if let Some(rate) = raw.rate.filter(|r| !(*r > 0.0 && *r <= MAX_RATE)) {
        return Err(format!("rate is above 0 and at most {MAX_RATE} requests per second, not {rate}"));
    }
    if let Some(concurrency) = raw.concurrency.filter(|n| !(1..=MAX_CONCURRENCY).contains(n)) {
        return Err(format!("concurrency is between 1 and {MAX_CONCURRENCY}, not {concurrency}"));
    }
    let total_ms = match (&raw.stages, raw.duration_ms) {
        (Some(_), Some(_)) => return Err("give durationMs or stages, not both".to_owned()),
        (None, None) => return Err("durationMs is missing; or give stages".to_owned()),
        (None, Some(ms)) => ms,
        (Some(stages), None) => {
            stages.iter().fold(0, |sum: u64, stage| sum.saturating_add(stage.duration_ms))
        }
    };
    if !(1..=MAX_DURATION_MS).contains(&total_ms) {
        let what = if raw.stages.is_some() { "stages: their durationMs together" } else { "durationMs" };
        return Err(format!("{what} is between 1 and {MAX_DURATION_MS}, not {total_ms}"));
    }
    let in_flight = raw.concurrency.unwrap_or(DEFAULT_CONCURRENCY_WITH_RATE);
    let duration = Duration::from_millis(total_ms);
    let Some(stages) = &raw.stages else {
        return Ok(match raw.rate {
            Some(rate) => Load::Open { rate: Schedule::steady(rate, duration), in_flight },
            None => {
                let concurrency = raw.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
                Load::Closed { users: Schedule::steady(users(concurrency), duration) }
            }
        });
    };
    by_stages(raw, stages, in_flight)
}

#[expect(clippy::cast_precision_loss, reason = "at most 10,000")]
fn users(n: usize) -> f64 {
    n as f64
}

fn by_stages(raw: &Raw, stages: &[Stage], in_flight: usize) -> Result<Load, String> {
    if stages.is_empty() || stages.len() > MAX_STAGES {
        return Err(format!("stages has 1 to {MAX_STAGES} entries, not {}", stages.len()));
    }
    let is_open = stages[0].rate.is_some();
    let mut levels = Vec::new();
    for (i, stage) in stages.iter().enumerate() {
        let level = match (stage.rate, stage.vus) {
            (Some(rate), None) if is_open && (0.0..=MAX_RATE).contains(&rate) => rate,
            (None, Some(vus)) if !is_open && vus <= MAX_CONCURRENCY => users(vus),
            (Some(rate), None) if is_open => {
                return Err(format!("stages.{i}.rate is at most {MAX_RATE} and not negative, not {rate}"));
            }
            (None, Some(vus)) if !is_open => {
                return Err(format!("stages.{i}.vus is at most {MAX_CONCURRENCY}, not {vus}"));
            }
            _ => return Err(format!("stages.{i}: each stage has a rate, or each one has vus")),
        };
        levels.push((Duration::from_millis(stage.duration_ms), level));
    }
    if !is_open && raw.rate.is_some() {
        return Err("rate: stages of vus have none".to_owned());
    }
    let schedule = |start: f64| Schedule::ramps(start, levels);
    let load = if is_open {
        Load::Open { rate: schedule(raw.rate.unwrap_or(0.0)), in_flight }
    } else {
        Load::Closed { users: schedule(raw.concurrency.map_or(0.0, users)) }
    };
    if load.schedule().peak() > 0.0 {
        Ok(load)
    } else {
        Err("stages: there is no load in any of them".to_owned())
    }
}

/// The body, and whether it is JSON of ours.
fn body(body: Option<&Value>, base64: Option<&str>) -> Result<(Bytes, bool), String> {
    match (body, base64) {
        (Some(_), Some(_)) => Err("give body or bodyBase64, not both".to_owned()),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text).map_err(|e| format!("bodyBase64: {e}"))?;
            Ok((bytes.into(), false))
        }
        (None | Some(Value::Null), None) => Ok((Bytes::new(), false)),
        (Some(Value::String(text)), None) => Ok((Bytes::copy_from_slice(text.as_bytes()), false)),
        (Some(json), None) => Ok((Bytes::from(json.to_string()), true)),
    }
}

fn encryption(target: &Target, tls: Option<Tls>) -> Result<Option<Encryption>, String> {
    if !target.is_tls {
        let unused = "tls means nothing for http://; use https://, or leave it out";
        return if tls.is_some() { Err(unused.to_owned()) } else { Ok(None) };
    }
    let Tls { ca, server_name, insecure } = tls.unwrap_or_default();
    let trust = match (&ca, insecure) {
        (Some(_), true) => return Err("tls: give ca or insecure, not both".to_owned()),
        (_, true) => Trust::Anyone,
        (Some(pem), _) => Trust::Pem(pem.as_bytes()),
        (None, false) => Trust::System,
    };
    let client = trust.client().map_err(|e| match e {
        TrustError::NoRoots => format!("tls: {e}; give an authority in tls.ca"),
        e => format!("tls.ca: {e}"),
    })?;
    let other_name = server_name.map(|name| name.to_ascii_lowercase()).filter(|name| *name != target.host);
    let name = other_name.clone().unwrap_or_else(|| target.host.clone());
    let field = if other_name.is_some() { "tls.serverName" } else { "url" };
    let name = ServerName::try_from(name.clone()).map_err(|e| format!("{field}: `{name}`: {e}"))?;
    Ok(Some(Encryption { client, name, other_name }))
}

#[cfg(test)]
mod tests;
