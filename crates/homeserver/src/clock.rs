//! The time, as a value that the node supplies and a simulator can turn.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Where a use-case learns what time it is. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> MilliSecondsSinceUnixEpoch + Send + Sync>);

impl Clock {
    /// A clock that asks `read` each time; the node passes the system's clock.
    pub fn new(read: impl Fn() -> MilliSecondsSinceUnixEpoch + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The present time in milliseconds since the Unix epoch.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        (self.0)()
    }

    /// The present time as a plain number of milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now().get().into()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// A clock that stands still until it is turned: for tests and the simulator.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `ms` milliseconds since the Unix epoch.
    pub fn at(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    /// Moves the clock forward by `ms` milliseconds.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// The clock that use-cases read; it follows this one.
    pub fn clock(&self) -> Clock {
        let shared = self.0.clone();
        Clock::new(move || timestamp(shared.load(Ordering::SeqCst)))
    }
}

/// Milliseconds since the Unix epoch as Matrix's type; a value beyond what JSON can carry becomes
/// the largest it can.
pub fn timestamp(ms: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new(ms).unwrap_or(UInt::MAX))
}
