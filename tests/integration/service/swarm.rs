//! Many clients that check everything they receive: what the proofs of delivery have in common.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidings::client::ClientError;
use tidings::client::http::HttpClient;
use tidings::client::receiver::{ROOM_RESET, Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, Event, SocketClient};
use tidings::model::farewell::GOING_AWAY;
use tidings::model::now_ms;
use tokio::sync::{Mutex, MutexGuard};

use super::{Server, Site};

/// Channels with long histories: of messages that all matter, and of states that replace each other.
pub(super) const CHANNELS: &str = r#"
[defaults]
history = { size = 200000, ttl = "1d" }

[channel.story]
pattern = "story-{id}"
events = ["custom:*"]

[channel.state]
pattern = "state-{id}"
events = ["custom:*"]
conflate = { "custom:n" = "key" }
"#;

/// One proof at a time: each of them uses all that the machine has, and some print times.
pub(super) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Whether the long variants are asked for.
pub(super) fn long() -> bool {
    std::env::var_os("TIDINGS_TEST_LONG").is_some_and(|value| value == "1")
}

/// `short`, or `long` where the long variants are asked for.
pub(super) fn either<T>(short: T, long_one: T) -> T {
    if long() { long_one } else { short }
}

/// A site with the channels of the proofs.
pub(super) fn site() -> Site {
    let site = Site::new("[log]\nlevel = \"error\"\n");
    site.write("channels.toml", CHANNELS);
    site
}

impl Site {
    /// A server with the channels of the proofs on `address`; blocks until it is ready.
    pub(super) fn start_swarm(&self, address: &str) -> Server {
        let channels = self.path("channels.toml");
        let args = ["--no-worker", "--channels", channels.to_str().expect("a path in UTF-8")];
        tokio::task::block_in_place(|| self.start_with(address, &args))
    }
}

/// A port for a server that is to come back on it. Not one that the system gives to whoever connects: a client
/// that tries while the server is away could else be given that very port, and talk to itself.
pub(super) fn lasting_address(rng: &mut fastrand::Rng) -> String {
    loop {
        let address = format!("127.0.0.1:{}", rng.u16(20_000..30_000));
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// The message with which number `n` of `sender` is told in `channel`; its id is the same each time.
pub(super) fn message(channel: &str, sender: usize, n: usize, padding: usize) -> Value {
    let data = json!({ "key": n % 5, "n": n, "padding": "x".repeat(padding) });
    json!({ "id": format!("s{sender}-{n}"), "channel": channel, "event": "custom:n", "data": data })
}

/// Publishes `messages` and tries again until they are acknowledged; their offsets.
pub(super) async fn publish_until_acknowledged(http: &HttpClient, messages: &[Value]) -> Vec<u64> {
    publish_somewhere(std::slice::from_ref(http), &mut 0, messages).await
}

/// The same through one of several servers: the `at`th as long as it takes them, then the next.
pub(super) async fn publish_somewhere(
    servers: &[HttpClient],
    at: &mut usize,
    messages: &[Value],
) -> Vec<u64> {
    loop {
        match servers[*at % servers.len()].post::<_, Value>("/api/v1/events", &messages).await {
            Ok(answer) => {
                let results = answer["results"].as_array().expect("results");
                let offset = |result: &Value| result["offset"].as_u64();
                return results.iter().map(|r| offset(r).unwrap_or_else(|| panic!("{r}"))).collect();
            }
            Err(ClientError::Problem { status, code, detail }) if status != 503 => {
                panic!("refused with {status} {code}: {detail}")
            }
            Err(_) => {
                *at += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A delivered message: its offset, how many were spared before it, and its id.
pub(super) type Seen = (u64, u64, String);

/// What must not happen, and how often it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) duplicates: u64,
    pub(super) gaps: u64,
    pub(super) resets: u64,
    pub(super) epochs: u64,
    pub(super) not_recovered: u64,
}

/// One client of some rooms, over all of its connections.
pub(super) struct Client {
    /// The servers, the one that it talks to first.
    urls: VecDeque<String>,
    token: Option<String>,
    rooms: Vec<String>,
    receiver: Receiver,
    pub(super) seen: HashMap<String, Vec<Seen>>,
    pub(super) faults: Faults,
    pub(super) latency_ms: Histogram<u64>,
    pub(super) connections: u64,
    /// How often a server told it that it goes away.
    pub(super) farewells: u64,
}

impl Client {
    pub(super) fn new(url: &str, rooms: &[String]) -> Self {
        Self::of(&[url.to_owned()], 0, rooms)
    }

    /// One that may go to any of the servers, and begins with the `n`th, counted round and round.
    pub(super) fn of(urls: &[String], n: usize, rooms: &[String]) -> Self {
        let mut urls = VecDeque::from_iter(urls.iter().cloned());
        let first = n % urls.len();
        urls.rotate_left(first);
        Self {
            urls,
            token: None,
            rooms: rooms.to_vec(),
            receiver: Receiver::new(),
            seen: rooms.iter().map(|room| (room.clone(), Vec::new())).collect(),
            faults: Faults::default(),
            latency_ms: Histogram::new(3).expect("three digits"),
            connections: 0,
            farewells: 0,
        }
    }

    /// The same client with a token.
    pub(super) fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    /// Connects and joins every room where it is, or at its start.
    pub(super) async fn connect(&mut self) -> Result<SocketClient, ClientError> {
        let auth = json!({ "batch": true });
        let options = ConnectOptions { auth, token: self.token.clone(), ..ConnectOptions::default() };
        let mut socket = SocketClient::connect(&self.urls[0], options).await?;
        for room in &self.rooms {
            let since = self.receiver.position(room).cloned().map_or(Since::Start, Since::After);
            let joined = socket.join(room, since.clone()).await?;
            self.faults.not_recovered += u64::from(!joined.recovered);
            self.receiver.joined(&since, &joined);
        }
        self.connections += 1;
        Ok(socket)
    }

    /// The same, tried again until it works.
    pub(super) async fn reconnect(&mut self) -> SocketClient {
        loop {
            match self.connect().await {
                Ok(socket) => return socket,
                Err(ClientError::Rejected { code, message, .. }) if code != "unavailable" => {
                    panic!("{code}: {message}")
                }
                Err(_) => {
                    self.urls.rotate_left(1);
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
                }
            }
        }
    }

    /// Takes an event; whether everything is in order, so that the connection is still good.
    pub(super) fn hear(&mut self, event: &Event) -> bool {
        self.faults.resets += u64::from(event.name == ROOM_RESET);
        self.farewells += u64::from(event.name == GOING_AWAY);
        let mut good = true;
        for received in self.receiver.receive(&event.name, &event.data).expect("well formed") {
            let envelope = received.envelope;
            match received.verdict {
                Verdict::Deliver => {
                    let latency = u64::try_from(now_ms() - envelope.timestamp).unwrap_or(0);
                    self.latency_ms.saturating_record(latency);
                    let id = id_of(received.message.get()).to_owned();
                    let seen = self.seen.entry(envelope.channel.into_owned()).or_default();
                    seen.push((envelope.offset, envelope.conflated, id));
                }
                Verdict::Duplicate => self.faults.duplicates += 1,
                Verdict::Gap { .. } => (self.faults.gaps, good) = (self.faults.gaps + 1, false),
                Verdict::OtherEpoch => (self.faults.epochs, good) = (self.faults.epochs + 1, false),
                Verdict::NotJoined => panic!("{} was not joined", envelope.channel),
            }
        }
        good
    }

    /// Whether it has come to the end of every room.
    pub(super) fn has_reached(&self, tops: &HashMap<String, u64>) -> bool {
        self.rooms.iter().all(|room| self.receiver.position(room).is_some_and(|at| at.offset == tops[room]))
    }

    /// Reads until the end of every room is reached or the connection ends; whether it is reached.
    pub(super) async fn read_to(&mut self, socket: &mut SocketClient, tops: &HashMap<String, u64>) -> bool {
        while !self.has_reached(tops) {
            match socket.next().await {
                Some(Ok(event)) if self.hear(&event) => {}
                _ => return false,
            }
        }
        true
    }

    /// Checks what it has against what the channels hold: nothing lost, doubled or out of order.
    #[track_caller]
    pub(super) fn assert_complete(&self, stories: &HashMap<String, Vec<String>>) {
        assert_eq!(self.faults, Faults::default());
        for room in &self.rooms {
            let (seen, story) = (&self.seen[room], &stories[room]);
            let mut last = 0;
            for (offset, conflated, id) in seen {
                assert_eq!(*offset, last + 1 + conflated, "{room} after {last}");
                assert!(*conflated == 0 || room.starts_with("state-"), "{room} is not conflated");
                assert_eq!(
                    Some(id),
                    story.get(usize::try_from(offset - 1).expect("small")),
                    "{room} {offset}"
                );
                last = *offset;
            }
            assert_eq!(last, story.len() as u64, "{room} to its end");
        }
    }
}

/// The id at the front of an encoded message.
fn id_of(message: &str) -> &str {
    message.strip_prefix("{\"id\":\"").and_then(|rest| rest.split('"').next()).expect("an id comes first")
}

/// What the channels hold: the ids of each, in order. Checks that offsets have no hole and ids no twin.
pub(super) async fn stories(server: &Server, rooms: &[String]) -> HashMap<String, Vec<String>> {
    let mut stories = HashMap::new();
    for room in rooms {
        let history = server.history(room).await;
        history.assert_unbroken();
        let id = |message: &Value| message["id"].as_str().expect("an id").to_owned();
        let ids: Vec<String> = history.messages.iter().map(id).collect();
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "an id stands twice in {room}");
        stories.insert(room.clone(), ids);
    }
    stories
}

/// The newest offset of each channel.
pub(super) fn tops(stories: &HashMap<String, Vec<String>>) -> HashMap<String, u64> {
    stories.iter().map(|(room, ids)| (room.clone(), ids.len() as u64)).collect()
}
