//! Who is let in.

use std::time::Duration;

use super::{HEALTH, OTHER, answer, ask, connect, ended, rejected, start};
use crate::service::wait_until;

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
    use tokio::io::AsyncWriteExt as _;
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
