//! Shared history: pages that many returning clients read are read from the store once.
//!
//! Pages end on a grid of offsets, so that clients who were lost at different moments soon read the same ones.
//! A stretch of history up to a captured top never changes, so a page is right for as long as its epoch is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::broker::{Broker, BrokerError, Page, PageLimit};
use crate::model::{ChannelName, Epoch, Position};

/// Pages end at multiples of this.
const GRID: u64 = 64;
/// How many bytes of messages a page has at most, unless one message alone is larger.
const PAGE_BYTES: usize = 32 * 1024;
/// How many pages are remembered: at most 8 MiB of them, unless messages are larger than pages.
const REMEMBERED: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    channel: ChannelName,
    epoch: Epoch,
    after: u64,
    upto: u64,
}

type Slot = Arc<OnceCell<Arc<Page>>>;

/// Reads history, and remembers what it read last.
pub(super) struct History {
    broker: Arc<dyn Broker>,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    slots: HashMap<Key, Slot>,
    oldest_first: VecDeque<Key>,
}

impl History {
    pub(super) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, pages: Mutex::default() }
    }

    /// The next page of `channel` after `cursor`, which ends at or before offset `upto`. Its epoch may be
    /// another than the cursor's, and its first message may not follow the cursor: the caller looks.
    pub(super) async fn page(
        &self,
        channel: &ChannelName,
        cursor: &Position,
        upto: u64,
    ) -> Result<Arc<Page>, BrokerError> {
        let upto = upto.min((cursor.offset / GRID + 1) * GRID);
        let (epoch, after) = (cursor.epoch.clone(), cursor.offset);
        let key = Key { channel: channel.clone(), epoch, after, upto };
        let slot = self.slot(&key);
        // Whoever comes while somebody reads waits for that reading instead of repeating it.
        let page = slot.get_or_try_init(|| self.read(&key)).await.cloned();
        if page.as_ref().map_or(true, |page| page.epoch != key.epoch || page.messages.is_empty()) {
            self.forget(&key);
        }
        page
    }

    async fn read(&self, key: &Key) -> Result<Arc<Page>, BrokerError> {
        let messages = usize::try_from(key.upto.saturating_sub(key.after)).unwrap_or(usize::MAX);
        let limit = PageLimit { messages, bytes: PAGE_BYTES };
        self.broker.history(&key.channel, key.after, limit).await.map(Arc::new)
    }

    fn slot(&self, key: &Key) -> Slot {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = pages.slots.get(key) {
            return slot.clone();
        }
        let slot = Slot::default();
        pages.slots.insert(key.clone(), slot.clone());
        pages.oldest_first.push_back(key.clone());
        while pages.oldest_first.len() > REMEMBERED {
            if let Some(oldest) = pages.oldest_first.pop_front() {
                pages.slots.remove(&oldest);
            }
        }
        slot
    }

    fn forget(&self, key: &Key) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.slots.remove(key);
        pages.oldest_first.retain(|known| known != key);
    }
}
