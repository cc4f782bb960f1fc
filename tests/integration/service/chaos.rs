//! Chaos: clients that come and go, a server that is killed again and again, publishers that do not give up.
//! Nothing is lost, doubled or out of order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings::client::http::HttpClient;
use tokio::sync::watch;

use super::swarm::{
    Client, alone, either, lasting_address, message, publish_until_acknowledged, site, stories, tops,
};
use crate::support::seed;

/// How much chaos.
struct Plan {
    clients: usize,
    publishers: usize,
    kills: u32,
    lasts: Duration,
    /// The pause of a publisher between two requests.
    pause_ms: std::ops::Range<u64>,
    /// How long everybody may take to catch up in the end.
    patience: Duration,
}

fn plan() -> Plan {
    let short = Plan {
        clients: 200,
        publishers: 3,
        kills: 2,
        lasts: Duration::from_secs(9),
        pause_ms: 50..150,
        patience: Duration::from_secs(60),
    };
    let long = Plan {
        clients: 200,
        publishers: 6,
        kills: 5,
        lasts: Duration::from_secs(60),
        pause_ms: 20..150,
        patience: Duration::from_secs(120),
    };
    either(short, long)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_whoever_dies() {
    let _alone = alone().await;
    let (plan, seed) = (plan(), seed());
    let mut rng = fastrand::Rng::with_seed(seed);
    let rooms: Vec<String> = ["story-a", "story-b", "story-c", "state-a"].map(str::to_owned).into();
    let (site, address) = (site(), lasting_address(&mut rng));
    let mut server = site.start_swarm(&address);
    let url = server.url.clone();
    let (finish, finished) = watch::channel(None);
    let clients: Vec<_> = (0..plan.clients)
        .map(|_| tokio::spawn(come_and_go(Client::new(&url, &rooms), rng.fork(), finished.clone())))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..plan.publishers)
        .map(|n| {
            tokio::spawn(publish(
                n,
                url.clone(),
                rooms.clone(),
                rng.fork(),
                plan.pause_ms.clone(),
                stop.clone(),
            ))
        })
        .collect();

    for _ in 0..plan.kills {
        let between = plan.lasts / (plan.kills + 1);
        tokio::time::sleep(between.mul_f64(0.7 + 0.6 * rng.f64())).await;
        server.kill();
        server = site.start_swarm(&address);
    }
    tokio::time::sleep(plan.lasts / (plan.kills + 1)).await;
    stop.store(true, Ordering::Release);
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.extend(publisher.await.expect("a publisher ends"));
    }
    let stories = stories(&server, &rooms).await;
    for (room, offset, id) in &acknowledged {
        let kept = stories[room].get(usize::try_from(offset - 1).expect("small"));
        assert_eq!(kept, Some(id), "{room} {offset} was acknowledged");
    }
    let (started, tops) = (Instant::now(), tops(&stories));
    finish.send(Some(Arc::new(tops))).expect("the clients listen");
    let (mut deliveries, mut spared, mut connections) = (0, 0, 0);
    for client in clients {
        let client = tokio::time::timeout(plan.patience, client).await.expect("all catch up in time");
        let client = client.expect("a client ends");
        client.assert_complete(&stories);
        connections += client.connections;
        deliveries += client.seen.values().map(Vec::len).sum::<usize>();
        spared += client.seen.values().flatten().map(|(_, conflated, _)| conflated).sum::<u64>();
    }
    println!(
        "{} messages to {} clients over {connections} connections and {} deaths of the server: {deliveries} \
         deliveries, {spared} conflated; 0 lost, 0 doubled, 0 out of order; caught up {:?} after the last message",
        acknowledged.len(),
        plan.clients,
        plan.kills,
        started.elapsed(),
    );
}

/// A client that leaves at random and comes back, until it is told where everything ends, and has come there.
async fn come_and_go(
    mut client: Client,
    mut rng: fastrand::Rng,
    mut finished: watch::Receiver<Option<Arc<HashMap<String, u64>>>>,
) -> Client {
    loop {
        let mut socket = client.reconnect().await;
        let life = tokio::time::sleep(Duration::from_millis(rng.u64(50..4000)));
        tokio::pin!(life);
        let tops = loop {
            tokio::select! {
                tops = finished.wait_for(Option::is_some) => break tops.expect("told").clone(),
                () = &mut life => break None,
                event = socket.next() => match event {
                    Some(Ok(event)) if client.hear(&event) => {}
                    _ => break None,
                },
            }
        };
        match tops {
            Some(tops) if client.read_to(&mut socket, &tops).await => return client,
            // With and without a farewell.
            None if rng.bool() => socket.close().await,
            _ => drop(socket),
        }
        if !finished.borrow().is_some() {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..500))).await;
        }
    }
}

/// Publishes to all rooms until it is told to stop: room, offset and id of everything that was acknowledged.
async fn publish(
    sender: usize,
    url: String,
    rooms: Vec<String>,
    mut rng: fastrand::Rng,
    pause_ms: std::ops::Range<u64>,
    stop: Arc<AtomicBool>,
) -> Vec<(String, u64, String)> {
    let http = HttpClient::new(&url, None).expect("a URL").with_timeout(Duration::from_secs(5));
    let (mut acknowledged, mut n) = (Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        let messages: Vec<Value> = (0..rng.usize(1..6))
            .map(|_| {
                n += 1;
                message(&rooms[rng.usize(..rooms.len())], sender, n, rng.usize(..200))
            })
            .collect();
        let offsets = publish_until_acknowledged(&http, &messages).await;
        let text = |message: &Value, field: &str| message[field].as_str().expect("text").to_owned();
        let named = messages.iter().map(|m| (text(m, "channel"), text(m, "id")));
        acknowledged.extend(named.zip(offsets).map(|((room, id), offset)| (room, offset, id)));
        tokio::time::sleep(Duration::from_millis(rng.u64(pause_ms.clone()))).await;
    }
    acknowledged
}
