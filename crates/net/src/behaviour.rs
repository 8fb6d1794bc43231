//! The swarm: which protocols this node speaks, over which transports, within which limits.

use std::time::Duration;

use libp2p::{
    PeerId, Swarm, autonat, connection_limits,
    connection_limits::ConnectionLimits,
    dcutr, identify,
    identity::Keypair,
    mdns, ping, relay,
    swarm::{self, ConnectionId, NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};
use tracing::warn;

use crate::{
    config::{NetConfig, RelayService, StartError, Switch},
    dht::{self, Kademlia},
    gossip::{self, Gossip},
    handshakes,
    relaying::{self, Clients},
    scope::{Scope, is_relayed},
    scoped::Scoped,
    streams, transport,
};

/// The version that identify tells.
const PROTOCOL_VERSION: &str = "messagehub/1";

/// A connection that nothing uses is closed after a day by itself. We close connections earlier by
/// who is at the other end; one to a friend costs a ping every 15 s, and whoever is connected can be
/// found and written to at once.
const IDLE_CONNECTION: Duration = Duration::from_secs(24 * 60 * 60);

/// How often each connection is tried, and when it counts as dead: a cut cable is noticed within 25
/// seconds, where TCP alone takes a quarter of an hour.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once, friends aside, who pass all limits. Some 50 are kept, strangers pass by; as
/// many as these take some 20 MB when they do their worst.
const MAX_CONNECTIONS: u32 = 96;

/// Connections in one direction: neither side can fill all places.
const MAX_CONNECTIONS_ONE_WAY: u32 = 64;

/// Handshakes at once in one direction.
const MAX_PENDING: u32 = 64;

/// Connections to one peer: both sides may dial TCP and QUIC at the same moment, while a relayed
/// connection is replaced and AutoNAT dials back.
pub(crate) const MAX_CONNECTIONS_PER_PEER: u32 = 6;

/// Dials at once by which AutoNAT tests whether others can be reached. Each of QUIC is from a socket of
/// its own, with buffers of two megabytes, and strangers ask for them.
const MAX_TESTS: usize = 4;

/// How long a peer is remembered that multicast showed, and how often it is asked anew. A node that
/// starts asks at once, and again after 1, 2, 4 … seconds until somebody answers.
const MDNS_TTL: Duration = Duration::from_secs(120);
const MDNS_QUERY: Duration = Duration::from_secs(30);

/// All protocols of this node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// First, so that a connection over the limit reaches no other part. Friends pass it.
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) handshakes: handshakes::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) identify: Scoped<identify::Behaviour>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) lan: Kademlia,
    pub(crate) wan: Toggle<Kademlia>,
    pub(crate) gossip: Gossip,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) relay: Toggle<Scoped<relay::Behaviour>>,
    pub(crate) dcutr: Scoped<dcutr::Behaviour>,
    pub(crate) autonat_client: Scoped<autonat::v2::client::Behaviour>,
    pub(crate) autonat_server: Scoped<autonat::v2::server::Behaviour>,
    pub(crate) upnp: Toggle<upnp::tokio::Behaviour>,
}

/// Makes the swarm. `clients` is whom our relay serves.
///
/// # Errors
/// A transport or behaviour could not be set up.
pub(crate) fn swarm(
    config: &NetConfig,
    streams: streams::Behaviour,
    clients: &Clients,
) -> Result<Swarm<Behaviour>, StartError> {
    let keypair = config.seed.keypair();
    let network = config.private_network.as_ref();
    let (transport, relay_client) = transport::build(&keypair, config.scope(), network)?;
    let behaviour = Behaviour::new(config, &keypair, (streams, relay_client), clients)?;
    // One transport at a time: racing them makes a second connection at the other side, which ends
    // at once and takes with it what was just begun on it.
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION)
        .with_smart_dial();
    Ok(Swarm::new(transport, behaviour, keypair.public().to_peer_id(), settings))
}

impl Behaviour {
    fn new(
        config: &NetConfig,
        keypair: &Keypair,
        (streams, relay_client): (streams::Behaviour, relay::client::Behaviour),
        clients: &Clients,
    ) -> Result<Self, StartError> {
        let peer = keypair.public().to_peer_id();
        let scope = config.scope();
        let wan = config.public_dht.is_some().then(|| dht::wan(peer, scope));
        let is_wide = move |address: &libp2p::Multiaddr| scope.is_wide(address);
        let ours = move |address: &libp2p::Multiaddr| is_wide(address) && !is_relayed(address);
        let relay = (config.relay_service != RelayService::Off)
            .then(|| Scoped::new(relaying::behaviour(peer, clients), ours))
            .map(Scoped::hiding_relayed_connections);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            handshakes: handshakes::Behaviour::default(),
            streams,
            identify: identify(keypair, scope),
            ping: ping::Behaviour::new(ping),
            lan: dht::lan(peer, scope),
            wan: wan.into(),
            gossip: gossip::behaviour().map_err(StartError::Setup)?,
            mdns: multicast(config.mdns, peer).into(),
            relay_client,
            relay: relay.into(),
            dcutr: Scoped::new(dcutr::Behaviour::new(peer), ours),
            autonat_client: Scoped::new(autonat::v2::client::Behaviour::default(), ours)
                .testing_listeners(),
            autonat_server: Scoped::new(autonat::v2::server::Behaviour::default(), ours)
                .dialing_at_once(MAX_TESTS),
            upnp: upnp(config).into(),
        })
    }
}

/// Tells who and where we are, with a signed record of it.
fn identify(keypair: &Keypair, scope: Scope) -> Scoped<identify::Behaviour> {
    let version = PROTOCOL_VERSION.to_owned();
    let config = identify::Config::new_with_signed_peer_record(version, keypair)
        .with_agent_version(concat!("messagehub/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        // Addresses that peers tell go through the book, which filters them.
        .with_cache_size(0);
    Scoped::new(identify::Behaviour::new(config), move |address| scope.may_serve(address))
        .distrusting_relays(observed_on)
}

/// On which connection a peer told us where it sees us.
fn observed_on(event: &identify::Event) -> Option<ConnectionId> {
    match event {
        identify::Event::Received { connection_id, .. } => Some(*connection_id),
        _ => None,
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

/// Port mappings lead to the internet, where a private network has nobody.
fn upnp(config: &NetConfig) -> Option<upnp::tokio::Behaviour> {
    let is_wanted = config.upnp.is_on() && config.private_network.is_none();
    is_wanted.then(upnp::tokio::Behaviour::default)
}

fn multicast(mdns: Switch, peer: PeerId) -> Option<mdns::tokio::Behaviour> {
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
