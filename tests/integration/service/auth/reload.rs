//! SIGHUP: other keys, and rules under which those who are there may not stay.

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings::client::room::Since;
use tidings::client::socket::SocketClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::forge::{private_key, public_pem, signed};
use super::{Server, Site, code, connect, http, token, token_of, wait_until, with_secret};
use crate::service::DEADLINE;

/// Has the server reload, and waits until it has done so for the `n`th time with `outcome`.
async fn reload(server: &Server, outcome: &str, n: f64) {
    server.signal(Signal::HUP);
    let metric = format!("tidings_reloads_total{{outcome=\"{outcome}\"}}");
    wait_until("it has reloaded", async || server.metric(&metric).await == n).await;
}

#[tokio::test]
async fn another_key_holds_at_once_and_a_bad_one_never() {
    let (old, new) = (private_key("ec"), private_key("ed"));
    let site = Site::new(&with_secret("public_key_file = \"key.pem\"\n"));
    std::fs::write(site.path("key.pem"), public_pem(&old)).expect("written");
    let server = site.start().with_token(&token_of("root", &["admin"]));
    let ask = async |token: &str| http(&server, token).get::<Value>("/api/v1/stats").await;
    ask(&signed(&old)).await.expect("believed");
    assert_eq!(code(ask(&signed(&new)).await), "invalid_token");
    let mut early = connect(&server, Some(&signed(&old))).await.expect("let in");

    std::fs::write(site.path("key.pem"), public_pem(&new)).expect("written");
    reload(&server, "applied", 1.0).await;
    ask(&signed(&new)).await.expect("believed now");
    assert_eq!(code(ask(&signed(&old)).await), "invalid_token", "no more");
    assert_eq!(code(connect(&server, Some(&signed(&old))).await), "invalid_token");
    early.ping().await.expect("who was let in stays until the token expires");

    for (bad, part) in
        [(b"hello".to_vec(), "expected one public key"), (new.clone(), "this is a private key")]
    {
        std::fs::write(site.path("key.pem"), bad).expect("written");
        let refused = server.metric("tidings_reloads_total{outcome=\"refused\"}").await;
        reload(&server, "refused", refused + 1.0).await;
        wait_until("it says why", async || server.log().contains(part)).await;
        ask(&signed(&new)).await.expect("the key before holds on");
    }
    // A secret is a key like any other; without any, everybody would be let in.
    std::fs::write(site.path("key.pem"), public_pem(&new)).expect("written");
    site.write("tidings.toml", "");
    reload(&server, "refused", 3.0).await;
    assert_eq!(code(http(&server, "x").get::<Value>("/api/v1/stats").await), "invalid_token");
    site.write("tidings.toml", "[auth]\npublic_key_file = \"key.pem\"\n");
    server.signal(Signal::HUP);
    let secret = token_of("root", &["admin"]);
    wait_until("the secret is gone", async || ask(&secret).await.is_err()).await;
    ask(&signed(&new)).await.expect("believed");
}

const CHANNELS: &str = "[channel.room]\npattern = \"room-{id}\"\nevents = [\"custom:*\"]\n\
    [channel.notes]\npattern = \"user-notifications-{userId}\"\njoin = \"owner\"\nevents = [\"user:notification\"]\n";

fn settings() -> String {
    format!("channels = \"channels.toml\"\n{}", with_secret(""))
}

async fn publish(server: &Server, room: &str) {
    let message = json!({ "channel": room, "event": "custom:n", "data": {} });
    server.post("/api/v1/events", &message).await;
}

/// A stream of the room, opened.
async fn follow(server: &Server, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.expect("connected");
    let request = format!(
        "GET /api/v1/channels/room-1/stream?token={token} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address()
    );
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.expect("answered");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    stream
}

/// The next event of this name, and those before it.
async fn until(socket: &mut SocketClient, name: &str) -> (Value, Vec<String>) {
    let mut before = Vec::new();
    let reading = async {
        loop {
            let event = socket.next().await.expect("it stays").expect("it stays");
            if event.name == name {
                return serde_json::from_str(event.data.get()).expect("JSON");
            }
            before.push(event.name.clone());
        }
    };
    (tokio::time::timeout(DEADLINE, reading).await.expect("it comes"), before)
}

#[tokio::test]
async fn who_may_not_stay_in_a_room_by_the_new_rules_is_told_and_leaves_it() {
    let site = Site::new(&settings());
    site.write(
        "channels.toml",
        &format!("{CHANNELS}[channel.free]\npattern = \"free-{{id}}\"\nevents = [\"custom:*\"]\n"),
    );
    let server = site.start().with_token(&token_of("root", &["admin"]));
    let (ann, ops) = (token_of("ann", &[]), token_of("bob", &["ops"]));
    let granted = token(json!({ "sub": "eve", "channels": { "room-*": ["join"] } }));
    let mut sockets = Vec::new();
    for token in [&ann, &ops, &granted] {
        let mut socket = connect(&server, Some(token)).await.expect("let in");
        for room in ["room-1", "free-1"] {
            socket.join(room, Since::Now).await.expect("anyone may");
        }
        sockets.push(socket);
    }
    let mut stream = follow(&server, &ann).await;

    // The room asks for a role, and the free ones are gone.
    let rules = CHANNELS.replacen("[channel.notes]", "join = \"role:ops\"\n[channel.notes]", 1);
    site.write("channels.toml", &rules);
    reload(&server, "applied", 1.0).await;
    let [mut ann, mut ops, mut granted]: [SocketClient; 3] = sockets.try_into().expect("three");
    let mut told = Vec::new();
    for _ in 0..2 {
        let (notice, _) = until(&mut ann, "error").await;
        assert_eq!(notice["event"], "room:join");
        assert!(notice["message"].as_str().is_some_and(|text| !text.is_empty()));
        told.push((notice["room"].as_str().expect("a room").to_owned(), notice["code"].clone()));
    }
    told.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let expected =
        [("free-1".to_owned(), json!("unknown_channel")), ("room-1".to_owned(), json!("forbidden"))];
    assert_eq!(told, expected);
    let mut rest = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut rest))
        .await
        .expect("it ends")
        .expect("in order");
    assert!(rest.contains("event: error\ndata: ") && rest.contains("\"code\":\"forbidden\""), "{rest}");

    publish(&server, "room-1").await;
    for socket in [&mut ops, &mut granted] {
        let (notice, _) = until(socket, "error").await;
        assert_eq!(notice["room"], "free-1");
        let (message, before) = until(socket, "custom:n").await;
        assert_eq!((&message["channel"], before.len()), (&json!("room-1"), 0), "{before:?}");
    }
    // Ann is there, hears of herself, and of the room nothing; nor is she seen in it.
    server.post("/api/v1/users/ann/messages", &json!({ "title": "hello" })).await;
    let (_, before) = until(&mut ann, "user:notification").await;
    assert_eq!(before, Vec::<String>::new());
    assert_eq!(code(ann.join("room-1", Since::Start).await), "forbidden");
    let there = server.get("/api/v1/channels/room-1/presence").await.to_string();
    assert!(there.contains("bob") && there.contains("eve") && !there.contains("\"ann\""), "{there}");
    assert_eq!(server.metric("tidings_subscriptions").await, 3.0 + 2.0, "three inboxes, and two in the room");

    // The same rules once more take nothing from anybody.
    reload(&server, "applied", 2.0).await;
    publish(&server, "room-1").await;
    for socket in [&mut ops, &mut granted] {
        let (_, before) = until(socket, "custom:n").await;
        assert_eq!(before, Vec::<String>::new());
    }
}
