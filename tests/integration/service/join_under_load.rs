//! Joins while messages arrive: from the start, from a position, twice, before there is anything to read, and far
//! behind. Each of them leaves neither gap nor duplicate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::model::{Epoch, Position};

use super::swarm::{alone, either, message, publish_until_acknowledged, site};
use super::{DEADLINE, Server};
use crate::support::seed;

/// How fast messages arrive meanwhile.
const PER_SECOND: usize = 1000;
/// How far behind somebody is who was away for long.
const FAR_BEHIND: usize = 50_000;

/// One client of one room that checks every message it gets.
struct Checker {
    socket: SocketClient,
    receiver: Receiver,
    room: String,
}

impl Checker {
    async fn connect(server: &Server, room: &str) -> Self {
        let options = ConnectOptions { auth: json!({ "batch": true }), ..ConnectOptions::default() };
        let socket = SocketClient::connect(&server.url, options).await.expect("connected");
        Self { socket, receiver: Receiver::new(), room: room.to_owned() }
    }

    async fn join(&mut self, since: Since) {
        let joined = self.socket.join(&self.room, since.clone()).await.expect("joined");
        assert!(joined.recovered || since == Since::Now, "{since:?}: {joined:?}");
        self.receiver.joined(&since, &joined);
    }

    fn at(&self) -> Position {
        self.receiver.position(&self.room).expect("joined").clone()
    }

    /// Reads up to `offset` at least; every message on the way continues the one before.
    async fn read_to(&mut self, offset: u64) {
        let reading = async {
            while self.at().offset < offset {
                let event =
                    self.socket.next().await.expect("the connection stays").expect("the connection stays");
                assert_ne!(event.name, "room:reset", "{}", event.data);
                for received in self.receiver.receive(&event.name, &event.data).expect("well formed") {
                    let at = received.envelope.offset;
                    assert_eq!(received.verdict, Verdict::Deliver, "{} {at}", self.room);
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reading).await;
        assert!(in_time.is_ok(), "{} is at {:?}, not at {offset} within {DEADLINE:?}", self.room, self.at());
    }

    async fn read(&mut self, n: u64) {
        self.read_to(self.at().offset + n).await;
    }
}

/// Publishes at the agreed pace until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
    started: Instant,
}

impl Load {
    fn start(server: &Server, channel: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let http = HttpClient::new(&server.url, None).expect("a URL");
        let (stopped, channel) = (stop.clone(), channel.to_owned());
        let task = tokio::spawn(async move {
            // Ten at a time, a hundred times a second.
            let mut pace =
                tokio::time::interval(Duration::from_secs(10) / u32::try_from(PER_SECOND).expect("small"));
            let mut n = 0;
            while !stopped.load(Ordering::Acquire) {
                pace.tick().await;
                let messages: Vec<Value> = (n..n + 10).map(|n| message(&channel, 1, n, 50)).collect();
                publish_until_acknowledged(&http, &messages).await;
                n += 10;
            }
            n
        });
        Self { stop, task, started: Instant::now() }
    }

    /// Ends it: how many messages there were.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Release);
        let published = self.task.await.expect("the publisher ends");
        let rate = published as f64 / self.started.elapsed().as_secs_f64();
        println!("{published} messages, {rate:.0} a second");
        published
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_while_messages_arrive_leave_neither_gap_nor_duplicate() {
    let _alone = alone().await;
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let server = site_server();
    let server = &server.1;
    // Before there is a message at all.
    let mut first = Checker::connect(server, "story-load").await;
    first.join(Since::Start).await;
    assert_eq!(first.at().offset, 0);
    let mut early = Checker::connect(server, "story-load").await;
    early.join(Since::After(first.at())).await;
    let load = Load::start(server, "story-load");
    first.read(200).await;
    early.read_to(first.at().offset).await;

    let rounds = either(20, 200);
    for _ in 0..rounds {
        let known = Position { offset: rng.u64(..=first.at().offset), ..first.at() };
        let since = [Since::Start, Since::Now, Since::After(known)][rng.usize(..3)].clone();
        let mut other = Checker::connect(server, "story-load").await;
        other.join(since).await;
        other.read(rng.u64(1..50)).await;
        // Comes back from where it is, twice in a row: what it had not read yet comes again, once.
        for _ in 0..2 {
            let at = other.at();
            other = Checker { receiver: other.receiver, ..Checker::connect(server, "story-load").await };
            other.join(Since::After(at)).await;
        }
        other.read(rng.u64(1..200)).await;
        first.read_to(other.at().offset).await;
    }
    let published = load.stop().await as u64;
    for checker in [&mut first, &mut early] {
        checker.read_to(published).await;
        assert_eq!(checker.at().offset, published);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_join_of_a_room_replaces_the_first_while_messages_arrive() {
    let _alone = alone().await;
    let server = site_server();
    let server = &server.1;
    let load = Load::start(server, "story-twice");
    let mut checker = Checker::connect(server, "story-twice").await;
    checker.join(Since::Start).await;
    for _ in 0..either(5, 50) {
        checker.read(50).await;
        let at = checker.at();
        // What came between the two acknowledgements is the first membership's, and comes again: read anew.
        let joined = checker.socket.join("story-twice", Since::After(at.clone())).await.expect("joined");
        assert!(joined.recovered, "{joined:?}");
        let seen = skip_to_replay(&mut checker, &at).await;
        assert!(seen >= at.offset);
    }
    let published = load.stop().await as u64;
    checker.read_to(published).await;
}

/// Reads past what the replaced membership had still sent, to the first message after `at` of the new one.
async fn skip_to_replay(checker: &mut Checker, at: &Position) -> u64 {
    // Every message of either membership continues its own; together they hold all after `at`, and duplicates are
    // those of the first one only.
    let mut held: HashMap<u64, u32> = HashMap::new();
    let target = at.offset + 30;
    let mut last = at.offset;
    while last < target {
        let event = checker.socket.next().await.expect("open").expect("open");
        for received in checker.receiver.receive(&event.name, &event.data).expect("well formed") {
            let offset = received.envelope.offset;
            let times = held.entry(offset).or_default();
            *times += 1;
            assert!(*times <= 2, "{offset} came more than twice");
            match received.verdict {
                Verdict::Deliver => last = offset,
                Verdict::Duplicate => {}
                other => panic!("{other:?} at {offset}"),
            }
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_missed_messages_are_replayed_while_more_arrive() {
    let _alone = alone().await;
    let server = site_server();
    let server = &server.1;
    let http = HttpClient::new(&server.url, None).expect("a URL");
    let filling = Instant::now();
    for from in (0..FAR_BEHIND).step_by(1000) {
        let messages: Vec<Value> = (from..from + 1000).map(|n| message("story-far", 0, n, 0)).collect();
        publish_until_acknowledged(&http, &messages).await;
    }
    println!("{FAR_BEHIND} messages stored in {:?}", filling.elapsed());
    let epoch = server.get("/api/v1/channels/story-far/messages?limit=1").await["epoch"].clone();
    let epoch = Epoch::new(epoch.as_str().expect("an epoch"));
    let load = Load::start(server, "story-far");
    for since in [Since::Start, Since::After(Position { epoch, offset: 10 })].into_iter().take(either(1, 2)) {
        let started = Instant::now();
        let mut checker = Checker::connect(server, "story-far").await;
        checker.join(since.clone()).await;
        checker.read_to(FAR_BEHIND as u64).await;
        println!("{since:?}: {FAR_BEHIND} missed messages in {:?}", started.elapsed());
        let top = server.get("/api/v1/channels/story-far/messages?limit=1").await["top"].clone();
        checker.read_to(top.as_u64().expect("a top")).await;
        println!("live after {:?}", started.elapsed());
    }
    load.stop().await;
}

fn site_server() -> (super::Site, Server) {
    let site = site();
    let server = site.start_swarm("127.0.0.1:0");
    (site, server)
}
