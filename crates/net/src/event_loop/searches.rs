//! Finding: strings in Kademlia, and the peers of a server that a request is for.

use std::collections::HashSet;

use libp2p::{PeerId, kad};
use messagehub_homeserver::peers::RequestError;
use messagehub_protocol::server_keys::ServerKeys;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::Instant,
};
use tracing::debug;

use super::EventLoop;
use crate::{
    book::Peer,
    dht::Dht,
    discovery::{Lookup, MAX_RESULTS, Purpose, Query, named_peer, record_key, server_string},
    requests::Job,
};

impl EventLoop {
    /// Searches for those who advertise a string.
    pub(super) fn find(&mut self, string: &str, reply: oneshot::Sender<Vec<ServerKeys>>) {
        if !self.lookups.has_room() {
            debug!("too many searches at once");
            let result = self.results(&[]);
            // Whoever asked may have gone; then nobody needs the result.
            let _ = reply.send(result);
            return;
        }
        let purpose = Purpose::Find(reply);
        let Some(peer) = named_peer(string) else {
            self.look_up(string, purpose);
            return;
        };
        let mut queries = Vec::new();
        for dht in [Dht::Lan, Dht::Wan] {
            if let Some(kad) = self.kad(dht) {
                queries.push((dht, kad.get_closest_peers(peer)));
            }
        }
        self.lookups.start(queries, purpose, vec![peer]);
        self.dial(peer);
    }

    /// Asks both Kademlias who advertises a string.
    pub(super) fn look_up(&mut self, string: &str, purpose: Purpose) {
        let mut queries = Vec::new();
        for dht in [Dht::Lan, Dht::Wan] {
            if let Some(kad) = self.kad(dht) {
                queries.push((dht, kad.get_providers(record_key(string))));
            }
        }
        self.lookups.start(queries, purpose, Vec::new());
    }

    pub(super) fn on_kad(&mut self, dht: Dht, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let query = (dht, id);
                match result {
                    kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
                        providers,
                        ..
                    })) => self.on_providers(query, providers),
                    kad::QueryResult::GetClosestPeers(Ok(closest)) => {
                        self.on_closest(query, closest.peers);
                    }
                    _ => {}
                }
                if step.last {
                    self.lookups.ended(query);
                    self.settle(Instant::now());
                }
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.on_table_grew(dht),
            _ => {}
        }
    }

    /// Dials those who advertise what was asked for. At once: Kademlia knows their addresses only
    /// while the query runs.
    fn on_providers(&mut self, query: Query, providers: HashSet<PeerId>) {
        let local = *self.swarm.local_peer_id();
        let others = providers.into_iter().filter(|peer| *peer != local);
        for peer in self.lookups.found(query, others) {
            if self.lookups.seeks_relay(query) {
                self.relays.found(peer);
            }
            self.dial(peer);
        }
    }

    /// Dials the peer that was searched for by its PeerId, now that its addresses are known.
    fn on_closest(&mut self, query: Query, peers: Vec<kad::PeerInfo>) {
        for kad::PeerInfo { peer_id, addrs } in peers {
            if self.lookups.is_about(query, &peer_id) {
                self.book.add_addresses(peer_id, addrs);
                self.dial(peer_id);
            }
        }
    }

    /// Sends a request to a server, once a peer is known that speaks for it.
    pub(super) fn request(&mut self, name: OwnedServerName, job: Job) {
        if let Some(peer) = self.book.reachable(&name) {
            self.submit(peer, job);
            return;
        }
        let now = Instant::now();
        if self.book.is_unreachable(&name, now) {
            job.fail(RequestError::Unreachable);
            return;
        }
        let is_new = !self.waiting.contains(&name);
        match self.waiting.push(&name, job, now) {
            None if is_new => self.reach(&name),
            None => {}
            Some(job) => job.fail(RequestError::Refused("too many requests wait".to_owned())),
        }
    }

    /// Looks for a peer that speaks for a server: where it was before, and in Kademlia.
    fn reach(&mut self, name: &ServerName) {
        for peer in self.book.peers_of(name).to_vec() {
            self.dial(peer);
        }
        if self.lookups.has_room() && !self.lookups.is_reaching(name) {
            self.look_up(&server_string(name), Purpose::Reach(name.to_owned()));
        }
    }

    pub(super) fn submit(&mut self, peer: PeerId, job: Job) {
        if job.is_bulk() && self.book.peer(&peer).is_some_and(Peer::is_relayed) {
            self.wait_for_direct(peer, job);
            return;
        }
        self.book.used(&peer, Instant::now());
        match self.session(peer).try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                job.fail(RequestError::Refused("too many requests wait".to_owned()));
            }
            Err(TrySendError::Closed(job)) => job.fail(RequestError::Unreachable),
        }
    }

    /// Sends what waited for a server that is here now.
    pub(super) fn send_waiting(&mut self, name: &ServerName) {
        let Some(peer) = self.book.reachable(name) else { return };
        for job in self.waiting.take(name) {
            self.submit(peer, job);
        }
    }

    /// Ends the searches and the waiting for which nothing more can come.
    pub(super) fn settle(&mut self, now: Instant) {
        let book = &self.book;
        let is_pending = |peer: &PeerId| book.peer(peer).is_some_and(Peer::is_pending);
        let is_verified =
            |peer: &PeerId| book.peer(peer).is_some_and(|peer| peer.standing.server().is_some());
        for lookup in self.lookups.settled(now, is_pending, is_verified) {
            self.finish(lookup);
        }
        let (book, lookups) = (&self.book, &self.lookups);
        // Somebody who just came may be who is waited for.
        let is_somebody_new = book.peers().any(|(_, peer)| peer.is_introducing_itself());
        let is_under_way = |name: &ServerName| {
            let mut peers = book.peers_of(name).iter().filter_map(|peer| book.peer(peer));
            is_somebody_new || lookups.is_reaching(name) || peers.any(|peer| peer.is_pending())
        };
        for name in self.waiting.hopeless(now, is_under_way) {
            debug!(server = %name, "a server cannot be reached");
            self.book.unreachable(&name, now);
            for job in self.waiting.take(&name) {
                job.fail(RequestError::Unreachable);
            }
        }
    }

    fn finish(&mut self, lookup: Lookup) {
        for (dht, query) in lookup.queries {
            if let Some(mut running) = self.kad(dht).and_then(|kad| kad.query_mut(&query)) {
                running.finish();
            }
        }
        match lookup.purpose {
            Purpose::Find(reply) => {
                let results = self.results(&lookup.found);
                // Whoever asked may have gone; then nobody needs the result.
                let _ = reply.send(results);
            }
            Purpose::Reach(name) => self.send_waiting(&name),
            // Whoever was found is asked for a place with the next tick.
            Purpose::Relay => {}
        }
    }

    /// The verified keys of those who were found, then of all who are connected: on a LAN these may
    /// be who is meant, before the table knows them.
    fn results(&self, found: &[PeerId]) -> Vec<ServerKeys> {
        let connected = self.book.peers().map(|(id, _)| id);
        let mut seen = HashSet::new();
        found
            .iter()
            .chain(connected)
            .filter_map(|id| self.book.peer(id)?.standing.server())
            .filter(|server| seen.insert(*server))
            .filter_map(|server| self.book.keys(server).cloned())
            .take(MAX_RESULTS)
            .collect()
    }
}
