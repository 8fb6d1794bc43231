//! When a server that did not answer is tried again: after a while that doubles, and at once on any
//! sign of its life.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use ruma::{OwnedServerName, ServerName};

/// The first pause, in milliseconds: somebody whose node starts while it is looked for is found soon.
const FIRST_PAUSE_MS: u64 = 5_000;

/// The longest, in milliseconds: a path that no sign of life shows is found within it.
const LONGEST_PAUSE_MS: u64 = 15 * 60_000;

/// Servers that are remembered; one that is forgotten is tried a little early.
const MAX_SERVERS: usize = 8_192;

/// The largest part of a reason that is kept.
const MAX_REASON_CHARS: usize = 200;

/// The last attempt to reach a server that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why it failed, for people.
    pub reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    failed: Mutex<BTreeMap<OwnedServerName, Failed>>,
    alive: Mutex<BTreeSet<OwnedServerName>>,
}

#[derive(Debug)]
struct Failed {
    /// The newest entry of the outbox at that time; 0 where it was not about the outbox.
    newest: i64,
    pause_ms: u64,
    last: Attempt,
    /// Whether it showed life since.
    is_alive: bool,
}

impl Retries {
    /// Whether a server is to be tried: it was not before, or its pause is over, or there is
    /// something newer for it, or it showed life.
    pub(crate) fn is_due(&self, server: &ServerName, newest: i64, now_ms: u64) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(server).is_none_or(|failed| {
            failed.is_alive
                || newest > failed.newest
                || now_ms.saturating_sub(failed.last.at_ms) >= failed.pause_ms
        })
    }

    /// Whether it is time to try again to deliver something to somebody.
    pub(crate) fn is_any_delivery_due(&self, now_ms: u64) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.values().any(|failed| {
            failed.newest > 0
                && (failed.is_alive || now_ms.saturating_sub(failed.last.at_ms) >= failed.pause_ms)
        })
    }

    /// Says for whom the outbox has anything: for the others nothing is to be delivered any more.
    pub(crate) fn keep_deliveries(&self, to: &BTreeSet<OwnedServerName>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let done = failed.iter_mut().filter(|(server, _)| !to.contains(*server));
        done.for_each(|(_, failed)| failed.newest = 0);
    }

    /// Says that a server could not be reached.
    pub(crate) fn note_failed(
        &self,
        server: &ServerName,
        (newest, now_ms): (i64, u64),
        reason: &dyn std::fmt::Display,
    ) {
        let mut all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(server);
        let pause_ms = match before {
            Some(before) if !before.is_alive => {
                before.pause_ms.saturating_mul(2).min(LONGEST_PAUSE_MS)
            }
            _ => FIRST_PAUSE_MS,
        };
        let newest = before.map_or(newest, |before| before.newest.max(newest));
        let reason = reason.to_string().chars().take(MAX_REASON_CHARS).collect();
        if all.len() >= MAX_SERVERS && before.is_none() {
            all.pop_first();
        }
        let last = Attempt { at_ms: now_ms, reason };
        all.insert(server.to_owned(), Failed { newest, pause_ms, last, is_alive: false });
    }

    /// Says that a server answered.
    pub(crate) fn note_reached(&self, server: &ServerName) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    /// Says that a server showed life. Gives whether anybody waits for that; it is noted then.
    pub(crate) fn note_alive(&self, server: &ServerName) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failed) = failed.get_mut(server).filter(|failed| !failed.is_alive) else {
            return false;
        };
        failed.is_alive = true;
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned())
    }

    /// Lets everybody be tried again: this node itself came to be somewhere else, or is no longer
    /// alone.
    pub(crate) fn forgive_all(&self) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.values_mut().for_each(|failed| failed.is_alive = true);
    }

    /// The servers that showed life since the last call, after they could not be reached.
    pub(crate) fn take_alive(&self) -> BTreeSet<OwnedServerName> {
        std::mem::take(&mut *self.alive.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last attempt to reach a server, if it failed.
    pub(crate) fn last(&self, server: &ServerName) -> Option<Attempt> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(server).map(|failed| failed.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn pauses_double_and_any_sign_of_life_ends_them() {
        let retries = Retries::default();
        let server = server_name!("b");
        assert!(retries.is_due(server, 1, 0));
        assert!(!retries.note_alive(server), "nobody waits for it");
        let mut now = 0;
        let pauses = [5, 10, 20, 40, 80, 160, 320, 640, 900, 900].map(|seconds| seconds * 1_000);
        for pause in pauses {
            retries.note_failed(server, (1, now), &"nobody there");
            assert!(!retries.is_any_delivery_due(now + pause - 1));
            assert!(retries.is_any_delivery_due(now + pause));
            assert!(!retries.is_due(server, 1, now + pause - 1));
            assert!(retries.is_due(server, 2, now), "something new");
            now += pause;
            assert!(retries.is_due(server, 1, now));
        }
        retries.note_failed(server, (1, now), &"nobody there");
        assert_eq!(retries.last(server).unwrap().reason, "nobody there");
        assert!(retries.note_alive(server) && !retries.note_alive(server));
        assert!(retries.is_due(server, 1, now));
        assert_eq!(retries.take_alive(), BTreeSet::from([server.to_owned()]));
        retries.note_failed(server, (1, now), &"gone again");
        retries.forgive_all();
        assert!(retries.is_due(server, 1, now) && retries.take_alive().is_empty());
        retries.note_failed(server, (1, now), &"and again");
        assert!(!retries.is_due(server, 1, now + 4_999) && retries.is_due(server, 1, now + 5_000));
        retries.keep_deliveries(&BTreeSet::from([server.to_owned()]));
        assert!(retries.is_any_delivery_due(now + 5_000));
        retries.keep_deliveries(&BTreeSet::new());
        assert!(!retries.is_any_delivery_due(now + 5_000));
        retries.note_reached(server);
        assert!(retries.is_due(server, 0, now) && retries.last(server).is_none());
    }
}
