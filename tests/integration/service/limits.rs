//! Limits: each has its server, whose limit is small, and somebody who goes beyond it.

mod connections;
mod ends;
mod flood;
mod requests;
mod sessions;
mod users;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{DEADLINE, Server, Site};

/// An address of this machine that is not the one that the tests themselves ask from.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// What every server answers to.
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What begins a polling session.
const OPEN: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What begins a WebSocket.
const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\n\
    connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A server without a worker whose limits are these lines.
fn start(limits: &str) -> (Site, Server) {
    let site = Site::new(&format!("worker = false\n[log]\nlevel = \"error\"\n[limits]\n{limits}\n"));
    let server = site.start();
    (site, server)
}

/// A connection from `address`.
async fn connect(server: &Server, address: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((address, 0))).expect("an address of this machine");
    socket.connect(server.address().parse().expect("an address")).await.expect("connected")
}

/// An answer of HTTP.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    /// Asserts that it is a refusal of this kind, with the time after which to come again.
    fn assert_limited(&self, code: &str) {
        self.assert_problem(429, code);
        let after = self.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(after.is_some_and(|after| (1..=60).contains(&after)), "{self:?}");
    }

    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).expect("a problem is JSON");
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{self:?}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends `request` and reads one answer.
async fn ask(stream: &mut TcpStream, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("asked");
    answer(stream).await
}

/// Reads one answer.
async fn answer(stream: &mut TcpStream) -> Answer {
    let reading = async {
        let mut text = Vec::new();
        loop {
            let known = String::from_utf8_lossy(&text);
            if let Some((head, body)) = known.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                if body.len() >= length {
                    return Answer { head: head.to_ascii_lowercase(), body: body.to_owned() };
                }
            }
            let n = stream.read_buf(&mut text).await.expect("an answer");
            assert!(n > 0, "the connection ended after {:?}", String::from_utf8_lossy(&text));
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("an answer in time")
}

/// Waits for the server to end the connection: how long that took, and what it said.
async fn ended(stream: &mut TcpStream) -> (Duration, String) {
    let (took, said) = ended_with(stream).await;
    (took, String::from_utf8_lossy(&said).into_owned())
}

/// The same, with the bytes that it said.
async fn ended_with(stream: &mut TcpStream) -> (Duration, Vec<u8>) {
    let (began, mut said) = (Instant::now(), Vec::new());
    // A reset is an end, too.
    let reading = async { while stream.read_buf(&mut said).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(DEADLINE, reading).await.expect("the server ends it");
    (began.elapsed(), said)
}

/// Opens a polling session: its id.
async fn open(stream: &mut TcpStream) -> String {
    let opened = ask(stream, OPEN).await;
    assert_eq!(opened.status(), 200, "{opened:?}");
    let packet: Value = serde_json::from_str(&opened.body[1..]).expect("an open packet");
    packet["sid"].as_str().expect("a session id").to_owned()
}

/// How often something was refused for this reason.
async fn rejected(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("tidings_rejected_total{{reason=\"{reason}\"}}")).await
}

/// A WebSocket of Engine.IO from `address`, and what was read of it: the packet that opens it. `None` if it was refused.
async fn upgrade(server: &Server, address: Ipv4Addr) -> Option<(TcpStream, String)> {
    let mut stream = connect(server, address).await;
    stream.write_all(UPGRADE.as_bytes()).await.ok()?;
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains("maxPayload") {
            // A refusal may leave the connection open, for the next request.
            let refused = text.starts_with(b"HTTP/1.1 ") && !text.starts_with(b"HTTP/1.1 101");
            if (refused && text.windows(4).any(|end| end == b"\r\n\r\n"))
                || !stream.read_buf(&mut text).await.is_ok_and(|n| n > 0)
            {
                return false;
            }
        }
        true
    };
    let is_open = tokio::time::timeout(DEADLINE, reading).await;
    let is_open = is_open.unwrap_or_else(|_| panic!("only {:?} in time", String::from_utf8_lossy(&text)));
    is_open.then(|| (stream, String::from_utf8_lossy(&text).into_owned()))
}

/// A masked text frame of less than 126 bytes.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 126);
    // A mask of zeros is a mask.
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}
