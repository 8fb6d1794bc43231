//! Peers come and go: who they are, where they are, and when they are dialed again.

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    identify, mdns,
    multiaddr::Protocol,
    ping, relay,
    swarm::{
        ConnectionError, ConnectionId, DialError, ListenError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use messagehub_homeserver::peers::{Inbound, RequestError};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};
use tracing::{debug, info};

use super::{Done, EventLoop, Session, trimming::KEPT_FRIENDS};
use crate::{
    behaviour::MAX_CONNECTIONS_PER_PEER,
    book::{Connection, Gone, Standing, Way, relay_of, split_address},
    dht::{Dht, LAN_PROTOCOL, WAN_PROTOCOL},
    metrics::Refusal,
    requests::{
        Job,
        client::{MAX_QUEUED_JOBS, Wishes},
    },
    scope::is_relayed,
    streams,
};

/// Dials that one tick starts: a node that knows thousands of servers does not flood its link.
const DIALS_PER_TICK: usize = 8;

/// When a peer behind a relay is first tried at its known addresses. Hole punching, which begins at
/// once, has mostly succeeded by then.
const FIRST_UPGRADE: Duration = Duration::from_secs(3);

/// Both sides may see each other by multicast at the same moment. The one with the greater PeerId
/// waits so long for the other's dial, which makes one connection and not two or four.
const POLITENESS: Duration = Duration::from_millis(300);

impl EventLoop {
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        self.metrics.connections.inc();
        let address = endpoint.get_remote_address().clone();
        let is_ours = endpoint.is_dialer();
        debug!(%peer, %address, is_ours, is_relayed = endpoint.is_relayed(), "connected");
        if is_ours {
            self.book.add_addresses(peer, [address.clone()]);
        }
        let way = way(endpoint);
        let is_first =
            self.book.connected(peer, Connection::new(connection, address, way, is_ours));
        // Friends pass the limits of libp2p, and one of them may be broken or bad.
        let count = self.book.peer(&peer).map_or(0, |peer| peer.connections.len());
        if count > MAX_CONNECTIONS_PER_PEER as usize {
            self.swarm.close_connection(connection);
            return;
        }
        if is_first {
            self.start_session(peer);
            self.ask_for_keys(peer);
        }
        if way != Way::Direct {
            let first_try = self.book.peer_mut(&peer).filter(|peer| peer.upgrade_is_unplanned());
            if let Some(peer) = first_try {
                peer.plan_upgrade(Instant::now() + FIRST_UPGRADE);
            }
        } else if !is_first {
            // So that the one before comes to rest and can be closed.
            self.move_requests(peer);
        }
    }

    /// Ends all connections with peers that have another view of them than we, and makes one anew.
    /// gossipsub tells its topics on the first connection only: when the two sides disagree about
    /// which that is, one lacks them for good.
    pub(super) fn start_anew_with_the_confused(&mut self, now: Instant) {
        for peer in self.book.confused(now) {
            debug!(%peer, "a peer lost a connection of ours, or took one for a further one");
            if let Some(known) = self.book.peer_mut(&peer) {
                known.is_awaited = true;
            }
            // It may be gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
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
            let rest = self.book.peer(&peer).filter(|peer| peer.announced);
            if let Some(server) = rest.and_then(|peer| peer.standing.server()) {
                // Frames that were on their way over it are lost, on either side.
                self.reports.hint(Inbound::PathLost { server: server.clone() });
            }
            return;
        }
        self.open.remove(&peer);
        let is_awaited =
            self.book.peer_mut(&peer).is_some_and(|p| std::mem::take(&mut p.is_awaited));
        if is_awaited {
            self.book.alive(peer, Instant::now());
        }
        for job in self.bulk.take(&peer) {
            job.fail(RequestError::Unreachable);
        }
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
        let known = self.book.peer_mut(&peer);
        let was_dialing = known.is_some_and(|peer| std::mem::take(&mut peer.dialing));
        if let DialError::WrongPeerId { address, .. } = error {
            // Somebody else is there, most likely at an address that many homes use. That ended
            // the dial to the other addresses, too.
            let (place, _) = split_address(address.clone());
            self.swarm.behaviour_mut().lan.inner_mut().remove_address(&peer, &place);
            if self.book.forget_address(&peer, &place) && was_dialing {
                self.dial(peer);
            }
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
        let mut known = self.book.peer(&peer).map(|peer| peer.addresses()).unwrap_or_default();
        known.extend(self.guesses(peer));
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
        // Others are dialed when there is something to send.
        let is_full = self.friends() >= KEPT_FRIENDS;
        for peer in self.book.due_dials(now, DIALS_PER_TICK, is_full) {
            self.dial(peer);
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        let now = Instant::now();
        for (peer, address) in found {
            debug!(%peer, %address, "seen by multicast");
            for address in self.book.add_addresses(peer, [address]) {
                self.enter_in_table(Dht::Lan, peer, address);
            }
            let is_ours = *self.swarm.local_peer_id() < peer;
            self.book.alive(peer, if is_ours { now } else { now + POLITENESS });
        }
        self.dial_planned(now);
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, connection_id } = event else { return };
        self.on_observed(peer_id, connection_id, info.observed_addr);
        let kept = self.book.add_addresses(peer_id, info.listen_addrs);
        for (dht, protocol) in [(Dht::Lan, LAN_PROTOCOL), (Dht::Wan, WAN_PROTOCOL)] {
            if info.protocols.contains(&protocol) {
                for address in kept.iter().filter(|address| !is_relayed(address)) {
                    self.enter_in_table(dht, peer_id, address.clone());
                }
            }
        }
        if let Some(peer) = self.book.peer_mut(&peer_id) {
            peer.identified = true;
            peer.is_relay = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
            // Most of the public DHT speaks for no server.
            if peer.standing.is_open() && !info.protocols.contains(&streams::PROTOCOL) {
                peer.standing = Standing::Refused;
            }
        }
        self.announce(peer_id);
    }

    /// Enters a peer in a table of Kademlia, if the address belongs there.
    fn enter_in_table(&mut self, dht: Dht, peer: PeerId, address: Multiaddr) {
        let behaviour = self.swarm.behaviour_mut();
        let kad = match dht {
            Dht::Lan => Some(&mut behaviour.lan),
            Dht::Wan => behaviour.wan.as_mut(),
        };
        if let Some(kad) = kad.filter(|kad| kad.admits(&address)) {
            kad.inner_mut().add_address(&peer, address);
        }
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
    pub(super) fn start_session(&mut self, peer: PeerId) -> mpsc::Sender<Job> {
        let (jobs, waiting) = mpsc::channel(MAX_QUEUED_JOBS);
        let (path, changes) = watch::channel(0);
        let session = Session { jobs: jobs.clone(), path };
        self.open.insert(peer, session);
        let running = self.sessions.clone().run(peer, Wishes { jobs: waiting, path: changes });
        self.tasks.spawn(async move {
            running.await;
            Done::Session
        });
        jobs
    }

    /// The way into a connected peer's session, which is started anew if it ended.
    pub(super) fn session(&mut self, peer: PeerId) -> mpsc::Sender<Job> {
        match self.open.get(&peer).filter(|session| !session.jobs.is_closed()) {
            Some(session) => session.jobs.clone(),
            None => self.start_session(peer),
        }
    }
}

/// Which way a connection goes, and through which relay.
fn way(endpoint: &ConnectedPoint) -> Way {
    if !endpoint.is_relayed() {
        return Way::Direct;
    }
    Way::Relayed(match endpoint {
        ConnectedPoint::Dialer { address, .. } => relay_of(address),
        ConnectedPoint::Listener { local_addr, .. } => relay_of(local_addr),
    })
}
