use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use serde_json::json;

use super::*;

fn parse(config: &Value) -> Result<Config, String> {
    Config::parse(config.as_object().unwrap())
}

/// The peak of a closed load.
fn users(config: &Config) -> Option<f64> {
    match &config.load {
        Load::Closed { users } => Some(users.peak()),
        Load::Open { .. } => None,
    }
}

#[test]
fn the_smallest_config_has_sensible_defaults() {
    let config = parse(&json!({"url": "http://LocalHost/a?b=c", "durationMs": 1000})).unwrap();
    let path = PathAndQuery::from_static("/a?b=c");
    assert_eq!(config.target, Target { is_tls: false, host: "localhost".to_owned(), port: 80, path });
    assert_eq!((&config.method, users(&config), config.keep_alive), (&Method::GET, Some(10.0), true));
    assert_eq!((config.timeout, config.warm_up), (Duration::from_secs(10), Duration::ZERO));
    assert!(config.expected.covers(302) && !config.expected.covers(400));
    let rate = parse(&json!({"url": "http://[::1]:81", "durationMs": 1, "rate": 0.5})).unwrap();
    assert_eq!(rate.headers[HOST].to_str().unwrap(), "[::1]:81");
    assert!(matches!(rate.load, Load::Open { in_flight: 1000, .. }));
    let body =
        parse(&json!({"url": "http://h/", "durationMs": 1, "method": "post", "body": {"a": 1}})).unwrap();
    assert_eq!((body.method, body.body.as_ref()), (Method::POST, br#"{"a":1}"#.as_slice()));
    assert_eq!(body.headers[CONTENT_TYPE], "application/json");
    let named = json!({"url": "http://h/", "durationMs": 1, "headers": {"host": "Other.example:80"}});
    assert_eq!(parse(&named).unwrap().headers[HOST].to_str().unwrap(), "other.example");
    let bytes = parse(&json!({"url": "http://h/", "durationMs": 1, "bodyBase64": "AP8="})).unwrap();
    assert_eq!(bytes.body.as_ref(), [0, 255]);
    let tls = parse(&json!({"url": "https://h/", "durationMs": 1, "tls": {"insecure": true}})).unwrap();
    assert_eq!((tls.target.port, tls.headers[HOST].to_str().unwrap()), (443, "h"));
}

#[test]
fn stages_are_rates_or_users() {
    let stages = json!([{"durationMs": 1000, "rate": 100}, {"durationMs": 500, "rate": 0}]);
    let open = parse(&json!({"url": "http://h/", "rate": 20, "stages": stages})).unwrap();
    let Load::Open { rate, .. } = open.load else { panic!("open") };
    assert_eq!((rate.duration().as_millis(), rate.at(Duration::from_millis(500))), (1500, 60.0));
    let closed = parse(&json!({"url": "http://h/", "stages": [{"durationMs": 10, "vus": 7}]})).unwrap();
    assert_eq!(users(&closed), Some(7.0));
}

#[test]
fn every_mistake_names_its_field() {
    let base = json!({"url": "http://localhost/", "durationMs": 10});
    for (field, value, expected) in [
        ("url", json!("localhost/x"), "url:"),
        ("url", json!("ftp://localhost"), "http:// or https://"),
        ("url", json!("http://a@localhost/"), "Authorization"),
        ("url", json!("http://localhost:99999/"), "url:"),
        ("url", json!("http://localhost:0/"), "port"),
        ("durationMs", json!(0), "durationMs is between"),
        ("durationMs", json!(86_400_001), "durationMs is between"),
        ("durationMs", json!(null), "durationMs is missing"),
        ("stages", json!([]), "durationMs or stages, not both"),
        ("warmUpMs", json!(10), "warmUpMs is a first part"),
        ("timeoutMs", json!(0), "timeoutMs is between"),
        ("rate", json!(0), "rate is above 0"),
        ("rate", json!(1e6), "rate is above 0"),
        ("concurrency", json!(0), "concurrency is between"),
        ("concurrency", json!(10_001), "concurrency is between"),
        ("method", json!("a b"), "method:"),
        ("headers", json!({"a b": "c"}), "headers.a b"),
        ("headers", json!({"Content-Length": "1"}), "headers.Content-Length"),
        ("bodyBase64", json!("%"), "bodyBase64:"),
        ("expectStatus", json!([]), "expectStatus has 1 to"),
        ("expectStatus", json!([200, "2x"]), "expectStatus: \"2x\" is neither"),
        ("expectStatus", json!([600]), "expectStatus: 600"),
        ("tls", json!({}), "tls means nothing for http://"),
        ("thresholds", json!({"p98Ms": 1}), "p98Ms"),
        ("thresholds", json!(["p99"]), "thresholds.0"),
        ("thresholds", json!({"errorRate": 2}), "thresholds.errorRate"),
        ("duration", json!(1), "unknown field `duration`"),
    ] {
        let mut config = base.clone();
        config[field] = value;
        let message = parse(&config).unwrap_err();
        assert!(message.contains(expected), "{field}: {message}");
    }
}

#[test]
fn a_mistake_in_stages_or_tls_names_its_place() {
    for (stages, expected) in [
        (json!([]), "is between 1 and"),
        (json!([{"durationMs": 10}]), "stages.0: each stage has a rate"),
        (json!([{"durationMs": 10, "rate": 1}, {"durationMs": 10, "vus": 1}]), "stages.1: each stage"),
        (json!([{"durationMs": 10, "rate": 1, "vus": 1}]), "stages.0: each stage"),
        (json!([{"durationMs": 10, "rate": -1}]), "stages.0.rate"),
        (json!([{"durationMs": 10, "vus": 10_001}]), "stages.0.vus"),
        (json!([{"durationMs": 10, "vus": 0}]), "no load"),
        (
            json!([{"durationMs": u64::MAX, "rate": 1}, {"durationMs": 9, "rate": 1}]),
            "stages: their durationMs",
        ),
        (json!(vec![json!({"durationMs": 1, "rate": 1}); 101]), "stages has 1 to 100"),
    ] {
        let message = parse(&json!({"url": "http://h/", "stages": stages})).unwrap_err();
        assert!(message.contains(expected), "{stages}: {message}");
    }
    for (tls, expected) in [
        (json!({"ca": "x"}), "tls.ca: expected certificates as PEM"),
        (json!({"ca": "x", "insecure": true}), "tls: give ca or insecure"),
        (json!({"insecure": true, "serverName": "a b"}), "tls.serverName: `a b`"),
        (json!({"caFile": "/etc/passwd"}), "unknown field `caFile`"),
    ] {
        let message = parse(&json!({"url": "https://h/", "durationMs": 1, "tls": tls})).unwrap_err();
        assert!(message.contains(expected), "{tls}: {message}");
    }
}
