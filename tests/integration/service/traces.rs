//! One trace from submit over attempt and publication to delivery, as a collector gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{DEADLINE, Server, Site, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector: takes OTLP over HTTP, and remembers the spans.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let taken = spans.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, taken.clone()));
            }
        });
        Self { endpoint, spans }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panicked").clone()
    }
}

async fn serve(mut socket: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut bytes).await.expect("read") == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        assert!(text.starts_with("post /v1/traces "), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        while bytes.len() < head + length {
            assert_ne!(socket.read_buf(&mut bytes).await.expect("read"), 0, "the body is cut short");
        }
        let request = ExportTraceServiceRequest::decode(&bytes[head..head + length]).expect("OTLP");
        let of = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        spans.lock().expect("nobody panicked").extend(of);
        bytes.drain(..head + length);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answered");
    }
}

/// Posts with a `traceparent`, as any instrumented caller does.
async fn post(server: &Server, path: &str, body: &Value) -> Value {
    let mut socket = TcpStream::connect(server.address()).await.expect("connected");
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head and a body").1).expect("JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn suite() -> String {
    "[suites.quick]\ncommand = [\"sh\", \"-c\", \"echo $TRACEPARENT; echo ok 1 - a; echo 1..1\"]\n".to_owned()
}

#[tokio::test]
async fn a_trace_goes_from_the_submission_to_the_delivery() {
    let collector = Collector::start().await;
    let site = Site::new(&format!("{}[traces]\nendpoint = \"{}\"\n", suite(), collector.endpoint));
    let server = site.start();
    let options = ConnectOptions { event_capacity: 10_000, ..ConnectOptions::default() };
    let mut watcher = SocketClient::connect(&server.url, options).await.expect("connected");
    watcher.join("test-progress-traced", Since::Now).await.expect("joined");
    let job = json!({ "testType": "command", "testId": "traced", "config": { "suite": "quick" } });
    let job = post(&server, "/api/v1/jobs", &job).await["jobId"].as_str().expect("a job").to_owned();
    server.wait_for_job(&job, "completed").await;
    let ended = |spans: &[Span]| spans.iter().any(|span| span.name == "deliver test:completed");
    wait_until("the last delivery is exported", async || ended(&collector.spans())).await;
    watcher.close().await;

    let spans = collector.spans();
    let by_id: HashMap<_, _> = spans.iter().map(|span| (hex(&span.span_id), span)).collect();
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    }
    let mut way = Vec::new();
    let mut at = spans.iter().find(|span| span.name == "deliver test:completed");
    let mut last = String::new();
    while let Some(span) = at {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{}", span.name);
        way.push(span.name.as_str());
        last = hex(&span.parent_span_id);
        at = by_id.get(&last).copied();
    }
    assert_eq!(
        way,
        ["deliver test:completed", "publish test:completed", "attempt command", "POST /api/v1/jobs"]
    );
    assert_eq!(last, CALLER);
    // Who reads the message learns its place, too.
    let history = server.history("test-progress-traced").await;
    let trace = format!("00-{TRACE}-");
    assert!(
        history.messages.iter().all(|m| m["traceparent"].as_str().is_some_and(|t| t.starts_with(&trace)))
    );
}

#[tokio::test]
async fn without_a_collector_a_trace_is_passed_on_all_the_same() {
    let site = Site::new(&suite());
    let server = site.start();
    let given = format!("00-{TRACE}-{CALLER}-01");
    let job = json!({ "testType": "command", "testId": "t", "config": { "suite": "quick" } });
    let job = post(&server, "/api/v1/jobs", &job).await["jobId"].as_str().expect("a job").to_owned();
    let ended = server.wait_for_job(&job, "completed").await;
    assert_eq!(ended["traceparent"], given.as_str());
    let history = server.history("test-progress-t").await;
    let log = history.messages.iter().find(|m| m["event"] == "test:log").expect("a log");
    let of_process = log["data"]["lines"][0].as_str().expect("a line");
    assert!(of_process.starts_with(&format!("00-{TRACE}-")), "{log}");

    let message = json!({ "event": "team:update", "channel": "team-updates-1", "data": {} });
    post(&server, "/api/v1/events", &message).await;
    let own =
        json!({ "event": "team:update", "channel": "team-updates-1", "data": {}, "traceparent": "mine" });
    post(&server, "/api/v1/events", &own).await;
    let messages = server.history("team-updates-1").await.messages;
    assert_eq!((&messages[0]["traceparent"], &messages[1]["traceparent"]), (&json!(given), &json!("mine")));
}

#[tokio::test]
async fn what_a_socket_publishes_has_a_trace_of_its_own_or_that_of_its_message() {
    let collector = Collector::start().await;
    let site = Site::new(&format!("[traces]\nendpoint = \"{}\"\n", collector.endpoint));
    let server = site.start();
    let mut socket = SocketClient::connect(&server.url, ConnectOptions::default()).await.expect("connected");
    socket.join("team-updates-1", Since::Now).await.expect("joined");
    let mut publish = async |more: Value| {
        let mut message = json!({ "event": "team:update", "channel": "team-updates-1", "data": {} });
        message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = socket.emit_with_ack("event:publish", &message, DEADLINE).await.expect("answered");
        serde_json::from_str::<Value>(answer.get()).expect("JSON")
    };
    publish(json!({})).await;
    publish(json!({ "traceparent": format!("00-{TRACE}-{CALLER}-01") })).await;
    publish(json!({ "traceparent": "mine" })).await;
    let refused = publish(json!({ "event": "test:started" })).await;
    assert_eq!(refused["error"]["code"], "unknown_event");
    let of = |name: &str| collector.spans().into_iter().filter(|s| s.name == name).collect::<Vec<Span>>();
    wait_until("they are exported", async || of("event:publish").len() == 3).await;
    let events = of("event:publish");
    // What comes before the membership is live is read from history, which is no delivery of its own.
    wait_until("a delivery stands below what was published", async || {
        publish(json!({})).await;
        let (events, deliveries) = (of("event:publish"), of("deliver team:update"));
        let is_below = |delivery: &Span, event: &Span| {
            delivery.trace_id == event.trace_id && delivery.parent_span_id == event.span_id
        };
        deliveries.iter().any(|delivery| events.iter().any(|event| is_below(delivery, event)))
    })
    .await;
    assert!(events[0].parent_span_id.iter().all(|byte| *byte == 0), "it begins here");
    assert_ne!(hex(&events[0].trace_id), TRACE);
    assert_eq!((hex(&events[1].trace_id).as_str(), hex(&events[1].parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!(events[2].status.as_ref().map(|status| status.message.as_str()), Some("unknown_event"));
    // Who reads the messages can go on with them.
    let messages = server.history("team-updates-1").await.messages;
    for (message, event) in messages.iter().zip(&events[..2]) {
        let place = format!("00-{}-{}-01", hex(&event.trace_id), hex(&event.span_id));
        assert_eq!(message["traceparent"], place.as_str());
    }
    assert_eq!(messages[2]["traceparent"], "mine", "a field that the server does not know");
}
