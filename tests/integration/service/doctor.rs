//! `tidings doctor` sees what is set wrongly, says what to change, and leaves everything as it was.

use serde_json::Value;

use super::Site;
use crate::support::redis::RedisServer;

/// The exit code, and each check by its name.
fn doctor(site: &Site, args: &[&str]) -> (i32, Vec<Value>) {
    let output = site.command(&["doctor", "--json"]).args(args).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    let code = output.status.code().expect("an exit code");
    assert_eq!(report["ok"], code == 0, "{report}");
    (code, report["checks"].as_array().expect("checks").clone())
}

#[track_caller]
fn assert_check(checks: &[Value], name: &str, health: &str, advice: &str) {
    let check =
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"));
    assert_eq!(check["health"], health, "{check}");
    assert!(check["advice"].as_str().unwrap_or_default().contains(advice), "{check}");
}

#[tokio::test]
async fn a_server_that_runs_is_in_order_and_not_disturbed() {
    let site = Site::new("[limits]\nconnections = 100\n");
    let server = site.start();
    let (code, checks) = doctor(&site, &["--server", &server.url]);
    assert_eq!(code, 0, "{checks:#?}");
    for name in [
        "configuration",
        "file descriptors",
        "store version",
        "store journal",
        "store integrity",
        "clock of the server",
    ] {
        assert_check(&checks, name, "ok", "");
    }
    assert_eq!(server.get("/readyz").await["status"], "ok");
}

#[test]
fn a_redis_that_would_evict_history_and_forgets_all_is_refused() {
    let settings = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"];
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 256kb 10"];
    let redis = RedisServer::start_with(&[settings.as_slice(), &limit].concat());
    let site = Site::new("[limits]\nconnections = 100\n");
    let (code, checks) = doctor(&site, &["--redis", &redis.url()]);
    assert_eq!(code, 1, "{checks:#?}");
    assert_check(&checks, "redis version", "ok", "");
    assert_check(&checks, "redis latency", "ok", "");
    assert_check(&checks, "clock of redis", "ok", "");
    assert_check(&checks, "redis eviction", "failed", "noeviction");
    assert_check(&checks, "redis output buffer", "warning", "pubsub 32mb");
    assert_check(&checks, "redis durability", "failed", "appendonly yes");
}

#[test]
fn a_redis_that_is_set_as_it_should_be_is_in_order() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let site = Site::new("[limits]\nconnections = 100\n");
    let (code, checks) = doctor(&site, &["--redis", &redis.url()]);
    assert_eq!(code, 0, "{checks:#?}");
    for name in ["redis eviction", "redis output buffer", "redis durability"] {
        assert_check(&checks, name, "ok", "");
    }
}

#[test]
fn a_redis_that_is_not_there_a_mistake_and_a_damaged_file_are_each_told() {
    let site = Site::new("");
    let (code, checks) = doctor(&site, &["--redis", "redis://127.0.0.1:1"]);
    assert_eq!(code, 1, "{checks:#?}");
    assert_check(&checks, "redis", "failed", "redis.url");

    site.start().kill();
    let file = site.path("data").join("tidings.db");
    let database = rusqlite::Connection::open(&file).expect("the database opens");
    database.pragma_update(None, "user_version", 999).expect("updated");
    drop(database);
    let (code, checks) = doctor(&site, &[]);
    assert_eq!(code, 1, "{checks:#?}");
    assert_check(&checks, "store version", "failed", "newer tidings");

    site.write("tidings.toml", "[limits]\nconections = 5\n");
    let (code, checks) = doctor(&site, &[]);
    assert_eq!(code, 1, "{checks:#?}");
    assert_check(&checks, "configuration", "failed", "mend");
}
