//! Workers of one's own: `examples/worker.rs` as its readers run it, as a server and beside servers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use serde_json::{Value, json};

use super::{Server, Site, tidings, wait_until};
use crate::support::redis::RedisServer;

/// The example. Who runs all tests has it; cargo sees to the others.
fn example() -> Command {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", "worker"])
            .status();
        assert!(built.expect("cargo runs").success());
    });
    let bin = Path::new(env!("CARGO_BIN_EXE_tidings"));
    let mut command = Command::new(bin.with_file_name("examples").join("worker"));
    command.stdin(Stdio::null());
    command
}

async fn submit(server: &Server, test: &str, config: &Value) -> String {
    let job = json!({ "testType": "primes", "testId": test, "config": config });
    server.post("/api/v1/jobs", &job).await["jobId"].as_str().expect("a job").to_owned()
}

/// How many messages of an event the test's channel has.
async fn count(server: &Server, test: &str, event: &str) -> usize {
    server.history(&format!("test-progress-{test}")).await.count(event)
}

#[tokio::test]
async fn the_example_is_a_server_that_runs_its_own_tests() {
    let server = Server::spawn(&mut example());
    let job = submit(&server, "p", &json!({ "below": 100_000 })).await;
    server.wait_for_job(&job, "completed").await;
    let seen = server.get("/api/v1/tests/p").await;
    assert_eq!(
        (&seen["results"]["primes"], &seen["progress"], &seen["counts"]["total"]),
        (&json!(9592), &json!(100.0), &json!(100_000))
    );
    assert_eq!(seen["metrics"]["primes"], 9592, "{seen}");
    // A hundred thousand times it said how far it is; ten times a second that was told.
    let took = seen["endedAt"].as_i64().expect("a time") - seen["startedAt"].as_i64().expect("a time");
    let told = count(&server, "p", "test:progress").await;
    let most = usize::try_from(took / 100).expect("a time") + 3;
    assert!(told <= most, "{told} messages in {took} ms");
    assert_eq!(count(&server, "p", "test:log").await, 1);
    // Wrong input is the submitter's, and not tried again.
    let job = submit(&server, "wrong", &json!({})).await;
    let failed = server.wait_for_job(&job, "failed").await;
    assert_eq!((&failed["attempt"], &failed["error"]["code"]), (&json!(1), &json!("tests_failed")));
    // A cancelled one stops soon.
    let job = submit(&server, "long", &json!({ "below": 1_000_000_000 })).await;
    wait_until("it tells", async || server.get("/api/v1/tests/long").await["message"].is_string()).await;
    server.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await;
    server.wait_for_job(&job, "cancelled").await;
}

#[tokio::test]
async fn the_example_works_beside_servers_that_share_a_redis() {
    let redis = RedisServer::start();
    let site = Site::new("");
    let mut serve = tidings(&["serve", "--no-worker", "--listen", "127.0.0.1:0", "--redis"]);
    serve.arg(redis.url()).arg("--config").arg(site.path("tidings.toml"));
    let server = Server::spawn(&mut serve);
    let mut worker = example().arg(redis.url()).spawn().expect("the example starts");
    let job = submit(&server, "p", &json!({ "below": 10_000 })).await;
    let done = server.wait_for_job(&job, "completed").await;
    assert_eq!(done["testId"], "p");
    assert_eq!(server.get("/api/v1/tests/p").await["results"]["primes"], 1229);
    // It runs nothing else: what no handler is for waits, and says so.
    let other = server.post("/api/v1/jobs", &json!({ "testType": "nobody", "config": {} })).await;
    let waiting = server.job(other["jobId"].as_str().expect("a job")).await;
    assert!(waiting["waiting"].as_str().is_some_and(|why| why.contains("handled are: primes")), "{waiting}");
    let pid = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(worker.wait().expect("it ends").success());
}
