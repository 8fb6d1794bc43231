//! What the homeserver asks for.

use libp2p::Multiaddr;
use messagehub_homeserver::peers::Outbound;
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
            Outbound::Records { records } => self.take_records(records),
            Outbound::Trusted { servers } => {
                self.book.trust(servers);
                self.serve_friends();
            }
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
        if is_new && self.book.is_trusted(name) {
            let now = Instant::now();
            for peer in peers {
                self.book.alive(peer, now);
            }
        }
        self.serve_friends();
    }

    /// Tells our relay whom it serves, lets friends in however many strangers are here, and gives
    /// their requests more room. They are told by their peers, which come with their keys.
    fn serve_friends(&mut self) {
        let friends = self.book.trusted_peers();
        if friends == self.served_friends {
            return;
        }
        let limits = &mut self.swarm.behaviour_mut().limits;
        for gone in self.served_friends.difference(&friends) {
            limits.remove_peer_id(gone);
        }
        for new in friends.difference(&self.served_friends) {
            limits.bypass_peer_id(new);
        }
        self.clients.replace(friends.clone());
        self.server.befriend(friends.clone());
        self.served_friends = friends;
    }
}
