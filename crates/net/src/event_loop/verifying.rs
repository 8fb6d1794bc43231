//! Who is at the other end: which server a peer speaks for, and telling the homeserver of it.

use libp2p::{PeerId, multiaddr::Protocol};
use messagehub_homeserver::peers::Inbound;
use messagehub_protocol::server_keys::ServerKeys;
use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::{Done, EventLoop};
use crate::{
    book::Standing,
    metrics::Refusal,
    requests::keys::{self, KeysError},
};

/// For how long a verified peer waits for its addresses (identify) before the homeserver is told of
/// it without.
const IDENTIFY_PATIENCE: Duration = Duration::from_secs(1);

impl EventLoop {
    pub(super) fn ask_for_keys(&mut self, peer: PeerId) {
        let jobs = self.session(peer);
        self.book.entry(peer).standing.asked();
        let asking = keys::fetch(jobs, peer, self.clock.clone());
        self.tasks.spawn(async move { Done::Keys(peer, asking.await) });
    }

    pub(super) fn ask_again(&mut self, now: Instant) {
        for peer in self.book.due_questions(now) {
            self.ask_for_keys(peer);
        }
    }

    pub(super) fn on_keys(&mut self, id: PeerId, keys: Result<ServerKeys, KeysError>) {
        let now = Instant::now();
        let Some(peer) = self.book.peer_mut(&id).filter(|peer| peer.is_connected()) else { return };
        if !peer.standing.is_open() {
            return;
        }
        match keys {
            Ok(keys) => self.on_verified(id, &keys),
            Err(error) if error.is_final() => {
                warn!(peer = %id, %error, "a peer is not who it says");
                peer.standing = Standing::Refused;
                self.metrics.refuse(Refusal::Keys);
            }
            Err(error) => {
                debug!(peer = %id, %error, "a peer did not tell its keys");
                peer.standing.silent(now);
            }
        }
        self.settle(now);
    }

    fn on_verified(&mut self, id: PeerId, told: &ServerKeys) {
        let Some(newest) = self.book.verified(id, told) else {
            warn!(peer = %id, server = %told.server_name(), "a peer was removed from its server");
            self.metrics.refuse(Refusal::PeerId);
            return;
        };
        self.metrics.verified_peers.inc();
        self.announce(id);
        self.send_waiting(newest.server_name());
    }

    /// Tells the homeserver of a peer once it is known who and where it is.
    pub(super) fn announce(&mut self, id: PeerId) {
        if self.book.peer(&id).is_some_and(|peer| peer.identified) {
            self.announce_now(id);
        }
    }

    /// Tells the homeserver of verified peers that identify said nothing about in time.
    pub(super) fn announce_late(&mut self, now: Instant) {
        let late: Vec<PeerId> = self
            .book
            .peers()
            .filter(|(_, peer)| peer.is_unannounced_since(now - IDENTIFY_PATIENCE))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.announce_now(id);
        }
    }

    fn announce_now(&mut self, id: PeerId) {
        let Some(peer) = self.book.peer(&id).filter(|peer| !peer.announced) else { return };
        let Some(server) = peer.standing.server() else { return };
        let Some(server_keys) = self.book.keys(server).cloned() else { return };
        let addresses = peer.addresses().into_iter();
        let addresses = addresses.map(|at| at.with(Protocol::P2p(id)).to_string()).collect();
        info!(%server, peer = %id, address = ?peer.address(), "a server is here");
        let peer_id = id.to_string();
        self.reports.about_peer(Inbound::Connected { server_keys, peer_id, addresses });
        if let Some(peer) = self.book.peer_mut(&id) {
            peer.announced = true;
        }
    }
}
