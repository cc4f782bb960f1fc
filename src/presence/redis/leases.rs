//! Leases: this node says that it lives, and takes out nodes that do not.
//!
//! A node whose lease has run out is given half a lease more, which this process has to see pass. After Redis itself
//! was away nobody has a lease, and some come back later than others: then nobody is taken out for a while. Whoever is
//! taken out although it lives finds that its incarnation counts no more, and begins a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::cmd;

use super::scripts::{CLEAR, Names, own};
use super::{Shared, lease_key};
use crate::redis::RedisFault;

/// How many rooms one script removes at most.
const ROOMS: usize = 500;
/// How much longer than a lease nodes may take to come back after Redis was away.
const COMING_BACK: Duration = Duration::from_secs(5);

/// Renews the lease of this node, and watches those of the others.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(shared.lease / 6);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut status = shared.users.redis().status();
    let (mut absent, mut mercy) = (HashMap::new(), None);
    loop {
        ticks.tick().await;
        let looked = async {
            shared.renew().await?;
            look(&shared, &mut absent, mercy).await
        };
        let looked = looked.await;
        if looked.is_err() || status.has_changed().unwrap_or(false) {
            status.mark_unchanged();
            absent.clear();
            mercy = Some(Instant::now() + shared.lease + COMING_BACK);
        }
        if let Err(error) = looked {
            tracing::debug!(%error, "the leases of the nodes could not be looked at");
        }
        // What a dead node left to be told, too.
        shared.untold.notify_one();
    }
}

/// Looks for nodes without a lease; before the end of `mercy` nobody is taken out.
async fn look(
    shared: &Shared,
    absent: &mut HashMap<String, Instant>,
    mercy: Option<Instant>,
) -> Result<(), RedisFault> {
    let redis = shared.users.redis();
    let mut seen = HashMap::new();
    for names in [&shared.users, &shared.rooms] {
        for base in names.bases() {
            let nodes: HashMap<String, String> = redis.query(cmd("HGETALL").arg(base)).await?;
            for (node, text) in nodes {
                let incarnation = text.split(' ').next().unwrap_or_default();
                let incarnation = incarnation.trim_start_matches('-').to_owned();
                seen.entry(node).or_insert_with(Vec::new).push(incarnation);
            }
        }
    }
    seen.remove(&shared.node);
    absent.retain(|node, _| seen.contains_key(node));
    for (node, mut incarnations) in seen {
        let alive: bool = redis.query(cmd("EXISTS").arg(lease_key(redis, &node))).await?;
        if alive {
            absent.remove(&node);
            continue;
        }
        let since = *absent.entry(node.clone()).or_insert_with(Instant::now);
        let now = Instant::now();
        if now.duration_since(since) >= shared.lease / 2 && mercy.is_none_or(|mercy| mercy <= now) {
            incarnations.sort_unstable();
            incarnations.dedup();
            tracing::warn!(node, "a node has not been heard of; whoever was there has left");
            take_out(shared, &node, "", &incarnations).await?;
            absent.remove(&node);
        }
    }
    Ok(())
}

/// Takes these incarnations of a node out of everything: if its own keys are of `incarnation`, or, if that is empty,
/// if it has no lease. What is begun here and not finished, any node finishes.
async fn take_out(
    shared: &Shared,
    node: &str,
    incarnation: &str,
    incarnations: &[String],
) -> Result<(), RedisFault> {
    let redis = shared.users.redis();
    let mut rooms: Vec<String> = Vec::new();
    for base in shared.rooms.bases() {
        rooms.extend(redis.query::<Vec<String>>(cmd("HKEYS").arg(format!("{base}n:{node}"))).await?);
    }
    let mut parts = rooms.chunks(ROOMS);
    loop {
        let mut call = CLEAR.call(&[own(redis, node)]);
        call.arg(incarnation);
        let part = parts.next();
        for room in part.unwrap_or_default() {
            call.arg(room);
        }
        if !redis.call::<bool>(&call).await? {
            // It is back, or another process has its name.
            return Ok(());
        }
        if part.is_none() {
            break;
        }
    }
    // The users last: as long as one is left there, everything is looked at again.
    for names in [&shared.rooms, &shared.users] {
        drop_all(shared, names, node, incarnations).await?;
    }
    Ok(())
}

async fn drop_all(
    shared: &Shared,
    names: &Names,
    node: &str,
    incarnations: &[String],
) -> Result<(), RedisFault> {
    for bucket in 0..names.buckets() {
        for incarnation in incarnations {
            if names.drop(bucket, node, incarnation).await? {
                shared.untold.notify_one();
            }
        }
    }
    Ok(())
}

/// Takes this node out: it goes in good order.
pub(super) async fn leave(shared: &Shared, incarnation: &str) -> Result<(), RedisFault> {
    take_out(shared, &shared.node, incarnation, &[incarnation.to_owned()]).await
}
