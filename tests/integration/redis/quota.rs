//! What nodes count of one user, in Redis.

use std::collections::HashMap;

use redis::cmd;
use tidings::model::UserId;
use tidings::quota::redis::RedisLedger;
use tidings::quota::{Count, Ledger as _, Most};

use crate::support::redis::{RedisServer, connect};

fn count(number: u64, connections: u32) -> Count {
    Count { user: UserId::parse("ann").expect("a user"), number, connections, rooms: Vec::new() }
}

#[tokio::test]
async fn what_a_hundred_dead_nodes_wrote_of_one_user_is_not_kept() {
    let server = RedisServer::start();
    let (redis, tasks) = connect(&server.url()).await;
    let held = async || {
        let keys: Vec<String> = redis.query(cmd("KEYS").arg("*ann*")).await.expect("asked");
        let [key] = keys.as_slice() else { panic!("{keys:?}") };
        redis.query::<HashMap<String, String>>(cmd("HGETALL").arg(key)).await.expect("asked")
    };
    // One that lives: presence renews its lease.
    redis
        .query::<()>(cmd("SET").arg(tidings::presence::redis::lease_key(&redis, "lives")).arg(1))
        .await
        .expect("set");
    let (lives, own) = (RedisLedger::new(redis.clone(), "lives"), RedisLedger::new(redis.clone(), "own"));
    lives.write(&count(1, 2)).await.expect("written");
    let mut most = 0;
    for n in 0..100 {
        // Half of them end in order, and half do not.
        let node = RedisLedger::new(redis.clone(), &format!("gone-{n}"));
        node.write(&count(1, n % 2)).await.expect("written");
        most = most.max(held().await.len());
    }
    assert!(own.claim(&count(1, 1), Most::Connections(3)).await.expect("asked"), "the dead do not count");
    assert!(!own.claim(&count(2, 2), Most::Connections(3)).await.expect("asked"), "who lives does");
    let held = held().await;
    println!("at most {most} counts at once, {} in the end", held.len());
    assert!(most <= 18, "{most}");
    assert!(held.contains_key("lives") && held.contains_key("own"), "{held:?}");
    tasks.stop(std::time::Duration::from_secs(1)).await;
}
