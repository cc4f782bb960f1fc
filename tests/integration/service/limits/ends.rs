//! What ends without an answer of HTTP: each end is counted once, under its reason.

use std::time::Instant;

use tokio::io::AsyncWriteExt as _;

use super::{
    DEADLINE, OTHER, Server, Site, UPGRADE, ask, connect, ended, frame, open, rejected, start, upgrade,
};
use crate::service::wait_until;

/// A masked frame, its first byte as it is given, of so many bytes.
fn long(first: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | 127];
    frame.extend((length as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + length, b'4');
    frame
}

/// A WebSocket that is in its namespace sends these bytes: what it is told last.
async fn last_words(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let (mut stream, _) = upgrade(server, OTHER).await.expect("upgraded");
    stream.write_all(&frame("40")).await.expect("asked");
    wait_until("it is there", async || server.metric("tidings_connections").await == 1.0).await;
    // The server may end it while it is still being written to.
    let _ = stream.write_all(bytes).await;
    let (_, said) = super::ended_with(&mut stream).await;
    wait_until("it is gone", async || server.metric("tidings_connections").await == 0.0).await;
    said
}

#[tokio::test]
async fn a_message_that_is_too_long_is_counted_and_its_sender_hears_why() {
    let (_site, server) = start("message_bytes = 2048");
    // The envelope's 8 KiB come on top of it.
    let most = 2048 + 8192;
    let (text, part, go_on) = (0x81, 0x01, 0x00);
    let attacks = [
        ("a frame", long(text, most + 1)),
        ("a frame that is never sent", long(text, 1 << 20)[..100].to_vec()),
        ("many times as much", long(text, 1 << 20)),
        ("a message in parts", [long(part, most), long(go_on, 1)].concat()),
        ("a message that does not end", [long(part, 4096), long(go_on, 4096).repeat(20)].concat()),
    ];
    for (n, (name, bytes)) in (1_u32..).zip(attacks) {
        let said = last_words(&server, &bytes).await;
        let close = said.windows(4).position(|four| four[0] == 0x88 && four[2..] == 1009_u16.to_be_bytes());
        let reason = close.map(|at| String::from_utf8_lossy(&said[at + 4..]).into_owned());
        assert!(reason.is_some_and(|reason| reason.contains("limits.message_bytes")), "{name}: {said:?}");
        assert_eq!(rejected(&server, "too_large").await, f64::from(n), "{name}");
    }
    // The longest there may be is read, and it is no packet of Socket.IO.
    let said = last_words(&server, &long(text, most)).await;
    assert!(!said.windows(2).any(|two| two == 1009_u16.to_be_bytes()), "{said:?}");
    assert_eq!(rejected(&server, "too_large").await, 5.0);
}

#[tokio::test]
async fn who_sends_frames_before_the_answer_to_its_upgrade_evades_no_limit() {
    let (_site, server) = start("events_per_second = 10");
    let mut stream = connect(&server, OTHER).await;
    // Nobody who reads only what follows sees that this begins a pong, whose payload looks like a frame of 8 KiB.
    let (cut, rest) = ([0x8a, 0x84, 0, 0, 0, 0], [0x82, 126, 0x1f, 0xff]);
    stream.write_all(&[UPGRADE.as_bytes(), &frame("40"), &cut].concat()).await.expect("asked");
    wait_until("it is there", async || server.metric("tidings_connections").await == 1.0).await;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let _ = stream.write_all(&[&rest[..], &ping.repeat(1000)].concat()).await;
    ended(&mut stream).await;
    assert_eq!(rejected(&server, "invalid").await, 1.0);
}

#[tokio::test]
async fn a_second_websocket_of_a_session_does_not_keep_the_first_one_open() {
    let (_site, server) = start("connect_timeout = \"500ms\"");
    let (mut first, said) = upgrade(&server, OTHER).await.expect("upgraded");
    first.write_all(&frame("40")).await.expect("asked");
    wait_until("it is there", async || server.metric("tidings_connections").await == 1.0).await;
    let sid = said.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a session id");
    let mut second = connect(&server, OTHER).await;
    let again = UPGRADE.replace("websocket HTTP", &format!("websocket&sid={sid} HTTP"));
    second.write_all(again.as_bytes()).await.expect("asked");
    ended(&mut second).await;
    // Who leaves its namespace is cut off.
    first.write_all(&frame("41")).await.expect("asked");
    ended(&mut first).await;
}

#[tokio::test]
async fn a_polls_body_that_is_too_long_is_counted() {
    let (_site, server) = start("message_bytes = 2048");
    let mut stream = connect(&server, OTHER).await;
    let sid = open(&mut stream).await;
    let body = "4".repeat(2048 + 8192 + 1);
    let request = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(ask(&mut stream, &request).await.status(), 413);
    assert_eq!(rejected(&server, "too_large").await, 1.0);
}

#[tokio::test]
async fn pings_that_are_not_answered_are_counted_once_for_each_session() {
    let site = Site::new("worker = false\n[heartbeat]\ninterval = \"300ms\"\ntimeout = \"300ms\"\n");
    let server = site.start();
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (mut stream, _) = upgrade(&server, OTHER).await.expect("upgraded");
        stream.write_all(&frame("40")).await.expect("asked");
        silent.push(stream);
    }
    for stream in &mut silent {
        ended(stream).await;
    }
    wait_until("each is counted", async || rejected(&server, "heartbeat").await >= 3.0).await;
    // One that says goodbye is over no limit.
    let (mut polite, _) = upgrade(&server, OTHER).await.expect("upgraded");
    polite.write_all(&[frame("40"), frame("1")].concat()).await.expect("asked");
    ended(&mut polite).await;
    assert_eq!(rejected(&server, "heartbeat").await, 3.0);
}

#[tokio::test]
async fn who_takes_nothing_of_its_answers_is_counted_once() {
    let (_site, server) = start("write_deadline = \"1s\"");
    let mut stream = connect(&server, OTHER).await;
    let began = Instant::now();
    // Until no buffer on the way has room left, and from then on until it is ended.
    let asking = async {
        let request = b"GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
        while stream.write_all(&request).await.is_ok() {}
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("it is ended");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(rejected(&server, "write_deadline").await, 1.0);
}
