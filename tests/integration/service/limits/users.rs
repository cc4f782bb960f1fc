//! What a user has, over all servers.

use serde_json::json;
use tidings::client::ClientError;
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};

use super::{OTHER, Server, Site, ask, connect, rejected, start};
use crate::service::wait_until;
use crate::support::redis::shared_url;

async fn socket(server: &Server, user: &str) -> Result<SocketClient, ClientError> {
    let options =
        ConnectOptions { auth: json!({ "userId": user, "inbox": false }), ..ConnectOptions::default() };
    SocketClient::connect(&server.url, options).await
}

fn assert_too_many<T: std::fmt::Debug>(refused: Result<T, ClientError>, expected: &str) {
    match refused {
        Err(ClientError::Refused { code, .. } | ClientError::Rejected { code, .. }) => {
            assert_eq!(code, expected)
        }
        other => panic!("{other:?}"),
    }
}

/// Two servers on one Redis.
fn two(limits: &str) -> [(Site, Server); 2] {
    let url = shared_url();
    std::array::from_fn(|_| {
        let site = Site::new(&format!("worker = false\n[log]\nlevel = \"error\"\n[limits]\n{limits}\n"));
        let server = site.start_with("127.0.0.1:0", &["--redis", &url]);
        (site, server)
    })
}

#[tokio::test]
async fn a_user_has_so_many_connections_of_any_kind() {
    let (_site, server) = start("connections_per_user = 2");
    let first = socket(&server, "ann").await.expect("connected");
    let stream =
        "GET /api/v1/channels/queue-updates/stream HTTP/1.1\r\nhost: localhost\r\nx-user-id: ann\r\n\r\n";
    let mut following = connect(&server, OTHER).await;
    assert_eq!(ask(&mut following, stream).await.status(), 200);
    assert_too_many(socket(&server, "ann").await, "too_many_connections");
    ask(&mut connect(&server, OTHER).await, stream).await.assert_limited("too_many_connections");
    assert_eq!(rejected(&server, "user_connections").await, 2.0);
    // Others have their own, and who is nobody in particular has no such limit.
    let _bob = socket(&server, "bob").await.expect("connected");
    let mut nobodies = Vec::new();
    for _ in 0..5 {
        nobodies
            .push(SocketClient::connect(&server.url, ConnectOptions::default()).await.expect("connected"));
    }
    first.close().await;
    wait_until("there is room again", async || socket(&server, "ann").await.is_ok()).await;
    drop(following);
    wait_until("the stream has gone", async || {
        let (one, other) = (socket(&server, "ann").await, socket(&server, "ann").await);
        one.is_ok() && other.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_a_user_are_counted_over_all_servers_and_a_dead_ones_count_no_more() {
    let [(_a_site, a), (_b_site, b)] = two("connections_per_user = 3");
    let at_once = (0..10).map(|n| socket(if n % 2 == 0 { &a } else { &b }, "ann"));
    let answers = futures_util::future::join_all(at_once).await;
    let (inside, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(inside.len(), 3, "of ten at once");
    refused.into_iter().for_each(|refused| assert_too_many(refused, "too_many_connections"));
    drop(inside);
    wait_until("all have gone", async || {
        let all = [socket(&a, "ann").await, socket(&b, "ann").await, socket(&a, "ann").await];
        all.iter().all(Result::is_ok)
    })
    .await;

    let mut held = Vec::new();
    for server in [&a, &a, &b] {
        wait_until("there is room", async || match socket(server, "ann").await {
            Ok(socket) => {
                held.push(socket);
                true
            }
            Err(_) => false,
        })
        .await;
    }
    assert_too_many(socket(&b, "ann").await, "too_many_connections");
    a.kill();
    // Nobody has said that they are gone; their server's lease has to run out.
    let mut back = Vec::new();
    wait_until("the dead server's connections count no more", async || {
        let Ok(socket) = socket(&b, "ann").await else { return false };
        back.push(socket);
        true
    })
    .await;
    back.push(socket(&b, "ann").await.expect("both of them"));
    assert_too_many(socket(&b, "ann").await, "too_many_connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rooms_of_a_user_are_counted_over_all_servers_each_once() {
    let [(_a_site, a), (_b_site, b)] = two("rooms_per_user = 3");
    let mut here = socket(&a, "ada").await.expect("connected");
    let mut there = socket(&b, "ada").await.expect("connected");
    for room in ["team-updates-1", "team-updates-2"] {
        here.join(room, Since::Now).await.expect("joined");
        there.join(room, Since::Now).await.expect("joined");
    }
    there.join("team-updates-3", Since::Now).await.expect("joined");
    assert_too_many(here.join("team-updates-4", Since::Now).await, "too_many_rooms");
    assert_too_many(there.join("team-updates-4", Since::Now).await, "too_many_rooms");
    there.leave("team-updates-3").await.expect("left");
    wait_until("there is room again", async || here.join("team-updates-4", Since::Now).await.is_ok()).await;
    assert_too_many(there.join("team-updates-3", Since::Now).await, "too_many_rooms");
    here.leave("team-updates-4").await.expect("left");
    wait_until("the other has it", async || there.join("team-updates-3", Since::Now).await.is_ok()).await;
    assert_too_many(here.join("team-updates-5", Since::Now).await, "too_many_rooms");
    there.close().await;
    wait_until("who has gone is in no room", async || here.join("team-updates-5", Since::Now).await.is_ok())
        .await;
}
