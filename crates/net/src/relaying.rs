//! The relay that this node is for others: for whom, and how much. D8.
//!
//! What passes through is ciphertext between two others; what it costs is our bandwidth, so it is
//! for those who share a room with us or are contacts, unless the owner serves everybody.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, relay};

use crate::config::RelayService;

/// Places kept at once: one for each co-member behind a NAT, for a node with as many as it keeps
/// connections.
const MAX_RESERVATIONS: usize = 256;

/// Places of one peer: one, and another while it moves from one connection to the next.
const MAX_RESERVATIONS_PER_PEER: usize = 2;

/// For how long a place is kept without being asked for again; clients ask after three quarters of
/// it. Whoever is no longer trusted loses it after this time.
const RESERVATION: Duration = Duration::from_secs(60 * 60);

/// Circuits at once. Each costs a buffer of 16 KiB and two streams.
const MAX_CIRCUITS: usize = 512;

/// Circuits that one peer opens at once: as many others behind NATs as it talks with.
const MAX_CIRCUITS_PER_PEER: usize = 32;

/// The life of a circuit: a working day of conversation without a break. After it the two connect
/// again, which they would not notice.
const CIRCUIT: Duration = Duration::from_secs(12 * 60 * 60);

/// What one circuit carries, both ways together. Messages of a day are a few MB and the history of
/// a large room tens of them; media go over direct connections only.
const CIRCUIT_BYTES: u64 = 256 * 1024 * 1024;

/// Asking for a place: in a burst after a bad network, and every so often.
const RESERVATIONS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
const RESERVATION_PAUSE: Duration = Duration::from_secs(10);

/// Opening circuits: to all one talks with at once after a start, and every so often.
const CIRCUITS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);
const CIRCUIT_PAUSE: Duration = Duration::from_secs(2);

/// Whom the relay serves; clones share the list.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<RwLock<Served>>);

#[derive(Debug)]
enum Served {
    Everybody,
    These(HashSet<PeerId>),
}

impl Clients {
    pub(crate) fn new(service: RelayService) -> Self {
        let served = match service {
            RelayService::Anyone => Served::Everybody,
            RelayService::Members | RelayService::Off => Served::These(HashSet::new()),
        };
        Self(Arc::new(RwLock::new(served)))
    }

    /// Replaces the list. Nothing happens where everybody is served.
    pub(crate) fn replace(&self, peers: HashSet<PeerId>) {
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Served::These(list) = &mut *served {
            *list = peers;
        }
    }

    fn admit(&self, peer: &PeerId) -> bool {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Served::Everybody => true,
            Served::These(peers) => peers.contains(peer),
        }
    }

    /// The list as libp2p's relay asks it: a limiter that lets strangers never pass.
    fn limiter(&self) -> Box<dyn relay::RateLimiter> {
        let clients = self.clone();
        Box::new(move |peer: PeerId, _: &Multiaddr, _| clients.admit(&peer))
    }
}

/// The relay for these clients.
pub(crate) fn behaviour(local: PeerId, clients: &Clients) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: MAX_RESERVATIONS,
        max_reservations_per_peer: MAX_RESERVATIONS_PER_PEER,
        reservation_duration: RESERVATION,
        // The list first: a stranger uses up nothing.
        reservation_rate_limiters: vec![clients.limiter()],
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        max_circuit_duration: CIRCUIT,
        max_circuit_bytes: CIRCUIT_BYTES,
        circuit_src_rate_limiters: vec![clients.limiter()],
    };
    let config = config
        .reservation_rate_per_peer(RESERVATIONS_AT_ONCE, RESERVATION_PAUSE)
        .circuit_src_per_peer(CIRCUITS_AT_ONCE, CIRCUIT_PAUSE);
    let mut relay = relay::Behaviour::new(local, config);
    // It is opened when this node turns out to be reachable.
    relay.set_status(Some(relay::Status::Disable));
    relay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_served_and_strangers_are_not() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let clients = Clients::new(RelayService::Members);
        assert!(!clients.admit(&member));
        clients.replace(HashSet::from([member]));
        assert!(clients.admit(&member) && !clients.admit(&stranger));
        clients.replace(HashSet::new());
        assert!(!clients.admit(&member));
    }

    #[test]
    fn everybody_is_served_where_the_owner_says_so() {
        let clients = Clients::new(RelayService::Anyone);
        clients.replace(HashSet::new());
        assert!(clients.admit(&PeerId::random()));
    }
}
