//! Open streams: how many there may be, and ending those whose reader may not stay.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::super::problem::Problem;
use super::frames::dismissal;
use crate::auth::{AuthError, Denied, Identity, Rights, Watched};
use crate::limits::{Reason, met};
use crate::metrics;
use crate::model::ChannelName;

/// Whoever is refused may come back after so long.
const COME_BACK: Duration = Duration::from_secs(1);

/// The open streams of this process.
#[derive(Debug)]
pub(in super::super) struct Streams {
    free: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    rights: Rights,
}

#[derive(Debug, Clone)]
struct Open {
    identity: Arc<Identity>,
    channel: ChannelName,
    end: End,
}

/// The end of one stream, and what is said before it.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    token: CancellationToken,
    words: Arc<OnceLock<Bytes>>,
}

impl End {
    pub(super) fn within(token: &CancellationToken) -> Self {
        Self { token: token.child_token(), words: Arc::default() }
    }

    pub(super) fn end(&self) {
        self.token.cancel();
    }

    pub(super) async fn ended(&self) {
        self.token.cancelled().await;
    }

    /// What is still to be said, once.
    pub(super) fn words(&self) -> Option<Bytes> {
        self.words.get().cloned()
    }

    fn say_and_end(&self, words: Bytes) {
        let _ = self.words.set(words);
        self.end();
    }
}

/// A stream counts for as long as this is there.
#[derive(Debug)]
pub(super) struct Slot {
    streams: Arc<Streams>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Streams {
    /// At most `most` at once, of those who may read by `rights`.
    pub(in super::super) fn new(most: usize, rights: Rights) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            rights,
        })
    }

    /// A stream of `channel` begins for `identity`.
    pub(super) fn open(
        self: &Arc<Self>,
        identity: Arc<Identity>,
        channel: ChannelName,
        end: End,
    ) -> Result<Slot, Problem> {
        let permit = self.free.clone().try_acquire_owned().map_err(|_| {
            met(Reason::Connections);
            Problem::limited(Reason::Connections, COME_BACK)
        })?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, Open { identity, channel, end });
        Ok(Slot { streams: self.clone(), id, _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}

impl Watched for Streams {
    fn review(&self, judge: &dyn Fn(&Identity) -> Option<AuthError>) -> Option<i64> {
        let mut next = None;
        for Open { identity, end, .. } in self.lock().values() {
            match judge(identity) {
                Some(error) => end.say_and_end(dismissal(error.code(), &error, "auth")),
                None => next = next.into_iter().chain(identity.expires_at_ms()).min(),
            }
        }
        next
    }
    fn review_rooms(self: Arc<Self>) -> BoxFuture<'static, bool> {
        let open: Vec<Open> = self.lock().values().cloned().collect();
        async move {
            let mut all_known = true;
            for Open { identity, channel, end } in open {
                match self.rights.read(&identity, &channel).await {
                    Ok(_) => {}
                    Err(Denied::Unknown(_)) => all_known = false,
                    Err(denied) => {
                        metrics::rejected(denied.code());
                        end.say_and_end(dismissal(denied.code(), &denied, "room:join"));
                    }
                }
            }
            all_known
        }
        .boxed()
    }
}
