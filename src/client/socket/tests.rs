use serde_json::json;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::client::receiver::{Receiver, Verdict};

/// Listens on a free port; the URL leads there.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// A small Socket.IO server that answers the events of the contract that the client has methods for.
async fn serve() -> String {
    let (layer, io) = SocketIo::new_layer();
    // The handlers are registered before the client learns that it is connected: not in the future.
    io.ns("/", |socket: SocketRef, TryData(auth): TryData<Value>| {
        socket.on("room:join", async |socket: SocketRef, Data(asked): Data<Value>, ack: AckSender| {
            let room = asked["room"].as_str().unwrap_or_default().to_owned();
            if room == "closed" {
                let error = json!({"code": "unknown_channel", "message": "no channel is called that"});
                let _ = ack.send(&json!({"ok": false, "error": error}));
                return;
            }
            let answer = json!({"ok": true, "room": room, "epoch": "e", "offset": 3,
                "recovered": true, "replayed": 3, "snapshot": {"state": "running"}});
            let _ = ack.send(&answer);
            for offset in 1..=3 {
                let message = json!({"channel": room, "event": "test:log", "epoch": "e", "offset": offset});
                let _ = socket.emit("test:log", &message);
            }
        });
        socket.on("room:leave", async |ack: AckSender| {
            let _ = ack.send(&json!({"ok": true}));
        });
        socket.on("heartbeat:ping", async |socket: SocketRef, Data(mut asked): Data<Value>| {
            asked["serverTime"] = json!(1);
            let _ = socket.emit("heartbeat:pong", &asked);
        });
        socket.on("burst", async |socket: SocketRef, Data(n): Data<u64>, ack: AckSender| {
            for i in 0..n {
                let _ = socket.emit("tick", &i);
            }
            let _ = ack.send(&n);
        });
        socket.on("critical", async |socket: SocketRef| {
            // The answer to the acknowledgement proves that it arrived.
            let acked = socket.emit_with_ack::<_, Vec<Value>>("system:alert", &json!({"id": "m"}));
            if let Ok(acked) = acked {
                tokio::spawn(async move {
                    let _ = acked.await;
                    let _ = socket.emit("acked", &true);
                });
            }
        });
        socket.on("goodbye", async |socket: SocketRef| {
            let _ = socket.disconnect();
        });
        let _ = socket.emit("connection:established", &auth.unwrap_or_default());
        std::future::ready(())
    });
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().layer(layer)).await });
    url
}

async fn connect(url: &str) -> SocketClient {
    SocketClient::connect(url, ConnectOptions::default()).await.expect("a connection")
}

async fn event(client: &mut SocketClient) -> Event {
    let next = timeout(Duration::from_secs(10), client.next()).await.expect("an event in time");
    next.expect("an open connection").expect("an event")
}

/// A server that speaks just enough to open a connection and then does `then`.
async fn raw_server<F, R>(open: &'static str, then: F) -> String
where
    F: FnOnce(WebSocketStream<TcpStream>) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer");
        let mut ws = tokio_tungstenite::accept_async(stream).await.expect("a WebSocket");
        futures_util::SinkExt::send(&mut ws, Message::text(open)).await.expect("a reader");
        then(ws).await;
    });
    url
}

#[tokio::test]
async fn the_handshake_carries_auth_and_token() {
    let options = ConnectOptions {
        auth: json!({"clientId": "c1"}),
        token: Some("t1".to_owned()),
        ..ConnectOptions::default()
    };
    let mut client = SocketClient::connect(&serve().await, options).await.expect("a connection");
    let first = event(&mut client).await;
    assert_eq!(first.name, "connection:established");
    let auth: Value = serde_json::from_str(first.data.get()).expect("JSON");
    assert_eq!(auth, json!({"clientId": "c1", "token": "t1"}));
    client.close().await;
}

#[tokio::test]
async fn a_joined_room_replays_in_order() {
    let mut client = connect(&serve().await).await;
    let mut receiver = Receiver::new();
    let joined = client.join("test-progress-t", Since::Start).await.expect("joined");
    assert_eq!((joined.offset, joined.recovered, joined.replayed), (3, true, 3));
    assert_eq!(joined.snapshot.as_deref().map(RawValue::get), Some(r#"{"state":"running"}"#));
    receiver.joined(&Since::Start, &joined);
    assert_eq!(event(&mut client).await.name, "connection:established");
    for _ in 0..3 {
        let event = event(&mut client).await;
        let received = receiver.receive(&event.name, &event.data).expect("a message");
        assert_eq!(received[0].verdict, Verdict::Deliver);
    }
    assert_eq!(receiver.position("test-progress-t").map(|p| p.offset), Some(3));
    client.leave("test-progress-t").await.expect("left");
}

#[tokio::test]
async fn a_refused_join_is_an_error_with_its_code_and_the_connection_stays() {
    let mut client = connect(&serve().await).await;
    match client.join("closed", Since::Now).await {
        Err(ClientError::Rejected { event, code, .. }) => {
            assert_eq!((event.as_str(), code.as_str()), ("room:join", "unknown_channel"));
        }
        other => panic!("{other:?}"),
    }
    client.ping().await.expect("a pong");
}

#[tokio::test]
async fn an_answer_is_found_behind_more_events_than_the_channel_holds() {
    let options = ConnectOptions { event_capacity: 4, ..ConnectOptions::default() };
    let mut client = SocketClient::connect(&serve().await, options).await.expect("a connection");
    let n = client.emit_with_ack("burst", &100, Duration::from_secs(10)).await.expect("an answer");
    assert_eq!(n.get(), "100");
    assert_eq!(event(&mut client).await.name, "connection:established");
    for i in 0..100 {
        assert_eq!(event(&mut client).await.data.get(), i.to_string());
    }
}

#[tokio::test]
async fn a_critical_message_is_acknowledged_when_the_application_says_so() {
    let mut client = connect(&serve().await).await;
    assert!(!event(&mut client).await.wants_acknowledgement());
    client.emit("critical", &Value::Null).await.expect("sent");
    let alert = event(&mut client).await;
    assert!(alert.wants_acknowledgement());
    client.acknowledge(&alert).await.expect("sent");
    assert_eq!(event(&mut client).await.name, "acked");
}

#[tokio::test]
async fn an_unanswered_event_times_out_and_the_end_of_the_connection_is_told_once() {
    let mut client = connect(&serve().await).await;
    let within = Duration::from_millis(50);
    let error = client.emit_with_ack("nobody:listens", &1, within).await.expect_err("no answer");
    assert_eq!(error.to_string(), "no answer to nobody:listens within 50ms");
    assert_eq!(event(&mut client).await.name, "connection:established");
    client.emit("goodbye", &Value::Null).await.expect("sent");
    let end = client.next().await.expect("the reason");
    assert_eq!(end.expect_err("an end").to_string(), "the connection ended: the server disconnected");
    assert!(client.next().await.is_none());
    assert!(matches!(client.emit("late", &1).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_refused_connection_tells_its_code() {
    let url = raw_server(
        r#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#,
        |mut ws| async move {
            let refusal =
                r#"44{"message":"{\"code\":\"unauthorized\",\"message\":\"the token is expired\"}"}"#;
            let _ = futures_util::SinkExt::send(&mut ws, Message::text(refusal)).await;
        },
    )
    .await;
    match SocketClient::connect(&url, ConnectOptions::default()).await {
        Err(ClientError::Refused { code, message }) => {
            assert_eq!((code.as_str(), message.as_str()), ("unauthorized", "the token is expired"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_after_its_own_promise() {
    let url = raw_server(r#"0{"sid":"s","pingInterval":60,"pingTimeout":40}"#, |mut ws| async move {
        let _ = futures_util::SinkExt::send(&mut ws, Message::text(r#"40{"sid":"s"}"#)).await;
        // Held open, without a word.
        std::future::pending::<()>().await;
    })
    .await;
    let mut client = connect(&url).await;
    let end = timeout(Duration::from_secs(10), client.next()).await.expect("an end in time");
    match end {
        Some(Err(ClientError::Silent { after })) => assert_eq!(after, Duration::from_millis(100)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_own_text() {
    let (told, pong) = tokio::sync::oneshot::channel();
    let url = raw_server(r#"0{"sid":"s","pingInterval":25000,"pingTimeout":20000}"#, |mut ws| async move {
        use futures_util::{SinkExt as _, StreamExt as _};
        let _ = ws.next().await;
        let _ = ws.send(Message::text(r#"40{"sid":"s"}"#)).await;
        let _ = ws.send(Message::text("2probe")).await;
        let answer = ws.next().await.and_then(Result::ok).map(|m| m.to_string());
        let _ = told.send(answer);
    })
    .await;
    let _client = connect(&url).await;
    assert_eq!(pong.await.expect("an answer").as_deref(), Some("3probe"));
}

#[tokio::test]
async fn while_the_application_lags_nothing_is_read_and_nothing_is_lost() {
    const N: u64 = 20_000;
    let written = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = written.clone();
    let filler = "x".repeat(1024);
    let url =
        raw_server(r#"0{"sid":"s","pingInterval":25000,"pingTimeout":20000}"#, move |mut ws| async move {
            use futures_util::SinkExt as _;
            let _ = ws.send(Message::text(r#"40{"sid":"s"}"#)).await;
            for i in 0..N {
                let _ = ws.send(Message::text(format!(r#"42["tick",[{i},"{filler}"]]"#))).await;
                counted.store(i + 1, std::sync::atomic::Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        })
        .await;
    let options = ConnectOptions { event_capacity: 8, ..ConnectOptions::default() };
    let mut client = SocketClient::connect(&url, options).await.expect("a connection");
    // The server comes to a halt: its count stands still while nobody takes events.
    let mut before = u64::MAX;
    loop {
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < N, "the server could write all {N} events to a client that took none");
    for i in 0..N {
        let event = event(&mut client).await;
        assert!(event.data.get().starts_with(&format!("[{i},")), "event {i} is missing");
    }
}

#[tokio::test]
async fn what_was_emitted_before_the_close_still_arrives() {
    let (told, frames) = tokio::sync::oneshot::channel();
    let url = raw_server(r#"0{"sid":"s","pingInterval":25000,"pingTimeout":20000}"#, |mut ws| async move {
        use futures_util::{SinkExt as _, StreamExt as _};
        let _ = ws.send(Message::text(r#"40{"sid":"s"}"#)).await;
        let mut texts = Vec::new();
        while let Some(Ok(message)) = ws.next().await {
            if message.is_text() {
                texts.push(message.to_string());
            }
        }
        let _ = told.send(texts);
    })
    .await;
    let client = connect(&url).await;
    for i in 0..3 {
        client.emit("e", &i).await.expect("sent");
    }
    client.close().await;
    let frames = frames.await.expect("the frames");
    assert_eq!(frames, ["40{}", r#"42["e",0]"#, r#"42["e",1]"#, r#"42["e",2]"#, "41"]);
}

#[tokio::test]
async fn an_ordinary_web_server_is_not_taken_for_tidings() {
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    let error = SocketClient::connect(&url, ConnectOptions::default()).await.expect_err("no Socket.IO");
    assert!(matches!(error, ClientError::NotTidings { .. }), "{error}");
    let (gone, url) = listen().await;
    drop(gone);
    let error = SocketClient::connect(&url, ConnectOptions::default()).await.expect_err("nobody");
    assert!(error.to_string().contains("connection refused; is `tidings serve` running?"), "{error}");
}
