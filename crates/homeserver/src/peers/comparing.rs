//! What is known at this moment about comparing heads: who has something for us, who named heads
//! that it does not have, and which heads are being fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

/// Servers that have something for us and were not asked yet. The comparison every minute finds
/// whatever did not fit.
const MAX_SERVERS: usize = 256;

/// Rooms noted for one server: what one request names.
const MAX_ROOMS: usize = 100;

/// How long a server that named heads which it does not have is not asked for heads that it names,
/// in milliseconds. It is compared with once a minute like any other.
const DISTRUST_MS: u64 = 60_000;

/// Heads that are being fetched: what a few servers name at once.
const MAX_CLAIMS: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Comparing {
    ahead: Mutex<BTreeMap<OwnedServerName, BTreeSet<OwnedRoomId>>>,
    distrusted: Mutex<BTreeMap<OwnedServerName, u64>>,
    claims: Arc<Mutex<BTreeSet<OwnedEventId>>>,
}

/// The right to fetch one head; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Mutex<BTreeSet<OwnedEventId>>>,
    event_id: OwnedEventId,
}

impl Comparing {
    /// Says that a server named heads of some rooms that we lack. Gives whether it is to be asked.
    pub(crate) fn note_ahead(
        &self,
        server: &ServerName,
        rooms: impl IntoIterator<Item = OwnedRoomId>,
        now_ms: u64,
    ) -> bool {
        if self.is_distrusted(server, now_ms) {
            return false;
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.len() >= MAX_SERVERS && !ahead.contains_key(server) {
            return false;
        }
        let noted = ahead.entry(server.to_owned()).or_default();
        for room_id in rooms {
            if noted.len() < MAX_ROOMS {
                noted.insert(room_id);
            }
        }
        true
    }

    /// The servers that have something for us.
    pub(crate) fn servers_ahead(&self) -> Vec<OwnedServerName> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The rooms of which a server has something for us; they are forgotten by this.
    pub(crate) fn take_ahead(&self, server: &ServerName) -> BTreeSet<OwnedRoomId> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.remove(server).unwrap_or_default()
    }

    /// Says that a server named heads which it does not have.
    pub(crate) fn distrust(&self, server: &ServerName, now_ms: u64) {
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        distrusted.retain(|_, since| now_ms.saturating_sub(*since) < DISTRUST_MS);
        if distrusted.len() < MAX_SERVERS {
            distrusted.insert(server.to_owned(), now_ms);
        }
    }

    fn is_distrusted(&self, server: &ServerName, now_ms: u64) -> bool {
        let distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        distrusted.get(server).is_some_and(|since| now_ms.saturating_sub(*since) < DISTRUST_MS)
    }

    /// The right to fetch a head, unless somebody is fetching it.
    pub(crate) fn claim(&self, event_id: &EventId) -> Option<Claim> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.len() >= MAX_CLAIMS || !claims.insert(event_id.to_owned()) {
            return None;
        }
        Some(Claim { claims: Arc::clone(&self.claims), event_id: event_id.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.event_id);
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, server_name};

    use super::*;

    #[test]
    fn whoever_names_what_it_has_not_is_left_alone_for_a_while() {
        let comparing = Comparing::default();
        let (liar, friend) = (server_name!("liar"), server_name!("friend"));
        let rooms = || [room_id!("!r").to_owned()];
        comparing.distrust(liar, 1_000);
        assert!(!comparing.note_ahead(liar, rooms(), 60_999));
        assert!(comparing.note_ahead(friend, rooms(), 60_999));
        assert!(comparing.note_ahead(liar, rooms(), 61_000));
        assert_eq!(comparing.servers_ahead(), [friend.to_owned(), liar.to_owned()]);
        assert_eq!(comparing.take_ahead(liar).len(), 1);
        assert_eq!(comparing.servers_ahead(), [friend.to_owned()]);
    }

    #[test]
    fn a_head_is_fetched_by_one() {
        let comparing = Comparing::default();
        let claim = comparing.claim(event_id!("$a"));
        assert!(claim.is_some() && comparing.claim(event_id!("$a")).is_none());
        assert!(comparing.claim(event_id!("$b")).is_some());
        drop(claim);
        assert!(comparing.claim(event_id!("$a")).is_some());
    }
}
