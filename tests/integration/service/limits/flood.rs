//! Everything bad at once: handshakes that never finish, sockets that never read, and clients that send as fast as they
//! can, beside good clients who notice nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{connect, frame, rejected, upgrade};
use crate::service::swarm::{
    Client, alone, either, message, publish_until_acknowledged, site, stories, tops,
};
use crate::service::{Server, wait_until};

const ROOM: &str = "story-all";
const PADDING: usize = 200;
/// Each bad one has to be gone so long after it came.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// What the server may grow by meanwhile, and what may be left of that in the end.
const GROWTH_KIB: u64 = 256 * 1024;
const KEPT_KIB: u64 = 24 * 1024;

struct Sizes {
    good: usize,
    handshakes: usize,
    deaf: usize,
    floods: usize,
    per_second: u32,
    phase: Duration,
}

/// As many as fit: each costs a descriptor here and one in the server, which inherits the limit.
fn sizes() -> Sizes {
    let (soft, hard) = raise_descriptors();
    let (short, long) = (
        Sizes {
            good: 100,
            handshakes: 400,
            deaf: 100,
            floods: 40,
            per_second: 20,
            phase: Duration::from_secs(3),
        },
        Sizes {
            good: 500,
            handshakes: 2000,
            deaf: 500,
            floods: 200,
            per_second: 50,
            phase: Duration::from_secs(15),
        },
    );
    let sizes = either(short, long);
    let needed = (sizes.good + sizes.handshakes + sizes.deaf + sizes.floods + 200) as u64;
    assert!(
        soft >= needed,
        "{needed} descriptors are needed, and the limit is {soft} of {hard}: see `ulimit -Hn`"
    );
    sizes
}

/// As many descriptors as this process may have.
pub(super) fn raise_descriptors() -> (u64, u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    (limit.maximum.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_clients_of_all_kinds_get_their_ending_and_good_ones_lose_nothing() {
    let _alone = alone().await;
    let sizes = sizes();
    let site = site();
    site.write(
        "tidings.toml",
        "[log]\nlevel = \"error\"\n[heartbeat]\ninterval = \"5s\"\ntimeout = \"5s\"\n\
         [limits]\nevents_per_second = 100\nconnects_per_second = 250\nconnect_timeout = \"3s\"\nwrite_deadline = \"5s\"\n",
    );
    let server = Arc::new(site.start_swarm("127.0.0.1:0"));
    let rooms = [ROOM.to_owned()];
    let (finish, finished) = watch::channel(None);
    let (bad_begins, begun) = watch::channel(false);
    let mut good = Vec::new();
    for _ in 0..sizes.good {
        let client = Client::new(&server.url, &rooms);
        good.push(tokio::spawn(listen(client, begun.clone(), finished.clone())));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let present = sizes.good as f64;
    wait_until("the good ones are there", async || server.metric("tidings_subscriptions").await == present)
        .await;

    publish_while(&server, 0, sizes.per_second, tokio::time::sleep(sizes.phase)).await;
    let before = Footprint::of(&server).await;
    bad_begins.send_replace(true);
    let (endings, highest) = publish_while(&server, 1, sizes.per_second, bad(&server, &sizes, present)).await;
    let after = settled(&server, before).await;

    let stories = stories(&server, &rooms).await;
    finish.send(Some(Arc::new(tops(&stories)))).expect("the clients listen");
    let (mut quiet, mut flooded) = (histogram(), histogram());
    for client in good {
        let (first, last) = client.await.expect("a client ends");
        last.assert_complete(&stories);
        quiet.add(first).expect("the same bounds");
        flooded.add(&last.latency_ms).expect("the same bounds");
    }
    let p = |h: &Histogram<u64>| (h.value_at_quantile(0.5), h.value_at_quantile(0.99));
    println!(
        "{} good clients, {} messages each, beside {} handshakes that never finish, {} that never read and {} that send \
         as fast as they can: p50, p99 {:?} ms in quiet and {:?} ms beside them; {endings:?}; before {before:?}, at most \
         {highest} KiB, after {after:?}",
        sizes.good,
        stories[ROOM].len(),
        sizes.handshakes,
        sizes.deaf,
        sizes.floods,
        p(&quiet),
        p(&flooded),
    );
    assert!(highest.saturating_sub(before.rss_kib) < GROWTH_KIB, "{before:?} grew to {highest} KiB");
}

/// How large a server is.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    rss_kib: u64,
    descriptors: usize,
    tasks: u64,
}

impl Footprint {
    async fn of(server: &Server) -> Self {
        let pid = server.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        let tasks = server.get("/api/v1/stats").await["tasks"].as_u64().expect("a number of tasks");
        Self { rss_kib: rss.trim().trim_end_matches(" kB").parse().expect("a number"), descriptors, tasks }
    }
}

/// Waits until connections and tasks are as many as before, and the memory of those who are gone has been handed back.
async fn settled(server: &Server, before: Footprint) -> Footprint {
    let mut after = before;
    wait_until("nothing is left of the bad ones", async || {
        after = Footprint::of(server).await;
        // Those who ask here have a connection or two of their own.
        after.descriptors <= before.descriptors + 4
            && after.tasks <= before.tasks + 8
            && after.rss_kib < before.rss_kib + KEPT_KIB
    })
    .await;
    after
}

/// All bad ones, until each has had its ending: how many there were of each, and the most memory meanwhile.
async fn bad(server: &Arc<Server>, sizes: &Sizes, present: f64) -> (BTreeMap<&'static str, usize>, u64) {
    let mut all = JoinSet::new();
    for n in 0..sizes.handshakes {
        all.spawn(never_finishes(server.clone(), n));
    }
    for _ in 0..sizes.deaf {
        all.spawn(never_reads(server.clone()));
    }
    let until = Instant::now() + sizes.phase;
    for n in 0..sizes.floods {
        all.spawn(floods(server.clone(), n, until));
    }
    let (mut endings, mut highest) = (BTreeMap::new(), 0);
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    let waiting = async {
        while !all.is_empty() {
            tokio::select! {
                Some(ending) = all.join_next() => *endings.entry(ending.expect("it ends")).or_insert(0) += 1,
                _ = looks.tick() => highest = highest.max(Footprint::of(server).await.rss_kib),
            }
        }
    };
    tokio::time::timeout(sizes.phase + GONE_WITHIN, waiting).await.expect("each gets its ending");
    wait_until("their sessions have ended", async || server.metric("tidings_subscriptions").await == present)
        .await;
    assert!(rejected(server, "flood").await >= 1.0 && rejected(server, "timeout").await >= 1.0);
    (endings, highest)
}

/// Begins a handshake, and then nothing: without a word, amid its request, or without entering its namespace.
async fn never_finishes(server: Arc<Server>, n: usize) -> &'static str {
    let from = Ipv4Addr::new(127, 0, 3, u8::try_from(n % 16 + 1).expect("small"));
    let mut stream = connect(&server, from).await;
    let begun = match n % 3 {
        0 => Ok(()),
        1 => stream.write_all(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: l").await,
        _ => {
            let Some(mut stream) = opened(&server, from).await else { return "handshake refused" };
            gone(&mut stream).await;
            return "handshake ended";
        }
    };
    if begun.is_ok() {
        gone(&mut stream).await;
    }
    "handshake ended"
}

/// Joins the room and never reads again.
async fn never_reads(server: Arc<Server>) -> &'static str {
    let Some(mut stream) = opened(&server, Ipv4Addr::new(127, 0, 0, 4)).await else { return "deaf refused" };
    let joining = [frame("40"), frame(&format!("420[\"room:join\",\"{ROOM}\"]"))].concat();
    if stream.write_all(&joining).await.is_ok() {
        // A peer that has gone shows without reading: what it is sent is refused.
        while stream.write_all(&frame("41/x,")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    "deaf ended"
}

/// Sends as fast as it can, and comes back as soon as it was ended, until the time is over.
async fn floods(server: Arc<Server>, n: usize, until: Instant) -> &'static str {
    let from = Ipv4Addr::new(127, 0, 0, 5);
    let events = match n % 2 {
        0 => frame("42[\"room:leave\",\"story-x\"]"),
        _ => frame("3"),
    }
    .repeat(100);
    while Instant::now() < until {
        if let Some(mut stream) = opened(&server, from).await {
            let _ = stream.write_all(&frame("40")).await;
            while stream.write_all(&events).await.is_ok() {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    "flood ended"
}

/// A WebSocket, unless it was refused.
async fn opened(server: &Server, from: Ipv4Addr) -> Option<TcpStream> {
    upgrade(server, from).await.map(|(stream, _)| stream)
}

/// Reads until the server has ended it.
async fn gone(stream: &mut TcpStream) {
    let mut some = [0; 1024];
    while stream.read(&mut some).await.is_ok_and(|n| n > 0) {}
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

/// Receives in one connection until all is there; its latencies before the bad ones came, and the client.
async fn listen(
    mut client: Client,
    mut begun: watch::Receiver<bool>,
    mut finished: watch::Receiver<Option<Arc<HashMap<String, u64>>>>,
) -> (Histogram<u64>, Client) {
    let mut socket = client.reconnect().await;
    let mut first = histogram();
    let tops = loop {
        tokio::select! {
            tops = finished.wait_for(Option::is_some) => break tops.expect("told").clone(),
            Ok(()) = begun.changed() => first = std::mem::replace(&mut client.latency_ms, histogram()),
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

/// Publishes to the room of all until `end`.
async fn publish_while<T>(
    server: &Server,
    sender: usize,
    per_second: u32,
    end: impl Future<Output = T>,
) -> T {
    let publish = async {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
        for n in 0.. {
            pace.tick().await;
            publish_until_acknowledged(&server.http, &[message(ROOM, sender, n, PADDING)]).await;
        }
    };
    tokio::select! {
        biased;
        ended = end => ended,
        () = publish => unreachable!("it goes on for ever"),
    }
}
