//! The crowd: clients on all servers, publishers on all servers, and the account of what became of it all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::PATIENCE;
use crate::service::Server;
use crate::service::swarm::{Client, Faults, message, publish_somewhere, stories, tops};

/// The channels of which each client joins some.
const ROOMS: [&str; 5] = ["story-a", "story-b", "story-c", "state-a", "state-b"];
const ROOMS_OF_ONE: usize = 3;

type Tops = HashMap<String, u64>;
/// Room, offset and id of a message that was acknowledged.
type Acknowledged = (String, u64, String);

/// Everybody who talks to the servers.
pub(super) struct Crowd {
    rooms: Vec<String>,
    clients: Vec<JoinHandle<Client>>,
    publishers: Vec<JoinHandle<Vec<Acknowledged>>>,
    submitter: JoinHandle<Vec<(String, String)>>,
    stop: Arc<AtomicBool>,
    finish: watch::Sender<Option<Arc<Tops>>>,
    acknowledged: watch::Receiver<u64>,
}

/// What became of it.
pub(super) struct Account {
    pub(super) jobs: Vec<(String, String)>,
    pub(super) messages: usize,
    pub(super) deliveries: usize,
    pub(super) connections: u64,
    pub(super) farewells: u64,
    pub(super) caught_up: Duration,
}

impl Crowd {
    /// `clients` spread over the servers, a publisher and some jobs for each server.
    pub(super) fn gather(urls: &[String], clients: usize, rng: &mut fastrand::Rng) -> Self {
        let rooms = ROOMS.map(str::to_owned).to_vec();
        let (finish, finished) = watch::channel(None);
        let clients = (0..clients).map(|n| {
            let some: Vec<_> =
                rng.choose_multiple(ROOMS, ROOMS_OF_ONE).into_iter().map(str::to_owned).collect();
            tokio::spawn(stay(Client::of(urls, n, &some), finished.clone()))
        });
        let clients = clients.collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (count, acknowledged) = watch::channel(0);
        let publishers = (0..urls.len()).map(|n| {
            let https = https(urls);
            tokio::spawn(publish(n, https, rooms.clone(), rng.fork(), stop.clone(), count.clone()))
        });
        let publishers = publishers.collect();
        let submitter = tokio::spawn(submit(https(urls), rng.fork(), stop.clone()));
        Self { rooms, clients, publishers, submitter, stop, finish, acknowledged }
    }

    /// Waits until `n` more messages were acknowledged: things go on.
    pub(super) async fn goes_on(&mut self, n: u64) {
        let from = *self.acknowledged.borrow();
        let more = self.acknowledged.wait_for(|count| *count >= from + n);
        tokio::time::timeout(PATIENCE, more)
            .await
            .expect("messages are taken again")
            .expect("publishers live");
    }

    /// Ends the load, and checks against what `server` holds that nobody has missed, doubled or reordered anything.
    pub(super) async fn account(self, server: &Server) -> Account {
        self.stop.store(true, Ordering::Release);
        let mut acknowledged = Vec::new();
        for publisher in self.publishers {
            acknowledged.extend(publisher.await.expect("a publisher ends"));
        }
        let jobs = self.submitter.await.expect("the submitter ends");
        let stories = stories(server, &self.rooms).await;
        for (room, offset, id) in &acknowledged {
            let kept = stories[room].get(usize::try_from(offset - 1).expect("small"));
            assert_eq!(kept, Some(id), "{room} {offset} was acknowledged");
        }
        stories.iter().for_each(|(room, story)| assert_senders_in_order(room, story));
        let (began, tops) = (Instant::now(), tops(&stories));
        self.finish.send(Some(Arc::new(tops))).expect("the clients listen");
        let (mut deliveries, mut connections, mut farewells) = (0, 0, 0);
        for client in self.clients {
            let client = tokio::time::timeout(PATIENCE, client).await.expect("all catch up in time");
            let client = client.expect("a client ends");
            assert_eq!(client.faults, Faults::default());
            client.assert_complete(&stories);
            deliveries += client.seen.values().map(Vec::len).sum::<usize>();
            connections += client.connections;
            farewells += client.farewells;
        }
        let caught_up = began.elapsed();
        Account { jobs, messages: acknowledged.len(), deliveries, connections, farewells, caught_up }
    }
}

impl Account {
    pub(super) fn print(&self, disturbed_by: &str) {
        let Self { jobs, messages, deliveries, connections, caught_up, .. } = self;
        println!(
            "{messages} messages and {} jobs, {deliveries} deliveries over {connections} connections, disturbed by \
             {disturbed_by}: 0 lost, 0 doubled, 0 out of order; caught up {caught_up:?} after the last message",
            jobs.len(),
        );
    }
}

fn https(urls: &[String]) -> Vec<HttpClient> {
    let http = |url: &String| HttpClient::new(url, None).expect("a URL").with_timeout(Duration::from_secs(5));
    urls.iter().map(http).collect()
}

/// What one sender sent to one channel stands there in the order in which it sent it, whoever else sent between.
fn assert_senders_in_order(room: &str, story: &[String]) {
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for id in story {
        let (sender, n) = id.split_once('-').expect("a sender and a number");
        let n = n.parse().expect("a number");
        let last = newest.insert(sender, n);
        assert!(last < Some(n), "{room}: {id} after number {last:?} of the same sender");
    }
    assert!(newest.len() > 1, "{room} has messages of several servers");
}

/// A client that stays until its server goes, comes back to another one, and ends where everything ends.
async fn stay(mut client: Client, mut finished: watch::Receiver<Option<Arc<Tops>>>) -> Client {
    loop {
        let mut socket = client.reconnect().await;
        let tops = loop {
            tokio::select! {
                tops = finished.wait_for(Option::is_some) => break tops.expect("told").clone(),
                event = socket.next() => match event {
                    Some(Ok(event)) if client.hear(&event) => {}
                    _ => break None,
                },
            }
        };
        if let Some(tops) = tops
            && client.read_to(&mut socket, &tops).await
        {
            return client;
        }
    }
}

/// Publishes to all rooms through its own server, or another one while that does not answer.
async fn publish(
    sender: usize,
    servers: Vec<HttpClient>,
    rooms: Vec<String>,
    mut rng: fastrand::Rng,
    stop: Arc<AtomicBool>,
    count: watch::Sender<u64>,
) -> Vec<Acknowledged> {
    let (mut acknowledged, mut n, mut at) = (Vec::new(), 0, sender);
    while !stop.load(Ordering::Acquire) {
        let messages: Vec<Value> = (0..rng.usize(1..6))
            .map(|_| {
                n += 1;
                message(&rooms[rng.usize(..rooms.len())], sender, n, rng.usize(..200))
            })
            .collect();
        let offsets = publish_somewhere(&servers, &mut at, &messages).await;
        count.send_modify(|count| *count += offsets.len() as u64);
        let text = |message: &Value, field: &str| message[field].as_str().expect("text").to_owned();
        let named = messages.iter().map(|m| (text(m, "channel"), text(m, "id")));
        acknowledged.extend(named.zip(offsets).map(|((room, id), offset)| (room, offset, id)));
        tokio::time::sleep(Duration::from_millis(rng.u64(50..150))).await;
    }
    acknowledged
}

/// Submits jobs to one server after the other; job and test of each. A key keeps what is sent again from being another.
async fn submit(
    servers: Vec<HttpClient>,
    mut rng: fastrand::Rng,
    stop: Arc<AtomicBool>,
) -> Vec<(String, String)> {
    let (mut jobs, mut at) = (Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        let test = format!("test-{}", jobs.len());
        let job = json!({ "testType": "command", "testId": test, "dedupeKey": test, "maxAttempts": 5,
            "config": { "suite": "short" } });
        match servers[at % servers.len()].post::<_, Value>("/api/v1/jobs", &job).await {
            Ok(answer) => jobs.push((answer["jobId"].as_str().expect("a job id").to_owned(), test)),
            Err(error) => println!("a job is submitted again: {error}"),
        }
        at += 1;
        tokio::time::sleep(Duration::from_millis(rng.u64(100..400))).await;
    }
    jobs
}
