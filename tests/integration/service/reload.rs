//! SIGHUP: a changed configuration holds at once, a wrong one never.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Server, Site, wait_until};

const CHANNELS: &str = include_str!("../../../channels.toml");
/// A namespace that the compiled-in channels do not have.
const MORE: &str = "\n[channel.weather]\npattern = \"weather-{place}\"\nevents = [\"custom:*\"]\n";

fn settings(more: &str) -> String {
    format!("channels = \"channels.toml\"\n{more}")
}

/// A site with a `tidings.toml` that names a `channels.toml`.
fn site() -> Site {
    let site = Site::new(&settings(""));
    site.write("channels.toml", CHANNELS);
    site
}

/// Has the server reload, and waits until it has done so for the `n`th time with `outcome`.
pub(super) async fn reload(server: &Server, outcome: &str, n: u32) {
    server.signal(Signal::HUP);
    let metric = format!("tidings_reloads_total{{outcome=\"{outcome}\"}}");
    wait_until("it has reloaded", async || (server.metric(&metric).await - f64::from(n)).abs() < 0.5).await;
}

async fn publish(server: &Server) -> Result<Value, String> {
    let message = json!({ "channel": "weather-here", "event": "custom:rain", "data": {} });
    server.http.post("/api/v1/events", &message).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn channels_suites_stress_hosts_and_the_log_level_change_while_it_runs() {
    let site = site();
    let server = site.start();
    assert!(publish(&server).await.unwrap_err().contains("unknown_channel"));
    let stress = json!({ "testType": "stress", "config": { "url": "http://example.org/", "durationMs": 1 } });
    let refused = server.http.post::<_, Value>("/api/v1/jobs", &stress).await.expect_err("not allowed");
    assert!(refused.to_string().contains("stress.allow"), "{refused}");

    site.write("channels.toml", &format!("{CHANNELS}{MORE}"));
    let suite = "[suites.late]\ncommand = [\"true\"]\n[stress]\nallow = [\"example.org\"]\n";
    site.write("tidings.toml", &settings(&format!("[log]\nlevel = \"warn\"\n{suite}")));
    reload(&server, "applied", 1).await;

    assert_eq!(publish(&server).await.expect("the channel exists now")["offset"], 1);
    let job = server.submit_suite("late", "late").await;
    server.wait_for_job(&job, "completed").await;
    // Far in the future: nobody is to be put under load.
    let later = json!({ "testType": "stress", "delayMs": 3_600_000,
        "config": { "url": "http://example.org/", "durationMs": 1 } });
    assert_eq!(server.post("/api/v1/jobs", &later).await["state"], "scheduled");
    assert!(!server.log().contains("the configuration was reloaded"), "it is below the new level");
    assert!(server.log().contains("INFO") || server.log().contains("info"), "it was not before");
    server.terminate();
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_every_mistake_is_told_with_its_place() {
    let site = site();
    site.write("channels.toml", &format!("{CHANNELS}{MORE}"));
    let server = site.start();
    publish(&server).await.expect("the channel exists");

    site.write("channels.toml", &format!("{CHANNELS}\n[channel.weather]\npattern = 1\n"));
    site.write("tidings.toml", &settings("[queue]\nlease = \"soon\"\n[suites.x]\ncommand = []\n"));
    reload(&server, "refused", 1).await;
    let line = CHANNELS.lines().count() + 3;
    for told in ["tidings.toml:3:9", "queue.lease", "suites.x", &format!("channels.toml:{line}:")] {
        wait_until(told, async || server.log().contains(told)).await;
    }
    wait_until("it says what holds", async || server.log().contains("what held before holds on")).await;

    // A file that is there and cannot be used at all is as wrong.
    std::fs::remove_file(site.path("tidings.toml")).expect("removed");
    reload(&server, "refused", 2).await;
    // What only a part of the program can judge.
    site.write("channels.toml", CHANNELS);
    site.write("tidings.toml", &settings("[stress]\nallow = [\"a b\"]\n"));
    reload(&server, "refused", 3).await;
    wait_until("the part says why", async || server.log().contains("stress.allow: `a b` is none of")).await;
    publish(&server).await.expect("the channel exists still");
    server.terminate();
}

#[tokio::test]
async fn what_takes_a_restart_is_named() {
    let site = site();
    let server = site.start();
    site.write("tidings.toml", &settings("data_dir = \"elsewhere\"\n[heartbeat]\ninterval = \"20s\"\n"));
    reload(&server, "applied", 1).await;
    wait_until("it says so", async || server.log().contains("`heartbeat` was changed")).await;
    // The flag beats the file, so nothing changed there.
    assert!(!server.log().contains("`data_dir` was changed"), "{}", server.log());
    server.terminate();
}
