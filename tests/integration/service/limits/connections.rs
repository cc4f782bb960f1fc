//! Who is let in.

use std::time::Duration;

use tidings::client::ClientError;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HEALTH, OTHER, Server, answer, ask, connect, ended, rejected, start};
use crate::service::wait_until;

#[tokio::test]
async fn there_are_so_many_sessions_and_streams_in_all_and_who_goes_makes_room() {
    let (_site, server) = start("connections = 3");
    let stream = "GET /api/v1/channels/queue-updates/stream HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        sockets.push(session(&server).await.expect("connected"));
        let mut following = connect(&server, OTHER).await;
        assert_eq!(ask(&mut following, stream).await.status(), 200);
        streams.push(following);
    }
    match session(&server).await {
        Err(ClientError::Refused { code, .. }) => assert_eq!(code, "too_many_connections"),
        other => panic!("{other:?}"),
    }
    ask(&mut connect(&server, OTHER).await, stream).await.assert_limited("too_many_connections");
    assert_eq!(rejected(&server, "connections").await, 2.0);
    assert_eq!(server.get("/api/v1/stats").await["connections"], 3);
    // Those who are in notice nothing, and who goes makes room.
    for socket in &mut sockets {
        socket.ping().await.expect("it stays");
    }
    sockets.pop().expect("one").close().await;
    wait_until("there is room for a session", async || session(&server).await.is_ok()).await;
    streams.pop();
    wait_until("there is room for a stream", async || {
        ask(&mut connect(&server, OTHER).await, stream).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn there_are_so_many_tcp_connections_in_all() {
    // As many as sessions and streams, and the 1,024 of everybody else.
    const MOST: usize = 2 + 1024;
    super::flood::raise_descriptors();
    let (_site, server) = start("connections = 1\nconnect_timeout = \"1h\"");
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(connect(&server, OTHER).await);
    }
    // Accepted in their order: the last one is in when it is answered.
    assert_eq!(ask(open.last_mut().expect("one"), HEALTH).await.status(), 200);
    answer(&mut connect(&server, OTHER).await).await.assert_limited("too_many_connections");
    drop(open);
    wait_until("there is room again, and it was counted", async || {
        let mut stream = connect(&server, OTHER).await;
        let (asked, mut told) = (HEALTH.replace("/healthz", "/metrics"), Vec::new());
        // One that is turned away may be closed before it has written.
        let _ = stream.write_all(asked.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let _ = stream.read_to_end(&mut told).await;
        let told = String::from_utf8_lossy(&told).into_owned();
        let count = told.split("tidings_rejected_total{reason=\"connections\"} ").nth(1);
        count.and_then(|count| count.lines().next()?.parse::<f64>().ok()).is_some_and(|count| count >= 1.0)
    })
    .await;
}

async fn session(server: &Server) -> Result<SocketClient, ClientError> {
    SocketClient::connect(&server.url, ConnectOptions::default()).await
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_notice_nothing() {
    let (_site, server) = start("connections_per_address = 3");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server, OTHER).await;
        assert_eq!(ask(&mut stream, HEALTH).await.status(), 200);
        open.push(stream);
    }
    let mut more = connect(&server, OTHER).await;
    ask(&mut more, HEALTH).await.assert_limited("too_many_connections");
    assert_eq!(rejected(&server, "address_connections").await, 1.0);
    open.pop();
    wait_until("there is room again", async || {
        ask(&mut connect(&server, OTHER).await, HEALTH).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn an_address_connects_so_often_a_second() {
    let (_site, server) = start("connects_per_second = 2");
    for _ in 0..4 {
        assert_eq!(ask(&mut connect(&server, OTHER).await, HEALTH).await.status(), 200);
    }
    // Answered without waiting for a request.
    answer(&mut connect(&server, OTHER).await).await.assert_limited("too_many_connects");
    assert!(rejected(&server, "connect_rate").await >= 1.0);
    wait_until("it may again", async || {
        ask(&mut connect(&server, OTHER).await, HEALTH).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_never_finishes_its_first_request_ends() {
    let (_site, server) = start("connect_timeout = \"500ms\"");
    for begun in ["", "GET /healthz HTTP/1.1\r\nhost:"] {
        let mut stream = connect(&server, OTHER).await;
        stream.write_all(begun.as_bytes()).await.expect("begun");
        let (took, _) = ended(&mut stream).await;
        assert!(took >= Duration::from_millis(400), "{begun:?}: {took:?}");
    }
    assert_eq!(rejected(&server, "timeout").await, 2.0);
}

#[tokio::test]
async fn the_oldest_of_too_many_that_ask_for_nothing_end_so_that_others_come_in() {
    let (_site, server) = start("handshakes = 10\nconnect_timeout = \"1m\"");
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(connect(&server, OTHER).await);
    }
    assert_eq!(ask(&mut connect(&server, OTHER).await, HEALTH).await.status(), 200);
    ended(&mut silent[0]).await;
    assert_eq!(ask(&mut silent[39], HEALTH).await.status(), 200);
    assert!(rejected(&server, "handshakes").await >= 20.0);
}
