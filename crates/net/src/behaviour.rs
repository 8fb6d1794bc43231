//! The swarm: which protocols this node speaks, over which transports, within which limits.

use std::time::Duration;

use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, connection_limits,
    connection_limits::ConnectionLimits,
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore, store::MemoryStoreConfig},
    mdns, noise, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};
use tracing::warn;

use crate::{
    config::{StartError, Switch},
    gossip::{self, Gossip},
    streams,
};

/// Kademlia among private addresses, as IPFS names it. D8.
pub(crate) const LAN_KAD: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");

/// The version that identify tells.
const PROTOCOL_VERSION: &str = "messagehub/1";

/// A connection that nothing uses is closed after a day. On a LAN an idle connection costs a ping
/// every 15 s, and everybody who is connected can be found and written to at once.
const IDLE_CONNECTION: Duration = Duration::from_secs(24 * 60 * 60);

/// How often each connection is tried, and when it counts as dead: a cut cable is noticed within 25
/// seconds, where TCP alone takes a quarter of an hour.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once. A household LAN has tens; 400 of them idle take some 40 MB.
const MAX_CONNECTIONS: u32 = 400;

/// Connections in one direction: neither side can fill all places.
const MAX_CONNECTIONS_ONE_WAY: u32 = 300;

/// Handshakes at once in one direction.
const MAX_PENDING: u32 = 64;

/// Connections to one peer: both sides may dial TCP and QUIC at the same moment.
const MAX_CONNECTIONS_PER_PEER: u32 = 4;

/// How long a peer is remembered that multicast showed, and how often it is asked anew.
const MDNS_TTL: Duration = Duration::from_secs(120);
const MDNS_QUERY: Duration = Duration::from_secs(30);

/// How long one Kademlia query may take: below the five seconds that a search may take.
const KAD_QUERY: Duration = Duration::from_secs(4);

/// How long a provider record lives, and how often its provider tells it again.
const PROVIDER_TTL: Duration = Duration::from_secs(2 * 60 * 60);
const PROVIDER_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// Rendezvous strings held for all peers: five for each of 400 peers, four times over.
const MAX_PROVIDED_KEYS: usize = 8_000;

/// Providers of one rendezvous string. More than a few share one only by attack or by accident.
const MAX_PROVIDERS_PER_KEY: usize = 20;

/// All protocols of this node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// First, so that a connection over the limit reaches no other part.
    limits: connection_limits::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) gossip: Gossip,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Makes the swarm.
///
/// # Errors
/// A transport or behaviour could not be set up.
pub(crate) fn swarm(
    keypair: Keypair,
    streams: streams::Behaviour,
    mdns: Switch,
) -> Result<Swarm<Behaviour>, StartError> {
    let setup = |error: &dyn std::fmt::Display| StartError::Setup(error.to_string());
    let behaviour = Behaviour::new(&keypair, streams, mdns)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_quic()
        .with_behaviour(|_| Ok(behaviour))
        .map_err(|error| setup(&error))?
        .with_swarm_config(|config| {
            // One transport at a time: racing them makes a second connection at the other side,
            // which ends at once and takes with it what was just begun on it.
            config.with_idle_connection_timeout(IDLE_CONNECTION).with_smart_dial()
        })
        .build();
    Ok(swarm)
}

impl Behaviour {
    fn new(
        keypair: &Keypair,
        streams: streams::Behaviour,
        mdns: Switch,
    ) -> Result<Self, StartError> {
        let peer = keypair.public().to_peer_id();
        let identify = identify::Config::new(PROTOCOL_VERSION.to_owned(), keypair.public())
            .with_agent_version(concat!("messagehub/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_push_listen_addr_updates(true)
            // Addresses that peers tell go through the book, which filters them.
            .with_cache_size(0);
        let gossip = gossip::behaviour().map_err(StartError::Setup)?;
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            streams,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
            ),
            kad: kademlia(peer),
            gossip,
            mdns: multicast(mdns, peer).into(),
        })
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established_incoming(Some(MAX_CONNECTIONS_ONE_WAY))
        .with_max_established_outgoing(Some(MAX_CONNECTIONS_ONE_WAY))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER))
}

fn kademlia(peer: libp2p::PeerId) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStoreConfig {
        // We keep rendezvous strings and no values of other nodes.
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: MAX_PROVIDERS_PER_KEY,
        max_provided_keys: MAX_PROVIDED_KEYS,
    };
    let mut config = kad::Config::new(LAN_KAD);
    config
        .set_query_timeout(KAD_QUERY)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PROVIDER_INTERVAL))
        // Peers enter the table with the addresses that the book let through.
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), config);
    // By itself it would wait as a client for a confirmed public address, which a LAN has not.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn multicast(mdns: Switch, peer: libp2p::PeerId) -> Option<mdns::tokio::Behaviour> {
    if !mdns.is_on() {
        return None;
    }
    let config =
        mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_QUERY, ..mdns::Config::default() };
    match mdns::tokio::Behaviour::new(config, peer) {
        Ok(mdns) => Some(mdns),
        Err(error) => {
            warn!(%error, "multicast does not work here: peers on the LAN are not found by it");
            None
        }
    }
}
