//! The relays that keep a place for us while nobody can dial us, and the relay that we are.

use std::collections::BTreeMap;

use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    multiaddr::Protocol,
    relay::{self, client},
};
use messagehub_homeserver::peers::RelayStatus;
use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::EventLoop;
use crate::{
    book::{relay_of, split_address},
    config::{NetConfig, RelayService, StartError},
    discovery::{Purpose, RELAY_STRING},
    metrics::RelayEvent,
};

/// Relays used at once: one, and another for when it goes.
const MAX_RELAYS: usize = 2;

/// Relays that are remembered: those configured, and some that were found.
const MAX_KNOWN: usize = 32;

/// The first wait after a relay refused or went, and the longest; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How often the DHT is asked for relays while there are none.
const SEARCH_PAUSE: Duration = Duration::from_secs(30);

/// What is known of relays.
#[derive(Debug)]
pub(crate) struct Relays {
    service: RelayService,
    known: BTreeMap<PeerId, Relay>,
    search_at: Option<Instant>,
}

/// One relay.
#[derive(Debug, Default)]
struct Relay {
    /// Whether the configuration names it; else it is a friend, or was found.
    is_static: bool,
    /// Our place there, asked for or kept.
    listener: Option<ListenerId>,
    is_reserved: bool,
    /// The address under which others reach us through it.
    address: Option<Multiaddr>,
    retry_at: Option<Instant>,
    failures: u32,
}

impl Relay {
    fn is_due(&self, now: Instant) -> bool {
        self.listener.is_none() && self.retry_at.is_none_or(|at| at <= now)
    }

    fn lost(&mut self, now: Instant) {
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures));
        self.retry_at = Some(now + doubled.min(LONGEST_WAIT));
        self.failures = self.failures.saturating_add(1);
        self.listener = None;
        self.is_reserved = false;
        self.address = None;
    }
}

impl Relays {
    pub(super) fn new(config: &NetConfig) -> Result<Self, StartError> {
        let mut known = BTreeMap::new();
        for address in config.relays()? {
            if let (_, Some(peer)) = split_address(address) {
                known.insert(peer, Relay { is_static: true, ..Relay::default() });
            }
        }
        Ok(Self { service: config.relay_service, known, search_at: None })
    }

    fn has_static(&self) -> bool {
        self.known.values().any(|relay| relay.is_static)
    }

    fn in_use(&self) -> usize {
        self.known.values().filter(|relay| relay.listener.is_some()).count()
    }

    /// Whether this peer keeps a place for us, or is asked to.
    pub(super) fn is_in_use(&self, peer: &PeerId) -> bool {
        self.known.get(peer).is_some_and(|relay| relay.listener.is_some() || relay.is_static)
    }

    /// Whether our relay serves everybody, and so is advertised while we are reachable.
    pub(super) fn serves_anyone(&self) -> bool {
        self.service == RelayService::Anyone
    }

    /// Remembers a relay that was found.
    pub(super) fn found(&mut self, peer: PeerId) {
        if self.known.len() < MAX_KNOWN {
            self.known.entry(peer).or_default();
        }
    }

    fn by_listener(&mut self, listener: ListenerId) -> Option<(PeerId, &mut Relay)> {
        let mut all = self.known.iter_mut();
        all.find(|(_, relay)| relay.listener == Some(listener)).map(|(peer, relay)| (*peer, relay))
    }

    /// The addresses under which others reach us through relays.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.known.values().filter_map(|relay| relay.address.as_ref())
    }
}

impl EventLoop {
    /// Plans to keep connected to the relays that the configuration names.
    pub(crate) fn configure_relays(&mut self, addresses: Vec<Multiaddr>) {
        let now = Instant::now();
        for address in addresses {
            if let (address, Some(peer)) = split_address(address) {
                self.book.configure(peer, address);
                self.book.alive(peer, now);
            }
        }
    }

    /// Asks for places at relays while nobody can dial us.
    pub(super) fn look_for_relays(&mut self, now: Instant) {
        if !self.reach.needs_relay(self.relays.has_static(), now) {
            return;
        }
        self.note_friendly_relays();
        let due: Vec<(PeerId, bool)> = self
            .relays
            .known
            .iter()
            .filter(|(_, relay)| relay.is_due(now))
            .map(|(peer, relay)| (*peer, relay.is_static))
            .collect();
        // What the owner named comes first.
        let (named, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, named)| *named);
        for (peer, _) in named.into_iter().chain(others) {
            if self.relays.in_use() >= MAX_RELAYS {
                break;
            }
            self.reserve(peer, now);
        }
        if self.relays.in_use() == 0 {
            self.search_for_relays(now);
        }
    }

    /// Friends that are connected directly and offer to be relays.
    fn note_friendly_relays(&mut self) {
        let is_good = |peer: &crate::book::Peer| {
            peer.is_relay && !peer.is_relayed() && self.book.is_friend(peer)
        };
        let friends = self.book.peers().filter(|(_, peer)| is_good(peer));
        for peer in friends.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.relays.found(peer);
        }
    }

    /// Asks a relay for a place, once it is connected; dials it else.
    fn reserve(&mut self, peer: PeerId, now: Instant) {
        let Some(address) = self.address_of_relay(peer) else {
            self.dial(peer);
            if let Some(relay) = self.relays.known.get_mut(&peer) {
                relay.retry_at = Some(now + FIRST_WAIT);
            }
            return;
        };
        let place = address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        let listening = self.swarm.listen_on(place.clone());
        let Some(relay) = self.relays.known.get_mut(&peer) else { return };
        match listening {
            Ok(listener) => {
                debug!(relay = %peer, %place, "asking a relay for a place");
                relay.listener = Some(listener);
            }
            Err(error) => {
                debug!(relay = %peer, %error, "cannot ask a relay for a place");
                relay.lost(now);
            }
        }
    }

    /// Where a relay is connected; `None` if it is not, or only through another one.
    fn address_of_relay(&self, peer: PeerId) -> Option<Multiaddr> {
        let known = self.book.peer(&peer)?;
        let direct = known.connections.iter().rev().find(|connection| connection.is_direct())?;
        // The address of an inbound connection is not one that others can dial.
        let dialed = known.connections.iter().rev().find(|c| c.is_direct() && c.is_ours);
        let told = || known.direct_addresses().into_iter().next();
        let address = dialed.map(|c| c.address.clone()).or_else(told);
        Some(split_address(address.unwrap_or_else(|| direct.address.clone())).0)
    }

    fn search_for_relays(&mut self, now: Instant) {
        let is_due = self.relays.search_at.is_none_or(|at| at <= now);
        if is_due && self.lookups.has_room() && !self.lookups.is_seeking_relay() {
            self.relays.search_at = Some(now + SEARCH_PAUSE);
            self.look_up(RELAY_STRING, Purpose::Relay);
        }
    }

    pub(super) fn on_relay_client(&mut self, event: client::Event) {
        match event {
            client::Event::ReservationReqAccepted { relay_peer_id: peer, renewal, .. } => {
                let Some(relay) = self.relays.known.get_mut(&peer) else { return };
                relay.failures = 0;
                relay.is_reserved = true;
                self.metrics.relay(RelayEvent::PlaceKept);
                if !renewal {
                    info!(relay = %peer, "this node can be reached through a relay");
                }
            }
            client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                debug!(relay = %relay_peer_id, "a circuit through a relay");
            }
            client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                debug!(peer = %src_peer_id, "a peer comes through a relay");
            }
        }
    }

    /// A place at a relay ended, if it was one.
    pub(super) fn on_place_lost(&mut self, listener: ListenerId, reason: &dyn std::fmt::Debug) {
        let now = Instant::now();
        let Some((peer, relay)) = self.relays.by_listener(listener) else { return };
        if relay.is_reserved {
            warn!(relay = %peer, ?reason, "a relay no longer keeps a place for this node");
        } else {
            debug!(relay = %peer, ?reason, "a relay gave no place");
        }
        relay.lost(now);
        self.metrics.relay(RelayEvent::PlaceLost);
    }

    /// Notes the address under which others reach us through a relay.
    pub(super) fn on_relayed_address(&mut self, address: &Multiaddr) {
        let relay = relay_of(address).and_then(|peer| self.relays.known.get_mut(&peer));
        if let Some(relay) = relay {
            relay.address = Some(split_address(address.clone()).0);
        }
    }

    pub(super) fn on_relay(&mut self, event: &relay::Event) {
        let counted = match event {
            relay::Event::ReservationReqAccepted { renewed, src_peer_id } => {
                if !renewed {
                    info!(peer = %src_peer_id, "relaying for a peer");
                }
                RelayEvent::ReservationAccepted
            }
            relay::Event::ReservationReqDenied { .. } => RelayEvent::ReservationDenied,
            relay::Event::CircuitReqAccepted { .. } => RelayEvent::CircuitAccepted,
            relay::Event::CircuitReqDenied { .. } => RelayEvent::CircuitDenied,
            relay::Event::CircuitClosed { .. } => RelayEvent::CircuitClosed,
            _ => return,
        };
        self.metrics.relay(counted);
    }

    pub(super) fn relay_statuses(&self) -> Vec<RelayStatus> {
        let reserved = self.relays.known.iter().filter(|(_, relay)| relay.is_reserved);
        reserved
            .map(|(peer, relay)| RelayStatus {
                peer_id: peer.to_string(),
                server: self.book.peer(peer).and_then(|peer| peer.standing.server().cloned()),
                address: relay.address.as_ref().map(ToString::to_string).unwrap_or_default(),
            })
            .collect()
    }
}
