//! Peers come and go: who they are, where they are, and when they are dialed again.

use libp2p::{
    PeerId,
    core::ConnectedPoint,
    identify, mdns,
    multiaddr::Protocol,
    ping,
    swarm::{
        ConnectionError, ConnectionId, DialError, ListenError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use messagehub_homeserver::peers::Inbound;
use messagehub_protocol::server_keys::ServerKeys;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tracing::{debug, info, warn};

use super::{Done, EventLoop};
use crate::{
    behaviour::LAN_KAD,
    book::{Gone, Standing},
    metrics::Refusal,
    requests::{
        client::MAX_QUEUED_JOBS,
        keys::{self, KeysError},
    },
};

/// Dials that one tick starts: a node that knows thousands of servers does not flood its link.
const DIALS_PER_TICK: usize = 8;

/// Both sides see each other by multicast at the same moment. The one with the greater PeerId waits
/// so long for the other's dial, which makes one connection and not two or four.
const POLITENESS: Duration = Duration::from_secs(1);

/// For how long a verified peer waits for its addresses (identify) before the homeserver is told of
/// it without.
const IDENTIFY_PATIENCE: Duration = Duration::from_secs(1);

impl EventLoop {
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        self.metrics.connections.inc();
        let address = endpoint.get_remote_address().clone();
        debug!(%peer, %address, is_dialer = endpoint.is_dialer(), "connected");
        if endpoint.is_dialer() {
            self.book.add_addresses(peer, [address.clone()]);
        }
        let is_first = self.book.connected(peer, connection, address);
        if is_first {
            self.start_session(peer);
            self.ask_for_keys(peer);
        }
    }

    pub(super) fn on_disconnected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        cause: Option<ConnectionError>,
    ) {
        self.metrics.connections.dec();
        debug!(%peer, ?cause, "a connection closed");
        let was_verified = self.book.peer(&peer).is_some_and(|p| p.standing.server().is_some());
        let gone = self.book.disconnected(peer, connection, Instant::now());
        if gone == Gone::NotYet {
            return;
        }
        self.jobs.remove(&peer);
        if was_verified {
            self.metrics.verified_peers.dec();
        }
        if let Gone::Server(server) = gone {
            info!(%server, %peer, "a server is gone");
            self.reports.about_peer(Inbound::Disconnected { server });
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        debug!(?peer, %error, "a dial failed");
        let Some(peer) = peer else { return };
        // Another dial to the same peer goes on.
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        if let Some(peer) = self.book.peer_mut(&peer) {
            peer.dialing = false;
        }
        self.settle(Instant::now());
    }

    pub(super) fn on_refused(&mut self, error: &ListenError) {
        debug!(%error, "an incoming connection failed");
        if matches!(error, ListenError::Denied { .. }) {
            self.metrics.refuse(Refusal::Connection);
        }
    }

    /// Dials a peer, unless it is connected or being dialed.
    pub(super) fn dial(&mut self, peer: PeerId) {
        if peer == *self.swarm.local_peer_id() || self.swarm.is_connected(&peer) {
            return;
        }
        let known = self.book.peer(&peer).map(|peer| peer.addresses()).unwrap_or_default();
        // With the PeerId, as other behaviours have them: an address given twice is dialed once.
        let addresses: Vec<_> = known.into_iter().map(|at| at.with(Protocol::P2p(peer))).collect();
        debug!(%peer, ?addresses, "dialing");
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        let dialing = match self.swarm.dial(dial) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => true,
            Err(error) => {
                debug!(%peer, %error, "cannot dial");
                false
            }
        };
        self.book.entry(peer).dialing = dialing;
    }

    pub(super) fn dial_planned(&mut self, now: Instant) {
        for peer in self.book.due_dials(now, DIALS_PER_TICK) {
            self.dial(peer);
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        let now = Instant::now();
        for (peer, address) in found {
            debug!(%peer, %address, "seen by multicast");
            for address in self.book.add_addresses(peer, [address]) {
                self.swarm.behaviour_mut().kad.add_address(&peer, address);
            }
            let is_ours = *self.swarm.local_peer_id() < peer;
            self.book.alive(peer, if is_ours { now } else { now + POLITENESS });
        }
        self.dial_planned(now);
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        let kept = self.book.add_addresses(peer_id, info.listen_addrs);
        if info.protocols.contains(&LAN_KAD) {
            for address in kept {
                self.swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        if let Some(peer) = self.book.peer_mut(&peer_id) {
            peer.identified = true;
        }
        self.announce(peer_id);
    }

    pub(super) fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(latency) => {
                if let Some(peer) = self.book.peer_mut(&event.peer) {
                    peer.latency = Some(latency);
                }
            }
            // Other implementations need not answer pings.
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                debug!(peer = %event.peer, %error, "closing a connection that does not answer");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    /// Starts the session through which requests go to a peer.
    pub(super) fn start_session(&mut self, peer: PeerId) -> mpsc::Sender<crate::requests::Job> {
        let (sender, jobs) = mpsc::channel(MAX_QUEUED_JOBS);
        self.jobs.insert(peer, sender.clone());
        let session = self.sessions.clone().run(peer, jobs);
        self.tasks.spawn(async move {
            session.await;
            Done::Session
        });
        sender
    }

    /// The way into a connected peer's session, which is started anew if it ended.
    pub(super) fn session(&mut self, peer: PeerId) -> mpsc::Sender<crate::requests::Job> {
        match self.jobs.get(&peer).filter(|sender| !sender.is_closed()) {
            Some(sender) => sender.clone(),
            None => self.start_session(peer),
        }
    }

    fn ask_for_keys(&mut self, peer: PeerId) {
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
    fn announce(&mut self, id: PeerId) {
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
