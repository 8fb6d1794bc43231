//! What one served stream is doing, and since when.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use super::Patience;

/// Follows the requests in flight on one stream.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When each request in flight began, by number.
    running: BTreeMap<u64, Instant>,
    next: u64,
    /// Since when nothing was in flight, while nothing is.
    quiet_since: Instant,
}

/// One request in flight, until dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    number: u64,
    activity: Activity,
}

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Fine,
    /// No request for too long.
    Idle,
    /// A request takes too long.
    Stuck,
}

impl Default for Activity {
    fn default() -> Self {
        let quiet_since = Instant::now();
        Self(Arc::new(Mutex::new(State { running: BTreeMap::new(), next: 0, quiet_since })))
    }
}

impl Activity {
    pub(super) fn enter(&self) -> InFlight {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        state.running.insert(number, Instant::now());
        InFlight { number, activity: self.clone() }
    }

    pub(super) fn look(&self, patience: &Patience) -> Look {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.running.first_key_value() {
            Some((_, began)) if began.elapsed() > patience.request => Look::Stuck,
            Some(_) => Look::Fine,
            None => {
                let quiet = if state.next == 0 { patience.first_request } else { patience.idle };
                if state.quiet_since.elapsed() > quiet { Look::Idle } else { Look::Fine }
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.activity.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.remove(&self.number);
        state.quiet_since = Instant::now();
    }
}
