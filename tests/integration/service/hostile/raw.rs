//! Raw sockets: says exactly the bytes of a row, and takes note of what comes back.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Answer, Attack};

/// A connection that is kept open says no more after so long.
const QUIET: Duration = Duration::from_millis(500);
/// Answered behind everything that was asked before.
const PROBE: &str = "4299999[\"room:leave\",\"story-probe\"]";
const PROBE_ANSWER: &str = "4399999[";

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The statuses of the answers of HTTP.
    pub(super) statuses: Vec<u16>,
    /// What was said, without the answer to the probe and the server's pings.
    pub(super) text: String,
    /// Whether the connection, or the session that polls, has ended.
    pub(super) ended: bool,
    /// The code of a close frame.
    pub(super) close: Option<u16>,
}

/// A frame of a client with this first byte, whose mask changes nothing.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).expect("it fits").to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A whole text frame of a client.
pub(super) fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A request as most are: with a host, and the last one of its connection.
pub(super) fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}{length}\r\n{body}").into_bytes()
}

/// Where the server is, and how clients that mean well enter it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: String,
    connect: String,
}

impl Target {
    pub(super) fn new(address: &str, token: Option<&str>) -> Self {
        let auth = token.map(|token| serde_json::json!({ "token": token }).to_string());
        Self { address: address.to_owned(), connect: format!("40{}", auth.unwrap_or_default()) }
    }

    /// Does what the row says, and reads until `answer` has come or the time is over.
    pub(super) async fn run(&self, attack: &Attack, answer: Answer) -> Outcome {
        match attack {
            Attack::Raw(bytes) => self.exchange(bytes).await,
            Attack::Early(frames) => {
                let mut socket = self.websocket("", "").await;
                socket.say(frames, answer, &self.connect, "connection:established").await
            }
            Attack::Opened { query, headers, frames } => {
                let mut socket = self.websocket(query, headers).await;
                // Who was let in enters no second time.
                let is_in = matches!(answer, Answer::Says("connection:established"));
                let (probe, known) =
                    if is_in { (PROBE, PROBE_ANSWER) } else { (&*self.connect, "connection:established") };
                socket.say(frames, answer, probe, known).await
            }
            Attack::Frames(frames) => {
                let mut socket = self.websocket("", "").await;
                socket.write(&text(&self.connect)).await;
                socket.read_until("connection:established").await;
                socket.say(frames, answer, PROBE, PROBE_ANSWER).await
            }
            Attack::Post(kind, body) => {
                let sid = self.polling().await;
                let mut outcome = self.post(&sid, kind, body).await;
                self.probe(&sid, &mut outcome).await;
                outcome
            }
            Attack::WithSid(make) => {
                let sid = self.polling().await;
                let mut outcome = self.exchange(&make(&sid)).await;
                self.probe(&sid, &mut outcome).await;
                outcome
            }
            Attack::Upgrade(frames) => {
                let sid = self.polling().await;
                let mut socket = self.websocket(&format!("&sid={sid}"), "").await;
                let mut outcome = socket.say(frames, answer, PROBE, PROBE_ANSWER).await;
                if outcome.ended {
                    outcome.ended = !self.is_alive(&sid).await;
                }
                outcome
            }
        }
    }

    /// Sends bytes and reads what is answered until nothing more comes.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> Outcome {
        let mut stream = TcpStream::connect(&self.address).await.expect("connected");
        // A server that has seen enough may end while it is still being written to.
        let _ = stream.write_all(bytes).await;
        let (mut seen, mut outcome) = (Vec::new(), Outcome::default());
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // A request that is not whole is answered late, if at all.
            let patience = if seen.is_empty() { super::ROW_TAKES } else { QUIET };
            match timeout(patience, stream.read(&mut buffer)).await {
                Ok(Ok(n)) if n > 0 => seen.extend_from_slice(&buffer[..n]),
                Ok(_) => {
                    outcome.ended = true;
                    break;
                }
                Err(_) => break,
            }
        }
        outcome.text = String::from_utf8_lossy(&seen).into_owned();
        let heads = outcome.text.split("HTTP/1.1 ").skip(1);
        outcome.statuses = heads.filter_map(|head| head.get(..3)?.parse().ok()).collect();
        outcome
    }

    /// A polling session that is connected, and from which nothing waits.
    async fn polling(&self) -> String {
        let open = self.exchange(&request("GET /socket.io/?EIO=4&transport=polling", "", "")).await;
        let sid = open.text.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let sid = sid.unwrap_or_else(|| panic!("no session: {open:?}")).to_owned();
        self.post(&sid, "text/plain", self.connect.as_bytes()).await;
        let mut seen = String::new();
        while !seen.contains("connection:established") {
            seen.push_str(&self.poll(&sid).await.text);
        }
        sid
    }

    async fn post(&self, sid: &str, kind: &str, body: &[u8]) -> Outcome {
        let mut bytes = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\
             content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.exchange(&bytes).await
    }

    async fn poll(&self, sid: &str) -> Outcome {
        self.exchange(&request(&format!("GET /socket.io/?EIO=4&transport=polling&sid={sid}"), "", "")).await
    }

    /// Whether the session still answers; what else it says is added.
    async fn probe(&self, sid: &str, outcome: &mut Outcome) {
        let posted = self.post(sid, "text/plain", PROBE.as_bytes()).await;
        outcome.ended = posted.statuses != [200];
        let give_up = Instant::now() + super::ROW_TAKES;
        while !outcome.ended && Instant::now() < give_up {
            let polled = self.poll(sid).await;
            outcome.ended = polled.statuses != [200];
            outcome.text.push_str(&polled.text);
            if polled.text.contains(PROBE_ANSWER) {
                break;
            }
            if polled.text.ends_with("\r\n\r\n2") {
                self.post(sid, "text/plain", b"3").await;
            }
        }
    }

    async fn is_alive(&self, sid: &str) -> bool {
        let mut outcome = Outcome::default();
        self.probe(sid, &mut outcome).await;
        !outcome.ended
    }

    /// A WebSocket that has been opened.
    async fn websocket(&self, query: &str, headers: &str) -> Socket {
        let mut stream = TcpStream::connect(&self.address).await.expect("connected");
        let upgrade = format!(
            "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.expect("asked");
        let mut socket = Socket { stream, unread: Vec::new() };
        socket.skip_head().await;
        if !query.contains("sid=") {
            socket.read_until("pingInterval").await;
        }
        socket
    }
}

/// A WebSocket, seen as the frames that come.
struct Socket {
    stream: TcpStream,
    unread: Vec<u8>,
}

enum Frame {
    Text(String),
    Close(Option<u16>),
    Other,
}

impl Socket {
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer).await {
            Ok(n) if n > 0 => {
                self.unread.extend_from_slice(&buffer[..n]);
                true
            }
            _ => false,
        }
    }

    async fn skip_head(&mut self) {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                assert!(
                    self.unread.starts_with(b"HTTP/1.1 101 "),
                    "{}",
                    String::from_utf8_lossy(&self.unread)
                );
                self.unread.drain(..end + 4);
                return;
            }
            assert!(self.more().await, "no upgrade: {}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// The next frame; `None` when the connection has ended.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((first, payload)) = self.take() {
                return Some(match first & 0x0f {
                    1 => Frame::Text(String::from_utf8_lossy(&payload).into_owned()),
                    8 => Frame::Close(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))),
                    _ => Frame::Other,
                });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        let (from, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().expect("two")))),
            127 => (
                10,
                usize::try_from(u64::from_be_bytes(self.unread.get(2..10)?.try_into().expect("eight")))
                    .expect("small"),
            ),
            short => (2, usize::from(short)),
        };
        let payload = self.unread.get(from..from + length)?.to_vec();
        self.unread.drain(..from + length);
        Some((first, payload))
    }

    async fn read_until(&mut self, part: &str) {
        loop {
            match self.next().await {
                Some(Frame::Text(text)) if text.contains(part) => return,
                Some(_) => {}
                None => panic!("the connection ended before {part}"),
            }
        }
    }

    /// Sends the frames and reads what they are answered with: what is to be said and then the answer to a probe, or
    /// the end of the connection.
    async fn say(&mut self, frames: &[u8], expected: Answer, probe: &str, answer: &str) -> Outcome {
        self.write(frames).await;
        let mut outcome = Outcome::default();
        let mut is_probed = false;
        loop {
            let is_due = match expected {
                Answer::Says(part) => outcome.text.contains(part),
                Answer::Silence => true,
                _ => false,
            };
            if is_due && !is_probed {
                is_probed = true;
                self.write(&text(probe)).await;
            }
            match timeout(super::ROW_TAKES, self.next()).await {
                Ok(Some(Frame::Text(text))) if is_probed && text.contains(answer) => return outcome,
                // A client that is alive says so, so that only the attack ends it.
                Ok(Some(Frame::Text(ping))) if ping == "2" => self.write(&text("3")).await,
                Ok(Some(Frame::Text(text))) => {
                    outcome.text.push_str(&text);
                    outcome.text.push('\n');
                }
                Ok(Some(Frame::Close(code))) => outcome.close = code,
                Ok(Some(Frame::Other)) => {}
                Ok(None) => {
                    outcome.ended = true;
                    return outcome;
                }
                Err(_) => return outcome,
            }
        }
    }
}
