//! `tidings doctor` sees what is set wrongly, says what to change, and leaves everything as it was.

use serde_json::{Value, json};

use super::{Site, wait_until};
use crate::support::redis::{RedisServer, shared_cluster_url};

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
fn whoever_reads_no_further_is_no_fault() {
    let site = Site::new("[limits]\nconnections = 100\n");
    for args in [["doctor"].as_slice(), &["doctor", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = site.command(args).stdout(writer).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panicked"), "{args:?}: {said}");
    }
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
    let redis = RedisServer::start_with(&["--maxmemory-policy", "noeviction", "--appendfsync", "everysec"]);
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

#[test]
fn each_primary_of_a_cluster_is_looked_at_by_itself() {
    let site = Site::new("[limits]\nconnections = 100\n");
    let (_, checks) = doctor(&site, &["--redis", &shared_cluster_url()]);
    assert_check(&checks, "redis cluster", "ok", "");
    let of = |name: &str| checks.iter().filter(|check| check["name"] == name).collect::<Vec<_>>();
    let versions = of("redis version");
    assert_eq!(versions.len(), 3, "{checks:#?}");
    let mut places: Vec<&str> = versions.iter().filter_map(|check| check["found"].as_str()).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 3, "each has its own address: {places:?}");
    for name in ["redis eviction", "redis output buffer", "redis durability"] {
        assert_eq!(of(name).len(), 3, "{name}: {checks:#?}");
        assert!(
            of(name)
                .iter()
                .all(|check| check["found"].as_str().is_some_and(|found| found.starts_with("127.0.0.1:")))
        );
    }
}

/// A site whose store holds some messages, and whose server has ended in order.
async fn filled() -> (Site, std::path::PathBuf) {
    let site = Site::new("[limits]\nconnections = 100\n");
    let server = site.start();
    for part in 0..20 {
        let message = |n: i32| {
            json!({ "channel": format!("team-updates-{}", n % 7), "event": "team:update",
                    "data": { "n": n, "padding": "needle ".repeat(40) } })
        };
        let messages: Vec<_> = (part * 50..part * 50 + 50).map(message).collect();
        server.post("/api/v1/events", &json!(messages)).await;
    }
    server.terminate();
    let file = site.path("data").join("tidings.db");
    let log = site.path("data").join("tidings.db-wal");
    wait_until("all is in the file", async || std::fs::metadata(&log).map_or(0, |log| log.len()) == 0).await;
    (site, file)
}

/// Turns over the bytes of `file` at `places`, looks, and sees that the file was left as it is.
#[track_caller]
fn assert_damaged(site: &Site, file: &std::path::Path, places: impl Iterator<Item = usize>, part: &str) {
    let mut bytes = std::fs::read(file).expect("read");
    places.for_each(|at| bytes[at] ^= 0xff);
    std::fs::write(file, &bytes).expect("written");
    let (code, checks) = doctor(site, &[]);
    assert_eq!(code, 1, "{checks:#?}");
    assert_check(&checks, "store integrity", "failed", "restore a backup");
    let check = checks.iter().find(|check| check["name"] == "store integrity").expect("it is there");
    assert!(check["found"].as_str().is_some_and(|found| found.contains(part)), "{check}");
    assert!(std::fs::read(file).expect("read") == bytes, "the file was changed");
}

#[tokio::test]
async fn a_page_that_is_torn_is_told() {
    let (site, file) = filled().await;
    let bytes = std::fs::read(&file).expect("read");
    let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    // The head and the pointers of a leaf of a table (13), beyond the first page.
    let pages = bytes.len() / size;
    let leaf = (1..pages).rev().find(|page| bytes[page * size] == 13).expect("a leaf");
    assert_damaged(&site, &file, leaf * size + 1..leaf * size + 64, "");
}

#[tokio::test]
async fn messages_whose_bytes_have_changed_are_told() {
    let (site, file) = filled().await;
    let bytes = std::fs::read(&file).expect("read");
    // Amid the text of a message: for SQLite one blob is as good as another.
    let needle = b"needle needle needle needle";
    // All of them: the first one may lie in a page that is not in use any more.
    let windows = bytes.windows(needle.len()).enumerate();
    let places: Vec<_> = windows.filter(|(_, part)| part == needle).map(|(at, _)| at + 8).collect();
    assert!(!places.is_empty(), "messages lie as they are");
    assert_damaged(&site, &file, places.into_iter(), "are damaged");
}
