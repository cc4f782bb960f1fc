//! Retention: removes messages that are too many or too old, the room that they took, and channels that nobody has
//! used for a month.

use rusqlite::Connection;

use super::read::first_since;
use crate::broker::BrokerError;
use crate::config::channels::Rules;
use crate::model::now_ms;
use crate::store::{MERGE_STEP, ReadTx, Store};

/// How many messages or channels one operation removes at most; other writers wait no longer than that takes.
const STEP: usize = 500;
/// How many packs one operation writes anew at most.
const PACKS: usize = 32;
/// A channel without messages is forgotten after this long; who returns later gets a new epoch.
const FORGET_AFTER_MS: i64 = 30 * 24 * 3600 * 1000;

/// A channel that has messages.
struct Bounded {
    id: i64,
    name: String,
    top: u64,
    oldest: u64,
}

/// What a channel has too much of: everything before `keep_from`.
struct Excess {
    channel: i64,
    keep_from: u64,
}

pub(super) async fn retain(store: &Store, rules: &Rules) -> Result<bool, BrokerError> {
    let now = now_ms();
    // A message is removed by its stored place. Those that come meanwhile are for the next time; but what is being
    // merged already may not be all that there is.
    for _ in 0..2 {
        while store.write(|tx| tx.merge_some(MERGE_STEP)).await? {}
    }
    // Found by readers, so that only the removals themselves take the writer's time.
    let stored = store.read(stored_channels).await?;
    let bounded: Vec<(Bounded, u64, i64)> = stored
        .into_iter()
        .filter_map(|stored| {
            // A channel whose namespace is gone from the rules keeps what it has: the rules may come back.
            let history = rules.resolve(&stored.name)?.namespace.history;
            let ttl_ms = i64::try_from(history.ttl.as_millis()).unwrap_or(i64::MAX);
            Some((stored, history.size, now.saturating_sub(ttl_ms)))
        })
        .collect();
    let excess = store.read_places(move |tx| find_excess(tx, &bounded)).await?;
    let mut more = false;
    for Excess { channel, keep_from } in excess {
        let removed = store.write(move |tx| tx.trim(channel, keep_from, STEP as u64)).await?;
        more |= removed == STEP as u64;
    }
    let forgotten = store.write(move |tx| tx.forget_channels(now - FORGET_AFTER_MS, STEP));
    more |= forgotten.await? == STEP;
    let tidied = store.write(|tx| tx.tidy(PACKS)).await?;
    Ok(more | (tidied == PACKS))
}

fn stored_channels(conn: &Connection) -> rusqlite::Result<Vec<Bounded>> {
    let mut statement =
        conn.prepare_cached("SELECT id, name, top, oldest FROM channel WHERE oldest <= top")?;
    let rows = statement.query_map([], |row| {
        Ok(Bounded { id: row.get(0)?, name: row.get(1)?, top: row.get(2)?, oldest: row.get(3)? })
    })?;
    rows.collect()
}

fn find_excess(tx: &ReadTx<'_>, bounded: &[(Bounded, u64, i64)]) -> rusqlite::Result<Vec<Excess>> {
    let mut excess = Vec::new();
    for (Bounded { id, top, oldest, .. }, size, cutoff_ms) in bounded {
        let by_size = (top + 1).saturating_sub(*size).max(*oldest);
        let keep_from = first_since(tx, *id, by_size..=*top, *cutoff_ms)?.unwrap_or(top + 1);
        if keep_from > *oldest {
            excess.push(Excess { channel: *id, keep_from });
        }
    }
    Ok(excess)
}
