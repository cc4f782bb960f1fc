//! How long sessions live that do nothing, and how much they may ask for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::client::ClientError;
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};

use super::{OPEN, OTHER, Server, Site, ask, connect, ended, frame, open, rejected, start, upgrade};
use crate::service::{DEADLINE, wait_until};

async fn client(server: &Server) -> SocketClient {
    SocketClient::connect(&server.url, ConnectOptions::default()).await.expect("connected")
}

#[tokio::test]
async fn a_connection_sends_so_many_events_a_second() {
    let (_site, server) = start("events_per_second = 5");
    let mut socket = client(&server).await;
    let (mut done, mut refused) = (0, 0);
    for _ in 0..13 {
        match socket.leave("queue-updates").await {
            Ok(()) => done += 1,
            Err(ClientError::Rejected { code, message, .. }) => {
                assert_eq!(code, "rate_limited", "{message}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((10..13).contains(&done) && refused > 0, "{done} {refused}");
    assert!(rejected(&server, "event_rate").await >= 1.0);
    // Whoever asks all the time is refused all the time.
    wait_until("it may again", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        socket.leave("queue-updates").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn who_does_not_stop_is_ended() {
    let (_site, server) = start("events_per_second = 5");
    let socket = client(&server).await;
    let began = Instant::now();
    while socket.emit("custom:anything", &Value::Null).await.is_ok() {
        assert!(began.elapsed() < DEADLINE, "it is still there");
    }
    // By its events, and perhaps by its frames as well, of which more may have been read by then.
    assert!((1.0..=2.0).contains(&rejected(&server, "flood").await));
    wait_until("nothing is left", async || server.metric("tidings_connections").await == 0.0).await;
}

#[tokio::test]
async fn packets_that_are_no_events_have_a_limit_too() {
    use tokio::io::AsyncWriteExt as _;
    let (_site, server) = start("events_per_second = 5");
    let (mut stream, _) = upgrade(&server, OTHER).await.expect("upgraded");
    stream.write_all(&frame("40")).await.expect("asked");
    let pongs = frame("3").repeat(1000);
    let began = Instant::now();
    while stream.write_all(&pongs).await.is_ok() {
        assert!(began.elapsed() < DEADLINE, "it is still there");
    }
    assert_eq!(rejected(&server, "flood").await, 1.0);
}

#[tokio::test]
async fn who_is_in_no_room_and_silent_is_told_and_ended_and_who_is_in_a_room_stays() {
    let (_site, server) = start("idle_timeout = \"1s\"");
    let mut listener = client(&server).await;
    listener.join("queue-updates", Since::Now).await.expect("joined");
    let mut talker = client(&server).await;
    let mut idle = client(&server).await;
    let mut told = Vec::new();
    let ending = async {
        while let Some(Ok(event)) = idle.next().await {
            told.push((event.name.clone(), serde_json::from_str::<Value>(event.data.get()).expect("JSON")));
        }
    };
    let talking = async {
        loop {
            talker.ping().await.expect("it stays");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(DEADLINE, ending) => ended.expect("it is ended"),
        () = talking => unreachable!("it goes on for ever"),
    }
    let (name, notice) = told.last().expect("it was told");
    assert_eq!((name.as_str(), &notice["code"]), ("error", &json!("idle")), "{told:?}");
    assert_eq!(rejected(&server, "idle").await, 1.0);
    listener.ping().await.expect("a silent one in a room stays");
}

#[tokio::test]
async fn a_session_that_never_enters_its_namespace_ends_and_one_that_left_it_too() {
    use tokio::io::AsyncWriteExt as _;
    let (_site, server) = start("connect_timeout = \"500ms\"");
    let (mut never, _) = upgrade(&server, OTHER).await.expect("upgraded");
    ended(&mut never).await;
    let (mut left, _) = upgrade(&server, OTHER).await.expect("upgraded");
    left.write_all(&frame("40")).await.expect("asked");
    wait_until("it is there", async || server.metric("tidings_connections").await == 1.0).await;
    left.write_all(&frame("41")).await.expect("asked");
    wait_until("it has left", async || server.metric("tidings_connections").await == 0.0).await;
    ended(&mut left).await;
    assert_eq!(rejected(&server, "timeout").await, 1.0);
}

/// What a poll of this session is answered with.
async fn poll(server: &Server, sid: &str) -> u16 {
    let request = OPEN.replace("polling ", &format!("polling&sid={sid} "));
    ask(&mut connect(server, OTHER).await, &request).await.status()
}

#[tokio::test]
async fn a_polling_session_that_is_not_continued_ends() {
    let site = Site::new(
        "worker = false\n[limits]\nconnect_timeout = \"500ms\"\n[heartbeat]\ninterval = \"500ms\"\ntimeout = \"500ms\"\n",
    );
    let server = site.start();
    let enter = |sid: &str| {
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n40"
        )
    };
    // One that never enters, and one that enters and never polls.
    let mut stream = connect(&server, OTHER).await;
    let (never, silent) = (open(&mut stream).await, open(&mut stream).await);
    assert_eq!(ask(&mut stream, &enter(&silent)).await.status(), 200);
    wait_until("both have gone", async || {
        poll(&server, &never).await == 400 && poll(&server, &silent).await == 400
    })
    .await;
    assert_eq!(server.metric("tidings_connections").await, 0.0);
}

#[tokio::test]
async fn only_so_many_sessions_are_no_more_than_begun() {
    let (_site, server) = start("handshakes = 3\nconnect_timeout = \"1s\"");
    let mut stream = connect(&server, OTHER).await;
    for _ in 0..3 {
        open(&mut stream).await;
    }
    ask(&mut stream, OPEN).await.assert_limited("too_many_handshakes");
    assert!(rejected(&server, "handshakes").await >= 1.0);
    wait_until("they have ended", async || ask(&mut stream, OPEN).await.status() == 200).await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_its_clients_are_counted_and_not_the_proxy() {
    let site = Site::new(
        "worker = false\nhttp.trusted_proxies = [\"127.0.0.2\"]\n[limits]\nconnections_per_address = 2\n",
    );
    let server = site.start();
    let stream = |client: &str| {
        format!(
            "GET /api/v1/channels/queue-updates/stream HTTP/1.1\r\nhost: localhost\r\n\
             x-forwarded-for: 1.2.3.4, {client}\r\n\r\n"
        )
    };
    let mut open = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.2"] {
        let mut connection = connect(&server, OTHER).await;
        assert_eq!(ask(&mut connection, &stream(client)).await.status(), 200, "{client}");
        open.push(connection);
    }
    let mut more = connect(&server, OTHER).await;
    ask(&mut more, &stream("203.0.113.1")).await.assert_limited("too_many_connections");
    // What a client says of itself is not believed: this peer is no proxy.
    let mut liar = connect(&server, [127, 0, 0, 3].into()).await;
    assert_eq!(ask(&mut liar, &stream("203.0.113.1")).await.status(), 200);
    drop(open);
    wait_until("there is room again", async || {
        ask(&mut connect(&server, OTHER).await, &stream("203.0.113.1")).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_party_publishes_so_many_messages_a_second() {
    let (_site, server) = start("publishes_per_second = 5");
    let message = |n: u64| json!({ "channel": "team-updates-1", "event": "team:update", "data": { "n": n } });
    let post = |user: &str, body: &str| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\nx-user-id: {user}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut stream = connect(&server, OTHER).await;
    // A batch is taken as a whole, and paid for afterwards.
    let batch: Vec<_> = (0..15).map(message).collect();
    assert_eq!(ask(&mut stream, &post("ann", &json!(batch).to_string())).await.status(), 200);
    let one = message(99).to_string();
    ask(&mut stream, &post("ann", &one)).await.assert_limited("rate_limited");
    assert_eq!(ask(&mut stream, &post("bob", &one)).await.status(), 201);
    // Over a socket ann is the same.
    let options = ConnectOptions { auth: json!({ "userId": "ann" }), ..ConnectOptions::default() };
    let mut socket = SocketClient::connect(&server.url, options).await.expect("connected");
    let answer = socket.emit_with_ack("event:publish", &message(100), DEADLINE).await.expect("an answer");
    let told: Value = serde_json::from_str(answer.get()).expect("JSON");
    assert_eq!((&told["ok"], &told["error"]["code"]), (&json!(false), &json!("rate_limited")), "{told}");
    assert_eq!(rejected(&server, "publish_rate").await, 2.0);
    wait_until("it may again", async || ask(&mut stream, &post("ann", &one)).await.status() == 201).await;
}

#[tokio::test]
async fn a_party_notifies_and_submits_so_often_a_second_and_each_by_itself() {
    let (_site, server) = start("notifications_per_second = 2\njobs_per_second = 2");
    let post = |user: &str, path: &str, body: &Value| {
        let body = body.to_string();
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-user-id: {user}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (hello, alert) = (json!({ "title": "hello" }), json!({ "level": "info", "message": "hello" }));
    // Nobody runs it.
    let job = json!({ "testType": "nobodys", "config": {} });
    let mut stream = connect(&server, OTHER).await;
    let mut ask =
        async |user: &str, path: &str, body: &Value| ask(&mut stream, &post(user, path, body)).await;
    let (notify, retry) = ("/api/v1/users/bob/messages", "/api/v1/jobs/x/retry");
    // How many are let in before one is refused. On a slow machine some come back meanwhile.
    let mut until_refused = async |path: &str, body: &Value| {
        for n in 0..50 {
            let answer = ask("ann", path, body).await;
            if answer.status() == 429 {
                answer.assert_limited("rate_limited");
                return (n, answer.body);
            }
        }
        panic!("50 are let in at {path}");
    };
    // What two seconds allow at once.
    let (first, _) = until_refused(notify, &hello).await;
    assert!(first >= 4, "{first}");
    for (path, body) in [("/api/v1/broadcast", &alert), ("/api/v1/messages/x/recall", &json!({}))] {
        let (more, _) = until_refused(path, body).await;
        assert!(more < 4, "{path} has no pace of its own: {more}");
    }
    let (first, why) = until_refused("/api/v1/jobs", &job).await;
    assert!(first >= 4, "jobs are counted apart: {first}");
    assert!(why.contains("limits.jobs_per_second"), "{why}");
    for (path, body) in [(retry, json!({})), ("/api/v1/jobs/x/priority", json!({ "priority": 4 }))] {
        let (more, _) = until_refused(path, &body).await;
        assert!(more < 4, "{path} has no pace of its own: {more}");
    }
    assert_eq!(
        (rejected(&server, "notification_rate").await, rejected(&server, "job_rate").await),
        (3.0, 3.0)
    );
    assert_eq!(ask("eve", notify, &hello).await.status(), 201, "another has a pace of her own");
    wait_until("it may again", async || ask("ann", "/api/v1/jobs", &job).await.status() == 201).await;
}

#[tokio::test]
async fn who_is_greeted_hears_what_holds() {
    let (_site, server) = start(
        "rooms_per_connection = 7\nrooms_per_user = 5\nconnections_per_user = 0\nevents_per_second = 9",
    );
    let greeting = async |auth: Value| {
        let options = ConnectOptions { auth, ..ConnectOptions::default() };
        let mut socket = SocketClient::connect(&server.url, options).await.expect("connected");
        let event = socket.next().await.expect("greeted").expect("greeted");
        assert_eq!(event.name, "connection:established");
        let greeting: Value = serde_json::from_str(event.data.get()).expect("JSON");
        greeting["limits"].clone()
    };
    let nobody = json!({ "roomsPerConnection": 7, "messageBytes": 65536, "idleTimeoutMs": 300_000, "eventsPerSecond": 9 });
    assert_eq!(greeting(json!({})).await, nobody);
    let mut ann = nobody.clone();
    ann["roomsPerUser"] = json!(5);
    assert_eq!(greeting(json!({ "userId": "ann" })).await, ann);
}
