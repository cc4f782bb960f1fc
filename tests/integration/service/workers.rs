//! Servers that run no jobs and workers that do nothing else, as processes, with one Redis between them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{DEADLINE, Server, Site, pids, runs, tidings, wait_until};
use crate::support::redis::{RedisServer, free_port};

/// What each job may run; `DIR` is the directory of the site.
const SUITES: &str = r#"
log.level = "info"
[shutdown]
attempts = "300ms"
[queue]
lease = "LEASE"
backoff_base = "10ms"
[suites.quick]
command = ["true"]
[suites.slow]
command = ["sh", "-c", "echo $$ >> DIR/pids; sleep 3"]
[suites.endless]
command = ["sh", "-c", "echo $$ >> DIR/pids; sleep 600"]
[suites.first-hangs]
command = ["sh", "-c", "echo $$ >> DIR/pids; test $TIDINGS_ATTEMPT -gt 1 || sleep 600"]
"#;

/// Servers, workers and their Redis.
struct Fleet {
    redis: RedisServer,
    site: Site,
}

impl Fleet {
    fn new() -> Self {
        Self::with_lease("2s")
    }

    fn with_lease(lease: &str) -> Self {
        // Else up to two seconds may be lost where the disk is slow and Redis is killed.
        let redis = RedisServer::start_with(&["--appendfsync", "always"]);
        let site = Site::new("");
        let suites = SUITES.replace("DIR", site.dir.path().to_str().expect("a path is text"));
        site.write("tidings.toml", &suites.replace("LEASE", lease));
        Self { redis, site }
    }

    /// A server that runs no jobs.
    fn server(&self, name: &str) -> Server {
        let mut command = tidings(&["serve", "--no-worker", "--listen", "127.0.0.1:0", "--redis"]);
        command.arg(self.redis.url()).arg("--config").arg(self.site.path("tidings.toml"));
        command.arg("--data-dir").arg(self.site.path(name));
        Server::spawn(&mut command)
    }

    fn worker(&self, name: &str) -> Worker {
        Worker::start(&self.site, name, &self.redis.url())
    }

    /// The processes of suites that began.
    fn suites(&self) -> Vec<i32> {
        pids(&self.site.path("pids"))
    }
}

/// A worker process; killed when it is dropped.
struct Worker {
    child: Child,
    id: String,
    log: std::path::PathBuf,
}

impl Worker {
    fn start(site: &Site, name: &str, redis: &str) -> Self {
        let log = site.path(&format!("{name}.log"));
        let mut command = tidings(&["worker", "--concurrency", "2", "--redis", redis, "--config"]);
        command.arg(site.path("tidings.toml")).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&log).expect("a file is made"));
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (told, id) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(id) = line.strip_prefix("working as ") {
                    let _ = told.send(id.to_owned());
                }
            }
        });
        let Ok(id) = id.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the worker did not start:\n{}", read(&log));
        };
        Self { child, id, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    fn said(&self, text: &str) -> bool {
        read(&self.log).contains(text)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the channel of a test tells, beside progress and output: event and attempt.
async fn story(server: &Server, test: &str) -> Vec<(String, u64)> {
    let told = server.history(&format!("test-progress-{test}")).await;
    told.assert_unbroken();
    let of = |m: &Value| {
        (
            m["event"].as_str().expect("an event").to_owned(),
            m["data"]["attempt"].as_u64().expect("an attempt"),
        )
    };
    let story = told.messages.iter().map(of);
    story.filter(|(event, _)| !["test:progress", "test:log"].contains(&event.as_str())).collect()
}

/// Waits until the channel of a test tells this: a change is told of a moment after it was made.
async fn tells(server: &Server, test: &str, expected: &[(&str, u64)]) {
    let mut told = Vec::new();
    let expected: Vec<_> = expected.iter().map(|(event, n)| ((*event).to_owned(), *n)).collect();
    wait_until("all is told", async || {
        told = story(server, test).await;
        told.len() >= expected.len()
    })
    .await;
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_and_two_workers_are_one_service() {
    let fleet = Fleet::new();
    let servers = [fleet.server("a"), fleet.server("b")];
    let _workers = [fleet.worker("w"), fleet.worker("v")];
    let mut jobs = Vec::new();
    for n in 0..20 {
        let test = format!("t{n}");
        jobs.push((servers[n % 2].submit_suite("quick", &test).await, test));
    }
    let mut by = std::collections::HashSet::new();
    for (n, (job, test)) in jobs.iter().enumerate() {
        // Each through the server that it was not given to.
        let server = &servers[(n + 1) % 2];
        let done = server.wait_for_job(job, "completed").await;
        by.insert(done["workerId"].as_str().expect("a worker").to_owned());
        tells(server, test, &[("test:started", 1), ("test:completed", 1)]).await;
        let own = format!("job-status-{job}");
        wait_until("its end is told", async || server.history(&own).await.count("queue:job:completed") > 0)
            .await;
        let told = server.history(&own).await;
        told.assert_unbroken();
        assert_eq!(told.messages.last().expect("an end")["event"], "queue:job:completed");
        for event in ["queue:job:added", "queue:job:started", "queue:job:completed"] {
            assert_eq!(told.count(event), 1, "{event} of {job}");
        }
        let test = server.get(&format!("/api/v1/tests/{test}")).await;
        assert_eq!(test["state"], "completed", "{test}");
    }
    assert_eq!(by.len(), 2, "both work");
    let all = async || servers[0].history("queue-updates").await.count("queue:job:completed") == 20;
    wait_until("every end is told", all).await;
    let updates = servers[0].history("queue-updates").await;
    updates.assert_unbroken();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_killed_worker_is_run_by_another_or_fails_as_lost() {
    let fleet = Fleet::new();
    let server = fleet.server("a");
    let dying = fleet.worker("w");
    let again = server.submit_suite("first-hangs", "again").await;
    let last = json!({ "testType": "command", "testId": "last", "maxAttempts": 1, "config": { "suite": "endless" } });
    let last = server.post("/api/v1/jobs", &last).await["jobId"].as_str().expect("a job id").to_owned();
    wait_until("both run", async || fleet.suites().len() == 2).await;
    drop(dying);
    let living = fleet.worker("v");
    let done = server.wait_for_job(&again, "completed").await;
    assert_eq!((&done["attempt"], &done["workerId"]), (&2.into(), &living.id.as_str().into()));
    let lost = [("test:started", 1), ("test:failed", 1), ("test:started", 2), ("test:completed", 2)];
    tells(&server, "again", &lost).await;
    let failed = server.wait_for_job(&last, "failed").await;
    assert_eq!(failed["error"]["code"], "worker_lost");
    tells(&server, "last", &[("test:started", 1), ("test:failed", 1)]).await;
    // Its guard ended what it had started.
    wait_until("nothing is left running", async || !fleet.suites().into_iter().any(runs)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_paused_past_its_lease_and_goes_on_is_refused() {
    let fleet = Fleet::new();
    let server = fleet.server("a");
    let paused = fleet.worker("w");
    let job = server.submit_suite("first-hangs", "t").await;
    wait_until("it runs", async || fleet.suites().len() == 1).await;
    paused.signal(Signal::STOP);
    let other = fleet.worker("v");
    let done = server.wait_for_job(&job, "completed").await;
    assert_eq!((&done["attempt"], &done["workerId"]), (&2.into(), &other.id.as_str().into()));
    let life = [("test:started", 1), ("test:failed", 1), ("test:started", 2), ("test:completed", 2)];
    tells(&server, "t", &life).await;
    let before = server.history("test-progress-t").await;
    paused.signal(Signal::CONT);
    // It learns of it, stops what it ran, and is of use again.
    wait_until("its attempt is over", async || !runs(fleet.suites()[0])).await;
    drop(other);
    let next = server.submit_suite("quick", "next").await;
    assert_eq!(server.wait_for_job(&next, "completed").await["workerId"], paused.id.as_str());
    let after = server.history("test-progress-t").await;
    assert_eq!(after, before, "it told nothing more");
    assert_eq!(server.job(&job).await, done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_through_another_server_reaches_the_worker_at_once() {
    // Renewals come too late to be what it hears it by.
    let fleet = Fleet::with_lease("1h");
    let servers = [fleet.server("a"), fleet.server("b")];
    let _worker = fleet.worker("w");
    for round in 0..3 {
        let job = servers[0].submit_suite("endless", &format!("t{round}")).await;
        wait_until("it runs", async || fleet.suites().len() == round + 1).await;
        let asked = Instant::now();
        servers[1].post(&format!("/api/v1/jobs/{job}/cancel"), &json!({ "reason": "enough" })).await;
        wait_until("its process is gone", async || !runs(fleet.suites()[round])).await;
        println!("the process was gone {:?} after the wish", asked.elapsed());
        let done = servers[0].wait_for_job(&job, "cancelled").await;
        assert_eq!(done["attempt"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_gives_its_jobs_back() {
    let fleet = Fleet::new();
    let server = fleet.server("a");
    let mut stopping = fleet.worker("w");
    let job = json!({ "testType": "command", "testId": "t", "maxAttempts": 1, "config": { "suite": "first-hangs" } });
    let job = server.post("/api/v1/jobs", &job).await["jobId"].as_str().expect("a job id").to_owned();
    wait_until("it runs", async || fleet.suites().len() == 1).await;
    stopping.signal(Signal::TERM);
    let other = fleet.worker("v");
    let done = server.wait_for_job(&job, "completed").await;
    assert_eq!((&done["attempt"], &done["workerId"]), (&2.into(), &other.id.as_str().into()));
    let mut status = None;
    wait_until("it ends", async || {
        status = stopping.child.try_wait().expect("it can be asked");
        status.is_some()
    })
    .await;
    assert!(status.expect("it ended").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_be_killed_and_started_again_while_jobs_run() {
    // Longer than it is away.
    let mut fleet = Fleet::with_lease("20s");
    let server = fleet.server("a");
    let _worker = fleet.worker("w");
    let mut jobs = Vec::new();
    for test in ["one", "two", "three", "four"] {
        jobs.push((server.submit_suite("slow", test).await, test));
    }
    wait_until("two run", async || fleet.suites().len() == 2).await;
    fleet.redis.kill();
    // Until their ends cannot be written.
    wait_until("two have ended", async || !fleet.suites().into_iter().any(runs)).await;
    let refused = server
        .http
        .post::<_, Value>("/api/v1/jobs", &json!({ "testType": "command", "config": { "suite": "quick" } }))
        .await;
    let refused = refused.expect_err("there is no Redis").to_string();
    assert!(refused.contains("503"), "{refused}");
    fleet.redis.restart();
    let any = format!("/api/v1/jobs/{}", jobs[0].0);
    wait_until("the server is back", async || server.http.get::<Value>(&any).await.is_ok()).await;
    for (job, test) in &jobs {
        let done = server.wait_for_job(job, "completed").await;
        assert_eq!(done["attempt"], 1, "{test} was run once");
        tells(&server, test, &[("test:started", 1), ("test:completed", 1)]).await;
    }
    assert_eq!(fleet.suites().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_complained_of_and_worked_with() {
    let mut fleet = Fleet::new();
    let server = fleet.server("a");
    let worker = fleet.worker("w");
    server.submit_suite("endless", "gone").await;
    wait_until("it runs", async || fleet.suites().len() == 1).await;
    fleet.redis.kill();
    fleet.redis.restart_empty();
    let list = "/api/v1/jobs";
    wait_until("the server is back", async || server.http.get::<Value>(list).await.is_ok()).await;
    wait_until("it is said", async || worker.said("Redis has lost the queue")).await;
    wait_until("what nobody knows of is stopped", async || !runs(fleet.suites()[0])).await;
    let next = server.submit_suite("quick", "next").await;
    server.wait_for_job(&next, "completed").await;
    tells(&server, "next", &[("test:started", 1), ("test:completed", 1)]).await;
}

#[test]
fn a_worker_without_a_redis_says_what_it_needs() {
    let site = Site::new("");
    let config = site.path("tidings.toml");
    let end = |args: &[&str]| {
        let began = Instant::now();
        let output = tidings(args).arg("--config").arg(&config).output().expect("the program runs");
        assert!(began.elapsed() < Duration::from_secs(20), "it gives up");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = end(&["worker"]);
    assert!(code == Some(64) && said.contains("--redis URL"), "{code:?}: {said}");
    let (code, said) = end(&["worker", "--redis", "http://here"]);
    assert!(code == Some(64) && said.contains("`redis.url`"), "{code:?}: {said}");
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let (code, said) = end(&["worker", "--redis", &nobody]);
    assert!(code == Some(1) && said.contains("cannot be reached"), "{code:?}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_does_is_seen_at_its_own_metrics() {
    let fleet = Fleet::new();
    let server = fleet.server("s");
    let port = free_port();
    let config = std::fs::read_to_string(fleet.site.path("tidings.toml")).expect("read");
    fleet.site.write("tidings.toml", &format!("{config}\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    let worker = fleet.worker("w");
    for n in 0..2 {
        let job = server.submit_suite("quick", &format!("seen-{n}")).await;
        let done = server.wait_for_job(&job, "completed").await;
        assert_eq!(done["workerId"], worker.id.as_str());
    }
    let ask = async |path: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("answered");
        answer
    };
    let value = |answer: &str, name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name} is missing in:\n{answer}"))
    };
    // The end of an attempt is counted after it was told.
    wait_until("both are counted", async || {
        value(&ask("/metrics").await, "tidings_job_attempts_total{outcome=\"passed\"}") == 2.0
    })
    .await;
    let metrics = ask("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK"), "{metrics}");
    assert_eq!(value(&metrics, "tidings_broker_up"), 1.0);
    assert_eq!(value(&metrics, "tidings_job_duration_seconds_count{outcome=\"passed\"}"), 2.0);
    assert!(value(&metrics, "process_resident_memory_bytes") > 1e6);
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 OK"));
    assert!(ask("/api/v1/jobs").await.starts_with("HTTP/1.1 404 Not Found"));
    // The server has done nothing of it.
    assert_eq!(server.metric("tidings_job_attempts_total{outcome=\"passed\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_changes_keeps_nobody_from_starting_and_limits_hold_once_it_does() {
    let fleet = Fleet::new();
    fleet.site.write(
        "tidings.toml",
        "log.level = \"info\"\n[suites.quick]\ncommand = [\"true\"]\nconcurrency = 3\n",
    );
    let set = |name: &str, value: &str| assert_eq!(fleet.redis.cli(&["CONFIG", "SET", name, value]), "OK");
    let limit = || fleet.redis.cli(&["HGET", "tidings{q}:limits", "command/quick"]);
    set("min-replicas-to-write", "1");
    let worker = fleet.worker("w");
    assert!(worker.said("the limits of suites do not hold yet"), "{}", read(&worker.log));
    let server = fleet.server("a");
    assert_eq!(limit(), "");
    set("min-replicas-to-write", "0");
    wait_until("the limit holds", async || limit() == "3").await;
    drop((worker, server));
    // One without room takes limits.
    fleet.redis.cli(&["FLUSHALL"]);
    set("maxmemory", "1000000");
    let _server = fleet.server("a");
    assert_eq!(limit(), "3");
}
