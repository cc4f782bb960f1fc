//! Hard times, with the real server: whoever dies, each test ends once, and the counts are those of its command.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::super::{Server, Site, wait_until};
use super::{family, gone, run, run_script, text};

/// The shortest lease.
const LEASE: &str = "5s";

/// Prints a test every twentieth of a second.
fn slow_tap(tests: u32) -> String {
    format!(
        "echo 1..{tests}; i=1; while [ $i -le {tests} ]; do echo ok $i - case $i; i=$((i+1)); sleep 0.05; done"
    )
}

fn pid(child: &tokio::process::Child) -> Pid {
    i32::try_from(child.id().expect("it runs")).ok().and_then(Pid::from_raw).expect("a pid")
}

async fn snapshot(server: &Server, test: &str) -> Value {
    server.http.get(&format!("/api/v1/tests/{test}")).await.unwrap_or(Value::Null)
}

async fn wait_for_state(server: &Server, test: &str, state: &str) -> Value {
    let mut found = Value::Null;
    wait_until(&format!("{test} is {state}"), async || {
        found = snapshot(server, test).await;
        found["state"] == state
    })
    .await;
    found
}

/// How many messages of a test's channel say that it ended for good.
async fn ends(server: &Server, test: &str) -> usize {
    let history = server.history(&format!("test-progress-{test}")).await;
    history.assert_unbroken();
    let is_end = |m: &&Value| match m["event"].as_str() {
        Some("test:completed" | "test:cancelled") => true,
        Some("test:failed") => m["data"]["willRetry"] == false,
        _ => false,
    };
    history.messages.iter().filter(is_end).count()
}

#[tokio::test]
async fn what_is_run_is_seen_by_everybody() {
    let (site, began) = (Site::new(""), Instant::now());
    let server = site.start();
    let script = "echo 1..3; echo ok 1 - a; echo not ok 2 - b; echo '# why'; echo ok 3 - c; exit 1";
    let out = run_script(&server.url, &["--test-id", "t", "--name", "nightly"], script).await;
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(1), ""));
    let seen = snapshot(&server, "t").await;
    assert_eq!(
        (&seen["state"], &seen["attempt"], &seen["error"]["code"]),
        (&json!("failed"), &json!(1), &json!("tests_failed"))
    );
    assert_eq!(seen["counts"], json!({ "passed": 2, "failed": 1, "skipped": 0, "total": 3 }));
    assert_eq!(seen["failures"], json!([{ "name": "b", "message": "why", "output": "why" }]));
    assert_eq!(seen["results"]["exitCode"], 1);
    let history = server.history("test-progress-t").await;
    let lines: Vec<_> = history.messages.iter().filter(|m| m["event"] == "test:log").collect();
    assert_eq!(lines[0]["data"]["lines"][0], "1..3");
    assert_eq!((history.count("test:started"), ends(&server, "t").await), (1, 1));
    assert!(began.elapsed() < super::super::DEADLINE);
}

/// Their output, 100 KiB, is more than a pipe holds, and less than two do: the command ends before anybody has read all.
const CASES: usize = 7000;

/// A run whose command has ended, and whose output nobody has read yet.
async fn unread(site: &Site, server: &Server) -> tokio::process::Child {
    let file = site.path("pids");
    let script =
        format!("echo $$ > {}; echo 1..{CASES}; exec seq -f 'ok %.0f - case' {CASES}", file.display());
    let child = run(&server.url, &["--test-id", "t", "--format", "tap"], &["sh", "-c", &script]).spawn();
    let child = child.expect("it starts");
    let pids = family(&file, 1).await;
    gone(&pids).await;
    child
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_and_the_counts_agree() {
    let site = Site::new("");
    let server = site.start();
    let mut child = unread(&site, &server).await;
    // Not a wait for a condition: what is waited out is the patience with those who hold a pipe.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(child.try_wait().expect("its state"), None, "it waits for whoever reads");
    let out = child.wait_with_output().await.expect("it ends");
    let expected: String = (1..=CASES).map(|n| format!("ok {n} - case\n")).collect();
    assert!(text(&out.stdout) == format!("1..{CASES}\n{expected}"), "{} bytes", out.stdout.len());
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let seen = wait_for_state(&server, "t", "completed").await;
    assert_eq!(seen["counts"], json!({ "passed": CASES, "failed": 0, "skipped": 0, "total": CASES }));
}

#[tokio::test]
async fn who_is_in_a_hurry_does_not_wait_for_a_reader() {
    let site = Site::new("");
    let server = site.start();
    let mut child = unread(&site, &server).await;
    // The first one may still have been meant for the command.
    wait_until("it ends", async || {
        let ended = child.try_wait().expect("its state");
        if ended.is_none() {
            kill_process(pid(&child), Signal::TERM).expect("asked");
        }
        ended.is_some()
    })
    .await;
    // How it ended depends on what was read of its tests.
    wait_until("its end is told", async || snapshot(&server, "t").await["state"] != "running").await;
}

#[tokio::test]
async fn one_that_hangs_is_cancelled_from_elsewhere() {
    let site = Site::new("");
    let server = site.start();
    let file = site.path("pids");
    let script =
        format!("echo 1..2; echo ok 1; (sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait)", file.display());
    let child = run(&server.url, &["--test-id", "t"], &["sh", "-c", &script]).spawn().expect("it starts");
    let pids = family(&file, 2).await;
    let seen = wait_for_state(&server, "t", "running").await;
    let job = seen["jobId"].as_str().expect("a job");
    server.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({ "reason": "takes too long" })).await;
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!(out.status.code(), Some(128 + 15), "{}", text(&out.stderr));
    gone(&pids).await;
    wait_for_state(&server, "t", "cancelled").await;
    assert_eq!(ends(&server, "t").await, 1);
}

#[tokio::test]
async fn rubbish_and_a_flood_pass_in_bounded_memory() {
    let site = Site::new("");
    let server = site.start();
    let mib = if std::env::var_os("TIDINGS_TEST_LONG").is_some() { 100 } else { 24 };
    // Bytes that are no text, a line without an end, and the same lines again and again.
    let script = format!(
        "head -c 1048576 /dev/urandom; head -c 4194304 /dev/zero | tr '\\0' x; echo; yes 'a line of a flood that is as long as others' | \
         head -c {}; echo; echo 1..1; echo ok 1 - survived",
        mib << 20
    );
    let mut child = run(&server.url, &["--test-id", "t", "--format", "tap"], &["sh", "-c", &script]);
    let mut child = child.stdout(Stdio::piped()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id().expect("it runs"));
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut read, mut peak_kib, mut buffer) = (0, 0, vec![0; 1 << 16]);
    loop {
        let n = tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer).await.expect("read");
        if n == 0 {
            break;
        }
        read += n;
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak_kib = peak_kib.max(line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0));
    }
    assert!(child.wait().await.expect("it ends").success());
    assert_eq!(read, (1 << 20) + (4 << 20) + 1 + (mib << 20) + 1 + "1..1\nok 1 - survived\n".len());
    eprintln!("{} MiB passed, peak {peak_kib} KiB", read >> 20);
    assert!(peak_kib < 100 * 1024, "{peak_kib} KiB");
    let seen = wait_for_state(&server, "t", "completed").await;
    assert_eq!(seen["counts"]["passed"], 1);
    assert!(seen["results"]["logLeftOut"]["bytes"].as_u64().expect("bytes") > 1 << 20, "{}", seen["results"]);
}

#[tokio::test]
async fn a_frozen_server_slows_nothing_and_is_told_when_it_is_back() {
    let site = Site::new("");
    let server = site.start();
    let file = site.path("done");
    let script = format!("{}; touch {}", slow_tap(20), file.display());
    let mut run = run(&server.url, &["--test-id", "t"], &["sh", "-c", &script]);
    let output = tokio::spawn(async move { run.output().await.expect("it runs") });
    wait_for_state(&server, "t", "running").await;
    server.signal(Signal::STOP);
    wait_until("the command has ended", async || file.exists()).await;
    server.signal(Signal::CONT);
    let out = output.await.expect("it ends");
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let seen = snapshot(&server, "t").await;
    assert_eq!(
        (&seen["state"], &seen["counts"]["passed"], &seen["attempt"]),
        (&json!("completed"), &json!(20), &json!(1))
    );
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_hears_everything() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let site = Site::new("");
    let mut server = site.start();
    let address = server.address().to_owned();
    let url = server.url.clone();
    let mut run = run(&url, &["--test-id", "t"], &["sh", "-c", &slow_tap(50)]);
    let output = tokio::spawn(async move { run.output().await.expect("it runs") });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(rng.u64(50..600))).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(rng.u64(0..300))).await;
        server = site.start_with(&address, &[]);
    }
    let out = output.await.expect("it ends");
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""), "seed {seed}");
    let seen = snapshot(&server, "t").await;
    assert_eq!(seen["state"], "completed", "seed {seed}");
    assert_eq!(
        seen["counts"],
        json!({ "passed": 50, "failed": 0, "skipped": 0, "total": 50 }),
        "seed {seed}"
    );
    assert_eq!(ends(&server, "t").await, 1, "seed {seed}");
    // Every line of output once, in order, whatever had to be sent again.
    let history = server.history("test-progress-t").await;
    let logs = history.messages.iter().filter(|m| m["event"] == "test:log");
    let lines: Vec<&str> =
        logs.flat_map(|m| m["data"]["lines"].as_array().expect("lines")).filter_map(Value::as_str).collect();
    let printed: Vec<String> = text(&out.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines, printed, "seed {seed}");
}

/// Takes 6 s: the shortest lease is 5 s.
#[tokio::test]
async fn a_killed_run_is_lost_and_ends_its_command() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let site = Site::new("");
    let server = site.start();
    let mut tests = Vec::new();
    for i in 0..4 {
        let (test, file) = (format!("t{i}"), site.path(&format!("pids{i}")));
        let script = format!("echo $$ > {}; {}", file.display(), slow_tap(20));
        let args = ["--test-id", &test, "--lease", LEASE];
        let child =
            run(&server.url, &args, &["sh", "-c", &script]).stdout(Stdio::null()).spawn().expect("it starts");
        tests.push((test, file, child, rng.u64(0..1300)));
    }
    // Of some it is known by then, of others not; the last one has perhaps ended.
    let began = Instant::now();
    tests.sort_by_key(|(.., moment)| *moment);
    for (.., child, moment) in &mut tests {
        tokio::time::sleep_until((began + Duration::from_millis(*moment)).into()).await;
        let _ = child.kill().await;
    }
    for (test, file, ..) in &tests {
        gone(&super::super::pids(file)).await;
        let mut seen = Value::Null;
        wait_until(&format!("{test} has ended (seed {seed})"), async || {
            seen = snapshot(&server, test).await;
            // Killed before it could register, it never was.
            seen.is_null() || seen["state"] == "failed" || seen["state"] == "completed"
        })
        .await;
        if seen["state"] == "failed" {
            assert_eq!(seen["error"]["code"], "worker_lost", "seed {seed}: {seen}");
        }
        if !seen.is_null() {
            assert_eq!(ends(&server, test).await, 1, "seed {seed}: {test}");
        }
    }
}

/// Takes 6 s: the shortest lease is 5 s.
#[tokio::test]
async fn who_lost_the_lease_goes_on_as_the_next_attempt() {
    let site = Site::new("");
    let server = site.start();
    let go = site.path("go");
    let script = format!(
        "echo 1..2; echo ok 1 - before; until [ -e {} ]; do sleep 0.05; done; echo ok 2 - after",
        go.display()
    );
    let mut command = run(&server.url, &["--test-id", "t", "--lease", LEASE], &["sh", "-c", &script]);
    let child = command.spawn().expect("it starts");
    wait_until("the first case is known", async || snapshot(&server, "t").await["counts"]["passed"] == 1)
        .await;
    let job = snapshot(&server, "t").await["jobId"].clone();
    kill_process(pid(&child), Signal::STOP).expect("stopped");
    let lost = wait_for_state(&server, "t", "failed").await;
    assert_eq!(lost["error"]["code"], "worker_lost");
    kill_process(pid(&child), Signal::CONT).expect("it goes on");
    let again = wait_for_state(&server, "t", "running").await;
    assert_eq!((&again["attempt"], &again["jobId"]), (&json!(2), &job));
    wait_until("the whole state is told again", async || {
        snapshot(&server, "t").await["counts"]["passed"] == 1
    })
    .await;
    std::fs::write(&go, "").expect("written");
    let out = child.wait_with_output().await.expect("it ends");
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let seen = snapshot(&server, "t").await;
    assert_eq!(
        (&seen["state"], &seen["counts"]["passed"], &seen["attempt"]),
        (&json!("completed"), &json!(2), &json!(2))
    );
}
