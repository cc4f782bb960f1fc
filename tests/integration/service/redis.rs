//! Several servers on one Redis.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};

use super::{DEADLINE, Server, Site, wait_until};
use crate::support::redis::{RedisServer, free_port, shared_url};

const ROOMS: [&str; 3] = ["team-updates-1", "team-updates-2", "shared-tests-1"];

/// `n` servers on the Redis at `url`, each with a directory of its own.
fn servers(url: &str, n: usize) -> Vec<(Site, Arc<Server>)> {
    let start = |_| {
        let site = Site::new("");
        let server = site.start_with("127.0.0.1:0", &["--redis", url]);
        (site, Arc::new(server))
    };
    (0..n).map(start).collect()
}

/// A client of one server in all rooms.
struct Client {
    socket: SocketClient,
    receiver: Receiver,
}

impl Client {
    async fn join(server: &Server, rooms: &[&str]) -> Self {
        let options = ConnectOptions { auth: json!({ "batch": true }), ..ConnectOptions::default() };
        let mut socket = SocketClient::connect(&server.url, options).await.expect("connected");
        let mut receiver = Receiver::new();
        for room in rooms {
            let joined = socket.join(room, Since::Start).await.expect("joined");
            receiver.joined(&Since::Start, &joined);
        }
        Self { socket, receiver }
    }

    /// Reads until every room is at `offset`; each message continues the one before.
    async fn read_to(&mut self, rooms: &[&str], offset: u64) {
        let reading = async {
            let behind = |receiver: &Receiver, room: &str| {
                receiver.position(room).is_none_or(|position| position.offset < offset)
            };
            while rooms.iter().any(|room| behind(&self.receiver, room)) {
                let event = self.socket.next().await.expect("it stays").expect("it stays connected");
                assert_ne!(event.name, "room:reset", "{}", event.data);
                for received in self.receiver.receive(&event.name, &event.data).expect("well formed") {
                    assert_eq!(received.verdict, Verdict::Deliver, "{:?}", received.envelope);
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reading).await;
        assert!(in_time.is_ok(), "not all of {rooms:?} are at {offset} within {DEADLINE:?}");
    }
}

fn news(room: &str, id: &str) -> Value {
    let event = if room.starts_with("team") { "team:update" } else { "shared:test" };
    json!({ "id": id, "channel": room, "event": event, "data": { "n": id } })
}

/// Publishes `n` messages to each room, alternating.
async fn publish(server: &Server, who: &str, n: usize) {
    for n in 0..n {
        let messages: Vec<_> = ROOMS.iter().map(|room| news(room, &format!("{who}.{n}"))).collect();
        let answer = server.post("/api/v1/events", &json!(messages)).await;
        for result in answer["results"].as_array().expect("results") {
            assert!(result["offset"].is_u64(), "{result}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_bring_each_message_to_everybody_once_and_in_order() {
    let servers = servers(&shared_url(), 3);
    let mut clients = Vec::new();
    for (_, server) in &servers {
        for _ in 0..4 {
            clients.push(Client::join(server, &ROOMS).await);
        }
    }
    let publishing = servers.iter().enumerate().map(|(n, (_, server))| {
        let server = server.clone();
        tokio::spawn(async move { publish(&server, &n.to_string(), 100).await })
    });
    for task in publishing.collect::<Vec<_>>() {
        task.await.expect("it ends");
    }
    // Somebody who comes later reads all of it, wherever.
    clients.push(Client::join(&servers[1].1, &ROOMS).await);
    for client in &mut clients {
        client.read_to(&ROOMS, 300).await;
    }
    let histories = [servers[0].1.history(ROOMS[0]).await, servers[2].1.history(ROOMS[0]).await];
    histories[0].assert_unbroken();
    assert_eq!(histories[0], histories[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_servers_say_so_and_their_clients_stay() {
    let mut redis = RedisServer::start();
    let servers = servers(&redis.url(), 2);
    let mut clients = Vec::new();
    for (_, server) in &servers {
        clients.push(Client::join(server, &ROOMS).await);
    }
    publish(&servers[0].1, "before", 5).await;
    for stop in [RedisServer::kill as fn(&mut RedisServer), |redis| redis.pause()] {
        stop(&mut redis);
        for (_, server) in &servers {
            wait_until("it is not ready", async || !is_ready(server).await).await;
            let refused = server.http.post::<_, Value>("/api/v1/events", &news(ROOMS[0], "maybe")).await;
            let refused = refused.expect_err("there is nowhere to put it").to_string();
            assert!(refused.contains("unavailable"), "{refused}");
            assert!(server.text("/healthz").await.contains("ok"), "it is alive");
            assert!(server.metric("tidings_broker_up").await < 0.5);
        }
        if redis.is_running() {
            redis.resume();
        } else {
            redis.restart();
        }
        for (_, server) in &servers {
            wait_until("it is ready again", async || is_ready(server).await).await;
        }
    }
    publish(&servers[1].1, "after", 5).await;
    for client in &mut clients {
        client.read_to(&ROOMS[1..], 10).await;
    }
}

async fn is_ready(server: &Server) -> bool {
    server.text("/readyz").await.contains(r#""status":"ok""#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_connection_only_so_much_waits_and_the_rest_is_refused_at_once() {
    const AT_ONCE: usize = 300;
    /// One is being worked on and 128 wait behind it; Redis may have answered a few before it stood still.
    const TAKEN: std::ops::RangeInclusive<usize> = 129..=135;
    const REFUSED: &str = "too_many_requests";
    let redis = RedisServer::start();
    let (_site, server) = servers(&redis.url(), 1).pop().expect("one");
    let mut client = Client::join(&server, &ROOMS[..1]).await;
    redis.pause();
    let sender = client.socket.sender();
    let send = async |n: usize| {
        let told = sender.emit_with_ack("event:publish", &news(ROOMS[0], &n.to_string()), DEADLINE).await;
        let told: Value = serde_json::from_str(told.expect("answered").get()).expect("JSON");
        told["error"]["code"].as_str().unwrap_or("taken").to_owned()
    };
    let mut answers: FuturesUnordered<_> = (0..AT_ONCE).map(send).collect();
    let mut codes = HashMap::<_, usize>::new();
    while codes.get(REFUSED).is_none_or(|n| AT_ONCE - n > *TAKEN.end()) {
        *codes.entry(answers.next().await.expect("so many are refused at once")).or_default() += 1;
    }
    redis.resume();
    while let Some(code) = answers.next().await {
        *codes.entry(code).or_default() += 1;
    }
    let (refused, taken) = (codes[REFUSED], codes["taken"]);
    let unavailable = codes.get("unavailable").copied().unwrap_or_default();
    assert!(TAKEN.contains(&(AT_ONCE - refused)) && refused + taken + unavailable == AT_ONCE, "{codes:?}");
    let after = server.post("/api/v1/events", &news(ROOMS[0], "after")).await;
    let all = after["offset"].as_u64().unwrap_or_else(|| panic!("{after}"));
    assert!(all > taken as u64, "{all}");
    client.read_to(&ROOMS[..1], all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_is_told_when_redis_lost_its_data() {
    let mut redis = RedisServer::start();
    let servers = servers(&redis.url(), 2);
    let mut client = Client::join(&servers[0].1, &ROOMS[..1]).await;
    publish(&servers[1].1, "before", 5).await;
    client.read_to(&ROOMS[..1], 5).await;
    let before = client.receiver.position(ROOMS[0]).expect("joined").epoch.clone();
    redis.kill();
    redis.restart_empty();
    let waiting = async {
        loop {
            let event = client.socket.next().await.expect("it stays").expect("it stays connected");
            if event.name == "room:reset" {
                return event.data;
            }
        }
    };
    let reset = tokio::time::timeout(DEADLINE, waiting).await.expect("it is told without a new message");
    let text = format!("{reset:?}");
    assert!(text.contains("epoch_changed") && !text.contains(before.as_str()), "{text}");
}

#[test]
fn a_server_that_cannot_have_its_redis_does_not_start_and_says_why() {
    let old = |url: &str| {
        let site = Site::new("");
        let output =
            site.command(&["serve", "--listen", "127.0.0.1:0", "--redis", url]).output().expect("it ran");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = old(&format!("redis://127.0.0.1:{}", free_port()));
    assert_eq!(code, Some(1));
    assert!(text.contains("Redis cannot be reached"), "{text}");
    let (code, text) = old("http://localhost");
    assert_eq!(code, Some(64));
    assert!(text.contains("--redis") && text.contains("redis+cluster://"), "{text}");
}
