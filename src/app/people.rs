//! What is known of people: who is there, what waits for them, and how far their devices are.

use std::sync::Arc;

use super::backend::Backend;
use crate::config::channels::Rules;
use crate::config::settings::Settings;
use crate::inbox::Inbox;
use crate::inbox::embedded::EmbeddedInbox;
use crate::inbox::redis::RedisInbox;
use crate::model::id::is_id_char;
use crate::presence::Presence;
use crate::presence::embedded::EmbeddedPresence;
use crate::presence::redis::{PresenceOptions, RedisPresence};
use crate::quota::Quota;
use crate::quota::redis::RedisLedger;
use crate::redis::Redis;
use crate::revocation::Revocations;
use crate::revocation::embedded::EmbeddedRevocations;
use crate::revocation::redis::RedisRevocations;
use crate::store::Store;
use crate::sync::SyncState;
use crate::sync::embedded::EmbeddedSync;
use crate::sync::redis::RedisSync;
use crate::tasks::Tasks;

/// Of people, where `backend` keeps everything else.
pub(super) struct People {
    pub(super) presence: Arc<dyn Presence>,
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) sync: Arc<dyn SyncState>,
    pub(super) quota: Arc<Quota>,
    pub(super) revocations: Arc<dyn Revocations>,
    /// The name of this process.
    pub(super) node: String,
}

impl People {
    /// In the store of this process.
    pub(super) fn embedded(
        store: &Store,
        backend: &Backend,
        settings: &Settings,
        rules: &Arc<Rules>,
        tasks: &Tasks,
    ) -> Self {
        Self {
            presence: EmbeddedPresence::start(backend.broker.clone(), rules.clone(), tasks),
            inbox: Arc::new(EmbeddedInbox::new(store.clone(), settings.inbox.retention)),
            sync: Arc::new(EmbeddedSync::new(store.clone(), settings.sync.retention)),
            quota: Quota::alone(),
            revocations: Arc::new(EmbeddedRevocations::new(store.clone())),
            node: format!("node-{}", std::process::id()),
        }
    }

    /// In the Redis that several processes share.
    pub(super) fn redis(
        redis: &Redis,
        backend: &Backend,
        settings: &Settings,
        rules: &Arc<Rules>,
        tasks: &Tasks,
    ) -> Self {
        let (node, broker) = (node_name(), backend.broker.clone());
        let options = PresenceOptions::new(&node);
        Self {
            presence: RedisPresence::start(redis.clone(), broker, rules.clone(), options, tasks),
            inbox: Arc::new(RedisInbox::new(redis.clone(), rules.clone(), settings.inbox.retention)),
            sync: Arc::new(RedisSync::new(redis.clone(), settings.sync.retention)),
            quota: Quota::shared(Arc::new(RedisLedger::new(redis.clone(), &node)), tasks),
            revocations: Arc::new(RedisRevocations::new(redis.clone())),
            node,
        }
    }
}

/// Names this process as no other is named: in containers neither the name of the host nor the number of the process
/// tells them apart.
fn node_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| is_id_char(*c)).take(64).collect();
    format!("{host}-{}-{:06x}", std::process::id(), fastrand::u32(..1 << 24))
}
