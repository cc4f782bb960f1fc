//! The smallest server that the benchmarks can measure, which can be told to do one thing wrong, once.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// One message does not come.
    Lose,
    /// One message comes twice.
    Double,
    /// One message comes after the next.
    Swap,
    /// One message comes to a subscriber of another room, too.
    Stray,
    /// A connection ends.
    HangUp,
    /// Nobody may join.
    Refuse,
}

/// A running peer; ends when it is dropped.
pub(super) struct Peer {
    pub(super) url: String,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    subscribers: Vec<(String, UnboundedSender<String>)>,
    /// Messages of the room of the first subscriber, which is where the fault happens.
    seen: usize,
    /// What was held back.
    held: Option<String>,
}

/// The message that is treated wrongly; none of the first, so that there is something before it.
const VICTIM: usize = 5;
/// Not a packet: the connection ends.
const HANG_UP: &str = "hang up";

impl Peer {
    pub(super) fn start(fault: Option<Fault>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { fault, ..State::default() }));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
        Self { url, _runtime: runtime }
    }
}

impl State {
    fn publish(&mut self, message: &Value) {
        let room = message["channel"].as_str().expect("a channel");
        let packet = format!("42{}", json!([message["event"], message]));
        let is_victims = self.subscribers.first().is_some_and(|(victims, _)| victims == room);
        self.seen += usize::from(is_victims);
        for index in 0..self.subscribers.len() {
            if self.subscribers[index].0 == room {
                if index == 0 && self.seen == VICTIM {
                    self.treat_wrongly(&packet);
                } else {
                    self.send(index, packet.clone());
                }
            }
        }
        if is_victims
            && self.seen > VICTIM
            && let Some(held) = self.held.take()
        {
            self.send(0, held);
        }
    }

    fn treat_wrongly(&mut self, packet: &str) {
        match self.fault {
            Some(Fault::Lose) => {}
            Some(Fault::Swap) => self.held = Some(packet.to_owned()),
            Some(Fault::Double) => (0..2).for_each(|_| self.send(0, packet.to_owned())),
            Some(Fault::Stray) => {
                let other = self.subscribers.iter().position(|(room, _)| *room != self.subscribers[0].0);
                self.send(other.expect("a subscriber of another room"), packet.to_owned());
                self.send(0, packet.to_owned());
            }
            Some(Fault::HangUp) => self.send(0, HANG_UP.to_owned()),
            None | Some(Fault::Refuse) => self.send(0, packet.to_owned()),
        }
    }

    fn send(&self, subscriber: usize, packet: String) {
        let _ = self.subscribers[subscriber].1.send(packet);
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut first = [0; 1];
    // One port for both, as with the real servers.
    match stream.peek(&mut first).await {
        Ok(1) if first == *b"P" => publish(stream, state).await,
        Ok(_) => subscribe(stream, state).await,
        Err(_) => {}
    }
}

async fn subscribe(stream: TcpStream, state: Arc<Mutex<State>>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (sender, mut outbox) = unbounded_channel::<String>();
    let _ = sender.send(r#"0{"sid":"s","pingInterval":25000,"pingTimeout":20000}"#.to_owned());
    loop {
        tokio::select! {
            packet = outbox.recv() => {
                let packet = packet.expect("the sender lives");
                if packet == HANG_UP || socket.send(Message::text(packet)).await.is_err() {
                    return;
                }
            }
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let text = message.to_text().unwrap_or_default();
                if text.starts_with("40") {
                    let _ = sender.send(r#"40{"sid":"s"}"#.to_owned());
                } else if let Some(join) = text.strip_prefix("420") {
                    let join: Value = serde_json::from_str(join).expect("JSON");
                    let room = join[1].as_str().or(join[1]["room"].as_str()).expect("a room").to_owned();
                    let mut state = state.lock().expect("not poisoned");
                    if state.fault == Some(Fault::Refuse) {
                        let refusal = json!([{ "ok": false, "error": { "code": "no", "message": "no such room" } }]);
                        let _ = sender.send(format!("430{refusal}"));
                    } else {
                        let _ = sender.send(r#"430[{"ok":true}]"#.to_owned());
                        state.subscribers.push((room, sender.clone()));
                    }
                }
            }
        }
    }
}

/// Publications, one after the other on a connection that stays open.
async fn publish(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    loop {
        if let Some((body, end)) = request(&bytes) {
            let messages: Value = serde_json::from_slice(body).expect("JSON");
            {
                let mut state = state.lock().expect("not poisoned");
                match &messages {
                    Value::Array(messages) => messages.iter().for_each(|message| state.publish(message)),
                    message => state.publish(message),
                }
            }
            bytes.drain(..end);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => return,
        }
    }
}

/// The body of the request at the beginning of `bytes` and where it ends, once it is whole.
fn request(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let start = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..start]).expect("a readable head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let end = start + length.parse::<usize>().expect("a number");
    Some((bytes.get(start..end)?, end))
}
