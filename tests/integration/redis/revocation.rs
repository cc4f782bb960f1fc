//! The list of those who are shut out, where Redis lost a part of it.

use tidings::model::UserId;
use tidings::redis::Redis;
use tidings::revocation::redis::RedisRevocations;
use tidings::revocation::{Change, Revocations, Version};

use crate::support::redis::{RedisServer, connect};

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user")
}

/// What a node has to do with the list.
struct Node(RedisRevocations, Version);

impl Node {
    async fn new(redis: &Redis) -> Self {
        let mut node = Self(RedisRevocations::new(redis.clone()), Version::default());
        node.look().await;
        node
    }

    async fn look(&mut self) {
        self.1 = self.0.version().await.expect("a version");
    }

    async fn apply(&mut self, change: Change) {
        self.0.apply(change, self.1).await.expect("a change");
        self.look().await;
    }

    async fn block(&mut self, name: &str) {
        self.apply(Change::Block(user(name))).await;
    }

    async fn unblock(&mut self, name: &str) {
        self.apply(Change::Unblock(user(name))).await;
    }

    /// Puts `name` back, as one who saw no more than this node did; whether that did something.
    async fn put_back(&self, name: &str) -> bool {
        self.0.put_back(Change::Block(user(name)), self.1).await.expect("an answer")
    }

    async fn shut_out(&self) -> Vec<String> {
        let list = self.0.load().await.expect("a list");
        let mut users: Vec<_> = list.users.iter().map(|user| user.as_str().to_owned()).collect();
        users.sort();
        users
    }
}

/// Redis as it was when `keys` were kept.
struct Kept(Vec<(String, String)>);

const KEYS: [&str; 4] = ["u", "t", "v", "l"];

fn key(name: &str) -> String {
    format!("tidings{{revoked}}{name}")
}

impl Kept {
    fn of(server: &RedisServer) -> Self {
        let copy = |name: &&str| {
            let (key, kept) = (key(name), format!("{}.kept", key(name)));
            server.cli(&["COPY", &key, &kept, "REPLACE"]).trim() == "1"
        };
        let held: Vec<&str> = KEYS.into_iter().filter(copy).collect();
        Self(held.into_iter().map(|name| (key(name), format!("{}.kept", key(name)))).collect())
    }

    fn bring_back(self, server: &RedisServer) {
        empty(server);
        for (key, kept) in self.0 {
            assert_eq!(server.cli(&["COPY", &kept, &key, "REPLACE"]).trim(), "1", "{key}");
        }
    }
}

fn empty(server: &RedisServer) {
    for name in KEYS {
        server.cli(&["DEL", &key(name)]);
    }
}

#[tokio::test]
async fn who_was_let_in_is_not_put_back_by_a_node_that_was_away() {
    let server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let (mut here, mut away) = (Node::new(&redis).await, Node::new(&redis).await);
    for name in ["ann", "bob", "eve"] {
        here.block(name).await;
    }
    away.look().await;
    empty(&server);
    // Before anybody put her back, and after somebody did.
    here.unblock("ann").await;
    assert!(away.put_back("bob").await);
    here.unblock("bob").await;
    assert!(!here.1.follows(away.1));
    let put_back = (away.put_back("ann").await, away.put_back("bob").await, away.put_back("eve").await);
    assert_eq!(put_back, (false, false, true));
    assert_eq!(away.shut_out().await, ["eve"]);
    // Who is shut out once more is.
    here.block("ann").await;
    away.look().await;
    empty(&server);
    assert!(away.put_back("ann").await);
}

#[tokio::test]
async fn who_was_let_in_before_is_put_back() {
    let server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let mut node = Node::new(&redis).await;
    node.block("ann").await;
    node.unblock("ann").await;
    let kept = Kept::of(&server);
    node.block("ann").await;
    kept.bring_back(&server);
    assert!(node.put_back("ann").await);
    assert_eq!(node.shut_out().await, ["ann"]);
}

#[tokio::test]
async fn as_many_changes_as_were_lost_are_not_taken_for_them() {
    let server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let mut node = Node::new(&redis).await;
    node.block("ann").await;
    for lost in 1..4 {
        let kept = Kept::of(&server);
        for n in 0..lost {
            node.block(&format!("lost-{n}")).await;
        }
        kept.bring_back(&server);
        let seen = node.1;
        for n in 0..lost {
            node.block(&format!("new-{n}")).await;
            assert!(node.1 != seen && !node.1.follows(seen), "{lost}: {:?} {seen:?}", node.1);
        }
    }
}
