//! A peer that never reads: nobody else notices, the server's memory stays bounded, and it is ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;
use tidings::client::http::HttpClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::swarm::{Client, alone, either, message, publish_until_acknowledged, site, stories, tops};
use super::{Server, wait_until};

/// What everybody receives: so many messages a second of about a kilobyte.
const PER_SECOND: u32 = 100;
const PADDING: usize = 900;
/// What only the stuck peer is sent beside, so that the buffers on the way fill at once.
const FLOOD_PADDING: usize = 50_000;
/// The peer has to be gone this long after it was flooded.
const GONE_WITHIN: Duration = Duration::from_secs(20);
/// What the server may grow by while it has such a peer.
const GROWTH_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_harms_nobody_and_is_ended() {
    let _alone = alone().await;
    let (others, phase) = either((300, Duration::from_secs(3)), (1000, Duration::from_secs(15)));
    let site = site();
    site.write(
        "tidings.toml",
        "[log]\nlevel = \"error\"\n[heartbeat]\ninterval = \"5s\"\ntimeout = \"60s\"\n[limits]\nwrite_deadline = \"5s\"\n",
    );
    let server = site.start_swarm("127.0.0.1:0");
    let rooms = ["story-all".to_owned()];
    let (finish, finished) = watch::channel(None);
    let (phase_two, second) = watch::channel(false);
    let clients: Vec<_> = (0..others)
        .map(|_| tokio::spawn(listen(Client::new(&server.url, &rooms), second.clone(), finished.clone())))
        .collect();
    wait_until("everybody has joined", async || {
        server.metric("tidings_subscriptions").await == f64::from(others)
    })
    .await;

    publish_for(&server, 0, "story-all", PADDING, tokio::time::sleep(phase)).await;
    let before = rss_kib(&server);
    phase_two.send_replace(true);
    let stuck = stuck_peer(&server, &["story-all", "story-flood"]).await;
    let end = async {
        let started = Instant::now();
        let (gone, highest) = watch_the_end(&server, f64::from(others)).await;
        tokio::time::sleep(phase.saturating_sub(started.elapsed())).await;
        (gone, highest)
    };
    let flood = AtomicBool::new(true);
    let flooding = flood_while(&server, &flood);
    let (((gone, highest), ()), ()) = tokio::join!(
        async {
            let ended = publish_for(&server, 1, "story-all", PADDING, end).await;
            flood.store(false, Ordering::Release);
            (ended, ())
        },
        flooding
    );
    drop(stuck);

    let stories = stories(&server, &rooms).await;
    finish.send(Some(Arc::new(tops(&stories)))).expect("the clients listen");
    let [mut without, mut with] = [histogram(), histogram()];
    for client in clients {
        let (first, last) = client.await.expect("a client ends");
        last.assert_complete(&stories);
        without.add(first).expect("the same bounds");
        with.add(&last.latency_ms).expect("the same bounds");
    }
    let p = |h: &Histogram<u64>| (h.value_at_quantile(0.5), h.value_at_quantile(0.99));
    println!(
        "{others} others, {} messages each: p50, p99 {:?} ms without and {:?} ms with a peer that never reads; it was \
         ended after {gone:?}; the server grew from {before} KiB by {} KiB at most",
        stories["story-all"].len(),
        p(&without),
        p(&with),
        highest.saturating_sub(before),
    );
    let ends = async || server.metric("tidings_rejected_total{reason=\"write_deadline\"}").await;
    wait_until("its end is counted", async || ends().await >= 1.0).await;
    assert!(highest.saturating_sub(before) < GROWTH_KIB, "{before} KiB grew to {highest} KiB");
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

/// Receives in one connection until all is there; its latencies before the second phase, and the client.
async fn listen(
    mut client: Client,
    mut second: watch::Receiver<bool>,
    mut finished: watch::Receiver<Option<Arc<HashMap<String, u64>>>>,
) -> (Histogram<u64>, Client) {
    let mut socket = client.reconnect().await;
    let mut first = histogram();
    let tops = loop {
        tokio::select! {
            tops = finished.wait_for(Option::is_some) => break tops.expect("told").clone(),
            Ok(()) = second.changed() => first = std::mem::replace(&mut client.latency_ms, histogram()),
            event = socket.next() => {
                let event = event.expect("the connection stays").expect("the connection stays");
                assert!(client.hear(&event), "{:?}", client.faults);
            }
        }
    };
    assert!(
        client.read_to(&mut socket, &tops.expect("told")).await,
        "the connection stays: {:?}",
        client.faults
    );
    assert_eq!(client.connections, 1);
    (first, client)
}

/// Publishes to `channel` at the agreed pace until `end`.
async fn publish_for<T>(
    server: &Server,
    sender: usize,
    channel: &str,
    padding: usize,
    end: impl Future<Output = T>,
) -> T {
    let publish = async {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
        for n in 0.. {
            pace.tick().await;
            publish_until_acknowledged(&server.http, &[message(channel, sender, n, padding)]).await;
        }
    };
    tokio::select! {
        biased;
        ended = end => ended,
        () = publish => unreachable!("it goes on for ever"),
    }
}

/// Publishes large messages to the channel that only the stuck peer has joined.
async fn flood_while(server: &Server, on: &AtomicBool) {
    let http = HttpClient::new(&server.url, None).expect("a URL");
    let mut n = 0;
    while on.load(Ordering::Acquire) {
        let messages: Vec<Value> = (n..n + 5).map(|n| message("story-flood", 9, n, FLOOD_PADDING)).collect();
        publish_until_acknowledged(&http, &messages).await;
        n += 5;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until only `others` subscriptions are left: how long it took, and the most memory that was used.
async fn watch_the_end(server: &Server, others: f64) -> (Duration, u64) {
    let (started, mut highest) = (Instant::now(), 0);
    loop {
        highest = highest.max(rss_kib(server));
        if server.metric("tidings_subscriptions").await == others {
            return (started.elapsed(), highest);
        }
        assert!(started.elapsed() < GONE_WITHIN, "the stuck peer is still there after {GONE_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The memory that the server has in RAM.
fn rss_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A socket that has joined `rooms`, and from which nothing is read any more.
async fn stuck_peer(server: &Server, rooms: &[&str]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(server.address().parse().expect("an address")).await.expect("connected");
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.expect("asked");
    read_until(&mut stream, "pingInterval").await;
    stream.write_all(&frame("40")).await.expect("asked");
    read_until(&mut stream, "connection:established").await;
    for (n, room) in rooms.iter().enumerate() {
        stream.write_all(&frame(&format!("42{n}[\"room:join\",\"{room}\"]"))).await.expect("asked");
        read_until(&mut stream, &format!("43{n}[{{\"ok\":true")).await;
    }
    stream
}

/// A masked text frame of less than 126 bytes.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 126);
    // A mask of zeros is a mask.
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn read_until(stream: &mut TcpStream, part: &str) {
    let mut seen = Vec::new();
    let reading = async {
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(part) {
            let n = stream.read(&mut buffer).await.expect("read");
            assert!(n > 0, "the connection ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
        }
    };
    tokio::time::timeout(super::DEADLINE, reading).await.unwrap_or_else(|_| panic!("no {part}"));
}
