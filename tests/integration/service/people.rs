//! People over several servers on one Redis: who is there, what waits for them, where their devices are.

use serde_json::{Value, json};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};

use super::inbox::{caller, device, next, notify, offline, titles, unread};
use super::{DEADLINE, Server, Site, wait_until};
use crate::support::redis::{connect, shared_url};

/// Servers on one Redis, each with a directory of its own.
fn servers<const N: usize>(url: &str) -> ([Site; N], [Server; N]) {
    let sites = std::array::from_fn(|_| Site::new(""));
    let servers = std::array::from_fn(|n: usize| {
        let site: &Site = &sites[n];
        site.start_with("127.0.0.1:0", &["--redis", url])
    });
    (sites, servers)
}

async fn online(server: &Server) -> Value {
    server.get("/api/v1/users/online").await["users"].clone()
}

async fn ended(mut socket: SocketClient) {
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("it was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_one_whichever_servers_the_devices_are_on() {
    let (_sites, [a, b, c]) = servers(&shared_url());
    let (mut phone, phone_id) = device(&a, "ann", json!({ "clientId": "phone" })).await;
    let (mut desk, desk_id) = device(&b, "ann", json!({ "clientId": "desk" })).await;
    let both = json!([{ "userId": "ann", "connections": 2 }]);
    let room = "/api/v1/channels/user-notifications-ann/presence";
    for server in [&a, &b, &c] {
        wait_until("both are known", async || online(server).await == both).await;
        wait_until("both are in the room", async || server.get(room).await["connections"] == 2).await;
    }

    notify(&c, "ann", "hello").await;
    assert_eq!(titles(&mut phone, 1).await, ["hello"]);
    assert_eq!(titles(&mut desk, 1).await, ["hello"]);
    assert_eq!(unread(&b, "ann").await, (vec!["hello".to_owned()], 1));
    wait_until("it was taken as it came", async || offline(&c, "ann").await.1 == 0).await;
    let id = notify(&a, "ann", "oops").await;
    let recalled: Value = caller(&b, "bob")
        .post(&format!("/api/v1/messages/{id}/recall"), &json!({}))
        .await
        .expect("recalled by its sender, elsewhere");
    assert!(recalled.is_object());
    wait_until("it is gone from the unread", async || unread(&a, "ann").await.1 == 1).await;

    let page = c.get("/api/v1/connections").await;
    let nodes: Vec<_> = page["connections"].as_array().expect("connections").iter().collect();
    assert_eq!((nodes.len(), page["total"].as_u64()), (2, Some(2)));
    assert_ne!(nodes[0]["node"], nodes[1]["node"]);
    let stats = c.get("/api/v1/stats").await;
    assert_eq!(
        (&stats["connections"], &stats["users"], &stats["inbox"]["unread"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let counts = stats["nodes"].as_array().expect("nodes").iter().map(|node| node["connections"].as_u64());
    assert_eq!(counts.map(Option::unwrap_or_default).sum::<u64>(), 2);
    assert_eq!(stats["nodes"].as_array().map(Vec::len), Some(3));

    // An administrator may be anywhere.
    let closed: Value = c.http.delete(&format!("/api/v1/connections/{phone_id}")).await.expect("ended");
    assert_eq!(closed["closed"], 1);
    ended(phone).await;
    let named = json!({ "connectionIds": [phone_id, desk_id, "none"] });
    let closed = a.post("/api/v1/connections/cleanup", &named).await;
    assert_eq!(closed["closed"], 1);
    ended(desk).await;
    assert_eq!(online(&b).await, json!([]));
    assert_eq!(c.post("/api/v1/connections/cleanup", &json!({})).await["closed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_goes_on_on_another_server() {
    let url = shared_url();
    let (_sites, [a, b]) = servers(&url);
    let room = "test-progress-moved";
    let publish = async |server: &Server, n: u64| {
        server.post("/api/v1/events", &json!({ "channel": room, "event": "custom:n", "data": n })).await;
    };
    let (mut tablet, _) = device(&a, "ada", json!({ "clientId": "tablet", "inbox": false })).await;
    tablet.join(room, Since::Stored).await.expect("joined");
    for n in 0..3 {
        publish(&b, n).await;
        assert_eq!(next(&mut tablet, "custom:n").await["data"], n);
    }
    tablet.close().await;
    publish(&a, 3).await;
    let (redis, _tasks) = connect(&url).await;
    let place = redis.key(&format!("c:{room}"), "yw:ada tablet");
    wait_until("the place is saved", async || {
        let saved: Option<String> = redis.query(redis::cmd("GET").arg(&place)).await.expect("a look");
        saved.is_some_and(|saved| saved.ends_with(" 3"))
    })
    .await;
    let (mut tablet, _) = device(&b, "ada", json!({ "clientId": "tablet", "inbox": false })).await;
    let joined = tablet.join(room, Since::Stored).await.expect("joined");
    assert_eq!(joined.since.as_ref().map(|place| place.offset), Some(3), "{joined:?}");
    assert_eq!((joined.recovered, joined.replayed), (true, 1), "{joined:?}");
    assert_eq!(next(&mut tablet, "custom:n").await["data"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_server_that_dies_have_left_and_a_broadcast_reaches_the_rest() {
    let (_sites, [a, b]) = servers(&shared_url());
    let mut watcher = SocketClient::connect(&a.url, ConnectOptions::default()).await.expect("connected");
    next(&mut watcher, "connection:established").await;
    for room in ["user-presence", "system-alerts"] {
        watcher.join(room, Since::Now).await.expect("joined");
    }
    let (_phone, _) = device(&b, "ann", json!({ "clientId": "phone" })).await;
    assert_eq!(next(&mut watcher, "user:online").await["data"]["userId"], "ann");
    b.post("/api/v1/broadcast", &json!({ "level": "info", "message": "all of you" })).await;
    assert_eq!(next(&mut watcher, "system:alert").await["data"]["message"], "all of you");
    b.kill();
    let patience = 2 * DEADLINE;
    let left = tokio::time::timeout(patience, watcher.next()).await.expect("it is noticed");
    let left = left.expect("open").expect("an event");
    assert_eq!(left.name, "user:offline");
    assert_eq!(online(&a).await, json!([]));
    assert_eq!(a.get("/api/v1/connections").await["total"], 1);
}
