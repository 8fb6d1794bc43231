//! How the network is, for `status` and `peers`.

use libp2p::{Multiaddr, multiaddr::Protocol};
use messagehub_homeserver::peers::{NetStatus, Path, PeerStatus, Transport};
use tokio::time::Instant;

use super::EventLoop;
use crate::book::{Connection, Way};

impl EventLoop {
    pub(super) fn status(&self) -> NetStatus {
        let connected = self.book.peers().filter(|(_, peer)| peer.is_connected());
        let peers = connected.map(|(id, peer)| PeerStatus {
            peer_id: id.to_string(),
            server: peer.standing.server().cloned(),
            address: peer.address().map(ToString::to_string).unwrap_or_default(),
            path: peer.connection().map(path).unwrap_or_default(),
            transport: peer.address().and_then(transport),
            latency: peer.latency,
        });
        NetStatus {
            peer_id: self.swarm.local_peer_id().to_string(),
            addresses: self.addresses().iter().map(ToString::to_string).collect(),
            reachability: self.reachability(Instant::now()),
            nat: self.reach.nat(),
            peers: peers.collect(),
        }
    }
}

fn path(connection: &Connection) -> Path {
    match connection.way {
        Way::Direct => Path::Direct,
        Way::Relayed(relay) => Path::Relayed { relay: relay.map(|relay| relay.to_string()) },
    }
}

fn transport(address: &Multiaddr) -> Option<Transport> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(_) => Some(Transport::Tcp),
        Protocol::QuicV1 => Some(Transport::Quic),
        _ => None,
    })
}
