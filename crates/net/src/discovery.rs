//! Finding peers by strings: provider records in Kademlia, as IPFS keeps them. D14.

use libp2p::{PeerId, kad};
use messagehub_protocol::server_keys::ServerKeys;
use ruma::{OwnedServerName, ServerName};
use sha2::{Digest, Sha256};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use crate::dht::Dht;

/// Searches at once.
const MAX_LOOKUPS: usize = 64;

/// Peers considered in one search.
const MAX_FOUND: usize = 32;

/// Strings that a node may be found under: two names with four suffixes each, and room for more.
pub(crate) const MAX_ADVERTISED: usize = 64;

/// Servers told as the result of one search.
pub(crate) const MAX_RESULTS: usize = 64;

/// How long a search may take: below the five seconds that the homeserver waits.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_millis(4_500);

/// The multihash code and length of SHA-256, which precede the digest.
const SHA2_256: [u8; 2] = [0x12, 0x20];

/// The key of a rendezvous string: the multihash in its CIDv1 (raw, SHA-256), which is what IPFS
/// keys provider records by.
pub(crate) fn record_key(text: &str) -> kad::RecordKey {
    let mut multihash = SHA2_256.to_vec();
    multihash.extend_from_slice(&Sha256::digest(text.as_bytes()));
    kad::RecordKey::new(&multihash)
}

/// The string under which every node advertises its server.
pub(crate) fn server_string(name: &ServerName) -> String {
    format!("p2p:{name}")
}

/// The string under which relays advertise themselves that serve everybody.
pub(crate) const RELAY_STRING: &str = "p2p:relay";

/// The peer that a string names by itself: `/p2p/<PeerId>`.
pub(crate) fn named_peer(text: &str) -> Option<PeerId> {
    text.strip_prefix("/p2p/")?.parse().ok()
}

/// Who wants to know.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The homeserver searches.
    Find(oneshot::Sender<Vec<ServerKeys>>),
    /// A request waits for this server.
    Reach(OwnedServerName),
    /// We need a relay.
    Relay,
}

/// A query in one of the two Kademlias, which number theirs each by itself.
pub(crate) type Query = (Dht, kad::QueryId);

/// One search.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// The queries that run.
    pub(crate) queries: Vec<Query>,
    pub(crate) purpose: Purpose,
    pub(crate) found: Vec<PeerId>,
    deadline: Instant,
}

/// The searches under way.
#[derive(Debug, Default)]
pub(crate) struct Lookups(Vec<Lookup>);

impl Lookups {
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < MAX_LOOKUPS
    }

    /// Starts a search. `found` are the peers that are meant, if they are known by now.
    pub(crate) fn start(&mut self, queries: Vec<Query>, purpose: Purpose, found: Vec<PeerId>) {
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        self.0.push(Lookup { queries, purpose, found, deadline });
    }

    /// Whether a search is after this peer.
    pub(crate) fn is_about(&self, query: Query, peer: &PeerId) -> bool {
        let asking = self.0.iter().find(|lookup| lookup.queries.contains(&query));
        asking.is_some_and(|lookup| lookup.found.contains(peer))
    }

    /// Adds peers that a query found; gives those that are new to it.
    pub(crate) fn found(
        &mut self,
        query: Query,
        peers: impl IntoIterator<Item = PeerId>,
    ) -> Vec<PeerId> {
        let asking = self.0.iter_mut().find(|lookup| lookup.queries.contains(&query));
        let Some(Lookup { found, .. }) = asking else { return Vec::new() };
        let known = found.len();
        for peer in peers {
            if found.len() < MAX_FOUND && !found.contains(&peer) {
                found.push(peer);
            }
        }
        found[known..].to_vec()
    }

    /// Notes that a query ended.
    pub(crate) fn ended(&mut self, query: Query) {
        for lookup in &mut self.0 {
            lookup.queries.retain(|running| *running != query);
        }
    }

    /// Whether a query is after relays.
    pub(crate) fn seeks_relay(&self, query: Query) -> bool {
        let asking = self.0.iter().find(|lookup| lookup.queries.contains(&query));
        asking.is_some_and(|lookup| matches!(lookup.purpose, Purpose::Relay))
    }

    /// Whether a relay is being looked for.
    pub(crate) fn is_seeking_relay(&self) -> bool {
        self.0.iter().any(|lookup| matches!(lookup.purpose, Purpose::Relay))
    }

    /// Whether a search for this server is under way.
    pub(crate) fn is_reaching(&self, name: &ServerName) -> bool {
        self.0
            .iter()
            .any(|lookup| matches!(&lookup.purpose, Purpose::Reach(other) if other == name))
    }

    /// Takes out the searches that are over: none of the peers they found is pending, and their
    /// queries ended, or only that of the public Kademlia runs and somebody was found before; or
    /// their time is up.
    pub(crate) fn settled(
        &mut self,
        now: Instant,
        is_pending: impl Fn(&PeerId) -> bool,
        is_verified: impl Fn(&PeerId) -> bool,
    ) -> Vec<Lookup> {
        let is_over = |lookup: &mut Lookup| {
            let has_found = lookup.found.iter().any(&is_verified);
            let mut running = lookup.queries.iter();
            let is_enough = running.all(|(dht, _)| *dht == Dht::Wan && has_found);
            let is_done = is_enough && !lookup.found.iter().any(&is_pending);
            is_done || lookup.deadline <= now
        };
        self.0.extract_if(.., is_over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_multihash_of_the_string() {
        let key = record_key("p2p:example").to_vec();
        assert_eq!(key.len(), 34);
        assert_eq!(key[..2], [0x12, 0x20]);
        assert_eq!(key[2..], *Sha256::digest(b"p2p:example"));
    }
}
