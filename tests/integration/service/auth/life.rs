//! How long somebody stays: expiry, newer tokens, and being shut out, on sockets and streams, here and on other nodes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::client::ClientError;
use tidings::client::room::Since;
use tidings::client::socket::SocketClient;
use tidings::model::now_ms;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Server, Site, claims, code, connect, http, signer, token, token_of, wait_until, with_secret};
use crate::service::DEADLINE;
use crate::support::redis::{RedisServer, shared_url};

/// A token of `user` that expires in `seconds`; and when that is.
fn short(user: &str, seconds: i64) -> (String, i64) {
    let exp = now_ms() / 1000 + seconds;
    (signer().sign(&claims(json!({ "sub": user, "exp": exp }))).expect("signed"), exp * 1000)
}

/// Reads a socket to its end: what it was told by `error`, and when it ended.
async fn to_the_end(socket: &mut SocketClient) -> (Value, Instant) {
    let reading = async {
        let mut told = Value::Null;
        loop {
            match socket.next().await {
                Some(Ok(event)) if event.name == "error" => {
                    told = serde_json::from_str(event.data.get()).expect("JSON");
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (told, Instant::now()),
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("it ends")
}

/// A stream of `system-alerts`, opened; `rest` reads what follows, to its end.
struct Stream(TcpStream);

impl Stream {
    async fn open(server: &Server, token: &str) -> Self {
        let mut socket = TcpStream::connect(server.address()).await.expect("connected");
        let request = format!(
            "GET /api/v1/channels/system-alerts/stream?token={token} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            server.address()
        );
        socket.write_all(request.as_bytes()).await.expect("asked");
        let mut first = [0; 15];
        socket.read_exact(&mut first).await.expect("answered");
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        Self(socket)
    }

    async fn rest(mut self) -> String {
        let mut text = String::new();
        let reading = self.0.read_to_string(&mut text);
        tokio::time::timeout(DEADLINE, reading).await.expect("it ends").expect("it ends in order");
        text
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_token_and_says_so() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let (token, expires) = short("ann", 2);
    let mut socket = connect(&server, Some(&token)).await.expect("still good");
    socket.join("system-alerts", Since::Now).await.expect("joined");
    let stream = Stream::open(&server, &token).await;
    let (told, _) = to_the_end(&mut socket).await;
    assert_eq!((&told["code"], &told["event"]), (&json!("token_expired"), &json!("auth")), "{told}");
    assert!(now_ms() >= expires, "not before its time");
    let text = stream.rest().await;
    assert!(text.contains("event: error\ndata: ") && text.contains("token_expired"), "{text}");
    assert_eq!(code(connect(&server, Some(&token)).await), "token_expired");
    assert_eq!(code(http(&server, &token).get::<Value>("/api/v1/stats").await), "token_expired");
    wait_until("nobody is left", async || server_connections(&server).await == 0.0).await;
}

async fn server_connections(server: &Server) -> f64 {
    let metrics = super::head(server, "/metrics", Some(&token(json!({ "roles": ["metrics"] })))).await;
    let line = metrics.body.lines().find_map(|line| line.strip_prefix("tidings_connections "));
    line.and_then(|value| value.parse().ok()).expect("a metric")
}

#[tokio::test]
async fn a_newer_token_prolongs_a_connection_and_is_one_of_the_same_user() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let (first, expires) = short("ann", 2);
    let mut socket = connect(&server, Some(&first)).await.expect("let in");
    let sender = socket.sender();
    let refresh = async |token: &str| -> Result<Value, ClientError> {
        sender.request("auth:refresh", &json!({ "token": token })).await
    };
    assert_eq!(code(refresh(&token_of("bob", &[])).await), "other_user");
    assert_eq!(code(refresh("a.b.c").await), "invalid_token");
    let answer = refresh(&token_of("ann", &[])).await.expect("taken");
    assert!(answer["expiresAt"].as_i64().expect("a time") > expires, "{answer}");
    wait_until("the first token is over", async || now_ms() > expires + 1000).await;
    socket.join("system-alerts", Since::Now).await.expect("it goes on");
}

#[tokio::test]
async fn rights_that_a_newer_token_lacks_end_memberships() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let member = token(json!({ "sub": "ann", "teams": ["t1"] }));
    let mut socket = connect(&server, Some(&member)).await.expect("let in");
    socket.join("team-updates-t1", Since::Now).await.expect("a member");
    socket.join("system-alerts", Since::Now).await.expect("anyone");
    let sender = socket.sender();
    let answer: Value =
        sender.request("auth:refresh", &json!({ "token": token_of("ann", &[]) })).await.expect("taken");
    assert_eq!(answer["left"], json!(["team-updates-t1"]));
    let admin = http(&server, &token_of("root", &["admin"]));
    for (channel, event) in [("team-updates-t1", "team:update"), ("system-alerts", "system:alert")] {
        let message = json!({ "event": event, "channel": channel, "data": {} });
        admin.post::<_, Value>("/api/v1/events", &message).await.expect("published");
    }
    // The other room's message came second: the first one would be here by then.
    loop {
        let event = tokio::time::timeout(DEADLINE, socket.next())
            .await
            .expect("in time")
            .expect("open")
            .expect("open");
        assert_ne!(event.name, "team:update", "{}", event.data);
        if event.name == "system:alert" {
            break;
        }
    }
    assert_eq!(code(socket.join("team-updates-t1", Since::Now).await), "forbidden");
}

#[tokio::test]
async fn who_is_blocked_is_out_at_once_and_until_they_are_let_in_again() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let (ann, bob) = (token_of("ann", &[]), token_of("bob", &[]));
    let mut socket = connect(&server, Some(&ann)).await.expect("let in");
    let mut other = connect(&server, Some(&bob)).await.expect("let in");
    let stream = Stream::open(&server, &ann).await;
    let admin = token_of("root", &["admin"]);
    let answer: Value =
        http(&server, &admin).post("/api/v1/users/ann/block", &json!({})).await.expect("blocked");
    assert_eq!(answer, json!({ "changed": true }));
    assert_eq!(to_the_end(&mut socket).await.0["code"], "user_blocked");
    assert!(stream.rest().await.contains("user_blocked"));
    assert_eq!(code(connect(&server, Some(&ann)).await), "user_blocked");
    assert_eq!(code(http(&server, &ann).get::<Value>("/api/v1/stats").await), "user_blocked");
    other.ping().await.expect("others notice nothing");
    // The list is on the disk.
    server.kill();
    let server = site.start();
    assert_eq!(code(connect(&server, Some(&ann)).await), "user_blocked");
    let answer: Value =
        http(&server, &admin).post("/api/v1/users/ann/unblock", &json!({})).await.expect("let in");
    assert_eq!(answer, json!({ "changed": true }));
    connect(&server, Some(&ann)).await.expect("let in again");
}

#[tokio::test]
async fn a_token_is_revoked_by_its_id_and_others_of_its_user_are_not() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let named = |id: &str| token(json!({ "sub": "ann", "jti": id }));
    let mut lost = connect(&server, Some(&named("phone:1"))).await.expect("let in");
    let mut kept = connect(&server, Some(&named("laptop"))).await.expect("let in");
    let admin = http(&server, &token_of("root", &["admin"]));
    let expires = json!({ "expiresAt": now_ms() + 60_000 });
    let answer: Value = admin.post("/api/v1/tokens/phone%3A1/revoke", &expires).await.expect("revoked");
    assert_eq!(answer["changed"], true);
    assert_eq!(to_the_end(&mut lost).await.0["code"], "token_revoked");
    assert_eq!(code(connect(&server, Some(&named("phone:1"))).await), "token_revoked");
    kept.ping().await.expect("it goes on");
    let past = json!({ "expiresAt": 1000 });
    let answer: Value = admin.post("/api/v1/tokens/old/revoke", &past).await.expect("nothing to do");
    assert_eq!(answer["changed"], false);
}

#[tokio::test]
async fn without_authentication_a_named_user_can_be_blocked_too() {
    let site = Site::new("");
    let server = site.start();
    let options = || tidings::client::socket::ConnectOptions {
        auth: json!({ "userId": "ann" }),
        ..tidings::client::socket::ConnectOptions::default()
    };
    let mut socket = SocketClient::connect(&server.url, options()).await.expect("let in");
    server.post("/api/v1/users/ann/block", &json!({})).await;
    assert_eq!(to_the_end(&mut socket).await.0["code"], "user_blocked");
    assert_eq!(code(SocketClient::connect(&server.url, options()).await), "user_blocked");
}

#[tokio::test]
async fn a_block_ends_connections_of_other_nodes_within_two_seconds() {
    let url = shared_url();
    let start = || {
        let site = Site::new(&with_secret(""));
        let server = site.start_with("127.0.0.1:0", &["--redis", &url]);
        (site, server)
    };
    let (nodes, admin) = ([start(), start()], token_of("root", &["admin"]));
    let [(_, here), (_, there)] = &nodes;
    let ann = token_of("ann", &[]);
    let mut socket = connect(there, Some(&ann)).await.expect("let in");
    let stream = Stream::open(there, &ann).await;
    let asked = Instant::now();
    http(here, &admin).post::<_, Value>("/api/v1/users/ann/block", &json!({})).await.expect("blocked");
    let (told, ended) = to_the_end(&mut socket).await;
    assert_eq!(told["code"], "user_blocked");
    assert!(stream.rest().await.contains("user_blocked"));
    let took = ended - asked;
    println!("ended on the other node after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for node in [here, there] {
        assert_eq!(code(connect(node, Some(&ann)).await), "user_blocked");
    }
    http(there, &admin).post::<_, Value>("/api/v1/users/ann/unblock", &json!({})).await.expect("let in");
    wait_until("the other node lets her in", async || connect(here, Some(&ann)).await.is_ok()).await;
}

#[tokio::test]
async fn who_is_shut_out_stays_so_where_redis_lost_its_data() {
    let mut redis = RedisServer::start();
    let start = |redis: &RedisServer| {
        let site = Site::new(&with_secret(""));
        let server = site.start_with("127.0.0.1:0", &["--redis", &redis.url()]);
        (site, server)
    };
    let (nodes, admin) = ([start(&redis), start(&redis)], token_of("root", &["admin"]));
    let [(_, here), (_, there)] = &nodes;
    let (ann, eve) = (token_of("ann", &[]), token_of("eve", &[]));
    let bob = token(json!({ "sub": "bob", "jti": "bobs" }));
    let block = async |node: &Server, user: &str| {
        let path = format!("/api/v1/users/{user}/block");
        http(node, &admin).post::<_, Value>(&path, &json!({})).await.is_ok()
    };
    assert!(block(here, "ann").await);
    http(here, &admin).post::<_, Value>("/api/v1/tokens/bobs/revoke", &json!({})).await.expect("revoked");
    let outcome = async |node: &Server, token: &str| match connect(node, Some(token)).await {
        Ok(_) => "let in".to_owned(),
        Err(error) => code::<()>(Err(error)),
    };
    let is_shut_out = async |node: &Server| {
        (outcome(node, &ann).await, outcome(node, &bob).await)
            == ("user_blocked".to_owned(), "token_revoked".to_owned())
    };
    wait_until("both nodes know", async || is_shut_out(here).await && is_shut_out(there).await).await;

    redis.kill();
    redis.restart_empty();
    wait_until("a node shuts out others", async || block(there, "eve").await).await;
    let count = |command: &str, key: &str| {
        redis.cli(&[command, &format!("tidings{{revoked}}{key}")]).trim().to_owned()
    };
    wait_until("everybody is on the list again", async || {
        assert!(is_shut_out(here).await && is_shut_out(there).await, "one of them came in");
        (count("SCARD", "u"), count("ZCARD", "t")) == ("2".to_owned(), "1".to_owned())
    })
    .await;
    let (_site, third) = start(&redis);
    assert!(is_shut_out(&third).await);
    assert_eq!(outcome(&third, &eve).await, "user_blocked");
    assert!(is_shut_out(here).await && is_shut_out(there).await);
}
