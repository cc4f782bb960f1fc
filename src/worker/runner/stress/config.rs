//! What a stress test is told: the config of a job, and what it means.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};

const MAX_DURATION_MS: u64 = 86_400_000;
const MAX_CONCURRENCY: usize = 10_000;
const MAX_RATE: f64 = 100_000.0;
const DEFAULT_CONCURRENCY: usize = 10;
const DEFAULT_CONCURRENCY_WITH_RATE: usize = 1000;

/// The config as the submitter writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    concurrency: Option<usize>,
    rate: Option<f64>,
    duration_ms: u64,
    #[serde(default)]
    thresholds: Thresholds,
}

/// What decides whether the test passes; times in ms, the error rate from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Thresholds {
    pub(super) p50_ms: Option<f64>,
    pub(super) p90_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) error_rate: Option<f64>,
    pub(super) min_rps: Option<f64>,
}

/// Where the requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// In lower case; an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: PathAndQuery,
}

/// A config that makes sense.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) target: Target,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How many requests may be under way at once.
    pub(super) concurrency: usize,
    /// Requests per second; as fast as the answers come if absent.
    pub(super) rate: Option<f64>,
    pub(super) duration: Duration,
    pub(super) thresholds: Thresholds,
}

impl Config {
    /// Reads a job's config, or says which field is wrong.
    pub(super) fn parse(config: &Map<String, Value>) -> Result<Self, String> {
        let raw: Raw =
            serde_json::from_value(Value::Object(config.clone())).map_err(|e| format!("config: {e}"))?;
        let target = Target::parse(&raw.url)?;
        if !(1..=MAX_DURATION_MS).contains(&raw.duration_ms) {
            return Err(format!("durationMs is between 1 and {MAX_DURATION_MS}, not {}", raw.duration_ms));
        }
        if let Some(rate) = raw.rate.filter(|r| !(*r > 0.0 && *r <= MAX_RATE)) {
            return Err(format!("rate is above 0 and at most {MAX_RATE} requests per second, not {rate}"));
        }
        let default = if raw.rate.is_some() { DEFAULT_CONCURRENCY_WITH_RATE } else { DEFAULT_CONCURRENCY };
        let concurrency = raw.concurrency.unwrap_or(default);
        if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
            return Err(format!("concurrency is between 1 and {MAX_CONCURRENCY}, not {concurrency}"));
        }
        raw.thresholds.check()?;
        let (body, is_json) = match &raw.body {
            None | Some(Value::Null) => (Bytes::new(), false),
            Some(Value::String(text)) => (Bytes::copy_from_slice(text.as_bytes()), false),
            Some(json) => (Bytes::from(json.to_string()), true),
        };
        Ok(Self {
            method: method(raw.method.as_deref())?,
            headers: headers(&raw.headers, &target, is_json)?,
            target,
            body,
            concurrency,
            rate: raw.rate,
            duration: Duration::from_millis(raw.duration_ms),
            thresholds: raw.thresholds,
        })
    }
}

impl Config {
    /// The host that the requests name, where that is not the one that they are sent to.
    pub(super) fn named_host(&self) -> Result<Option<Target>, String> {
        let named = self.headers.get(HOST).filter(|host| *host != self.target.authority().as_str());
        let Some(named) = named else { return Ok(None) };
        let invalid = |_| format!("headers.Host: `{}` is no host", String::from_utf8_lossy(named.as_bytes()));
        let text = named.to_str().map_err(|e| invalid(e.to_string()))?;
        Target::parse(&format!("http://{text}/")).map(Some).map_err(invalid)
    }
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("url: `{url}` is not a URL: {e}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("url: https is not supported yet; use http".to_owned()),
            _ => return Err(format!("url: `{url}` has to begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| format!("url: `{url}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err("url: no user and password here; use the header Authorization".to_owned());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        // `:` alone, or a number out of range, is not the default port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            _ => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(format!("url: `{url}` has no valid port")),
            },
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { host: host.to_ascii_lowercase(), port, path })
    }

    /// As the header `Host` says it.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl Thresholds {
    fn check(&self) -> Result<(), String> {
        let times = [("p50Ms", self.p50_ms), ("p90Ms", self.p90_ms), ("p99Ms", self.p99_ms)];
        for (name, value) in times.into_iter().chain([("minRps", self.min_rps)]) {
            if let Some(value) = value.filter(|v| !(*v >= 0.0 && v.is_finite())) {
                return Err(format!("thresholds.{name} may not be negative, as {value} is"));
            }
        }
        match self.error_rate.filter(|rate| !(0.0..=1.0).contains(rate)) {
            Some(rate) => Err(format!("thresholds.errorRate is between 0 and 1, not {rate}")),
            None => Ok(()),
        }
    }

    pub(super) fn are_set(&self) -> bool {
        *self != Self::default()
    }
}

fn method(name: Option<&str>) -> Result<Method, String> {
    let name = name.unwrap_or("GET");
    match Method::from_bytes(name.to_ascii_uppercase().as_bytes()) {
        Ok(Method::CONNECT) | Err(_) => Err(format!("method: `{name}` cannot be used")),
        Ok(method) => Ok(method),
    }
}

fn headers(given: &BTreeMap<String, String>, target: &Target, is_json: bool) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(&target.authority()).map_err(|e| format!("url: {e}"))?;
    headers.insert(HOST, host);
    let agent = concat!("tidings/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if is_json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in given {
        let key: HeaderName = name.parse().map_err(|e| format!("headers.{name}: {e}"))?;
        if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&key) {
            return Err(format!("headers.{name} is set by the connection; leave it out"));
        }
        let value = HeaderValue::from_str(value).map_err(|e| format!("headers.{name}: {e}"))?;
        headers.insert(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(config: &Value) -> Result<Config, String> {
        Config::parse(config.as_object().unwrap())
    }

    #[test]
    fn the_smallest_config_has_sensible_defaults() {
        let config = parse(&json!({"url": "http://LocalHost/a?b=c", "durationMs": 1000})).unwrap();
        assert_eq!(
            config.target,
            Target { host: "localhost".to_owned(), port: 80, path: PathAndQuery::from_static("/a?b=c") }
        );
        assert_eq!((config.method, config.concurrency), (Method::GET, 10));
        let rate = parse(&json!({"url": "http://[::1]:81", "durationMs": 1, "rate": 0.5})).unwrap();
        assert_eq!((rate.concurrency, rate.headers[HOST].to_str().unwrap()), (1000, "[::1]:81"));
        let body =
            parse(&json!({"url": "http://h/", "durationMs": 1, "method": "post", "body": {"a": 1}})).unwrap();
        assert_eq!((body.method, body.body.as_ref()), (Method::POST, br#"{"a":1}"#.as_slice()));
        assert_eq!(body.headers[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn every_mistake_names_its_field() {
        let base = json!({"url": "http://localhost/", "durationMs": 10});
        for (field, value, expected) in [
            ("url", json!("https://localhost"), "https is not supported yet"),
            ("url", json!("localhost/x"), "url:"),
            ("url", json!("http://a@localhost/"), "Authorization"),
            ("url", json!("http://localhost:99999/"), "url:"),
            ("url", json!("http://localhost:0/"), "port"),
            ("durationMs", json!(0), "durationMs is between"),
            ("durationMs", json!(86_400_001), "durationMs is between"),
            ("rate", json!(0), "rate is above 0"),
            ("concurrency", json!(0), "concurrency is between"),
            ("method", json!("a b"), "method:"),
            ("headers", json!({"a b": "c"}), "headers.a b"),
            ("headers", json!({"Content-Length": "1"}), "headers.Content-Length"),
            ("thresholds", json!({"p95Ms": 1}), "p95Ms"),
            ("thresholds", json!({"errorRate": 2}), "thresholds.errorRate"),
            ("thresholds", json!({"p50Ms": -1}), "thresholds.p50Ms"),
            ("duration", json!(1), "unknown field `duration`"),
        ] {
            let mut config = base.clone();
            config[field] = value;
            let message = parse(&config).unwrap_err();
            assert!(message.contains(expected), "{field}: {message}");
        }
    }
}
