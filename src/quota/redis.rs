//! The ledger in Redis: of each user a hash with the count of each node. Who is over the limit is looked at more
//! closely: the counts of nodes whose lease has run out are taken out, and the claim is made again.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::cmd;
use async_trait::async_trait;

use super::{Count, Ledger, Most};
use crate::fault::Fault;
use crate::presence::redis::lease_key;
use crate::redis::{Redis, RedisFault, Script};

/// What nobody writes again goes after so long; nodes write theirs every minute.
const KEPT: Duration = Duration::from_secs(600);

/// Beyond so many nodes with a count of one user it is looked which of them are dead.
const MANY: usize = 16;

static CLAIM: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua\n", include_str!("redis/claim.lua"))));

/// What the nodes that share a Redis count.
#[derive(Debug)]
pub struct RedisLedger {
    redis: Redis,
    node: String,
}

impl RedisLedger {
    /// What `node` writes, and all others.
    #[must_use]
    pub fn new(redis: Redis, node: &str) -> Self {
        Self { redis, node: node.to_owned() }
    }

    /// Whether the count was taken; and which other nodes have one. What dead ones have written is taken out where they
    /// are many: each node has a name of its own for each of its lives, and a user may stay for all of them.
    async fn claimed(&self, count: &Count, most: (u32, u32)) -> Result<(bool, Vec<String>), RedisFault> {
        let (taken, others) = self.call(count, most, &[]).await?;
        if taken && others.len() > MANY {
            let dead = self.dead(others).await?;
            self.call(count, (0, 0), &dead).await?;
            return Ok((true, Vec::new()));
        }
        Ok((taken, others))
    }

    /// One call of the script, which takes out what `dead` nodes have written.
    async fn call(
        &self,
        count: &Count,
        (connections, rooms): (u32, u32),
        dead: &[String],
    ) -> Result<(bool, Vec<String>), RedisFault> {
        let mut call = CLAIM.call(&[self.redis.key(&format!("q:{}", count.user), "q")]);
        call.arg(&self.node).arg(count.number).arg(count.connections).arg(connections).arg(rooms);
        call.arg(KEPT.as_millis().to_string()).arg(dead.len());
        for node in dead {
            call.arg(node);
        }
        for room in &count.rooms {
            call.arg(room.as_str());
        }
        self.redis.call(&call).await
    }

    /// Those of `nodes` that have no lease.
    async fn dead(&self, nodes: Vec<String>) -> Result<Vec<String>, RedisFault> {
        let mut dead = Vec::new();
        for node in nodes {
            if !self.redis.query::<bool>(cmd("EXISTS").arg(lease_key(&self.redis, &node))).await? {
                dead.push(node);
            }
        }
        Ok(dead)
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn claim(&self, count: &Count, most: Most) -> Result<bool, Fault> {
        let most = match most {
            Most::Connections(most) => (most, 0),
            Most::Rooms(most) => (0, most),
        };
        let (taken, others) = self.claimed(count, most).await?;
        if taken {
            return Ok(true);
        }
        let dead = self.dead(others).await?;
        Ok(!dead.is_empty() && self.call(count, most, &dead).await?.0)
    }

    async fn write(&self, count: &Count) -> Result<(), Fault> {
        self.claimed(count, (0, 0)).await?;
        Ok(())
    }

    async fn lost(&self) {
        // A Redis that is there again may be another one.
        let mut status = self.redis.status();
        status.mark_unchanged();
        if status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
