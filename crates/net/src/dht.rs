//! The two Kademlias: that of the LAN, and the public one. D8, D14. They know nothing of each
//! other, so private addresses stay where they lead somewhere.

use std::time::Duration;

use libp2p::{
    PeerId, StreamProtocol,
    kad::{
        self,
        store::{MemoryStore, MemoryStoreConfig},
    },
};

use crate::{scope::Scope, scoped::Scoped};

/// Kademlia among private addresses, as IPFS names it.
pub(crate) const LAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");

/// The public Kademlia.
pub(crate) const WAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// Where the public Kademlia is entered unless the owner says otherwise: the peers that IPFS nodes
/// use, run by its makers.
pub const PUBLIC_BOOTSTRAP_PEERS: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// How long one query on the LAN may take: below the five seconds that a search may take.
const LAN_QUERY: Duration = Duration::from_secs(4);

/// How long a walk through the public Kademlia may take. A search does not wait for its end, telling
/// a string does.
const WAN_QUERY: Duration = Duration::from_secs(60);

/// How long a provider record lives on the LAN, and how often its provider tells it again.
const LAN_RECORD: Duration = Duration::from_secs(2 * 60 * 60);
const LAN_RENEWAL: Duration = Duration::from_secs(30 * 60);

/// The same of the public Kademlia: its nodes keep a record for 48 hours, and a node that is gone
/// must not be found for longer than that. Renewed twice in its life: one failure does no harm.
const WAN_RECORD: Duration = Duration::from_secs(48 * 60 * 60);
const WAN_RENEWAL: Duration = Duration::from_secs(22 * 60 * 60);

/// Rendezvous strings held for all peers: five for each of 400 peers, four times over.
const MAX_PROVIDED_KEYS: usize = 8_000;

/// Providers of one rendezvous string. More than a few share one only by attack or by accident;
/// relays, which all share one, are as many as anybody needs.
const MAX_PROVIDERS_PER_KEY: usize = 20;

/// One Kademlia of ours.
pub(crate) type Kademlia = Scoped<kad::Behaviour<MemoryStore>>;

/// Which Kademlia.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dht {
    /// That of the LAN.
    Lan,
    /// The public one.
    Wan,
}

/// The Kademlia of the LAN.
pub(crate) fn lan(local: PeerId, scope: Scope) -> Kademlia {
    let mut config = config(LAN_PROTOCOL);
    config
        .set_query_timeout(LAN_QUERY)
        .set_provider_record_ttl(Some(LAN_RECORD))
        .set_provider_publication_interval(Some(LAN_RENEWAL));
    let mut kad = kad::Behaviour::with_config(local, store(local), config);
    // By itself it would wait as a client for a confirmed public address, which a LAN has not.
    kad.set_mode(Some(kad::Mode::Server));
    // libp2p puts confirmed addresses only into the records that others keep of us.
    Scoped::new(kad, move |address| scope.is_local(address)).trusting_listeners()
}

/// The public Kademlia: a client until this node turns out to be reachable.
pub(crate) fn wan(local: PeerId, scope: Scope) -> Kademlia {
    let mut config = config(WAN_PROTOCOL);
    config
        .set_query_timeout(WAN_QUERY)
        .set_provider_record_ttl(Some(WAN_RECORD))
        .set_provider_publication_interval(Some(WAN_RENEWAL));
    let mut kad = kad::Behaviour::with_config(local, store(local), config);
    kad.set_mode(Some(kad::Mode::Client));
    Scoped::new(kad, move |address| scope.is_wide(address))
}

fn config(protocol: StreamProtocol) -> kad::Config {
    let mut config = kad::Config::new(protocol);
    // Peers enter the table with the addresses that the book let through.
    config.set_kbucket_inserts(kad::BucketInserts::Manual);
    config
}

fn store(local: PeerId) -> MemoryStore {
    let config = MemoryStoreConfig {
        // We keep rendezvous strings and no values of other nodes.
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: MAX_PROVIDERS_PER_KEY,
        max_provided_keys: MAX_PROVIDED_KEYS,
    };
    MemoryStore::with_config(local, config)
}
