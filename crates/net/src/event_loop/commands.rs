//! What the homeserver asks for.

use libp2p::Multiaddr;
use messagehub_homeserver::peers::{NetStatus, Outbound, PeerStatus};
use messagehub_protocol::server_keys::ServerKeys;
use tokio::time::Instant;
use tracing::debug;

use super::EventLoop;
use crate::{book::split_address, requests::Job};

impl EventLoop {
    pub(super) fn on_command(&mut self, command: Outbound) {
        match command {
            Outbound::Gossip { room_id, frame } => self.publish(&room_id, frame),
            Outbound::Join { room_id } => self.subscribe(room_id),
            Outbound::Leave { room_id } => self.unsubscribe(&room_id),
            Outbound::Request { destination, request, reply } => {
                self.request(destination, Job::new(request, reply));
            }
            Outbound::Learn { server_keys, addresses } => self.learn(&server_keys, &addresses),
            Outbound::Advertise { keys } => self.advertise(keys),
            Outbound::Find { key, reply } => self.find(&key, reply),
            Outbound::Status { reply } => {
                // Whoever asked may have gone; then nobody needs the answer.
                let _ = reply.send(self.status());
            }
        }
    }

    /// Remembers a server, and dials its peers if it is new to us.
    fn learn(&mut self, keys: &ServerKeys, addresses: &[String]) {
        let name = keys.server_name();
        let is_new = self.book.keys(name).is_none();
        if !self.book.learn(keys) {
            debug!(server = %name, "no room to remember a server");
            return;
        }
        let peers = self.book.peers_of(name).to_vec();
        for address in addresses.iter().filter_map(|text| text.parse::<Multiaddr>().ok()) {
            let (address, owner) = split_address(address);
            // An address without a PeerId may be that of any of them.
            for peer in peers.iter().filter(|peer| owner.is_none_or(|owner| owner == **peer)) {
                self.book.add_addresses(*peer, [address.clone()]);
            }
        }
        if is_new {
            let now = Instant::now();
            for peer in peers {
                self.book.alive(peer, now);
            }
        }
    }

    fn status(&self) -> NetStatus {
        let connected = self.book.peers().filter(|(_, peer)| peer.is_connected());
        let peers = connected.map(|(id, peer)| PeerStatus {
            peer_id: id.to_string(),
            server: peer.standing.server().cloned(),
            address: peer.address().map(ToString::to_string).unwrap_or_default(),
            latency: peer.latency,
        });
        NetStatus {
            peer_id: self.swarm.local_peer_id().to_string(),
            addresses: self.addresses().iter().map(ToString::to_string).collect(),
            peers: peers.collect(),
        }
    }
}
