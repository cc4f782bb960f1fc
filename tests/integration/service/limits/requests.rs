//! What a request may look like, and how long it may take.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::{HEALTH, OTHER, answer, ask, connect, ended, rejected, start};

#[tokio::test]
async fn a_head_has_so_many_bytes_and_so_many_headers() {
    let (_site, server) = start("header_bytes = 2048\nheaders = 20");
    let with = |headers: &str| HEALTH.replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    let many: String = (0..30).map(|n| format!("x-{n}: y\r\n")).collect();
    for headers in [format!("x: {}\r\n", "y".repeat(4096)), many] {
        let mut stream = connect(&server, OTHER).await;
        assert_eq!(ask(&mut stream, &with(&headers)).await.status(), 431);
        ended(&mut stream).await;
    }
    assert_eq!(ask(&mut connect(&server, OTHER).await, &with("x: y\r\n")).await.status(), 200);
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
