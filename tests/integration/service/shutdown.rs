//! SIGTERM: a server goes away in order, and nobody loses anything by it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{DEADLINE, Site, tidings, wait_until};

const ROOM: &str = "team-updates-1";
const GOODBYE: &str = "system:maintenance:start";

/// Two suites: one that ends soon, and one that hangs in its first attempt.
const SUITES: &str = "[suites.short]\ncommand = [\"sleep\", \"1\"]\n\
    [suites.first-hangs]\ncommand = [\"sh\", \"-c\", \"test $TIDINGS_ATTEMPT -gt 1 || sleep 600\"]\n\
    [queue]\nbackoff_base = \"10ms\"\n";

async fn publish(http: &HttpClient, n: u64) {
    let message =
        json!({ "id": format!("m{n}"), "channel": ROOM, "event": "team:update", "data": { "n": n } });
    http.post::<_, Value>("/api/v1/events", &message).await.expect("published");
}

async fn joined(url: &str, auth: Value, since: Since) -> (SocketClient, Receiver) {
    let options = ConnectOptions { auth, ..ConnectOptions::default() };
    let mut socket = SocketClient::connect(url, options).await.expect("connected");
    let mut receiver = Receiver::new();
    let ack = socket.join(ROOM, since.clone()).await.expect("joined");
    receiver.joined(&since, &ack);
    (socket, receiver)
}

/// Reads to the end of the connection: the offsets, and whether the server said goodbye at last.
async fn read_to_the_end(socket: &mut SocketClient, receiver: &mut Receiver) -> (Vec<u64>, bool) {
    let (mut offsets, mut goodbye) = (Vec::new(), false);
    let reading = async {
        while let Some(Ok(event)) = socket.next().await {
            assert!(!goodbye, "{} after the goodbye", event.name);
            goodbye = event.name == GOODBYE;
            if goodbye {
                let notice: Value = serde_json::from_str(event.data.get()).expect("JSON");
                assert_eq!((&notice["priority"], &notice["data"]["level"]), (&4.into(), &"info".into()));
                assert!(notice.get("offset").is_none(), "it stands in no channel: {notice}");
                continue;
            }
            for received in receiver.receive(&event.name, &event.data).expect("well formed") {
                assert_eq!(received.verdict, Verdict::Deliver, "{}", received.message);
                offsets.push(received.envelope.offset);
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("the connection ends in time");
    (offsets, goodbye)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balancers_are_told_first_and_everybody_is_served_meanwhile() {
    let site = Site::new("[shutdown]\ndrain = \"2s\"\n");
    let mut server = site.start();
    let ready =
        async |status: &str| server.text("/readyz").await.contains(&format!("\"status\":\"{status}\""));
    assert!(ready("ok").await);
    let (mut before, mut receiver) = joined(&server.url, json!({}), Since::Now).await;
    server.signal(Signal::TERM);
    let told = Instant::now();
    wait_until("it says that it goes away", async || ready("draining").await).await;
    assert!(server.text("/healthz").await.contains("ok"), "it is alive");
    // New clients and publishers are as welcome as before.
    let (mut late, mut late_receiver) = joined(&server.url, json!({}), Since::Now).await;
    publish(&server.http, 1).await;
    for (socket, receiver) in [(&mut before, &mut receiver), (&mut late, &mut late_receiver)] {
        assert_eq!(read_to_the_end(socket, receiver).await, (vec![1], true));
    }
    assert!(told.elapsed() >= Duration::from_secs(2), "{:?}", told.elapsed());
    assert!(TcpStream::connect(server.address()).await.is_err(), "nobody is let in any more");
    let status = server.ended().await;
    assert!(status.success(), "{status}:\n{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_what_waits_for_them_and_their_places_are_kept() {
    let site = Site::new("[sync]\nsave_every = \"1h\"\n");
    // Batches, so that something waits at the moment of the signal.
    let server = site.start();
    let auth = |device: &str| json!({ "batch": true, "clientId": device });
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(joined(&server.url, auth(&format!("device-{n}")), Since::Now).await);
    }
    for n in 1..=50 {
        publish(&server.http, n).await;
    }
    let told = Instant::now();
    server.terminate();
    assert!(told.elapsed() < Duration::from_secs(4), "nobody asked /readyz: {:?}", told.elapsed());
    for (socket, receiver) in &mut clients {
        let (offsets, goodbye) = read_to_the_end(socket, receiver).await;
        assert_eq!((offsets, goodbye), ((1..=50).collect(), true));
    }
    // The server knows exactly how far each device was.
    let server = site.start();
    publish(&server.http, 51).await;
    for n in 0..clients.len() {
        let options = ConnectOptions { auth: auth(&format!("device-{n}")), ..ConnectOptions::default() };
        let mut socket = SocketClient::connect(&server.url, options).await.expect("connected");
        let ack = socket.join(ROOM, Since::Stored).await.expect("joined");
        assert_eq!((ack.recovered, ack.replayed), (true, 1), "device-{n}: {ack:?}");
    }
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_may_end_in_their_grace_and_the_others_are_handed_back() {
    let site = Site::new(&format!("{SUITES}[shutdown]\nattempts = \"3s\"\n"));
    let server = site.start();
    let short = server.submit_suite("short", "short").await;
    let hangs = json!({ "testType": "command", "testId": "hangs", "maxAttempts": 1, "config": { "suite": "first-hangs" } });
    let hangs = server.post("/api/v1/jobs", &hangs).await["jobId"].as_str().expect("a job id").to_owned();
    for job in [&short, &hangs] {
        server.wait_for_job(job, "running").await;
    }
    server.terminate();

    let server = site.start();
    let ended = server.job(&short).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&"completed".into(), &1.into()), "{ended}");
    let ended = server.wait_for_job(&hangs, "completed").await;
    assert_eq!(
        ended["attempt"], 2,
        "one attempt was all it had, and that one was not its own fault: {ended}"
    );
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let site = Site::new("[shutdown]\ndrain = \"20s\"\n");
    let mut server = site.start();
    server.text("/readyz").await;
    server.signal(Signal::TERM);
    wait_until("it goes away", async || server.text("/readyz").await.contains("draining")).await;
    let told = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_it_longer_than_its_deadline() {
    let site = Site::new("[shutdown]\ndeadline = \"1s\"\ndrain = \"0s\"\nattempts = \"0s\"\n");
    let mut server = site.start();
    // A request whose body never comes.
    let mut stuck = TcpStream::connect(server.address()).await.expect("connected");
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\nexpect: 100-continue\r\n\r\n";
    stuck.write_all(head.as_bytes()).await.expect("asked");
    // It is being worked on.
    let mut some = [0; 12];
    tokio::time::timeout(DEADLINE, stuck.read_exact(&mut some)).await.expect("in time").expect("an answer");
    assert_eq!(&some, b"HTTP/1.1 100");
    let told = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(1), "{}", server.log());
    assert!(told.elapsed() < Duration::from_millis(2500), "{:?}", told.elapsed());
    // Somebody else reads it.
    wait_until("it says why", async || server.log().contains("shutdown.deadline")).await;
}

#[test]
fn the_demo_ends_with_its_terminal_and_by_signals() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut child =
            tidings(&["demo"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The first line that is shown: the tests have begun.
        assert!(lines.next().is_some());
        kill_process(Pid::from_child(&child), signal).expect("signalled");
        std::thread::spawn(move || lines.for_each(drop));
        let told = Instant::now();
        let status = child.wait().expect("reaped");
        assert!(status.success(), "{signal:?}: {status}");
        assert!(told.elapsed() < Duration::from_secs(10), "{signal:?}: {:?}", told.elapsed());
    }
}

#[test]
fn a_grace_beyond_the_deadline_is_refused() {
    let site = Site::new("[shutdown]\ndrain = \"30s\"\n");
    let output = site.command(&["serve"]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("tidings.toml:2:9: `shutdown.drain`: 30s leave nothing"), "{said}");
}
