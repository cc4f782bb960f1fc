//! A storm: everybody comes back at once, and everybody has missed as much.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::Barrier;

use super::swarm::{Client, alone, either, message, publish_until_acknowledged, site, stories, tops};
use super::wait_until;

/// What everybody has before, and then misses.
const BEFORE: usize = 50;
const MISSED: usize = 300;
/// How long it may take; what it takes is printed.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_comes_back_at_once_gets_exactly_what_it_missed() {
    let _alone = alone().await;
    let clients = either(300, 1000);
    let site = site();
    let server = site.start_swarm("127.0.0.1:0");
    let rooms: Arc<[String]> = ["story-storm".to_owned()].into();
    let publish = async |sender: usize, n: usize| {
        let messages: Vec<Value> = (0..n).map(|n| message(&rooms[0], sender, n, 100)).collect();
        publish_until_acknowledged(&server.http, &messages).await;
    };
    publish(0, BEFORE).await;
    let before = tops(&stories(&server, &rooms).await);
    let arriving = (0..clients).map(|_| arrive(Client::new(&server.url, &rooms), &before));
    // Few at a time, or the first arrival would be a storm as well.
    let away: Vec<Client> = futures_util::stream::iter(arriving).buffer_unordered(20).collect().await;
    wait_until("everybody has gone", async || server.metric("tidings_subscriptions").await == 0.0).await;
    publish(1, MISSED).await;

    let stories = Arc::new(stories(&server, &rooms).await);
    let tops = Arc::new(tops(&stories));
    let gate = Arc::new(Barrier::new(clients + 1));
    let mut storm = Vec::new();
    for mut client in away {
        let (gate, tops) = (gate.clone(), tops.clone());
        storm.push(tokio::spawn(async move {
            gate.wait().await;
            let started = Instant::now();
            let mut socket = client.reconnect().await;
            while !client.read_to(&mut socket, &tops).await {
                socket = client.reconnect().await;
            }
            (client, started.elapsed())
        }));
    }
    gate.wait().await;
    let started = Instant::now();
    let (mut took, mut connections) = (Vec::new(), 0);
    for client in storm {
        let (client, own) =
            tokio::time::timeout(PATIENCE, client).await.expect("in time").expect("a client ends");
        client.assert_complete(&stories);
        took.push(own);
        connections += client.connections;
    }
    let all = started.elapsed();
    took.sort_unstable();
    println!(
        "{clients} clients came back at once, each {MISSED} messages behind: all recovered within {all:?}, half of them \
         within {:?}; {connections} connections in all",
        took[took.len() / 2],
    );
}

/// Reads what there is, and goes away.
async fn arrive(mut client: Client, tops: &HashMap<String, u64>) -> Client {
    let mut socket = client.reconnect().await;
    assert!(client.read_to(&mut socket, tops).await, "{:?}", client.faults);
    socket.close().await;
    client
}
