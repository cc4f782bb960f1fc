//! A value that many read and a reload exchanges.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that may be exchanged while it is in use; clones share it.
///
/// Reading takes no lock and waits for nobody, so that it may be done for every message.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// `value`, until another takes its place.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// What holds now, for a short look: hold it no longer than that, and not across an `await`.
    #[must_use]
    pub fn read(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        self.0.load()
    }

    /// What holds now, to be kept: two looks at it see the same.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Exchanges it. Whoever looks after this sees `value`.
    pub fn replace(&self, value: T) {
        self.share(Arc::new(value));
    }

    /// The same with a value that others have, too.
    pub fn share(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&**self.read()).finish()
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
