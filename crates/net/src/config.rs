//! What the node tells the transport at start.

mod port;

use std::{fmt, path::PathBuf};

use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use messagehub_homeserver::clock::Clock;
use ruma::OwnedServerName;

use crate::{
    private_network::PrivateNetwork,
    scope::{Kind, Network, Scope, kind},
};
pub(crate) use port::choose as choose_port;

/// The seed of the libp2p key (D3). Never printed.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed with these 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The PeerId that belongs to it, in its text form: what `server_keys` list.
    pub fn peer_id(&self) -> String {
        PeerId::from(self.keypair().public()).to_string()
    }

    #[expect(clippy::expect_used, reason = "every 32 bytes are an Ed25519 seed")]
    pub(crate) fn keypair(&self) -> Keypair {
        Keypair::ed25519_from_bytes(self.0).expect("32 bytes are a seed")
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Whether a feature is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is used.
    On,
    /// It is not.
    Off,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        self == Self::On
    }
}

/// Whom our relay serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayService {
    /// Servers that share a room with us or are contacts.
    #[default]
    Members,
    /// Everybody. The node says in the DHT that it is such a relay.
    Anyone,
    /// Nobody.
    Off,
}

/// The settings of the transport.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The seed of the libp2p key.
    pub seed: Seed,
    /// Whether connections are taken at all; else others come through relays only.
    pub listening: Switch,
    /// Multiaddrs to listen on. Empty: TCP and QUIC on all interfaces, IPv4 and IPv6, on one port
    /// that is remembered in [`Self::port_file`].
    pub listen_addresses: Vec<String>,
    /// Where the port is remembered; `None` chooses a free one at each start.
    pub port_file: Option<PathBuf>,
    /// Whether peers on the LAN are found by multicast.
    pub mdns: Switch,
    /// Whether loopback addresses that peers tell are believed, and dialed. For networks within one
    /// machine: on a LAN they would point at ourselves.
    pub loopback: Switch,
    /// Our server name: whose record our own addresses are.
    pub server: Option<OwnedServerName>,
    /// Multiaddrs, with `/p2p/<PeerId>`, of peers to dial at start and to keep connected.
    pub bootstrap_peers: Vec<String>,
    /// Where the public DHT is entered: multiaddrs, with `/p2p/<PeerId>`. `None` keeps out of it,
    /// as does a private network.
    pub public_dht: Option<Vec<String>>,
    /// Multiaddrs, with `/p2p/<PeerId>`, of relays to use while nobody can dial us.
    pub static_relays: Vec<String>,
    /// Whom our own relay serves.
    pub relay_service: RelayService,
    /// Whether the router is asked by UPnP to forward our port.
    pub upnp: Switch,
    /// The secret shared by all nodes of the network. It takes TCP and private addresses only.
    pub private_network: Option<PrivateNetwork>,
    /// The time, against which validity of `server_keys` is checked.
    pub clock: Clock,
}

impl NetConfig {
    /// The settings of a node on a LAN that needs no configuration and keeps to it.
    pub fn new(seed: Seed, clock: Clock) -> Self {
        Self {
            seed,
            listening: Switch::On,
            listen_addresses: Vec::new(),
            port_file: None,
            mdns: Switch::On,
            loopback: Switch::Off,
            server: None,
            bootstrap_peers: Vec::new(),
            public_dht: None,
            static_relays: Vec::new(),
            relay_service: RelayService::default(),
            upnp: Switch::Off,
            private_network: None,
            clock,
        }
    }

    /// The settings of a node that only other nodes on this machine can reach, for tests.
    pub fn loopback(seed: Seed, clock: Clock) -> Self {
        Self {
            listen_addresses: vec![
                "/ip4/127.0.0.1/tcp/0".to_owned(),
                "/ip4/127.0.0.1/udp/0/quic-v1".to_owned(),
            ],
            mdns: Switch::Off,
            loopback: Switch::On,
            ..Self::new(seed, clock)
        }
    }

    /// Whether a text is a multiaddr that can stand in [`Self::listen_addresses`].
    pub fn is_listen_address(text: &str) -> bool {
        text.parse::<Multiaddr>().is_ok()
    }

    /// Whether a text is a multiaddr that can stand in [`Self::bootstrap_peers`].
    pub fn is_peer_address(text: &str) -> bool {
        let address = text.parse::<Multiaddr>();
        address.is_ok_and(|address| matches!(address.iter().last(), Some(Protocol::P2p(_))))
    }

    /// Whether a text is a multiaddr that can stand in [`Self::static_relays`]: that of a peer
    /// which is not behind a relay itself.
    pub fn is_relay_address(text: &str) -> bool {
        Self::is_peer_address(text) && !text.contains("/p2p-circuit")
    }

    /// Whether a text is a multiaddr of this machine alone.
    pub fn is_loopback_address(text: &str) -> bool {
        text.parse().is_ok_and(|address| kind(&address) == Kind::Loopback)
    }

    /// The network that this node belongs to.
    pub(crate) fn scope(&self) -> Scope {
        let network =
            if self.private_network.is_some() { Network::Private } else { Network::Public };
        Scope { network, loopback: self.loopback }
    }

    /// The addresses to listen on.
    pub(crate) fn listen_on(&self) -> Result<Vec<Multiaddr>, StartError> {
        if !self.listening.is_on() {
            return Ok(Vec::new());
        }
        if self.listen_addresses.is_empty() {
            let port = choose_port(self.port_file.as_deref())?;
            let mut addresses =
                vec![format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip6/::/tcp/{port}")];
            if self.private_network.is_none() {
                addresses.push(format!("/ip4/0.0.0.0/udp/{port}/quic-v1"));
                addresses.push(format!("/ip6/::/udp/{port}/quic-v1"));
            }
            return parse(&addresses);
        }
        let addresses = parse(&self.listen_addresses)?;
        let is_tcp =
            |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        match addresses.iter().find(|address| !is_tcp(address)) {
            Some(other) if self.private_network.is_some() => {
                Err(StartError::PrivateNeedsTcp { address: other.to_string() })
            }
            _ => Ok(addresses),
        }
    }

    pub(crate) fn bootstrap(&self) -> Result<Vec<Multiaddr>, StartError> {
        parse(&self.bootstrap_peers)
    }

    /// Where the public DHT is entered.
    pub(crate) fn dht_peers(&self) -> Result<Vec<Multiaddr>, StartError> {
        parse(self.public_dht.as_deref().unwrap_or_default())
    }

    pub(crate) fn relays(&self) -> Result<Vec<Multiaddr>, StartError> {
        parse(&self.static_relays)
    }
}

fn parse(addresses: &[String]) -> Result<Vec<Multiaddr>, StartError> {
    let parse =
        |text: &String| text.parse().map_err(|_| StartError::BadAddress { address: text.clone() });
    addresses.iter().map(parse).collect()
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configured address is no multiaddr.
    #[error("{address:?} is not a multiaddr, like /ip4/0.0.0.0/tcp/4001")]
    BadAddress {
        /// The text.
        address: String,
    },
    /// An address that a private network cannot use.
    #[error("{address:?} is not TCP, and a private network works over TCP only")]
    PrivateNeedsTcp {
        /// The text.
        address: String,
    },
    /// None of the addresses could be listened on.
    #[error("cannot listen on any of the addresses: {0}")]
    NoListener(String),
    /// No free port was found, or it could not be remembered.
    #[error("cannot choose a port: {0}")]
    Port(#[from] std::io::Error),
    /// The transport itself could not be made.
    #[error("cannot set up libp2p: {0}")]
    Setup(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetConfig {
        let clock = messagehub_homeserver::clock::ManualClock::at(0).clock();
        NetConfig::new(Seed::new([7; 32]), clock)
    }

    #[test]
    fn a_seed_has_one_peer_id_and_is_never_shown() {
        let seed = Seed::new([7; 32]);
        assert_eq!(seed.peer_id(), Seed::new([7; 32]).peer_id());
        assert!(seed.peer_id().starts_with("12D3Koo"));
        assert_eq!(format!("{:?}", config().seed), "Seed(..)");
    }

    #[test]
    fn the_default_is_one_port_on_all_transports() {
        let addresses = config().listen_on().unwrap();
        let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let port = text[0].rsplit('/').next().unwrap();
        assert_eq!(
            text,
            [
                format!("/ip4/0.0.0.0/tcp/{port}"),
                format!("/ip6/::/tcp/{port}"),
                format!("/ip4/0.0.0.0/udp/{port}/quic-v1"),
                format!("/ip6/::/udp/{port}/quic-v1"),
            ]
        );
    }

    #[test]
    fn a_private_network_listens_on_tcp_only() {
        let private_network = PrivateNetwork::from_secret("secret");
        let private = NetConfig { private_network, ..config() };
        let addresses = private.listen_on().unwrap();
        assert!(addresses.iter().all(|at| at.to_string().contains("/tcp/")), "{addresses:?}");
        let quic = "/ip4/10.0.0.1/udp/4001/quic-v1".to_owned();
        let refused =
            NetConfig { listen_addresses: vec![quic], ..private }.listen_on().unwrap_err();
        assert!(refused.to_string().contains("TCP only"), "{refused}");
    }

    #[test]
    fn a_bad_address_is_named() {
        let listen_addresses = vec!["127.0.0.1:4001".to_owned()];
        let refused = NetConfig { listen_addresses, ..config() }.listen_on().unwrap_err();
        assert!(refused.to_string().contains("127.0.0.1:4001"));
    }
}
