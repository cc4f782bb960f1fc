//! The sync state of one machine: a table of the embedded store.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Basis, Device, Place, Saved, SyncState};
use crate::fault::Fault;
use crate::model::{ChannelName, Epoch, Position, UserId, now_ms};
use crate::store::{Store, WriteTx};

/// How many places one call of retention forgets at most.
const RETAIN_MAX: usize = 500;

/// Places in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedSync {
    store: Store,
    retention: Duration,
}

impl EmbeddedSync {
    /// Places on `store`, kept for `retention` after they were last saved.
    #[must_use]
    pub fn new(store: Store, retention: Duration) -> Self {
        Self { store, retention }
    }
}

#[async_trait]
impl SyncState for EmbeddedSync {
    async fn load(&self, device: &Device, channel: &ChannelName) -> Result<Option<Place>, Fault> {
        let (device, channel) = (device.clone(), channel.clone());
        Ok(self.store.read(move |conn| load(conn, &device, &channel)).await?)
    }

    async fn save(&self, places: Vec<Saved>) -> Result<(), Fault> {
        if places.is_empty() {
            return Ok(());
        }
        let saving = self.store.write(move |tx| {
            let now = now_ms();
            places.iter().try_for_each(|saved| save(tx, saved, now))
        });
        Ok(saving.await?)
    }

    async fn retain(&self) -> Result<bool, Fault> {
        let kept_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(kept_ms);
        let forgotten = self.store.write(move |tx| {
            tx.conn()
                .prepare_cached(
                    "DELETE FROM sync_state WHERE rowid IN
                     (SELECT rowid FROM sync_state WHERE saved_at < ?1 ORDER BY saved_at LIMIT ?2)",
                )?
                .execute(params![before, RETAIN_MAX])
        });
        Ok(forgotten.await? == RETAIN_MAX)
    }
}

fn load(conn: &Connection, device: &Device, channel: &ChannelName) -> rusqlite::Result<Option<Place>> {
    conn.prepare_cached(
        "SELECT epoch, offset, acknowledged FROM sync_state
         WHERE user_id = ?1 AND client_id = ?2 AND channel = ?3 ORDER BY acknowledged DESC LIMIT 1",
    )?
    .query_row(params![user(device), device.client_id, channel.as_str()], |row| {
        let epoch: String = row.get(0)?;
        let position = Position { epoch: Epoch::new(&epoch), offset: row.get(1)? };
        let basis = if row.get(2)? { Basis::Acknowledged } else { Basis::Written };
        Ok(Place { position, basis })
    })
    .optional()
}

/// Moves a place forward, in the channel's own epoch only. What was acknowledged and what was written are two
/// places, and neither ever moves the other.
fn save(tx: &WriteTx<'_>, saved: &Saved, now: i64) -> rusqlite::Result<()> {
    let Saved { device, channel, place } = saved;
    let Position { epoch, offset } = &place.position;
    if !tx.channel(channel)?.is_some_and(|row| row.epoch == *epoch && row.top >= *offset) {
        return Ok(());
    }
    let insert = "INSERT INTO sync_state (user_id, client_id, channel, acknowledged, epoch, offset, saved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (user_id, client_id, channel, acknowledged) DO UPDATE SET
           epoch = excluded.epoch, offset = excluded.offset, saved_at = excluded.saved_at
         WHERE excluded.epoch <> epoch OR excluded.offset >= offset";
    let acknowledged = place.basis == Basis::Acknowledged;
    let user = user(device);
    tx.conn().prepare_cached(insert)?.execute(params![
        user,
        device.client_id,
        channel.as_str(),
        acknowledged,
        epoch.as_str(),
        offset,
        now
    ])?;
    Ok(())
}

fn user(device: &Device) -> &str {
    device.user_id.as_ref().map_or("", UserId::as_str)
}
