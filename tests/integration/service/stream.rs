//! Server-sent events: a channel as `curl -N` and a browser's `EventSource` follow it.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{DEADLINE, Server, Site, wait_until};

const CONFIG: &str = "[suites.four]\ncommand = [\"sh\", \"four.sh\"]\ncwd = \".\"\nformat = \"tap\"\n";
const FOUR: &str = "echo 1..4\nfor n in 1 2 3 4; do sleep 0.05; echo \"ok $n\"; done\n";

/// An event as it was read.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Event {
    /// Reads the lines of one block; none for a block without data.
    fn read(lines: &[String]) -> Option<Self> {
        let field = |name: &str| {
            let found: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(name)).collect();
            (!found.is_empty()).then(|| found.join("\n"))
        };
        let data = serde_json::from_str(&field("data: ")?).expect("data is JSON");
        Some(Self { id: field("id: ").unwrap_or_default(), name: field("event: ").unwrap_or_default(), data })
    }

    fn offset(&self) -> u64 {
        assert_eq!(
            self.id,
            format!("{}:{}", self.data["epoch"].as_str().expect("an epoch"), self.data["offset"])
        );
        self.data["offset"].as_u64().expect("an offset")
    }
}

/// `curl -N`, whose output is read as it comes; where there is no curl, a socket of our own.
struct Curl {
    child: Option<Child>,
    lines: mpsc::Receiver<String>,
}

impl Curl {
    fn start(url: &str, last: Option<&str>) -> Self {
        let header = last.map(|id| format!("Last-Event-ID: {id}"));
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*"]);
        command.args(header.iter().flat_map(|header| ["-H", header])).arg(url);
        match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
            Ok(mut child) => {
                let lines = read_lines(child.stdout.take().expect("stdout is piped"));
                Self { child: Some(child), lines }
            }
            Err(error) => {
                println!("no curl ({error}): a socket instead");
                Self { child: None, lines: read_lines(ask_old(url, header.as_deref())) }
            }
        }
    }

    /// The next event; none when curl has ended.
    fn next(&self) -> Option<Event> {
        let mut block = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.is_empty() => {
                    if let Some(event) = Event::read(&std::mem::take(&mut block)) {
                        return Some(event);
                    }
                }
                Ok(line) => block.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("no event within {DEADLINE:?}; so far {block:?}")
                }
            }
        }
    }

    fn take(&self, n: usize) -> Vec<Event> {
        (0..n).map(|_| self.next().expect("the stream goes on")).collect()
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks in HTTP/1.0, whose bodies are not in chunks: after the head come the lines of the events.
fn ask_old(url: &str, header: Option<&str>) -> impl Read + Send + 'static {
    let (address, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut socket = std::net::TcpStream::connect(address).expect("connected");
    let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
    write!(socket, "GET /{path} HTTP/1.0\r\nhost: localhost\r\n{header}\r\n").expect("asked");
    socket
}

/// Hands out lines as they come, until nobody wants them or there are no more.
fn read_lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn publish(server: &Server, channel: &str, n: usize) {
    let message = |n| json!({ "channel": channel, "event": "custom:n", "data": { "n": n } });
    let messages: Vec<Value> = (1..=n).map(message).collect();
    server.post("/api/v1/events", &Value::from(messages)).await;
}

fn stream_of(server: &Server, channel: &str) -> String {
    format!("{}/api/v1/channels/{channel}/stream", server.url)
}

async fn subscriptions(server: &Server, n: f64) {
    wait_until(&format!("tidings_subscriptions is {n}"), async || {
        server.metric("tidings_subscriptions").await == n && server.metric("tidings_connections").await == n
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_follows_a_test_to_its_end_and_leaves_nothing_behind() {
    let site = Site::new(CONFIG);
    site.write("four.sh", FOUR);
    let server = site.start();
    let curl = Curl::start(&stream_of(&server, "test-progress-four"), None);
    subscriptions(&server, 1.0).await;
    server.submit_suite("four", "four").await;
    let mut events = Vec::new();
    while events.last().is_none_or(|last: &Event| last.name != "test:completed") {
        events.extend(curl.next());
    }
    assert_eq!(events[0].name, "test:started");
    for (last, event) in events.iter().enumerate() {
        let conflated = event.data["conflated"].as_u64().unwrap_or(0);
        assert_eq!(event.offset(), last as u64 + 1 + conflated, "{event:?}");
        assert_eq!(event.data["event"], event.name.as_str());
    }
    drop(curl);
    subscriptions(&server, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_continues_right_after_the_last_event_id() {
    let site = Site::new("");
    let server = site.start();
    publish(&server, "test-progress-t", 5).await;
    let url = stream_of(&server, "test-progress-t");
    let first = Curl::start(&format!("{url}?since=start"), None).take(5);
    assert_eq!(first.iter().map(Event::offset).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);

    let resumed = Curl::start(&format!("{url}?since=start"), Some(&first[2].id));
    let by_query = Curl::start(&format!("{url}?lastEventId={}", first[2].id), None);
    for stream in [&resumed, &by_query] {
        assert_eq!(stream.take(2), first[3..], "what was missed, as it was");
    }
    publish(&server, "test-progress-t", 3).await;
    for stream in [resumed, by_query] {
        assert_eq!(stream.take(3).iter().map(Event::offset).collect::<Vec<_>>(), [6, 7, 8], "then live");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_continue_begins_with_a_reset() {
    let site = Site::new("");
    let server = site.start();
    publish(&server, "test-progress-t", 5).await;
    let epoch = server.history("test-progress-t").await.epoch;
    for (last, reason) in [("gone:2".to_owned(), "epoch_changed"), (format!("{epoch}:9"), "ahead_of_top")] {
        let curl = Curl::start(&stream_of(&server, "test-progress-t"), Some(&last));
        let reset = curl.next().expect("an event");
        assert_eq!((reset.name.as_str(), &reset.data["reason"]), ("room:reset", &json!(reason)));
        assert_eq!(reset.id, format!("{epoch}:5"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_replayed_a_stream_begins_with_the_state_of_its_test() {
    let site = Site::new(CONFIG);
    site.write("four.sh", FOUR);
    let server = site.start();
    let job = server.submit_suite("four", "four").await;
    server.wait_for_job(&job, "completed").await;
    let top = server.history("test-progress-four").await.messages.len();
    let snapshot = Curl::start(&stream_of(&server, "test-progress-four"), None).next().expect("an event");
    assert_eq!((snapshot.name.as_str(), &snapshot.data["state"]), ("snapshot", &json!("completed")));
    assert_eq!(snapshot.offset(), top as u64);
    // A channel that has no state begins with its messages.
    let updates = Curl::start(&stream_of(&server, "test-updates"), None);
    subscriptions(&server, 1.0).await;
    server.submit_suite("four", "again").await;
    assert_eq!(updates.next().expect("an event").name, "test:started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_kept_alive_can_become_a_stream() {
    let site = Site::new("");
    let server = site.start();
    let mut socket =
        tokio::io::BufReader::new(TcpStream::connect(server.address()).await.expect("connected"));
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(ask("/healthz").as_bytes()).await.expect("asked");
    read_until(&mut socket, "\r\n\r\n").await;
    socket.read_exact(&mut [0; r#"{"status":"ok"}"#.len()]).await.expect("the body");
    socket.write_all(ask("/api/v1/channels/test-progress-t/stream").as_bytes()).await.expect("asked");
    let head = read_until(&mut socket, "\n\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && head.contains("retry: 2000\n"), "{head}");
    publish(&server, "test-progress-t", 1).await;
    let event = read_until(&mut socket, "\n\n\r\n").await;
    assert!(event.contains("event: custom:n\ndata: {"), "{event}");
    drop(socket);
    subscriptions(&server, 0.0).await;
}

async fn read_until(socket: &mut tokio::io::BufReader<TcpStream>, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(end.as_bytes()) {
            let last = end.as_bytes()[end.len() - 1];
            assert!(socket.read_until(last, &mut text).await.expect("read") > 0, "the connection ended");
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("in time");
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_does_not_wait_for_its_streams() {
    let site = Site::new("");
    let server = site.start();
    let curl = Curl::start(&stream_of(&server, "test-progress-t"), None);
    subscriptions(&server, 1.0).await;
    let told = Instant::now();
    server.terminate();
    assert_eq!(curl.next().expect("it says why").name, "system:maintenance:start");
    assert_eq!(curl.next(), None, "the stream ended");
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}
