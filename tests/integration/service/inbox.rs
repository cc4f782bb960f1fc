//! Notifications reach people: on all of their devices, on their return, and over a crash.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::model::UserId;

use super::{DEADLINE, Server, Site, wait_until};

/// Long enough that what should not come would have come.
const QUIET: Duration = Duration::from_millis(300);

/// A device of `user`, connected and greeted; its connection's id.
pub(super) async fn device(server: &Server, user: &str, auth: Value) -> (SocketClient, String) {
    let mut auth = auth;
    auth["userId"] = json!(user);
    let options = ConnectOptions { auth, ..ConnectOptions::default() };
    let mut socket = SocketClient::connect(&server.url, options).await.expect("connected");
    let greeting = next(&mut socket, "connection:established").await;
    (socket, greeting["connectionId"].as_str().expect("an id").to_owned())
}

/// The next event, which has to be `name`.
pub(super) async fn next(socket: &mut SocketClient, name: &str) -> Value {
    let event = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap_or_else(|_| panic!("no {name}"));
    let event = event.expect("open").expect("an event");
    assert_eq!(event.name, name, "{}", event.data);
    serde_json::from_str(event.data.get()).expect("JSON")
}

/// The titles of the next `n` notifications.
pub(super) async fn titles(socket: &mut SocketClient, n: usize) -> Vec<String> {
    let mut titles = Vec::new();
    while titles.len() < n {
        titles.push(title(&next(socket, "user:notification").await));
    }
    titles
}

fn title(message: &Value) -> String {
    message["data"]["title"].as_str().expect("a title").to_owned()
}

async fn assert_quiet(socket: &mut SocketClient) {
    if let Ok(event) = tokio::time::timeout(QUIET, socket.next()).await {
        panic!("nothing more was to come: {event:?}");
    }
}

/// Sends a notification in the name of `bob`; its id.
pub(super) async fn notify(server: &Server, user: &str, title: &str) -> String {
    let body = json!({ "title": title, "body": "text" });
    let path = format!("/api/v1/users/{user}/messages");
    let placed: Value = caller(server, "bob").post(&path, &body).await.expect("notified");
    placed["id"].as_str().expect("an id").to_owned()
}

pub(super) fn caller(server: &Server, user: &str) -> HttpClient {
    server.http.clone().as_user(&UserId::parse(user).expect("a user id"))
}

pub(super) async fn unread(server: &Server, user: &str) -> (Vec<String>, u64) {
    list(
        caller(server, user)
            .post("/api/v1/messages/unread", &json!({ "limit": 1000 }))
            .await
            .expect("a list"),
    )
}

pub(super) async fn offline(server: &Server, user: &str) -> (Vec<String>, u64) {
    list(caller(server, user).get("/api/v1/messages/offline?limit=1000").await.expect("a list"))
}

#[expect(clippy::needless_pass_by_value, reason = "the answer is read here and nowhere else")]
fn list(page: Value) -> (Vec<String>, u64) {
    let titles = page["messages"].as_array().expect("messages").iter().map(title).collect();
    (titles, page["total"].as_u64().expect("a total"))
}

#[tokio::test]
async fn all_devices_of_a_user_get_a_notification_and_presence_counts_them() {
    let server = Site::new("").start();
    let mut watcher = SocketClient::connect(&server.url, ConnectOptions::default()).await.expect("connected");
    next(&mut watcher, "connection:established").await;
    watcher.join("user-presence", Since::Now).await.expect("joined");
    let (mut phone, _) = device(&server, "ann", json!({ "clientId": "phone" })).await;
    let (mut desk, _) = device(&server, "ann", json!({ "clientId": "desk" })).await;
    let came = next(&mut watcher, "user:online").await;
    assert_eq!(came["data"], json!({ "userId": "ann", "connections": 1 }));
    let users = server.get("/api/v1/users/online").await;
    assert_eq!(users, json!({ "users": [{ "userId": "ann", "connections": 2 }], "total": 1 }));
    let room = "/api/v1/channels/user-notifications-ann/presence";
    wait_until("both are in the inbox's room", async || server.get(room).await["connections"] == 2).await;

    notify(&server, "ann", "hello").await;
    assert_eq!(titles(&mut phone, 1).await, ["hello"]);
    assert_eq!(titles(&mut desk, 1).await, ["hello"]);
    assert_eq!(offline(&server, "ann").await.1, 0, "it was taken as it came");

    phone.close().await;
    wait_until("one is left", async || {
        server.get("/api/v1/users/online").await["users"][0]["connections"] == 1
    })
    .await;
    notify(&server, "ann", "again").await;
    assert_eq!(titles(&mut desk, 1).await, ["again"]);
    desk.close().await;
    let went = next(&mut watcher, "user:offline").await;
    assert_eq!(went["data"], json!({ "userId": "ann", "connections": 0 }));
    assert_quiet(&mut watcher).await;
    assert_eq!(offline(&server, "ann").await.1, 0, "who says goodbye has what it got");
}

#[tokio::test]
async fn who_returns_first_gets_what_waits_once_and_it_stays_until_it_is_confirmed() {
    let server = Site::new("").start();
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(notify(&server, "ann", &format!("{n}")).await);
    }
    let all: Vec<_> = ["1", "2", "3"].map(str::to_owned).into();
    assert_eq!(offline(&server, "ann").await, (all.clone(), 3));
    let (mut phone, _) = device(&server, "ann", json!({ "clientId": "phone" })).await;
    assert_eq!(titles(&mut phone, 3).await, all);
    notify(&server, "ann", "live").await;
    assert_eq!(titles(&mut phone, 1).await, ["live"]);
    assert_quiet(&mut phone).await;
    assert_eq!(offline(&server, "ann").await, (all, 3), "only what came while nobody was there, and still");

    let confirm = json!({ "messageIds": ids[..2] });
    let confirmed: Value =
        caller(&server, "ann").post("/api/v1/messages/offline/confirm", &confirm).await.expect("confirmed");
    assert_eq!(confirmed, json!({ "changed": 2, "total": 1 }));
    let read = json!({ "messageIds": ids[..2] });
    let _: Value = caller(&server, "ann").post("/api/v1/messages/mark-read", &read).await.expect("read");
    let told = next(&mut phone, "user:notification:read").await;
    assert_eq!(told["data"]["messageIds"], read["messageIds"], "all devices are told what was read");
    let (mut desk, _) = device(&server, "ann", json!({ "clientId": "desk" })).await;
    assert_eq!(titles(&mut desk, 2).await, ["3", "live"], "another device starts at what waits");
    next(&mut desk, "user:notification:read").await;
    let (mut silent, _) = device(&server, "ann", json!({ "inbox": false })).await;
    assert_quiet(&mut silent).await;
    assert_quiet(&mut desk).await;
}

#[tokio::test]
async fn who_acknowledges_a_position_confirms_everything_up_to_it() {
    let server = Site::new("").start();
    for n in 1..=3 {
        notify(&server, "ann", &format!("{n}")).await;
    }
    let (mut phone, _) = device(&server, "ann", json!({ "clientId": "phone" })).await;
    next(&mut phone, "user:notification").await;
    let second = next(&mut phone, "user:notification").await;
    let third = next(&mut phone, "user:notification").await;
    let ack = |epoch: &Value, offset: u64| json!({ "room": "user-notifications-ann", "epoch": epoch, "offset": offset });
    for (ack, answer) in [
        (ack(&second["epoch"], 99), "never_sent"),
        (ack(&json!("another"), 2), "never_sent"),
        (ack(&second["epoch"], 2), "\"ok\":true"),
    ] {
        assert_eq!(offline(&server, "ann").await.1, 3);
        let got = phone.emit_with_ack("message:ack", &ack, DEADLINE).await.expect("answered");
        assert!(got.get().contains(answer), "{ack}: {got}");
    }
    assert_eq!(offline(&server, "ann").await, (vec!["3".to_owned()], 1));
    assert_eq!(unread(&server, "ann").await.1, 3, "confirmed is not read");
    let (mut bob, _) = device(&server, "bob", json!({})).await;
    bob.join("user-notifications-ann", Since::Start).await.expect("joined");
    for _ in 0..3 {
        next(&mut bob, "user:notification").await;
    }
    let got = bob.emit_with_ack("message:ack", &ack(&third["epoch"], 3), DEADLINE).await.expect("answered");
    assert!(got.get().contains("\"ok\":true"), "{got}");
    assert_eq!(offline(&server, "ann").await.1, 1, "nobody else confirms what is hers");
}

#[tokio::test]
async fn the_inbox_takes_none_of_the_rooms_that_a_client_may_join() {
    let server = Site::new("[limits]\nrooms_per_connection = 2\n").start();
    let (mut phone, _) = device(&server, "ann", json!({})).await;
    for room in ["queue-updates", "test-updates"] {
        phone.join(room, Since::Now).await.expect("joined");
    }
    let refused = phone.join("system-alerts", Since::Now).await.expect_err("one too many");
    assert!(refused.to_string().contains("too_many_rooms"), "{refused}");
    notify(&server, "ann", "hello").await;
    assert_eq!(titles(&mut phone, 1).await, ["hello"]);
    phone.leave("user-notifications-ann").await.expect("left");
    notify(&server, "ann", "unheard").await;
    assert_quiet(&mut phone).await;
    wait_until("nobody took it", async || offline(&server, "ann").await.0 == ["unheard"]).await;
}

#[tokio::test]
async fn a_recall_reaches_the_devices_that_are_online() {
    let server = Site::new("").start();
    let (mut phone, _) = device(&server, "ann", json!({})).await;
    let id = notify(&server, "ann", "wrong").await;
    titles(&mut phone, 1).await;
    let path = format!("/api/v1/messages/{id}/recall");
    let refused =
        caller(&server, "ann").post::<_, Value>(&path, &json!({})).await.expect_err("not the sender");
    assert!(refused.to_string().contains("not_sender"), "{refused}");
    let _: Value = caller(&server, "bob").post(&path, &json!({})).await.expect("recalled");
    let recalled = next(&mut phone, "user:notification:recalled").await;
    assert_eq!(recalled["data"], json!({ "messageId": id }));
    assert_eq!(unread(&server, "ann").await.1, 0);
    let (mut desk, _) = device(&server, "ann", json!({})).await;
    assert_quiet(&mut desk).await;
}

#[tokio::test]
async fn a_connection_that_is_ended_from_outside_gives_back_what_may_not_have_arrived() {
    let server = Site::new("").start();
    let (mut phone, connection) = device(&server, "ann", json!({})).await;
    notify(&server, "ann", "hello").await;
    titles(&mut phone, 1).await;
    let ended: Value = server.http.delete(&format!("/api/v1/connections/{connection}")).await.expect("ended");
    assert_eq!(ended, json!({ "closed": 1 }));
    let end = tokio::time::timeout(DEADLINE, phone.next()).await.expect("it ends");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    assert_eq!(server.get("/api/v1/connections").await["total"], 0);
    wait_until("it waits", async || offline(&server, "ann").await == (vec!["hello".to_owned()], 1)).await;
    let gone = server.http.delete::<Value>(&format!("/api/v1/connections/{connection}")).await;
    assert!(gone.expect_err("it is gone").to_string().contains("connection_not_found"));
}

#[tokio::test]
async fn a_notification_that_asks_for_an_acknowledgement_is_taken_only_once_it_came() {
    let server = Site::new("").start();
    let (mut phone, _) = device(&server, "ann", json!({ "acks": true })).await;
    let body = json!({ "title": "fire", "priority": 4 });
    let path = "/api/v1/users/ann/messages";
    let _: Value = caller(&server, "bob").post(path, &body).await.expect("notified");
    let event = tokio::time::timeout(DEADLINE, phone.next()).await.expect("in time").expect("open");
    let event = event.expect("an event");
    assert!(event.wants_acknowledgement(), "{event:?}");
    // Gone with a goodbye: anything else that was written to it would count as taken.
    phone.close().await;
    wait_until("it waits", async || offline(&server, "ann").await == (vec!["fire".to_owned()], 1)).await;

    let (mut desk, _) = device(&server, "ann", json!({ "acks": true })).await;
    let event = tokio::time::timeout(DEADLINE, desk.next()).await.expect("in time").expect("open");
    desk.acknowledge(&event.expect("an event")).await.expect("acknowledged");
    wait_until("it was taken", async || offline(&server, "ann").await.1 == 0).await;
    assert_eq!(unread(&server, "ann").await.1, 1, "to have it is not to have read it");
}

#[tokio::test]
async fn kill_minus_nine_keeps_the_inbox() {
    let site = Site::new("");
    let server = site.start();
    let mut ids = Vec::new();
    for n in 1..=20 {
        ids.push(notify(&server, "ann", &format!("{n}")).await);
    }
    let caller_of = |server: &Server| caller(server, "ann");
    let read = json!({ "messageIds": ids[..5] });
    let _: Value = caller_of(&server).post("/api/v1/messages/mark-read", &read).await.expect("read");
    let confirm = json!({ "messageIds": ids[..7] });
    let _: Value =
        caller_of(&server).post("/api/v1/messages/offline/confirm", &confirm).await.expect("confirmed");
    let (phone, _) = device(&server, "ann", json!({})).await;
    let before = unread(&server, "ann").await;
    assert_eq!(before.1, 15);
    // Presence is written behind; a server that dies before has told nobody.
    let last_told = async |server: &Server| {
        server.history("user-presence").await.messages.last().map(|last| last["event"].clone())
    };
    wait_until("it was told who is there", async || last_told(&server).await == Some(json!("user:online")))
        .await;
    server.kill();
    drop(phone);

    let server = site.start();
    assert_eq!(unread(&server, "ann").await, before);
    assert_eq!(offline(&server, "ann").await.1, 13);
    assert_eq!(server.get("/api/v1/stats").await["inbox"]["unread"], 15);
    // Who was online when it died is told to have left.
    wait_until("presence is put right", async || last_told(&server).await == Some(json!("user:offline")))
        .await;
    let (mut phone, _) = device(&server, "ann", json!({})).await;
    assert_eq!(titles(&mut phone, 15).await, before.0);
    next(&mut phone, "user:notification:read").await;
    assert_quiet(&mut phone).await;
}

#[tokio::test]
async fn unread_counts_are_exact_while_devices_mark_as_read_at_once() {
    let server = Site::new("").start();
    let mut ids = Vec::new();
    for n in 1..=60 {
        ids.push(notify(&server, "ann", &format!("{n}")).await);
    }
    let devices = (0..4).map(|device| {
        let (http, ids) = (caller(&server, "ann"), ids.clone());
        tokio::spawn(async move {
            let mut changed = 0;
            for part in ids[device * 10..device * 10 + 20].chunks(5) {
                let read = json!({ "messageIds": part });
                let answer: Value = http.post("/api/v1/messages/mark-read", &read).await.expect("read");
                changed += answer["changed"].as_u64().expect("a number");
            }
            changed
        })
    });
    let mut changed = 0;
    for device in devices.collect::<Vec<_>>() {
        changed += device.await.expect("a device ends");
    }
    assert_eq!((changed, unread(&server, "ann").await.1), (50, 10));
    wait_until("the gauge follows", async || server.metric("tidings_inbox_unread").await == 10.0).await;
}
