//! What is known at this moment about requests that travel through other servers: how many do, and
//! which server carried the last one to whom.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ruma::{OwnedServerName, ServerName};

/// Requests that we carry, or take from carriers, for one server at once. Each waits for a third
/// one, and a node that is behind asks for one thing after the other.
const MAX_PER_SERVER: usize = 4;

/// Requests that we carry, or take from carriers, at once. With the largest request and answer in
/// base64 each holds 4 MiB, so this is 64 MiB.
const MAX_IN_ALL: usize = 16;

/// Destinations whose carrier is remembered: more than anybody talks to at once.
const MAX_ROUTES: usize = 256;

/// How long a carrier is asked before a path of our own is tried again, in milliseconds: a direct
/// path is better, and it may exist by now.
const ROUTE_MS: u64 = 60_000;

/// Bounds how many things are done at once, for one server and in all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Slots(Arc<Mutex<BTreeMap<OwnedServerName, usize>>>);

/// The right to do one of them; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    server: OwnedServerName,
}

impl Slots {
    /// One more, if there is room for it.
    pub(crate) fn take(&self, server: &ServerName) -> Option<Slot> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all: usize = taken.values().sum();
        let of_server = taken.get(server).copied().unwrap_or(0);
        if in_all >= MAX_IN_ALL || of_server >= MAX_PER_SERVER {
            return None;
        }
        taken.insert(server.to_owned(), of_server + 1);
        Some(Slot { slots: self.clone(), server: server.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.server) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.server)),
        }
    }
}

/// Who carried the last request to a server, and when, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<BTreeMap<OwnedServerName, (OwnedServerName, u64)>>);

impl Routes {
    /// The carrier that served lately.
    pub(crate) fn lately(&self, destination: &ServerName, now_ms: u64) -> Option<OwnedServerName> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (carrier, at) = routes.get(destination)?;
        (now_ms.saturating_sub(*at) < ROUTE_MS).then(|| carrier.clone())
    }

    /// Notes a carrier that served. The time of the first success counts, so that a direct path is
    /// tried now and then.
    pub(crate) fn note(&self, destination: &ServerName, carrier: &ServerName, now_ms: u64) {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = routes
            .get(destination)
            .is_some_and(|(known, at)| known == carrier && now_ms.saturating_sub(*at) < ROUTE_MS);
        if known {
            return;
        }
        if routes.len() >= MAX_ROUTES {
            routes.pop_first();
        }
        routes.insert(destination.to_owned(), (carrier.to_owned(), now_ms));
    }

    /// Forgets a carrier that does not serve any more.
    pub(crate) fn forget(&self, destination: &ServerName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(destination);
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn slots_are_bounded_and_given_back() {
        let slots = Slots::default();
        let a = server_name!("a");
        let taken: Vec<_> = (0..MAX_PER_SERVER).filter_map(|_| slots.take(a)).collect();
        assert_eq!(taken.len(), MAX_PER_SERVER);
        assert!(slots.take(a).is_none());
        let others: Vec<_> = (0..MAX_IN_ALL)
            .filter_map(|n| slots.take(&OwnedServerName::try_from(format!("s{n}")).unwrap()))
            .collect();
        assert_eq!(others.len(), MAX_IN_ALL - MAX_PER_SERVER);
        drop(taken);
        assert!(slots.take(a).is_some());
        drop(others);
        assert!(slots.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_carrier_is_asked_for_a_minute() {
        let routes = Routes::default();
        let (to, by) = (server_name!("to"), server_name!("by"));
        routes.note(to, by, 1_000);
        routes.note(to, by, 50_000);
        assert_eq!(routes.lately(to, 60_999).as_deref(), Some(by));
        assert_eq!(routes.lately(to, 61_000), None);
        routes.note(to, by, 61_000);
        assert_eq!(routes.lately(to, 62_000).as_deref(), Some(by));
        routes.forget(to);
        assert_eq!(routes.lately(to, 62_000), None);
    }
}
