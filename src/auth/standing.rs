//! Standing: whether an identity that was let in may stay. Knows who is shut out, and ends live connections.
//!
//! Every node has the whole list in memory, so that a look costs nothing and works while the store is away. A task asks
//! twice a second whether it changed, and looks at the live connections when it did, or when a token expires. Where the
//! store lost the list, or a part of it, whoever was shut out is shut out again.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{StreamExt as _, stream};

use super::{AuthError, Identity};
use crate::fault::Fault;
use crate::model::now_ms;
use crate::revocation::{Change, RevocationError, Revocations, Revoked, Version};

/// The pause between two looks at the list.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many changes are made again at once.
const AGAIN_AT_ONCE: usize = 64;

/// What an edge lets the task do with its live connections.
pub trait Watched: Send + Sync {
    /// Ends those whose identity `judge` finds at fault, telling them why; when the first of the others expires, in ms
    /// since the Unix epoch.
    fn review(&self, judge: &dyn Fn(&Identity) -> Option<AuthError>) -> Option<i64>;

    /// Has those leave what they may not read any more, because the rules changed, telling them why; whether that is
    /// known of all of them.
    fn review_rooms(self: Arc<Self>) -> BoxFuture<'static, bool>;
}

/// Who may stay.
pub(super) struct Standing {
    list: Arc<dyn Revocations>,
    held: RwLock<Arc<Held>>,
    live: Mutex<Vec<Weak<dyn Watched>>>,
    // When the first connection expires; the task lowers and raises it.
    next_expiry_ms: AtomicI64,
    // One look after the other, or an older list could take the place of a newer one.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    version: Version,
    revoked: Revoked,
}

impl Standing {
    /// Reads the list.
    pub(super) async fn load(list: Arc<dyn Revocations>) -> Result<Self, Fault> {
        // The number first: what changes while the list is read is seen with the next look.
        let version = list.version().await?;
        let revoked = list.load().await?;
        Ok(Self {
            list,
            held: RwLock::new(Arc::new(Held { version, revoked })),
            live: Mutex::default(),
            next_expiry_ms: AtomicI64::new(i64::MAX),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// Whether `identity` may stay.
    pub(super) fn judge(&self, identity: &Identity, now_ms: i64) -> Option<AuthError> {
        let held = self.held();
        if identity.expires_at_ms().is_some_and(|at| at <= now_ms) {
            return Some(AuthError::Expired);
        }
        if let Some(user) = identity.user().filter(|user| held.revoked.users.contains(*user)) {
            return Some(AuthError::Blocked(user.clone()));
        }
        let until = identity.token_id().and_then(|id| held.revoked.tokens.get(id));
        until.filter(|until| **until > now_ms).map(|_| AuthError::Revoked)
    }

    /// A connection of `identity` begins, or goes on with it.
    pub(super) fn note(&self, identity: &Identity) {
        if let Some(at) = identity.expires_at_ms() {
            self.next_expiry_ms.fetch_min(at, Ordering::AcqRel);
        }
    }

    pub(super) fn watch(&self, live: &Arc<dyn Watched>) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(live));
    }

    pub(super) async fn apply(&self, change: Change) -> Result<bool, RevocationError> {
        let known = self.held().version;
        let changed = self.list.apply(change, known).await?;
        // It holds here when the caller hears of it, whoever has seen it first.
        self.look().await?;
        self.review();
        Ok(changed)
    }

    /// Reads the list if it changed; whether it did.
    async fn look(&self) -> Result<bool, Fault> {
        let _one = self.looking.lock().await;
        let (mut version, held) = (self.list.version().await?, self.held());
        if version == held.version {
            return Ok(false);
        }
        if !version.follows(held.version) {
            self.make_again(&held).await?;
            version = self.list.version().await?;
        }
        let revoked = self.list.load().await?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Held { version, revoked });
        Ok(true)
    }

    /// Shuts out again whom the store does not know any more, but who was let in since. Who was let in by what it lost is
    /// shut out, too: that can be seen, and somebody who is let in by mistake cannot.
    async fn make_again(&self, held: &Held) -> Result<(), Fault> {
        let lost = held.revoked.missing_in(&self.list.load().await?);
        let put = |change| self.list.put_back(change, held.version);
        let mut again = stream::iter(lost).map(put).buffer_unordered(AGAIN_AT_ONCE);
        let (mut changes, mut left_out) = (0_usize, 0_usize);
        while let Some(done) = again.next().await {
            match done {
                Ok(changed) => changes += usize::from(changed),
                Err(RevocationError::Fault(fault)) => return Err(fault),
                Err(RevocationError::TooMany) => left_out += 1,
            }
        }
        if changes > 0 {
            tracing::warn!(
                changes,
                "the store lost users or tokens that were shut out; they are shut out again"
            );
        }
        if left_out > 0 {
            let error = RevocationError::TooMany;
            tracing::error!(left_out, %error, "not all whom the store lost are shut out again");
        }
        Ok(())
    }

    /// Looks at all live connections.
    fn review(&self) {
        let now = now_ms();
        // Whoever comes meanwhile lowers it again.
        self.next_expiry_ms.store(i64::MAX, Ordering::Release);
        let next = self
            .live()
            .iter()
            .filter_map(|live| live.review(&|identity: &Identity| self.judge(identity, now)))
            .min();
        if let Some(next) = next {
            self.next_expiry_ms.fetch_min(next, Ordering::AcqRel);
        }
    }

    fn live(&self) -> Vec<Arc<dyn Watched>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|live| live.strong_count() > 0);
        live.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has all live connections leave what they may not read any more; again, until that is known of all.
    pub(super) async fn review_rooms(self: Arc<Self>) {
        let mut away = false;
        loop {
            let reviewed = join_all(self.live().into_iter().map(Watched::review_rooms)).await;
            if reviewed.into_iter().all(|is_known| is_known) {
                return;
            }
            if !std::mem::replace(&mut away, true) {
                tracing::warn!("it is not known yet who may stay in which room after the reload");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps looking.
    pub(super) async fn run(self: Arc<Self>) {
        let mut away = false;
        loop {
            let until_expiry = self.next_expiry_ms.load(Ordering::Acquire).saturating_sub(now_ms());
            let pause = Duration::from_millis(u64::try_from(until_expiry).unwrap_or(0)).min(LOOK_EVERY);
            tokio::time::sleep(pause).await;
            let changed = match self.look().await {
                Ok(changed) => {
                    away = false;
                    changed
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "it is not known who else is shut out; the last list holds");
                    }
                    false
                }
            };
            if changed || self.next_expiry_ms.load(Ordering::Acquire) <= now_ms() {
                self.review();
            }
        }
    }

    fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
