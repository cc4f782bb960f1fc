//! Notifying users, and their inboxes.

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::Server;
use crate::inbox::{Inbox, Receipt};
use crate::model::{Epoch, Position, UserId};

const UNREAD: &str = "/api/v1/messages/unread";
const OFFLINE: &str = "/api/v1/messages/offline";
const MARK_READ: &str = "/api/v1/messages/mark-read";
const CONFIRM: &str = "/api/v1/messages/offline/confirm";

async fn notify(server: &Server, sender: Option<&str>, user: &str, title: &str) -> Value {
    let body = json!({"title": title, "body": "text", "extra": {"n": 1}});
    let answer = server.post_as(sender, &format!("/api/v1/users/{user}/messages"), body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

async fn unread(server: &Server, user: &str) -> Value {
    let answer = server.post_as(Some(user), UNREAD, json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn offline(server: &Server, user: &str) -> Value {
    server.get_as(user, OFFLINE).await.json()
}

fn titles(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|m| m["data"]["title"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_notification_is_a_message_of_the_users_channel_and_waits_unread() {
    let server = Server::start().await;
    let placed = notify(&server, Some("bob"), "ann", "hello").await;
    assert_eq!((placed.as_object().unwrap().len(), &placed["offset"]), (3, &json!(1)));
    let told = server.get("/api/v1/channels/user-notifications-ann/messages").await.json();
    let message = &told["messages"][0];
    assert_eq!((&message["event"], &message["userId"]), (&json!("user:notification"), &json!("bob")));
    assert_eq!(message["data"], json!({"title": "hello", "body": "text", "extra": {"n": 1}}));
    let page = unread(&server, "ann").await;
    assert_eq!((&page["total"], page.get("next")), (&json!(1), None));
    let mut entry = page["messages"][0].clone();
    assert_eq!(entry.as_object_mut().unwrap().remove("status"), Some(json!("unread")));
    assert_eq!(&entry, message, "an entry is the message and what became of it");
    assert_eq!(unread(&server, "bob").await["total"], 0);
}

#[tokio::test]
async fn a_notification_with_an_id_that_is_known_is_not_sent_twice() {
    let server = Server::start().await;
    let path = "/api/v1/users/ann/messages";
    let body = json!({"id": "mine", "title": "once", "priority": 4});
    let first = server.post(path, &body).await;
    let again = server.post(path, &body).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json(), again.json());
    let page = unread(&server, "ann").await;
    assert_eq!((&page["total"], &page["messages"][0]["priority"]), (&json!(1), &json!(4)));
    assert_eq!(page["messages"][0]["data"], json!({"title": "once"}));
}

#[tokio::test]
async fn a_notification_without_a_title_is_refused() {
    let server = Server::start().await;
    let path = "/api/v1/users/ann/messages";
    for body in [json!({"body": "b"}), json!({"title": ""}), json!({"title": 7})] {
        server.post(path, body).await.problem_saying(400, "invalid", "`title`");
    }
    server.post(path, json!({"title": "t", "id": "a b"})).await.problem_saying(400, "invalid", "id:");
    server.post(path, json!({"title": "t", "priority": 9})).await.problem_saying(400, "invalid", "priority");
    server.post(path, json!([])).await.problem(400, "invalid");
    server.post(path, json!({"title": "x".repeat(super::MESSAGE_BYTES)})).await.problem(413, "too_large");
    server.post("/api/v1/users/a%20b/messages", json!({"title": "t"})).await.problem(400, "invalid_path");
    assert_eq!(unread(&server, "ann").await["total"], 0);
}

#[tokio::test]
async fn a_broadcast_stands_in_system_alerts() {
    let server = Server::start().await;
    let plain = server.post("/api/v1/broadcast", json!({"level": "warning", "message": "hot"})).await;
    assert_eq!(plain.status, 201, "{plain:?}");
    let own = json!({"event": "system:maintenance:start", "data": {"level": "info", "n": 1}, "id": "m"});
    assert_eq!(server.post("/api/v1/broadcast", &own).await.status, 201);
    assert_eq!(server.post("/api/v1/broadcast", &own).await.status, 200);
    let told = server.get("/api/v1/channels/system-alerts/messages").await.json();
    let told: Vec<_> = told["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["event"].clone(), m["data"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            (json!("system:alert"), json!({"level": "warning", "message": "hot"})),
            (json!("system:maintenance:start"), json!({"level": "info", "n": 1})),
        ]
    );
    for (body, code) in [
        (json!({"level": "info"}), "invalid"),
        (json!({"message": "m"}), "invalid"),
        (json!({"data": {}, "level": "info"}), "invalid"),
        (json!({"data": {}, "event": "custom:x"}), "unknown_event"),
    ] {
        server.post("/api/v1/broadcast", body).await.problem(400, code);
    }
}

#[tokio::test]
async fn the_unread_are_read_page_by_page_oldest_first_and_marked_once() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(notify(&server, None, "ann", &format!("{n}")).await["id"].clone());
    }
    let first = server.post_as(Some("ann"), UNREAD, json!({"limit": 2})).await.json();
    assert_eq!((titles(&first), &first["total"]), (vec!["1", "2"], &json!(5)));
    let next = json!({"limit": 3, "after": first["next"]});
    let last = server.post_as(Some("ann"), UNREAD, next).await.json();
    assert_eq!((titles(&last), last.get("next")), (vec!["3", "4", "5"], None));

    let read = json!({"messageIds": [ids[1], ids[3]]});
    let changed = server.post_as(Some("ann"), MARK_READ, &read).await.json();
    assert_eq!(changed, json!({"changed": 2, "total": 3}));
    let again = server.post_as(Some("ann"), MARK_READ, &read).await.json();
    assert_eq!(again, json!({"changed": 0, "total": 3}), "reading twice changes nothing");
    let path = "/api/v1/channels/user-notifications-ann/messages?offset=5";
    let told = server.get(path).await.json()["messages"].clone();
    assert_eq!(told.as_array().unwrap().len(), 1, "what changed nothing is not told: {told}");
    assert_eq!(
        (&told[0]["event"], &told[0]["userId"], &told[0]["priority"]),
        (&json!("user:notification:read"), &json!("ann"), &json!(3))
    );
    let read_at = told[0]["timestamp"].clone();
    assert_eq!(told[0]["data"], json!({"messageIds": [ids[1], ids[3]], "readAt": read_at}));
    assert_eq!(titles(&unread(&server, "ann").await), ["1", "3", "5"]);
    assert_eq!(server.get("/api/v1/stats").await.json()["inbox"]["unread"], 3);
}

#[tokio::test]
async fn many_that_were_read_at_once_are_all_told_and_nobody_else_tells_it() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for n in 0..230 {
        ids.push(notify(&server, None, "ann", &format!("{n}")).await["id"].clone());
    }
    server.post_as(Some("ann"), MARK_READ, json!({"messageIds": ids})).await;
    let path = "/api/v1/channels/user-notifications-ann/messages?offset=230";
    let told = server.get(path).await.json()["messages"].clone();
    let told: Vec<_> = told.as_array().unwrap().iter().map(|m| m["data"]["messageIds"].clone()).collect();
    assert_eq!(told.iter().map(|ids| ids.as_array().unwrap().len()).collect::<Vec<_>>(), [100, 100, 30]);
    assert_eq!(told.iter().flat_map(|ids| ids.as_array().unwrap().clone()).collect::<Vec<_>>(), ids);
    let lie = json!({"channel": "user-notifications-ann", "event": "user:notification:read",
        "data": {"messageIds": [], "readAt": 1}});
    server.post("/api/v1/events", lie).await.problem(403, "forbidden");
    let rest = server.get("/api/v1/channels/user-notifications-ann/messages?offset=233").await.json();
    assert_eq!(rest["messages"], json!([]));
}

#[tokio::test]
async fn what_was_read_is_told_although_the_caller_went_away() {
    let server = Server::start().await;
    let id = notify(&server, None, "ann", "1").await["id"].clone();
    let asked = server.post_as(Some("ann"), MARK_READ, json!({"messageIds": [id]})).now_or_never();
    assert!(asked.is_none(), "it was answered before the caller could go away");
    let path = "/api/v1/channels/user-notifications-ann/messages?offset=1";
    let told = async {
        while server.get(path).await.json()["messages"] == json!([]) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), told).await.expect("it is not told");
}

#[tokio::test]
async fn nobody_changes_somebody_elses_inbox() {
    let server = Server::start().await;
    let own = notify(&server, Some("bob"), "ann", "own").await["id"].clone();
    let other = notify(&server, Some("bob"), "eve", "other").await["id"].clone();
    for path in [MARK_READ, CONFIRM] {
        for ids in [json!([other]), json!([own, other]), json!([own, "none"])] {
            let answer = server.post_as(Some("ann"), path, json!({"messageIds": ids})).await;
            answer.problem(404, "message_not_found");
        }
    }
    for user in ["ann", "eve"] {
        assert_eq!(unread(&server, user).await["total"], 1, "nothing changed for {user}");
        assert_eq!(offline(&server, user).await["total"], 1);
    }
    let recall = |id: &Value| format!("/api/v1/messages/{}/recall", id.as_str().unwrap());
    server.post_as(Some("ann"), &recall(&own), "").await.problem(403, "not_sender");
    server.post_as(Some("ann"), &recall(&other), "").await.problem(404, "message_not_found");
    server.post_as(None, "/api/v1/messages/none/recall", "").await.problem(404, "message_not_found");
    assert_eq!(unread(&server, "ann").await["total"], 1);
}

#[tokio::test]
async fn a_recall_by_the_sender_or_an_administrator_is_told_and_stays() {
    let server = Server::start().await;
    for by in [Some("bob"), None] {
        let id = notify(&server, Some("bob"), "ann", "wrong").await["id"].clone();
        let path = format!("/api/v1/messages/{}/recall", id.as_str().unwrap());
        let recalled = server.post_as(by, &path, "").await;
        assert_eq!(recalled.status, 200, "{recalled:?}");
        let recalled = recalled.json();
        assert_eq!((&recalled["id"], &recalled["status"]), (&id, &json!("recalled")));
        assert_eq!(server.post_as(by, &path, "").await.json(), recalled, "again changes nothing");
        let after = recalled["offset"].as_u64().unwrap() - 1;
        let path = format!("/api/v1/channels/user-notifications-ann/messages?offset={after}");
        let told = server.get(&path).await.json();
        assert_eq!(told["messages"][0]["event"], "user:notification:recalled");
        assert_eq!(told["messages"][0]["data"], json!({"messageId": id}));
        assert_eq!(told["messages"].as_array().unwrap().len(), 1);
        assert_eq!(unread(&server, "ann").await["total"], 0);
        server.post_as(Some("ann"), MARK_READ, json!({"messageIds": [id]})).await;
        let status = offline(&server, "ann").await["messages"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(status["status"], "recalled", "what was recalled stays so");
    }
}

#[tokio::test]
async fn what_came_while_nobody_was_there_stays_until_it_is_confirmed() {
    let server = Server::start().await;
    let ids: Vec<_> = [notify(&server, None, "ann", "1").await, notify(&server, None, "ann", "2").await]
        .iter()
        .map(|placed| (placed["id"].clone(), placed["epoch"].clone(), placed["offset"].clone()))
        .collect();
    assert_eq!(titles(&offline(&server, "ann").await), ["1", "2"]);
    server.post_as(Some("ann"), MARK_READ, json!({"messageIds": [ids[0].0]})).await;
    assert_eq!(offline(&server, "ann").await["total"], 2, "reading does not confirm");
    let confirm = json!({"messageIds": [ids[0].0]});
    let changed = server.post_as(Some("ann"), CONFIRM, &confirm).await.json();
    assert_eq!(changed, json!({"changed": 1, "total": 1}));
    let again = server.post_as(Some("ann"), CONFIRM, &confirm).await.json();
    assert_eq!(again, json!({"changed": 0, "total": 1}));
    let position =
        Position { epoch: Epoch::new(ids[1].1.as_str().unwrap()), offset: ids[1].2.as_u64().unwrap() };
    let receipt = Receipt { user_id: UserId::parse("ann").unwrap(), position, live: true, taker: "a".into() };
    server.inbox.delivered(vec![receipt.clone()]).await.unwrap();
    assert_eq!(offline(&server, "ann").await["total"], 0, "a device took it as it came");
    server.inbox.failed(vec![receipt]).await.unwrap();
    let page = server.get_as("ann", &format!("{OFFLINE}?limit=1")).await.json();
    assert_eq!(titles(&page), ["2"], "its connection broke");
}

#[tokio::test]
async fn an_inbox_belongs_to_a_user() {
    let server = Server::start().await;
    for path in [UNREAD, MARK_READ, CONFIRM] {
        server.post(path, json!({"messageIds": []})).await.problem(400, "user_required");
        server.post_nothing(path).await.problem(400, "user_required");
    }
    server.get(OFFLINE).await.problem(400, "user_required");
    for (path, body) in [
        (UNREAD, json!({"limit": 0})),
        (UNREAD, json!({"limit": 1001})),
        (UNREAD, json!({"before": 1})),
        (MARK_READ, json!({})),
        (MARK_READ, json!({"messageIds": "a"})),
        (MARK_READ, json!({"messageIds": ["a b"]})),
        (CONFIRM, json!({"messageIds": vec!["x"; 1001]})),
    ] {
        server.post_as(Some("ann"), path, body).await.problem(400, "invalid");
    }
    server.post_as(Some("ann"), UNREAD, json!({"after": "x"})).await.problem(400, "invalid_cursor");
    server.get_as("ann", &format!("{OFFLINE}?after=j1")).await.problem(400, "invalid_cursor");
    server.get_as("ann", &format!("{OFFLINE}?limit=0")).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn without_a_store_an_inbox_is_unavailable() {
    let server = Server::start().await;
    server.store.close().await;
    server.post_as(Some("ann"), UNREAD, json!({})).await.problem(503, "unavailable");
    server.post_as(Some("ann"), MARK_READ, json!({"messageIds": ["a"]})).await.problem(503, "unavailable");
    server.get_as("ann", OFFLINE).await.problem(503, "unavailable");
    server.post_nothing("/api/v1/messages/a/recall").await.problem(503, "unavailable");
    server.post("/api/v1/users/ann/messages", json!({"title": "t"})).await.problem(503, "unavailable");
}
