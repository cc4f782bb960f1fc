//! The floor: what a message costs that does nothing but reach its receivers. For comparison, not for use.
//!
//! One thread, one epoll, and for each message and receiver exactly one `write` of bytes that were encoded once.
//! It speaks as much of HTTP, Engine.IO and Socket.IO as the load generator needs: the WebSocket transport,
//! `room:join`, pings and `POST /api/v1/events`. It stores nothing, checks next to nothing and trusts everybody.
//! Its messages are as long as the service's own, positions included.
//!
//! ```text
//! floor [PORT]      prints {"port": N} once it listens
//! ```
//!
//! `connection` reads and writes one socket, `wire` is HTTP and WebSocket as bytes.

mod connection;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use tidings::client::packet::Packet;
use tidings::model::{Incoming, MessageId, now_ms};

use connection::{Connection, Input};
use wire::Request;

/// How often connections are pinged, and how long they would have for the answer; the service's own defaults.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What stands where the service's messages have their epoch, and as long.
const EPOCH: &str = "0000000floor";
const LISTENER: Token = Token(usize::MAX);

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        None => 0,
        Some(port) => port.parse().map_err(io::Error::other)?,
    };
    let mut floor = Floor::listen(port)?;
    println!("{}", json!({ "port": floor.listener.local_addr()?.port() }));
    floor.run()
}

/// The whole server.
struct Floor {
    poll: Poll,
    listener: TcpListener,
    /// By token; a closed connection leaves its place to a later one.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    rooms: HashMap<String, Room>,
}

/// Who gets the messages of one channel.
#[derive(Default)]
struct Room {
    /// Tokens.
    members: Vec<usize>,
    /// The offset of its newest message.
    top: u64,
}

impl Floor {
    fn listen(port: u16) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (connections, free, rooms) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { poll, listener, connections, free, rooms })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut ping_at = Instant::now() + PING_INTERVAL;
        loop {
            let wait = ping_at.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(token) => self.progress(token),
                }
            }
            if Instant::now() >= ping_at {
                ping_at += PING_INTERVAL;
                self.ping_all();
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer is gone already; others wait behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = self.free.pop().unwrap_or(self.connections.len());
            if token == self.connections.len() {
                self.connections.push(None);
            }
            self.poll.registry().register(
                &mut stream,
                Token(token),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            self.connections[token] = Some(Connection::new(stream));
        }
    }

    /// Writes what waits for `token` and answers all that came from it.
    fn progress(&mut self, token: usize) {
        // Closed by an earlier event of the same round.
        let Some(connection) = self.connections[token].as_mut() else { return };
        let (inputs, open) = connection.progress();
        let went_well = inputs.into_iter().all(|input| self.act(token, input).is_ok());
        if !open || !went_well {
            self.close(token);
        }
    }

    fn act(&mut self, token: usize, input: Input) -> io::Result<()> {
        match input {
            Input::Request(request) => self.respond(token, &request),
            Input::Text(text) => self.packet(token, &text),
            Input::Ping(payload) => self.send(token, wire::frame(wire::PONG, &payload)),
        }
    }

    fn send(&mut self, token: usize, bytes: Vec<u8>) -> io::Result<()> {
        self.connections[token].as_mut().map_or(Ok(()), |connection| connection.send(&bytes.into()))
    }

    fn text(&mut self, token: usize, text: &str) -> io::Result<()> {
        self.send(token, wire::frame(wire::TEXT, text.as_bytes()))
    }

    fn respond(&mut self, token: usize, request: &Request) -> io::Result<()> {
        let path = request.target.split('?').next().unwrap_or_default();
        let answer = match (request.method.as_str(), path, &request.websocket_key) {
            ("GET", "/socket.io/", Some(key)) => {
                self.send(token, wire::upgrade(key))?;
                self.connections[token].iter_mut().for_each(Connection::upgraded);
                let open = json!({
                    "sid": sid(token), "upgrades": [], "maxPayload": wire::MAX_BYTES,
                    "pingInterval": PING_INTERVAL.as_millis() as u64,
                    "pingTimeout": PING_TIMEOUT.as_millis() as u64,
                });
                return self.text(token, &format!("0{open}"));
            }
            ("POST", "/api/v1/events", _) => self.take(&request.body),
            ("GET", "/healthz", _) => wire::response("200 OK", &json!({ "status": "ok" })),
            _ => wire::response("404 Not Found", &json!({ "code": "not_found" })),
        };
        self.send(token, answer)
    }

    fn packet(&mut self, token: usize, text: &str) -> io::Result<()> {
        match Packet::parse(text).map_err(io::Error::other)? {
            Packet::Connect(_) => self.text(token, &format!("40{}", json!({ "sid": sid(token) }))),
            Packet::Ping(text) => self.text(token, &format!("3{text}")),
            Packet::Event { ack, name, args } if name == "room:join" => {
                let wish: Value =
                    args.first().map_or(Ok(Value::Null), |arg| serde_json::from_str(arg.get()))?;
                let answer = match wish.as_str().or_else(|| wish["room"].as_str()) {
                    Some(room) => self.join(token, room),
                    None => json!({ "ok": false, "error": { "code": "invalid", "message": "no room" } }),
                };
                ack.map_or(Ok(()), |ack| self.text(token, &format!("43{ack}[{answer}]")))
            }
            Packet::Disconnect | Packet::Close => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    fn join(&mut self, token: usize, room: &str) -> Value {
        let Room { members, top } = self.rooms.entry(room.to_owned()).or_default();
        // A second join of a room is none.
        if let Some(connection) = self.connections[token].as_mut()
            && connection.joined(room)
        {
            members.push(token);
        }
        json!({ "ok": true, "room": room, "epoch": EPOCH, "offset": *top })
    }

    /// Publishes the message or messages of a request's body; returns the response.
    fn take(&mut self, body: &[u8]) -> Vec<u8> {
        let placed = if body.first() == Some(&b'[') {
            serde_json::from_slice::<Vec<Incoming>>(body).map(|messages| {
                let results: Vec<Value> = messages.into_iter().map(|message| self.publish(message)).collect();
                wire::response("200 OK", &json!({ "results": results }))
            })
        } else {
            serde_json::from_slice::<Incoming>(body)
                .map(|message| wire::response("201 Created", &self.publish(message)))
        };
        placed.unwrap_or_else(|error| {
            wire::response("400 Bad Request", &json!({ "code": "invalid_json", "title": error.to_string() }))
        })
    }

    fn publish(&mut self, message: Incoming) -> Value {
        let Incoming { id, event, channel, priority, data, .. } = message;
        let id = id.unwrap_or_else(MessageId::generate);
        let Room { members, top: offset } = self.rooms.entry(channel.as_str().to_owned()).or_default();
        *offset += 1;
        let answer = json!({ "id": id, "epoch": EPOCH, "offset": *offset });
        let (priority, timestamp) = (priority.unwrap_or_default().number(), now_ms());
        let text = format!(
            r#"42["{event}",{{"id":"{id}","event":"{event}","channel":"{channel}","priority":{priority},"timestamp":{timestamp},"data":{data},"epoch":"{EPOCH}","offset":{offset}}}]"#
        );
        let frame: Rc<[u8]> = wire::frame(wire::TEXT, text.as_bytes()).into();
        let mut broken = Vec::new();
        for &token in members.iter() {
            if let Some(connection) = self.connections[token].as_mut()
                && connection.send(&frame).is_err()
            {
                broken.push(token);
            }
        }
        broken.into_iter().for_each(|token| self.close(token));
        answer
    }

    fn ping_all(&mut self) {
        let frame: Rc<[u8]> = wire::frame(wire::TEXT, b"2").into();
        for token in 0..self.connections.len() {
            let broken = match self.connections[token].as_mut() {
                Some(connection) if connection.is_socket() => connection.send(&frame).is_err(),
                _ => false,
            };
            if broken {
                self.close(token);
            }
        }
    }

    fn close(&mut self, token: usize) {
        let Some(mut connection) = self.connections[token].take() else { return };
        for room in connection.rooms() {
            if let Some(Room { members, .. }) = self.rooms.get_mut(room) {
                members.retain(|&member| member != token);
            }
        }
        // The descriptor is closed with it, whether or not this succeeds.
        let _ = connection.deregister(self.poll.registry());
        self.free.push(token);
    }
}

fn sid(token: usize) -> String {
    format!("floor-{token}")
}
