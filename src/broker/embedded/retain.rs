//! Retention: removes messages that are too many or too old, and channels that nobody has used for a month.

use rusqlite::{Connection, params};

use super::read::first_since;
use crate::broker::BrokerError;
use crate::config::channels::Rules;
use crate::model::now_ms;
use crate::store::{ReadTx, Store};

/// How many rows one operation removes at most; other writers wait no longer than that takes.
const STEP: usize = 500;
/// A channel without messages is forgotten after this long; who returns later gets a new epoch.
const FORGET_AFTER_MS: i64 = 30 * 24 * 3600 * 1000;

/// A channel that has messages.
struct Stored {
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
    // A message is removed by its stored place. Those that come meanwhile are for the next time.
    store.write(|tx| tx.merge_places()).await?;
    // Found by readers, so that only the deletes themselves take the writer's time.
    let stored = store.read(stored_channels).await?;
    let bounded: Vec<(Stored, u64, i64)> = stored
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
        let removed = store.write(move |tx| remove(tx.conn(), channel, keep_from)).await?;
        more |= removed == STEP;
    }
    let forgotten = store.write(move |tx| {
        // An id that is given again may not find places of the channel that had it before.
        tx.merge_places()?;
        tx.conn().execute(
            "DELETE FROM channel WHERE id IN
             (SELECT id FROM channel WHERE oldest > top AND touched_at < ?1 LIMIT ?2)",
            params![now - FORGET_AFTER_MS, STEP],
        )
    });
    Ok(more | (forgotten.await? == STEP))
}

fn stored_channels(conn: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut statement =
        conn.prepare_cached("SELECT id, name, top, oldest FROM channel WHERE oldest <= top")?;
    let rows = statement.query_map([], |row| {
        Ok(Stored { id: row.get(0)?, name: row.get(1)?, top: row.get(2)?, oldest: row.get(3)? })
    })?;
    rows.collect()
}

fn find_excess(tx: &ReadTx<'_>, bounded: &[(Stored, u64, i64)]) -> rusqlite::Result<Vec<Excess>> {
    let mut excess = Vec::new();
    for (Stored { id, top, oldest, .. }, size, cutoff_ms) in bounded {
        let by_size = (top + 1).saturating_sub(*size).max(*oldest);
        let keep_from = first_since(tx, *id, by_size..=*top, *cutoff_ms)?.unwrap_or(top + 1);
        if keep_from > *oldest {
            excess.push(Excess { channel: *id, keep_from });
        }
    }
    Ok(excess)
}

fn remove(conn: &Connection, channel: i64, keep_from: u64) -> rusqlite::Result<usize> {
    let excess = params![channel, keep_from, STEP];
    conn.prepare_cached(
        "DELETE FROM message WHERE seq IN
         (SELECT seq FROM place WHERE channel = ?1 AND offset < ?2 ORDER BY offset LIMIT ?3)",
    )?
    .execute(excess)?;
    let removed = conn
        .prepare_cached(
            "DELETE FROM place WHERE channel = ?1 AND offset IN
             (SELECT offset FROM place WHERE channel = ?1 AND offset < ?2 ORDER BY offset LIMIT ?3)",
        )?
        .execute(excess)?;
    // What is not in the index yet is removed by the merge, which goes by this bound.
    conn.prepare_cached(
        "UPDATE channel SET oldest = max(oldest, min(?2, coalesce(
           (SELECT min(offset) FROM place WHERE channel = ?1), ?2))) WHERE id = ?1",
    )?
    .execute(params![channel, keep_from])?;
    Ok(removed)
}
