//! What a request may look like, and how long it may take.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::{HEALTH, OTHER, Server, answer, ask, connect, ended, rejected, start};
use crate::service::wait_until;

#[tokio::test]
async fn a_head_has_so_many_bytes_and_so_many_headers() {
    let (_site, server) = start("header_bytes = 2048\nheaders = 20");
    let with = |headers: &str| HEALTH.replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    let many: String = (0..30).map(|n| format!("x-{n}: y\r\n")).collect();
    for (n, headers) in [(1.0, format!("x: {}\r\n", "y".repeat(4096))), (2.0, many)] {
        let mut stream = connect(&server, OTHER).await;
        assert_eq!(ask(&mut stream, &with(&headers)).await.status(), 431);
        ended(&mut stream).await;
        counted(&server, "too_large", n).await;
    }
    assert_eq!(ask(&mut connect(&server, OTHER).await, &with("x: y\r\n")).await.status(), 200);
}

/// The end of the connection comes a moment after the answer.
async fn counted(server: &Server, reason: &str, times: f64) {
    wait_until(reason, async || rejected(server, reason).await >= times).await;
    assert_eq!(rejected(server, reason).await, times, "{reason}");
}

#[tokio::test]
async fn what_is_refused_before_there_is_a_request_is_counted() {
    let (_site, server) = start("header_bytes = 131072");
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(66_000));
    let mut stream = connect(&server, OTHER).await;
    assert_eq!(ask(&mut stream, &long).await.status(), 414);
    ended(&mut stream).await;
    counted(&server, "too_large", 1.0).await;
    let malformed =
        ["GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "\0\0\0\0\r\n\r\n"];
    for (n, head) in (1_u32..).zip(malformed) {
        let mut stream = connect(&server, OTHER).await;
        assert_eq!(ask(&mut stream, head).await.status(), 400, "{head:?}");
        ended(&mut stream).await;
        counted(&server, "invalid", f64::from(n)).await;
    }
    // A request that is good before it does not matter.
    let mut stream = connect(&server, OTHER).await;
    assert_eq!(ask(&mut stream, HEALTH).await.status(), 200);
    assert_eq!(ask(&mut stream, malformed[2]).await.status(), 400);
    counted(&server, "invalid", 5.0).await;
    // Whoever goes away in the midst of a head was not refused.
    drop(connect(&server, OTHER).await.write_all(b"GET / HT").await);
    assert_eq!(ask(&mut connect(&server, OTHER).await, HEALTH).await.status(), 200);
    counted(&server, "invalid", 5.0).await;
    assert_eq!(rejected(&server, "timeout").await, 0.0);
}

#[tokio::test]
async fn a_body_has_so_many_bytes_and_a_larger_one_is_counted() {
    let (_site, server) = start("body_bytes = 2048\nmessage_bytes = 1024");
    for n in 1..=2 {
        let head = "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let body = "x".repeat(4096);
        // Said before, or seen in the midst of it.
        let request = if n == 1 {
            format!("{head}content-length: 4096\r\n\r\n{body}")
        } else {
            format!("{head}transfer-encoding: chunked\r\n\r\n1000\r\n{body}\r\n0\r\n\r\n")
        };
        let mut stream = connect(&server, OTHER).await;
        ask(&mut stream, &request).await.assert_problem(413, "body_too_large");
        assert_eq!(rejected(&server, "too_large").await, f64::from(n));
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (_site, server) = start("body_timeout = \"500ms\"");
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n{";
    let mut stream = connect(&server, OTHER).await;
    ask(&mut stream, head).await.assert_problem(408, "request_timeout");
    ended(&mut stream).await;
    assert_eq!(rejected(&server, "timeout").await, 1.0);
    // One that drips has no more time in all.
    let mut stream = connect(&server, OTHER).await;
    stream.write_all(head.as_bytes()).await.expect("begun");
    let (mut read, mut write) = stream.split();
    let drip = async {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = vec![0; 12];
    tokio::select! {
        () = drip => panic!("the server ended it without an answer"),
        said = tokio::io::AsyncReadExt::read_exact(&mut read, &mut said) => drop(said.expect("an answer")),
    }
    assert_eq!(said, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_a_while() {
    let (_site, server) = start("keep_alive = \"600ms\"\nconnect_timeout = \"500ms\"");
    let mut stream = connect(&server, OTHER).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, HEALTH).await.status(), 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (took, said) = ended(&mut stream).await;
    assert!(took < Duration::from_secs(5) && said.is_empty(), "{took:?} {said:?}");
    counted(&server, "keep_alive", 1.0).await;
    // One that begins with a further head and does not go on is late.
    let mut stream = connect(&server, OTHER).await;
    assert_eq!(ask(&mut stream, HEALTH).await.status(), 200);
    stream.write_all(b"GET / HT").await.expect("begun");
    ended(&mut stream).await;
    counted(&server, "timeout", 1.0).await;
    assert_eq!(rejected(&server, "keep_alive").await, 1.0);
}

#[tokio::test]
async fn a_body_has_so_many_bytes() {
    let (_site, server) = start("body_bytes = 2048\nmessage_bytes = 1024");
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 4000\r\n\r\n";
    let mut stream = connect(&server, OTHER).await;
    stream.write_all(head.as_bytes()).await.expect("asked");
    stream.write_all(&[b' '; 4000]).await.expect("sent");
    answer(&mut stream).await.assert_problem(413, "body_too_large");
}
