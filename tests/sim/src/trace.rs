//! The trace of a run: one number that is the same only when everything happened the same.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Everything that happened so far, hashed in its order.
#[derive(Debug, Default)]
pub(crate) struct Trace(DefaultHasher);

impl Trace {
    /// Adds something that happened.
    pub(crate) fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.0);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// The hash of one thing.
pub(crate) fn hash_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
