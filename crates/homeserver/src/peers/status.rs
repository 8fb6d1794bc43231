//! How the network is, as the transport tells it for `status` and `peers`.

use std::time::Duration;

use ruma::OwnedServerName;

/// The state of the network.
#[derive(Debug, Clone, Default)]
pub struct NetStatus {
    /// Our own PeerId.
    pub peer_id: String,
    /// Addresses on which we listen (multiaddr text).
    pub addresses: Vec<String>,
    /// How others reach us.
    pub reachability: Reachability,
    /// What was seen of the NAT before us.
    pub nat: NatFacts,
    /// The connected peers.
    pub peers: Vec<PeerStatus>,
}

/// How others reach this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reachability {
    /// Nothing is known beyond the local network.
    #[default]
    Unknown,
    /// Others can dial us.
    Public {
        /// Where (multiaddr text).
        addresses: Vec<String>,
    },
    /// Others can dial us, since the router forwards a port.
    Mapped {
        /// How the router was asked to.
        by: Mapping,
        /// Where (multiaddr text).
        addresses: Vec<String>,
    },
    /// Nobody can dial us; others come through relays.
    Private {
        /// The relays that keep a place for us; without any we are reached by nobody whom we have
        /// not dialed.
        relays: Vec<RelayStatus>,
    },
}

/// How a router was asked to forward a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// UPnP.
    Upnp,
}

/// A relay that keeps a place for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// Its PeerId.
    pub peer_id: String,
    /// The server it speaks for, if it speaks for one.
    pub server: Option<OwnedServerName>,
    /// The address under which others reach us through it (multiaddr text).
    pub address: String,
}

/// What was seen of the NAT before us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatFacts {
    /// Addresses at which others saw us and on which we do not listen (multiaddr text).
    pub observed: Vec<String>,
    /// Direct connections that replaced relayed ones since the start.
    pub upgrades: u64,
    /// Attempts at that which failed.
    pub upgrades_failed: u64,
}

/// Which way a connection goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Path {
    /// From node to node.
    #[default]
    Direct,
    /// Through a third node, which sees only ciphertext.
    Relayed {
        /// The PeerId of the relay, where the connection says it.
        relay: Option<String>,
    },
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with Noise and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// One connected peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its PeerId.
    pub peer_id: String,
    /// The server it speaks for, once verified.
    pub server: Option<OwnedServerName>,
    /// The address of the connection in use (multiaddr text).
    pub address: String,
    /// Which way that connection goes.
    pub path: Path,
    /// What carries it; of a relayed one, the way to the relay, where that is known.
    pub transport: Option<Transport>,
    /// The last measured round trip.
    pub latency: Option<Duration>,
}
