//! Devices that come back, receivers that acknowledge, and receivers that are slow.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{DEADLINE, Server, Site};

const ROOM: &str = "test-progress-devices";

async fn connect(server: &Server, auth: Value) -> SocketClient {
    let options = ConnectOptions { auth, ..ConnectOptions::default() };
    SocketClient::connect(&server.url, options).await.expect("connected")
}

/// Publishes `custom:n` for each number.
async fn publish(server: &Server, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let message = json!({ "channel": ROOM, "event": "custom:n", "data": { "n": n } });
        server.post("/api/v1/events", &message).await;
    }
}

/// The next `n` messages of the room, as their numbers.
async fn take(socket: &mut SocketClient, n: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < n {
        let event = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
        let event = event.expect("open").expect("an event");
        if event.name == "custom:n" {
            let message: Value = serde_json::from_str(event.data.get()).expect("JSON");
            numbers.push(message["data"]["n"].as_u64().expect("a number"));
        }
    }
    numbers
}

#[tokio::test]
async fn a_device_that_names_itself_goes_on_where_it_was() {
    let site = Site::new("");
    let server = site.start();
    let auth = json!({ "clientId": "tablet", "userId": "ada" });
    let mut tablet = connect(&server, auth.clone()).await;
    tablet.join(ROOM, Since::Stored).await.expect("joined");
    publish(&server, 0..3).await;
    assert_eq!(take(&mut tablet, 3).await, [0, 1, 2]);
    tablet.close().await;
    publish(&server, 3..6).await;

    // Another device of the same user has a place of its own: none yet.
    let mut phone = connect(&server, json!({ "clientId": "phone", "userId": "ada" })).await;
    assert_eq!(phone.join(ROOM, Since::Stored).await.expect("joined").replayed, 0);

    let mut tablet = connect(&server, auth.clone()).await;
    let joined = tablet.join(ROOM, Since::Stored).await.expect("joined");
    assert!(joined.recovered, "{joined:?}");
    assert_eq!(joined.since.as_ref().map(|place| place.offset), Some(3), "{joined:?}");
    assert_eq!(take(&mut tablet, 3).await, [3, 4, 5]);
    tablet.close().await;

    // And after a restart as well.
    publish(&server, 6..8).await;
    super::wait_until("the place is saved", async || {
        let mut tablet = connect(&server, json!({ "clientId": "tablet", "userId": "ada" })).await;
        let replayed = tablet.join(ROOM, Since::Stored).await.expect("joined").replayed;
        tablet.close().await;
        replayed <= 2
    })
    .await;
    drop(phone);
}

#[tokio::test]
async fn a_server_that_stops_saves_where_its_devices_are() {
    let site = Site::new("[sync]\nsave_every = \"1h\"\n");
    let server = site.start();
    let auth = json!({ "clientId": "tablet", "userId": "ada" });
    let mut tablet = connect(&server, auth.clone()).await;
    tablet.join(ROOM, Since::Stored).await.expect("joined");
    publish(&server, 0..3).await;
    assert_eq!(take(&mut tablet, 3).await, [0, 1, 2]);
    server.terminate();
    drop(tablet);

    let server = site.start();
    publish(&server, 3..5).await;
    let mut tablet = connect(&server, auth).await;
    let joined = tablet.join(ROOM, Since::Stored).await.expect("joined");
    assert_eq!(joined.since.as_ref().map(|place| place.offset), Some(3), "{joined:?}");
    assert_eq!(take(&mut tablet, 2).await, [3, 4]);
}

#[tokio::test]
async fn a_device_that_acknowledges_gets_again_what_it_did_not() {
    let site = Site::new("[sync]\nsave_every = \"100ms\"\n");
    let server = site.start();
    let auth = json!({ "clientId": "worker", "userId": "ada" });
    let mut socket = connect(&server, auth.clone()).await;
    let joined = socket.join(ROOM, Since::Stored).await.expect("joined");
    publish(&server, 0..5).await;
    assert_eq!(take(&mut socket, 5).await, [0, 1, 2, 3, 4]);
    let ack = |offset| json!({ "room": ROOM, "epoch": joined.epoch, "offset": offset });
    let answer = socket.emit_with_ack("message:ack", &ack(2), DEADLINE).await.expect("answered");
    assert!(answer.get().contains("\"ok\":true"), "{answer}");
    for (wrong, code) in [
        (ack(99), "never_sent"),
        (json!({ "room": ROOM, "epoch": "another", "offset": 1 }), "never_sent"),
        (json!({ "room": "queue-updates", "epoch": joined.epoch, "offset": 1 }), "not_joined"),
        (json!({ "room": ROOM, "offset": -1 }), "invalid"),
    ] {
        let answer = socket.emit_with_ack("message:ack", &wrong, DEADLINE).await.expect("answered");
        assert!(answer.get().contains(code), "{wrong}: {answer}");
    }
    // Another connection of the device goes on where this one is, at once: by then the place is stored.
    let mut beside = connect(&server, auth.clone()).await;
    let rejoined = beside.join(ROOM, Since::Stored).await.expect("joined");
    assert_eq!(rejoined.since.map(|place| place.offset), Some(2));
    assert_eq!(take(&mut beside, 3).await, [2, 3, 4]);
    server.kill();

    let server = site.start();
    let mut socket = connect(&server, auth).await;
    let joined = socket.join(ROOM, Since::Stored).await.expect("joined");
    assert!(joined.recovered, "{joined:?}");
    assert_eq!(take(&mut socket, 3).await, [2, 3, 4]);
    socket.close().await;
}

#[tokio::test]
async fn a_critical_message_is_sent_again_until_it_is_acknowledged() {
    let site = Site::new("");
    let server = site.start();
    let mut socket = connect(&server, json!({ "acks": true, "batch": true })).await;
    socket.join("system-alerts", Since::Now).await.expect("joined");
    let alert = json!({ "channel": "system-alerts", "event": "system:alert", "data": { "level": "critical", "message": "fire" } });
    server.post("/api/v1/events", &alert).await;
    let (mut seen, mut offsets) = (0, Vec::new());
    while seen < 2 {
        let event = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
        let event = event.expect("open").expect("an event");
        if event.name != "system:alert" {
            assert_ne!(event.name, "message:batch", "a critical message rides alone: {}", event.data);
            continue;
        }
        assert!(event.wants_acknowledgement());
        let message: Value = serde_json::from_str(event.data.get()).expect("JSON");
        offsets.push((message["id"].clone(), message["offset"].clone()));
        seen += 1;
        if seen == 2 {
            socket.acknowledge(&event).await.expect("acknowledged");
        }
    }
    assert_eq!(offsets[0], offsets[1], "the same message comes again");
}

#[tokio::test]
async fn a_slow_receiver_reads_on_from_history_and_misses_nothing() {
    let site = Site::new("");
    let server = site.start();
    let options = ConnectOptions { event_capacity: 1, ..ConnectOptions::default() };
    let mut slow = SocketClient::connect(&server.url, options).await.expect("connected");
    let since = Since::Start;
    let joined = slow.join(ROOM, since.clone()).await.expect("joined");
    let mut receiver = Receiver::new();
    receiver.joined(&since, &joined);
    // About 24 MB while it reads nothing: far more than any buffer on the way.
    let (rounds, each) = (40_u64, 20_u64);
    let padding = "x".repeat(30_000);
    for round in 0..rounds {
        let messages: Vec<Value> = (0..each)
            .map(|i| json!({ "channel": ROOM, "event": "custom:n", "data": { "n": round * each + i, "padding": padding } }))
            .collect();
        server.post("/api/v1/events", &json!(messages)).await;
    }
    let mut last = 0;
    while last < rounds * each {
        let event = tokio::time::timeout(DEADLINE, slow.next()).await.expect("in time");
        let event = event.expect("open").expect("an event");
        for received in receiver.receive(&event.name, &event.data).expect("well formed") {
            assert_eq!(received.verdict, Verdict::Deliver);
            last = received.envelope.offset;
        }
    }
    // And it is live again.
    publish(&server, 7..8).await;
    assert_eq!(take(&mut slow, 1).await, [7]);
    assert!(server.metric("tidings_slow_consumers_total").await > 0.0, "it did fall behind");
    tokio::time::timeout(Duration::from_secs(5), slow.close()).await.expect("closed");
}

#[tokio::test]
async fn a_client_that_stops_polling_is_gone_once_it_takes_nothing_any_more() {
    // The heartbeat would find it only after 40 seconds.
    let site = Site::new("[limits]\nwrite_deadline = \"1s\"\n");
    let server = site.start();
    let handshake = server.text("/socket.io/?EIO=4&transport=polling").await;
    let sid = handshake.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a sid");
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(say(&server, &path, "40{\"userId\":\"ada\"}").await, "ok");
    // It may speak once it has been told that it is connected.
    while !server.text(&path).await.contains("connection:established") {}
    assert_eq!(say(&server, &path, &format!("42[\"room:join\",\"{ROOM}\"]")).await, "ok");
    let room = "/api/v1/channels/test-progress-devices/presence";
    super::wait_until("it is in the room", async || server.get(room).await["connections"] == 1).await;
    let messages: Vec<Value> =
        (0..300).map(|n| json!({ "channel": ROOM, "event": "custom:n", "data": { "n": n } })).collect();
    server.post("/api/v1/events", &json!(messages)).await;
    super::wait_until("it is gone", async || server.get("/api/v1/stats").await["connections"] == 0).await;
    assert_eq!(server.get(room).await["connections"], 0);
    assert!(server.text(&path).await.contains("Session ID unknown"), "its next poll is answered at once");
}

/// Posts `packet`; the answer.
async fn say(server: &Server, path: &str, packet: &str) -> String {
    let mut socket = TcpStream::connect(server.address()).await.expect("connected");
    let length = packet.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{packet}"
    );
    socket.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
}
