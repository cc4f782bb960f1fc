//! The mailbox: what one node wants another to do.
//!
//! A request lies in a list of the node that has to do it, which looks there many times a second; its answer lies in
//! a key that the asker looks at. Both go by themselves, should nobody come for them. To end a connection a second
//! time changes nothing, so it does no harm if a request is carried out after its asker gave up.

use std::sync::Weak;
use std::time::Duration;

use ::redis::cmd;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::scripts::own;
use super::{RedisPresence, Shared, read};
use crate::fault::{Cause, Fault};
use crate::redis::RedisFault;

/// The pause between two looks into the mailbox.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The pause between two looks for an answer.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// What nobody comes for goes after so long, in ms.
const KEPT_MS: u64 = 30_000;
/// How many requests are taken at once.
const TAKEN: usize = 256;

/// Something to be done.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// Where the answer is to lie.
    answer: String,
    /// Which connection to end; else those that are dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

/// Does what is asked of this node, for as long as there is a `presence`.
pub(super) async fn run(presence: Weak<RedisPresence>) {
    while let Some(presence) = presence.upgrade() {
        if let Err(error) = look(&presence).await {
            tracing::debug!(%error, "the mailbox could not be looked into");
        }
        drop(presence);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(presence: &RedisPresence) -> Result<(), Fault> {
    let shared = &presence.shared;
    let redis = shared.users.redis();
    let mut take = cmd("LPOP");
    take.arg(format!("{}q", shared.own)).arg(TAKEN);
    let requests: Option<Vec<String>> = redis.query(&take).await?;
    let mut done = Vec::new();
    for text in requests.unwrap_or_default() {
        let Ok(Request { answer, end }) = serde_json::from_str(&text) else { continue };
        let ended = match end {
            Some(connection_id) => usize::from(presence.end_here(&connection_id)),
            None => presence.end_dead_here(),
        };
        done.push((answer, ended));
    }
    if done.is_empty() {
        return Ok(());
    }
    // They count no more when the answer is there.
    presence.said().await?;
    let answers = done.iter().map(|(answer, ended)| async move {
        let mut set = cmd("SET");
        set.arg(answer).arg(*ended).arg("PX").arg(KEPT_MS);
        redis.query::<()>(&set).await
    });
    for answered in join_all(answers).await {
        answered?;
    }
    Ok(())
}

/// Has `node` end a connection, or all dead ones; how many it ended.
pub(super) async fn ask(shared: &Shared, node: &str, end: Option<&str>) -> Result<usize, Fault> {
    let redis = shared.users.redis();
    let base = own(redis, node);
    let answer = format!("{base}a:{}", ulid::Ulid::generate());
    let request = Request { answer: answer.clone(), end: end.map(str::to_owned) };
    let request = serde_json::to_string(&request).map_err(|error| Fault::Unavailable(Cause::new(error)))?;
    let mailbox = format!("{base}q");
    redis.query::<()>(cmd("RPUSH").arg(&mailbox).arg(request)).await?;
    redis.query::<()>(cmd("PEXPIRE").arg(&mailbox).arg(KEPT_MS)).await?;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(ended) = redis.query::<Option<usize>>(cmd("GETDEL").arg(&answer)).await? {
            return Ok(ended);
        }
        if Instant::now() >= until {
            let detail = format!("node {node} does not answer; it may do yet what it was asked");
            return Err(Fault::Unavailable(Cause::new(detail)));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Has all other nodes end their dead connections; how many they ended.
pub(super) async fn ask_all(shared: &Shared) -> Result<usize, RedisFault> {
    let nodes = read::names_of_nodes(shared).await?;
    let others = nodes.iter().filter(|node| **node != shared.node);
    let mut ended = 0;
    for answer in join_all(others.map(|node| ask(shared, node, None))).await {
        match answer {
            Ok(n) => ended += n,
            Err(error) => tracing::warn!(%error, "the dead connections of a node were not ended"),
        }
    }
    Ok(ended)
}
