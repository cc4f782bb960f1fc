//! Faults: why a store of any kind could not do its work, in words that its callers can act on.
//!
//! The seams hold these instead of the errors of their back ends. The cause keeps its own type, for whoever has
//! to say or to look more closely.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What went wrong below a seam; `Display` says it with what a person has to do.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// `error` as a cause.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }

    /// The error itself, if it is an `E`.
    #[must_use]
    pub fn downcast<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// There is no room for more; nothing was changed. Reading goes on.
    #[error("there is no room for more: {0}")]
    Full(Cause),
    /// The store cannot be reached, is damaged or refuses; it is unknown whether a change was made.
    #[error("the store is unavailable: {0}")]
    Unavailable(Cause),
}
