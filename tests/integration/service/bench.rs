//! Every benchmark with tiny numbers: its account has to be right, whatever the times are.

mod peer;

use std::process::Output;

use serde_json::Value;

use super::{Site, tidings};
use peer::{Fault, Peer};

fn bench(args: &[&str]) -> Output {
    tidings(&["bench"]).args(args).output().expect("the benchmark runs")
}

/// The figures of a benchmark that went well.
fn figures(args: &[&str]) -> Value {
    let output = bench(&[args, &["--json"]].concat());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{args:?}: {told}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&told).unwrap_or_else(|e| panic!("{args:?}: {e}: {told}"))
}

/// Every message came to everybody, once, in order and with a position that was checked.
fn assert_exact(figures: &Value) {
    let n = |name: &str| figures[name].as_u64().unwrap_or_else(|| panic!("{name} is missing in {figures}"));
    assert_eq!(n("delivered"), n("expected"), "{figures}");
    assert_eq!(n("offsets_checked"), n("expected"), "{figures}");
    for name in ["lost", "duplicated", "misordered", "offset_faults", "foreign", "failed_clients"] {
        assert_eq!(n(name), 0, "{name} in {figures}");
    }
    assert_eq!(figures["faults"], serde_json::json!([]), "{figures}");
}

/// A measured cost: there is one, and it is one.
fn assert_cost(figures: &Value, name: &str) {
    assert!(figures[name].as_f64().is_some_and(|cost| cost >= 0.0), "{name} in {figures}");
}

#[test]
fn the_queue_benchmark_prints_its_figures() {
    let figures = figures(&["queue", "--jobs", "5"]);
    assert_eq!(figures["jobs"], 5);
    assert!(figures["p50"].as_u64().is_some_and(|us| us > 0), "{figures}");
}

#[test]
fn benchmarks_bring_their_token_to_a_server_that_wants_one() {
    let secret = "the secret of the benchmarks, which is long enough";
    let site =
        Site::new(&format!("[auth]\nhs256_secret = \"{secret}\"\n[limits]\nconnections_per_user = 0\n"));
    let server = site.start();
    let mint = site_token(&site);
    for args in [
        &["queue", "--jobs", "2"][..],
        &["urgent", "--rounds", "1", "--low", "20", "--payload", "50"],
        &["storm", "--clients", "5"],
    ] {
        let run = |token: Option<&str>| {
            let mut command = tidings(&["bench"]);
            command.args(args).args(["--server", &server.url, "--json"]);
            command.envs(token.map(|token| ("TIDINGS_TOKEN", token)));
            command.output().expect("the benchmark runs")
        };
        let done = run(Some(&mint));
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(!run(None).status.success(), "{args:?} without a token");
    }
}

/// A token for everything, of the secret of the site.
fn site_token(site: &Site) -> String {
    let mut command = tidings(&["token", "--role", "admin"]);
    let minted = command.arg("--config").arg(site.path("tidings.toml")).output().expect("it ran");
    assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
    String::from_utf8(minted.stdout).expect("text").trim().to_owned()
}

#[test]
fn jobs_that_do_nothing_are_counted() {
    let figures = figures(&["jobs", "--jobs", "50", "--concurrency", "4", "--submitters", "3"]);
    assert_eq!(figures["jobs"], 50, "{figures}");
    assert!(figures["jobs_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{figures}");
    assert_cost(&figures, "cpu_us_per_job");
}

#[test]
fn a_critical_message_is_timed_with_and_without_low_ones_before_it() {
    let figures = figures(&["urgent", "--rounds", "2", "--low", "700", "--payload", "50"]);
    assert_eq!(figures["delivered"], 2 * 702, "{figures}");
    let n = |name: &str| figures[name].as_u64().unwrap_or_else(|| panic!("{name} is missing in {figures}"));
    assert_eq!(n("before") + n("overtaken"), 2 * 700, "{figures}");
    for name in ["idle_us", "behind_us"] {
        assert!(figures[name]["p50"].as_u64().is_some_and(|us| us > 0), "{figures}");
    }
}

#[test]
fn a_storm_lets_every_client_join() {
    let figures = figures(&["storm", "--clients", "40", "--rooms", "3", "--hold", "0s", "--threads", "2"]);
    assert_eq!(figures["benchmark"], "storm");
    assert_eq!((&figures["joined"], &figures["failed_clients"]), (&40.into(), &0.into()), "{figures}");
    assert!(figures["latency_us"]["p99"].as_u64().is_some_and(|us| us > 0), "{figures}");
    assert!(figures["server_rss_kb"]["after"].as_u64().is_some_and(|kb| kb > 0), "{figures}");
}

#[test]
fn flat_out_every_subscriber_gets_every_message() {
    let args =
        ["throughput", "--subscribers", "20", "--rooms", "3", "--duration", "500ms", "--warmup", "100ms"];
    for more in [&[][..], &["--batch", "--threads", "2"], &["--priority", "high", "--payload", "500"]] {
        let figures = figures(&[&args, more].concat());
        assert_exact(&figures);
        assert!(figures["published"].as_u64().is_some_and(|n| n > 0), "{figures}");
        for name in ["server_cpu_us_per_delivery", "generator_cpu_us_per_delivery", "bytes_per_delivery"] {
            assert_cost(&figures, name);
        }
    }
}

#[test]
fn at_a_rate_so_many_messages_are_published() {
    let short = ["throughput", "--subscribers", "5", "--duration", "1s", "--warmup", "0s"];
    for (rate, together) in [(50, 1), (1_000, 5)] {
        let figures = figures(&[&short[..], &["--rate", &rate.to_string()]].concat());
        assert_exact(&figures);
        // A machine that is too slow publishes less, but never more, and groups leave as a whole.
        let published = figures["expected"].as_u64().expect("a number") / 5;
        assert!((1..=rate).contains(&published) && published.is_multiple_of(together), "{figures}");
    }
}

#[test]
fn publishing_alone_is_measured_without_subscribers() {
    let figures = figures(&["throughput", "--subscribers", "0", "--rooms", "4", "--duration", "300ms"]);
    assert_exact(&figures);
    assert_eq!(figures["expected"], 0);
    assert!(figures["publish_us"]["p99"].as_u64().is_some_and(|us| us > 0), "{figures}");
    assert_cost(&figures, "server_cpu_us_per_publish");
}

#[test]
fn a_sustained_load_is_told_interval_by_interval() {
    let args = ["sustained", "--clients", "5", "--rate", "300", "--duration", "800ms", "--interval", "100ms"];
    let figures = figures(&args);
    assert_exact(&figures);
    assert_eq!(figures["intervals"].as_array().map(Vec::len), Some(8), "{figures}");
    assert!(figures["memory_flat"].is_boolean(), "{figures}");
}

#[test]
fn after_a_recovery_nobody_lacks_anything() {
    for more in [&[][..], &["--batch"]] {
        let figures =
            figures(&[&["recovery", "--clients", "5,20", "--rooms", "2", "--missed", "60"], more].concat());
        let runs = figures["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), 2);
        for (run, clients) in runs.iter().zip([5, 20]) {
            assert_exact(run);
            assert_eq!(run["replayed"], clients * 60, "{run}");
            assert_eq!(run["expected"], clients * 70, "{run}");
        }
    }
}

#[test]
fn a_server_that_runs_already_is_measured_and_left_running() {
    let site = Site::new("[log]\nlevel = \"error\"\n");
    let server = site.start();
    let pid = server.child.id().to_string();
    let figures = figures(&[
        "throughput",
        "--server",
        &server.url,
        "--pid",
        &pid,
        "--subscribers",
        "3",
        "--duration",
        "200ms",
    ]);
    assert_exact(&figures);
    assert_eq!(figures["server"], server.url.as_str());
    assert_eq!(figures["server_pid"].to_string(), pid);
    assert!(super::runs(server.child.id() as i32));
}

/// A benchmark of a server that does one thing wrong: it fails, and says how often what was wrong.
#[test]
fn what_a_server_does_wrong_is_found() {
    for (fault, counted) in [
        (Fault::Lose, "lost"),
        (Fault::Double, "duplicated"),
        (Fault::Swap, "misordered"),
        (Fault::Stray, "foreign"),
    ] {
        let peer = Peer::start(Some(fault));
        let output = bench(&[
            "throughput",
            "--server",
            &peer.url,
            "--subscribers",
            "4",
            "--rooms",
            "2",
            "--rate",
            "150",
            "--duration",
            "1s",
            "--warmup",
            "0s",
            "--json",
        ]);
        assert_eq!(output.status.code(), Some(1), "{fault:?}");
        let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for name in ["lost", "duplicated", "misordered", "foreign"] {
            assert_eq!(figures[name], u64::from(name == counted), "{name} with {fault:?} in {figures}");
        }
        assert_eq!(figures["offsets_checked"], 0, "the peer gives no positions");
    }
}

#[test]
fn a_client_that_loses_its_connection_is_not_forgotten() {
    let peer = Peer::start(Some(Fault::HangUp));
    let args = ["--subscribers", "2", "--rate", "150", "--duration", "1s", "--warmup", "0s", "--json"];
    let output = bench(&[&["throughput", "--server", &peer.url], &args[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(figures["failed_clients"], 1, "{figures}");
    let n = |name: &str| figures[name].as_u64().expect("a number");
    assert!(n("lost") > 0 && n("delivered") + n("lost") == n("expected"), "{figures}");
    assert!(figures["faults"][0].as_str().is_some_and(|fault| fault.contains("1 client")), "{figures}");
}

#[test]
fn a_peer_that_speaks_the_small_contract_is_measured() {
    let peer = Peer::start(None);
    let args =
        ["throughput", "--server", &peer.url, "--subscribers", "6", "--rooms", "2", "--duration", "300ms"];
    for more in [&[][..], &["--rate", "100"]] {
        let figures = figures(&[&args, more].concat());
        assert_eq!((&figures["delivered"], &figures["lost"]), (&figures["expected"], &0.into()), "{figures}");
        assert!(figures["deliveries_per_second"].as_f64().is_some_and(|n| n > 0.0), "{figures}");
        // Its cost cannot be seen, which is not the same as nothing.
        assert!(figures["server_cpu_us_per_delivery"].is_null() && figures["server_rss_kb"].is_null());
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let refused = |args: &[&str], code: i32, reason: &str| {
        let output = bench(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(reason), "{args:?}: {error}");
    };
    let peer = Peer::start(Some(Fault::Refuse));
    refused(&["throughput", "--server", &peer.url, "--subscribers", "3"], 1, "no such room");
    refused(&["recovery", "--server", &Peer::start(None).url, "--clients", "2"], 1, "gives no positions");
    refused(&["throughput", "--server", "https://localhost"], 1, "TLS");
    refused(&["throughput", "--server", "http://127.0.0.1:9", "--subscribers", "2"], 1, "refused");
    refused(&["storm", "--clients", "100000000"], 1, "open files");
    refused(&["storm", "--pid", "999999999"], 1, "no process 999999999");
    refused(&["throughput", "--rate", "0"], 2, "messages per second");
    refused(&["throughput", "--rooms", "0"], 2, "from 1");
    refused(&["throughput", "--priority", "urgent"], 2, "low, normal, high or critical");
    refused(&["sustained", "--duration", "0s"], 2, "some time");
}
