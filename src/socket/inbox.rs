//! The inbox of a connected user: its channels are joined by themselves, and what is written is noted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::inbox::{NOTIFICATION, Receipt};
use crate::model::{ChannelName, Position, Published, UserId};
use crate::notify::receipts::Receipts;

/// So many of the newest notifications may be taken back when their connection breaks: as many as its socket's
/// own queue holds, from which a peer that does not read takes nothing.
const RECENT: usize = super::SOCKET_QUEUE;

/// Sees which notifications are written to one connection of their user.
#[derive(Debug)]
pub(super) struct Tap {
    user_id: UserId,
    channels: Vec<ChannelName>,
    connection_id: Arc<str>,
    receipts: Receipts,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    // Everything after these positions was appended while the connection listened.
    live_after: HashMap<ChannelName, Position>,
    recent: VecDeque<(Instant, Receipt)>,
}

impl Tap {
    pub(super) fn new(
        user_id: UserId,
        channels: Vec<ChannelName>,
        connection_id: Arc<str>,
        receipts: Receipts,
    ) -> Self {
        Self { user_id, channels, connection_id, receipts, seen: Mutex::default() }
    }

    /// The user's own channels.
    pub(super) fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// The connection joined `channel`, whose top was `top` then: up to there comes history.
    pub(super) fn joined(&self, channel: &ChannelName, top: &Position) {
        if !self.channels.contains(channel) {
            return;
        }
        let mut seen = self.lock();
        let known = seen.live_after.get(channel);
        // A second join does not make history of what was seen live before.
        if known.is_none_or(|known| known.epoch != top.epoch || known.offset < top.offset) {
            seen.live_after.insert(channel.clone(), top.clone());
        }
    }

    /// A message was written to the device.
    pub(super) fn written(&self, message: &Published) {
        let Some((channel, position)) = self.notification(message) else { return };
        let mut seen = self.lock();
        let live = seen
            .live_after
            .get(channel)
            .is_some_and(|known| known.epoch != position.epoch || known.offset < position.offset);
        let taker = self.connection_id.clone();
        let receipt = Receipt { user_id: self.user_id.clone(), position: position.clone(), live, taker };
        if live {
            seen.live_after.insert(channel.clone(), position.clone());
            seen.recent.push_back((Instant::now(), receipt.clone()));
            if seen.recent.len() > RECENT {
                seen.recent.pop_front();
            }
        }
        drop(seen);
        self.receipts.delivered(receipt);
    }

    /// What to do once the device has acknowledged this message; nothing if it is no notification of its user.
    /// Unlike one that was merely written, it counts as taken for good, whenever it was sent.
    pub(super) fn acknowledgement(&self, message: &Published) -> Option<impl FnOnce() + Send + 'static> {
        let (_, position) = self.notification(message)?;
        let position = position.clone();
        let (receipts, user_id) = (self.receipts.clone(), self.user_id.clone());
        // Another taker than the connection, which may yet break.
        let taker = format!("{}+", self.connection_id).into();
        Some(move || receipts.delivered(Receipt { user_id, position, live: true, taker }))
    }

    /// The place of a notification of the user.
    fn notification<'a>(&self, message: &'a Published) -> Option<(&'a ChannelName, &'a Position)> {
        let own = message.event.as_str() == NOTIFICATION && self.channels.contains(&message.channel);
        own.then_some((&message.channel, &message.position))
    }

    /// The connection broke: what was written in the last `window` may never have arrived.
    pub(super) async fn broke(&self, window: Duration) {
        let recent = std::mem::take(&mut self.lock().recent);
        let lost = recent.into_iter().filter(|(at, _)| at.elapsed() <= window).map(|(_, receipt)| receipt);
        self.receipts.failed(lost.collect()).await;
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::embedded::EmbeddedInbox;
    use crate::model::message::sample;
    use crate::model::{Epoch, Priority};
    use crate::store::{Store, Synchronous};
    use crate::tasks::Tasks;

    fn message(event: &str, channel: &str, offset: u64) -> Arc<Published> {
        sample(channel, event, Priority::High, offset, None, "{}")
    }

    #[tokio::test]
    async fn only_the_users_own_notifications_are_noted_and_history_is_told_from_what_is_live() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Synchronous::Normal).unwrap();
        let inbox = Arc::new(EmbeddedInbox::new(store, Duration::from_secs(60)));
        let receipts = Receipts::start(inbox, &Tasks::new());
        let own = ChannelName::parse("user-notifications-ann").unwrap();
        let tap = Tap::new(UserId::parse("ann").unwrap(), vec![own.clone()], "a".into(), receipts);
        tap.joined(&own, &Position { epoch: Epoch::new("e"), offset: 2 });
        tap.written(&message(NOTIFICATION, "user-notifications-ann", 2));
        tap.written(&message(NOTIFICATION, "user-notifications-bob", 3));
        tap.written(&message("custom:user:notification", "user-notifications-ann", 3));
        tap.written(&message(NOTIFICATION, "user-notifications-ann", 4));
        // A second join from the start: what was live is history now, and is not counted twice.
        tap.joined(&own, &Position { epoch: Epoch::new("e"), offset: 3 });
        tap.written(&message(NOTIFICATION, "user-notifications-ann", 4));
        let seen = tap.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<_> = seen.recent.iter().map(|(_, receipt)| receipt.position.offset).collect();
        assert_eq!(recent, [4]);
    }
}
