//! Reading: what all nodes together have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ::redis::cmd;
use futures_util::future::try_join_all;

use super::Shared;
use super::scripts::own;
use super::writer::Known;
use crate::metrics::Totals;
use crate::model::{ChannelName, UserId};
use crate::presence::{Counts, InRoom, NodeCounts, Online, Page, Present};
use crate::redis::RedisFault;

/// The nodes that are there, by name, or were there and are not taken out yet.
pub(super) async fn names_of_nodes(shared: &Shared) -> Result<Vec<String>, RedisFault> {
    // All are in every place.
    let mut nodes: Vec<String> = shared.users.redis().query(cmd("HKEYS").arg(shared.users.base(0))).await?;
    nodes.sort_unstable();
    Ok(nodes)
}

pub(super) async fn user(shared: &Shared, user: &UserId) -> Result<Option<Online>, RedisFault> {
    let base = shared.users.base(shared.users.bucket(user.as_str()));
    Ok(online(shared, &base, std::slice::from_ref(user)).await?.pop())
}

/// What is known of those of `users` that are online, all from one place.
async fn online(shared: &Shared, base: &str, users: &[UserId]) -> Result<Vec<Online>, RedisFault> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let redis = shared.users.redis();
    let (mut sums, mut since) = (cmd("HMGET"), cmd("HMGET"));
    sums.arg(format!("{base}t"));
    since.arg(format!("{base}s"));
    for user in users {
        sums.arg(user.as_str());
        since.arg(user.as_str());
    }
    let (sums, since): (Vec<Option<usize>>, Vec<Option<i64>>) =
        tokio::try_join!(redis.query(&sums), redis.query(&since))?;
    let known = users.iter().zip(sums).zip(since);
    let known = known.filter_map(|((user, sum), since)| {
        Some(Online { user_id: user.clone(), connections: sum?, since_ms: since.unwrap_or_default() })
    });
    Ok(known.collect())
}

/// The names after `after` of those at `key`, at most `limit` and one more if there is one, and how many in all.
async fn names(
    shared: &Shared,
    key: String,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<String>, usize), RedisFault> {
    let redis = shared.users.redis();
    let mut range = cmd("ZRANGE");
    let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
    range.arg(&key).arg(from).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit + 1);
    let mut count = cmd("ZCARD");
    count.arg(&key);
    tokio::try_join!(redis.query(&range), redis.query(&count))
}

pub(super) async fn users(
    shared: &Shared,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Online>, RedisFault> {
    let limit = limit.max(1);
    let bases = shared.users.bases();
    let parts = bases.iter().map(|base| names(shared, format!("{base}z"), after, limit));
    let parts = try_join_all(parts).await?;
    let total = parts.iter().map(|(_, total)| total).sum();
    let mut found: Vec<(String, &String)> = Vec::new();
    for ((names, _), base) in parts.into_iter().zip(&bases) {
        found.extend(names.into_iter().map(|name| (name, base)));
    }
    found.sort_unstable();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(name, _)| name.clone());
    let mut by_base: HashMap<&String, Vec<UserId>> = HashMap::new();
    for (name, base) in &found {
        by_base.entry(base).or_default().extend(UserId::parse(name).ok());
    }
    let asked = by_base.iter().map(|(base, users)| online(shared, base, users));
    let mut items: Vec<Online> = try_join_all(asked).await?.into_iter().flatten().collect();
    items.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
    Ok(Page { items, total, next })
}

pub(super) async fn room(shared: &Shared, room: &ChannelName) -> Result<InRoom, RedisFault> {
    let redis = shared.users.redis();
    let nodes = names_of_nodes(shared).await?;
    let asked = nodes.iter().map(|node| async move {
        let key = format!("{}r:{room}", own(redis, node));
        redis.query::<HashMap<String, usize>>(cmd("HGETALL").arg(key)).await
    });
    let (mut users, mut connections) = (BTreeMap::new(), 0);
    for (name, count) in try_join_all(asked).await?.into_iter().flatten() {
        match UserId::parse(&name) {
            Ok(user) => *users.entry(user).or_insert(0) += count,
            Err(_) => connections += count,
        }
    }
    Ok(InRoom { users: users.into_iter().collect(), connections })
}

pub(super) async fn connections(
    shared: &Shared,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Present>, RedisFault> {
    let limit = limit.max(1);
    let redis = shared.users.redis();
    let nodes: Vec<Arc<str>> = names_of_nodes(shared).await?.into_iter().map(Arc::from).collect();
    let parts = nodes.iter().map(|node| names(shared, format!("{}c", own(redis, node)), after, limit));
    let parts = try_join_all(parts).await?;
    let total = parts.iter().map(|(_, total)| total).sum();
    let mut found: Vec<(String, &Arc<str>)> = Vec::new();
    for ((names, _), node) in parts.into_iter().zip(&nodes) {
        found.extend(names.into_iter().map(|name| (name, node)));
    }
    found.sort_unstable();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(name, _)| name.clone());
    let mut by_node: HashMap<&Arc<str>, Vec<String>> = HashMap::new();
    for (id, node) in found {
        by_node.entry(node).or_default().push(id);
    }
    let asked = by_node.into_iter().map(|(node, ids)| async move {
        let mut command = cmd("HMGET");
        command.arg(format!("{}d", own(redis, node))).arg(&ids);
        let known: Vec<Option<String>> = redis.query(&command).await?;
        let known = ids.into_iter().zip(known);
        let known = known.filter_map(|(id, known)| present(node, id, &known?));
        Ok::<_, RedisFault>(known.collect::<Vec<_>>())
    });
    let mut items: Vec<Present> = try_join_all(asked).await?.into_iter().flatten().collect();
    items.sort_unstable_by(|a, b| a.connection_id.cmp(&b.connection_id));
    Ok(Page { items, total, next })
}

fn present(node: &Arc<str>, connection_id: String, known: &str) -> Option<Present> {
    let Known { client_id, user_id, connected_at_ms, rooms, transport } = serde_json::from_str(known).ok()?;
    let transport = match transport.as_deref() {
        Some("websocket") => Some("websocket"),
        Some("polling") => Some("polling"),
        _ => None,
    };
    Some(Present {
        node: Some(node.clone()),
        connection_id,
        client_id,
        user_id,
        rooms,
        connected_at_ms,
        transport,
    })
}

/// The node that has a connection of this name.
pub(super) async fn owner(shared: &Shared, connection_id: &str) -> Result<Option<String>, RedisFault> {
    let redis = shared.users.redis();
    let nodes = names_of_nodes(shared).await?;
    let asked = nodes.iter().map(|node| async move {
        let mut command = cmd("ZSCORE");
        command.arg(format!("{}c", own(redis, node))).arg(connection_id);
        redis.query::<Option<f64>>(&command).await
    });
    let has = try_join_all(asked).await?;
    Ok(nodes.into_iter().zip(has).find(|(_, has)| has.is_some()).map(|(node, _)| node))
}

pub(super) async fn counts(shared: &Shared) -> Result<Counts, RedisFault> {
    let redis = shared.users.redis();
    let nodes = names_of_nodes(shared).await?;
    let sum = async |keys: Vec<String>| {
        let asked = keys.iter().map(|key| async move { redis.query::<usize>(cmd("ZCARD").arg(key)).await });
        Ok::<usize, RedisFault>(try_join_all(asked).await?.into_iter().sum())
    };
    let connections = nodes.iter().map(|node| format!("{}c", own(redis, node))).collect();
    let users = shared.users.bases().iter().map(|base| format!("{base}z")).collect();
    let rooms = shared.rooms.bases().iter().map(|base| format!("{base}z")).collect();
    let (connections, users, rooms) = tokio::try_join!(sum(connections), sum(users), sum(rooms))?;
    Ok(Counts { connections, users, rooms })
}

pub(super) async fn nodes(shared: &Shared) -> Result<Vec<NodeCounts>, RedisFault> {
    let redis = shared.users.redis();
    let nodes = names_of_nodes(shared).await?;
    let asked = nodes.into_iter().map(|node| async move {
        let base = own(redis, &node);
        let (mut count, mut lease) = (cmd("ZCARD"), cmd("GET"));
        count.arg(format!("{base}c"));
        lease.arg(format!("{base}l"));
        let (connections, did): (usize, Option<String>) =
            tokio::try_join!(redis.query(&count), redis.query(&lease))?;
        let totals = match did {
            _ if node == shared.node => Totals::read(),
            // Another version may tell it in another way.
            did => did.and_then(|did| serde_json::from_str(&did).ok()).unwrap_or_default(),
        };
        Ok::<_, RedisFault>(NodeCounts { node: Some(node), connections, totals })
    });
    try_join_all(asked).await
}
