//! Who is there, and ending connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{Answer, Server};
use crate::model::{ChannelName, UserId};
use crate::presence::{Arrival, Line, Presence};

#[derive(Debug, Default)]
struct Thread {
    ended: AtomicBool,
    dead: bool,
}

impl Line for Thread {
    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn is_alive(&self) -> bool {
        !self.dead
    }

    fn transport(&self) -> Option<&'static str> {
        Some("websocket")
    }
}

fn arrive(server: &Server, connection: &str, user: Option<&str>, dead: bool) -> Arc<Thread> {
    let line = Arc::new(Thread { dead, ..Thread::default() });
    server.presence.arrive(Arrival {
        connection_id: connection.into(),
        client_id: format!("client-{connection}").into(),
        user_id: user.map(|user| UserId::parse(user).unwrap()),
        connected_at_ms: 7,
        line: line.clone(),
    });
    line
}

async fn delete(server: &Server, connection: &str) -> Answer {
    let path = format!("/api/v1/connections/{connection}");
    server.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn users_rooms_and_connections_are_seen_as_they_are() {
    let server = Server::start().await;
    arrive(&server, "a", Some("ann"), false);
    arrive(&server, "b", Some("ann"), false);
    arrive(&server, "c", None, false);
    let room = ChannelName::parse("queue-updates").unwrap();
    server.presence.enter("a", &room);
    server.presence.enter("c", &room);
    let users = server.get("/api/v1/users/online").await.json();
    assert_eq!(users, json!({"users": [{"userId": "ann", "connections": 2}], "total": 1}));
    let there = server.get("/api/v1/channels/queue-updates/presence").await.json();
    let ann = json!([{"userId": "ann", "connections": 1}]);
    assert_eq!(there, json!({"channel": "queue-updates", "users": ann, "connections": 2}));
    let first = server.get("/api/v1/connections?limit=2").await.json();
    let a = json!({"connectionId": "a", "clientId": "client-a", "userId": "ann", "rooms": ["queue-updates"],
        "connectedAt": 7, "transport": "websocket"});
    assert_eq!((&first["connections"][0], &first["total"]), (&a, &json!(3)));
    let next = first["next"].as_str().unwrap();
    let last = server.get(&format!("/api/v1/connections?limit=2&cursor={next}")).await.json();
    assert_eq!((last["connections"].as_array().unwrap().len(), last.get("next")), (1, None));
    assert_eq!(last["connections"][0].get("userId"), None);
    let stats = server.get("/api/v1/stats").await.json();
    assert_eq!((&stats["connections"], &stats["users"], &stats["rooms"]), (&json!(3), &json!(1), &json!(1)));
    assert_eq!((&stats["jobs"]["queued"], &stats["inbox"]), (&json!(0), &json!({"unread": 0})));
}

#[tokio::test]
async fn a_connection_is_ended_by_its_line_and_is_gone() {
    let server = Server::start().await;
    let line = arrive(&server, "a", Some("ann"), false);
    assert_eq!(delete(&server, "a").await.json(), json!({"closed": 1}));
    assert!(line.ended.load(Ordering::SeqCst));
    assert_eq!(server.get("/api/v1/users/online").await.json()["total"], 0);
    delete(&server, "a").await.problem(404, "connection_not_found");
}

#[tokio::test]
async fn a_cleanup_ends_the_dead_or_those_that_are_named() {
    let server = Server::start().await;
    let (dead, alive) = (arrive(&server, "dead", None, true), arrive(&server, "alive", None, false));
    let path = "/api/v1/connections/cleanup";
    assert_eq!(server.post_nothing(path).await.json(), json!({"closed": 1}));
    assert!(dead.ended.load(Ordering::SeqCst) && !alive.ended.load(Ordering::SeqCst));
    assert_eq!(server.post(path, json!({})).await.json(), json!({"closed": 0}));
    let named = server.post(path, json!({"connectionIds": ["alive", "none"]})).await.json();
    assert_eq!(named, json!({"closed": 1}));
    assert!(alive.ended.load(Ordering::SeqCst));
    server.post(path, json!({"connectionIds": vec!["x"; 1001]})).await.problem(400, "invalid");
    server.post(path, json!({"ids": []})).await.problem(400, "invalid");
}

#[tokio::test]
async fn a_wrong_question_about_presence_is_refused() {
    let server = Server::start().await;
    for list in ["users/online", "connections"] {
        server.get(&format!("/api/v1/{list}?limit=0")).await.problem(400, "invalid_query");
        let cursor = "x".repeat(200);
        server.get(&format!("/api/v1/{list}?cursor={cursor}")).await.problem(400, "invalid_cursor");
    }
    server.get("/api/v1/channels/nowhere/presence").await.problem(404, "unknown_channel");
}
