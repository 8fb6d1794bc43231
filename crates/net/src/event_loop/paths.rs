//! Better paths: direct connections in place of relayed ones.

use std::collections::HashSet;

use libp2p::{
    Multiaddr, PeerId, dcutr,
    multiaddr::Protocol,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use messagehub_homeserver::peers::RequestError;
use tokio::time::{Duration, Instant};
use tracing::{debug, info};

use super::EventLoop;
use crate::{book::Peer, requests::Job};

/// Direct tries that one tick starts.
const UPGRADES_PER_TICK: usize = 4;

/// How long a connection that another one replaces stays: whatever was begun on it ends, hole
/// punching included.
const GRACE: Duration = Duration::from_secs(10);

/// Relays through which a peer is tried without having been told that it is there.
const MAX_GUESSES: usize = 3;

impl EventLoop {
    /// Moves the requests of a peer to the best connection, now that there is a better one.
    pub(super) fn move_requests(&mut self, peer: PeerId) {
        if let Some(session) = self.open.get(&peer) {
            session.path.send_modify(|path| *path += 1);
        }
        for job in self.bulk.take(&peer) {
            self.submit(peer, job);
        }
    }

    /// Lets a file wait for a direct path.
    pub(super) fn wait_for_direct(&mut self, peer: PeerId, job: Job) {
        let now = Instant::now();
        if let Some(job) = self.bulk.push(peer, job, now) {
            job.fail(RequestError::Refused("too many files wait for a direct path".to_owned()));
            return;
        }
        if let Some(known) = self.book.peer_mut(&peer) {
            known.plan_upgrade(now);
        }
    }

    /// Gives up the files for which no direct path came.
    pub(super) fn fail_bulk(&mut self, now: Instant) {
        for job in self.bulk.late(now) {
            let why = "the server is reached through a relay only, which carries no files";
            job.fail(RequestError::Refused(why.to_owned()));
        }
    }

    /// Tries peers directly that are reached through relays.
    pub(super) fn upgrade_planned(&mut self, now: Instant) {
        for id in self.book.due_upgrades(now, UPGRADES_PER_TICK) {
            let Some(peer) = self.book.peer(&id) else { continue };
            let (direct, punch) = (peer.direct_addresses(), circuit_of_ours(peer));
            debug!(peer = %id, ?direct, "trying a direct connection in place of a relayed one");
            self.dial_beside(id, direct);
            // A new circuit makes the other side coordinate simultaneous dials once more, with the
            // addresses that both know by now.
            self.dial_beside(id, punch.into_iter().collect());
        }
    }

    /// Dials a peer that is connected.
    fn dial_beside(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        let addresses = addresses.into_iter().map(|at| at.with(Protocol::P2p(peer))).collect();
        let dial =
            DialOpts::peer_id(peer).addresses(addresses).condition(PeerCondition::Always).build();
        if let Err(error) = self.swarm.dial(dial) {
            debug!(%peer, %error, "cannot dial");
        }
    }

    /// Addresses through relays at which a peer may be without having told so: those that keep a
    /// place for us or are configured, first of all, may well keep one for it.
    pub(super) fn guesses(&self, peer: PeerId) -> Vec<Multiaddr> {
        let is_hopeless = self.book.peer(&peer).is_some_and(Peer::is_lost);
        if is_hopeless || self.relays.is_in_use(&peer) {
            return Vec::new();
        }
        let mut relays: Vec<_> = self
            .book
            .peers()
            .filter(|(id, relay)| {
                **id != peer && !relay.is_relayed() && (relay.is_relay || self.relays.is_in_use(id))
            })
            .collect();
        relays.sort_by_key(|(id, _)| !self.relays.is_in_use(id));
        relays
            .into_iter()
            .filter_map(|(id, relay)| Some((*id, relay.address()?.clone())))
            .map(|(id, at)| crate::book::split_address(at).0.with(Protocol::P2p(id)))
            .map(|at| at.with(Protocol::P2pCircuit))
            .take(MAX_GUESSES)
            .collect()
    }

    /// Hole punching ended.
    pub(super) fn on_upgrade(&mut self, event: dcutr::Event) {
        let peer = event.remote_peer_id;
        self.reach.count_upgrade(event.result.is_ok());
        self.metrics.upgrade(event.result.is_ok());
        match event.result {
            Ok(_) => info!(%peer, "a direct connection in place of a relayed one"),
            Err(error) => debug!(%peer, %error, "no direct connection came about"),
        }
    }

    /// Closes connections that others replaced and on which nothing runs.
    pub(super) fn close_replaced(&mut self, now: Instant) {
        let local = *self.swarm.local_peer_id();
        let mut replaced = Vec::new();
        for (id, peer) in self.book.peers().filter(|(_, peer)| peer.connections.len() > 1) {
            let Some(best) = peer.connection() else { continue };
            let others = peer.connections.iter().filter(|other| other.id != best.id);
            let old = others.filter(|other| {
                // Of two alike only one side closes one, or both would be gone.
                let is_ours_to_close = (best.is_direct() && !other.is_direct()) || local < *id;
                is_ours_to_close && now >= other.since + GRACE && now >= best.since + GRACE
            });
            replaced.extend(old.map(|other| other.id));
        }
        let streams = &self.swarm.behaviour().streams;
        replaced.retain(|id| !streams.is_busy(*id));
        let replaced: HashSet<ConnectionId> = replaced.into_iter().collect();
        for connection in replaced {
            debug!(?connection, "closing a connection that another one replaced");
            self.swarm.close_connection(connection);
        }
    }
}

/// The relayed address of a peer, if it is we who dialed through the relay.
fn circuit_of_ours(peer: &Peer) -> Option<Multiaddr> {
    let circuit =
        peer.connections.iter().rev().find(|other| !other.is_direct() && other.is_ours)?;
    Some(crate::book::split_address(circuit.address.clone()).0)
}
