//! Who is known: servers and the peers that speak for them, where peers were reached, who is
//! connected, and whom to dial when. Plain data; the event loop acts on it.

mod address;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use messagehub_protocol::server_keys::ServerKeys;
use ruma::{OwnedServerName, ServerName};
use tokio::time::{Duration, Instant};

pub(crate) use address::{relay_of, split as split_address};
pub(crate) use peer::{Connection, Peer, Standing, Way};

use crate::{requests::keys::lists, scope::Scope};

/// Servers that are remembered, at some 2 KiB each. The store remembers the rest.
const MAX_SERVERS: usize = 5_000;

/// Peers that are remembered, at some 1 KiB each: two for each server. Anybody on the LAN can make
/// us see peers by multicast; those make room first.
const MAX_PEERS: usize = 10_000;

/// For how long a server that could not be reached is not tried again for another request, unless
/// it shows a sign of life: a burst of requests to it costs one attempt.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// A server that we know something about.
#[derive(Debug)]
struct Server {
    keys: ServerKeys,
    peers: Vec<PeerId>,
    unreachable_until: Option<Instant>,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Book {
    local: PeerId,
    scope: Scope,
    servers: HashMap<OwnedServerName, Server>,
    peers: HashMap<PeerId, Peer>,
    /// Servers that share a room with us or are contacts; `None` until that is known.
    trusted: Option<BTreeSet<OwnedServerName>>,
}

/// What the end of a peer's last connection means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The peer has other connections.
    NotYet,
    /// The peer is gone; it spoke for no verified server, or the server has other peers.
    Peer,
    /// The peer is gone, and with it the server.
    Server(OwnedServerName),
}

impl Book {
    pub(crate) fn new(local: PeerId, scope: Scope) -> Self {
        Self { local, scope, servers: HashMap::new(), peers: HashMap::new(), trusted: None }
    }

    /// Takes over the complete set of servers that share a room with us or are contacts: their
    /// peers are dialed until they come, and others no longer.
    pub(crate) fn trust(&mut self, servers: BTreeSet<OwnedServerName>) {
        self.trusted = Some(servers);
        let trusted = self.trusted_peers();
        for (id, peer) in &mut self.peers {
            peer.wanted = peer.configured || trusted.contains(id);
        }
        for id in trusted {
            self.want(id);
        }
    }

    /// Whether a server shares a room with us or is a contact. Until that is known, all are that we
    /// were told of.
    pub(crate) fn is_trusted(&self, name: &ServerName) -> bool {
        self.trusted.as_ref().is_none_or(|trusted| trusted.contains(name))
    }

    /// The peers of trusted servers, once it is known which they are.
    pub(crate) fn trusted_peers(&self) -> HashSet<PeerId> {
        let names = self.trusted.iter().flatten();
        let servers = names.filter_map(|name| self.servers.get(name));
        servers.flat_map(|server| server.peers.iter().copied()).collect()
    }

    /// Whether a connected peer belongs to a trusted server.
    pub(crate) fn is_friend(&self, peer: &Peer) -> bool {
        peer.standing.server().is_some_and(|server| self.is_trusted(server))
    }

    /// Remembers keys that were verified, if they are the newest, and the peers they name. Gives
    /// `false` when there is no room for another server.
    pub(crate) fn learn(&mut self, keys: &ServerKeys) -> bool {
        let name = keys.server_name();
        if let Some(known) = self.servers.get_mut(name) {
            if keys.is_newer_than(&known.keys) {
                known.keys = keys.clone();
                known.peers = peer_ids(keys, self.local);
            }
        } else {
            if self.servers.len() >= MAX_SERVERS && !self.forget_one_server() {
                return false;
            }
            let peers = peer_ids(keys, self.local);
            let server = Server { keys: keys.clone(), peers, unreachable_until: None };
            self.servers.insert(name.to_owned(), server);
        }
        if self.is_trusted(name) {
            for peer in self.peers_of(name).to_vec() {
                self.want(peer);
            }
        }
        true
    }

    /// Makes room: forgets a server that is not connected.
    fn forget_one_server(&mut self) -> bool {
        let connected: HashSet<&OwnedServerName> =
            self.peers.values().filter_map(|peer| peer.standing.server()).collect();
        let stranger = self.servers.keys().find(|name| !connected.contains(name)).cloned();
        stranger.is_some_and(|name| self.servers.remove(&name).is_some())
    }

    /// The newest keys of a server.
    pub(crate) fn keys(&self, name: &ServerName) -> Option<&ServerKeys> {
        self.servers.get(name).map(|server| &server.keys)
    }

    /// The peers that a server's keys name; we are never among them.
    pub(crate) fn peers_of(&self, name: &ServerName) -> &[PeerId] {
        self.servers.get(name).map_or(&[], |server| &server.peers)
    }

    /// A connected peer that was verified to speak for a server; a direct connection is preferred.
    pub(crate) fn reachable(&self, name: &ServerName) -> Option<PeerId> {
        let speaks =
            |id: &&PeerId| self.peers.get(id).is_some_and(|peer| peer.standing.speaks_for(name));
        let is_relayed = |id: &&PeerId| self.peers.get(id).is_none_or(Peer::is_relayed);
        self.peers_of(name).iter().filter(speaks).min_by_key(is_relayed).copied()
    }

    /// Whether a server could not be reached a moment ago, without a sign of life since.
    pub(crate) fn is_unreachable(&self, name: &ServerName, now: Instant) -> bool {
        let until = self.servers.get(name).and_then(|server| server.unreachable_until);
        until.is_some_and(|until| now < until)
    }

    /// Notes that a server could not be reached.
    pub(crate) fn unreachable(&mut self, name: &ServerName, now: Instant) {
        if let Some(server) = self.servers.get_mut(name) {
            server.unreachable_until = Some(now + UNREACHABLE);
        }
    }

    /// Notes that a peer shows signs of life: it is dialed without waiting for any back-off.
    pub(crate) fn alive(&mut self, id: PeerId, dial_at: Instant) {
        for server in self.servers.values_mut() {
            if server.peers.contains(&id) {
                server.unreachable_until = None;
            }
        }
        self.entry(id).revive(dial_at);
    }

    /// Notes that our own network changed: all wanted peers are dialed without waiting, and those
    /// behind relays are tried directly.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        for peer in self.peers.values_mut().filter(|peer| peer.wanted) {
            peer.revive(now);
            peer.plan_upgrade(now);
        }
    }

    /// Notes that a peer is to be dialed until it comes.
    pub(crate) fn want(&mut self, id: PeerId) {
        self.entry(id).wanted = true;
    }

    /// Remembers where a peer may be reached. Addresses that can only mislead are left out; gives
    /// those that were kept.
    pub(crate) fn add_addresses(
        &mut self,
        id: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Vec<Multiaddr> {
        let (scope, local) = (self.scope, self.local);
        // Through ourselves we reach nobody.
        let is_usable = |address: &Multiaddr| {
            scope.is_believable(address) && relay_of(address).is_none_or(|relay| relay != local)
        };
        let kept: Vec<_> = addresses
            .into_iter()
            .map(address::without_peer)
            .filter(is_usable)
            .take(peer::MAX_ADDRESSES)
            .collect();
        let peer = self.entry(id);
        for address in &kept {
            peer.add_address(address.clone());
        }
        kept
    }

    /// Forgets an address at which somebody else was. Gives whether it was known.
    pub(crate) fn forget_address(&mut self, id: &PeerId, address: &Multiaddr) -> bool {
        self.peers.get_mut(id).is_some_and(|peer| peer.forget_address(address))
    }

    /// Remembers an address that the configuration names, which may be a name, and keeps its peer.
    pub(crate) fn configure(&mut self, id: PeerId, address: Multiaddr) {
        let is_usable = self.scope.may_dial(&address);
        let peer = self.entry(id);
        if is_usable {
            peer.add_address(address);
        }
        peer.configured = true;
        peer.wanted = true;
    }

    /// Remembers an address at which the configuration enters the DHT; its peer is not kept.
    pub(crate) fn add_entry(&mut self, id: PeerId, address: Multiaddr) {
        if self.scope.may_dial(&address) {
            self.entry(id).add_address(address);
        }
    }

    /// Takes a signed record of a peer's addresses. Gives the server that lists the peer and the
    /// addresses that can be used, when the record is newer than what we had.
    pub(crate) fn take_record(
        &mut self,
        id: PeerId,
        seq: u64,
        addresses: Vec<Multiaddr>,
    ) -> Option<(OwnedServerName, Vec<Multiaddr>)> {
        let (server, _) = self.servers.iter().find(|(_, server)| server.peers.contains(&id))?;
        let server = server.clone();
        let known = self.entry(id);
        if seq <= known.record {
            return None;
        }
        known.record = seq;
        Some((server, self.add_addresses(id, addresses)))
    }

    /// A peer's entry, if there is one.
    pub(crate) fn peer(&self, id: &PeerId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// A peer's entry, to change it.
    pub(crate) fn peer_mut(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    /// All peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter()
    }

    /// A peer's entry; made if there is none.
    pub(crate) fn entry(&mut self, id: PeerId) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            self.peers.retain(|_, peer| peer.wanted || peer.is_connected());
            let stranger = self.peers.iter().find(|(_, peer)| !peer.is_connected());
            if let Some(stranger) = stranger.map(|(id, _)| *id) {
                self.peers.remove(&stranger);
            }
        }
        self.peers.entry(id).or_default()
    }

    /// Notes a connection. Gives `true` when it is the first one of its peer.
    pub(crate) fn connected(&mut self, id: PeerId, connection: Connection) -> bool {
        let peer = self.entry(id);
        peer.used_at = Some(connection.since);
        peer.connected(connection);
        peer.dialing = false;
        peer.rested();
        peer.connections.len() == 1
    }

    /// Peers that lost a connection of ours without our noticing, or that do not tell their topics
    /// since they take the first connection that we know of for a further one. Each is given once.
    pub(crate) fn confused(&mut self, now: Instant) -> Vec<PeerId> {
        let connected = self.peers.iter_mut().filter(|(_, peer)| peer.is_connected());
        connected
            .filter_map(|(id, peer)| (peer.has_come_anew(now) || peer.is_mute(now)).then_some(*id))
            .collect()
    }

    /// Notes that a peer is of use.
    pub(crate) fn used(&mut self, id: &PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.used_at = Some(now);
        }
    }

    /// Peers that are reached through a relay and are to be tried directly now, at most `most`.
    pub(crate) fn due_upgrades(&mut self, now: Instant, most: usize) -> Vec<PeerId> {
        let due = self.peers.iter_mut().filter_map(|(id, peer)| {
            let is_due = peer.upgrade_at.is_some() && peer.take_upgrade(now);
            is_due.then_some(*id)
        });
        due.take(most).collect()
    }

    /// Notes the end of a connection.
    pub(crate) fn disconnected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> Gone {
        let Some(peer) = self.peers.get_mut(&id) else { return Gone::NotYet };
        let was_relayed = peer.is_relayed();
        peer.connections.retain(|other| other.id != connection);
        if peer.is_connected() {
            // Of a peer that was relayed before, the tries go on as planned.
            if !was_relayed {
                peer.plan_upgrade(now);
            }
            return Gone::NotYet;
        }
        let announced = peer.end(now);
        match announced.filter(|name| self.reachable(name).is_none()) {
            Some(name) => Gone::Server(name),
            None => Gone::Peer,
        }
    }

    /// Takes what a connected peer told about itself: verified keys that list it. Gives the newest
    /// keys of that server, or nothing when newer ones list the peer no longer.
    pub(crate) fn verified(&mut self, id: PeerId, told: &ServerKeys) -> Option<ServerKeys> {
        let name = told.server_name();
        self.learn(told);
        let newest = self.keys(name)?.clone();
        let peer = self.peers.get_mut(&id)?;
        if !lists(&newest, id) {
            peer.standing = Standing::Refused;
            return None;
        }
        peer.standing = Standing::Verified(name.to_owned());
        peer.verified_at = Some(Instant::now());
        if let Some(server) = self.servers.get_mut(name) {
            server.unreachable_until = None;
        }
        Some(newest)
    }

    /// Peers to dial now, at most `most`; each is planned again before it is given. With `only_own`
    /// only those that the configuration names.
    pub(crate) fn due_dials(&mut self, now: Instant, most: usize, only_own: bool) -> Vec<PeerId> {
        let due = self.peers.iter_mut().filter(|(_, peer)| peer.is_due(now));
        due.filter(|(_, peer)| peer.configured || !only_own)
            .take(most)
            .map(|(id, peer)| {
                peer.plan_again(now);
                *id
            })
            .collect()
    }

    /// Connected peers to ask for their keys once more.
    pub(crate) fn due_questions(&self, now: Instant) -> Vec<PeerId> {
        let due = self.peers.iter().filter(|(_, peer)| peer.standing.is_due(now));
        due.map(|(id, _)| *id).collect()
    }
}

fn peer_ids(keys: &ServerKeys, local: PeerId) -> Vec<PeerId> {
    let ids = keys.peer_ids().iter().filter_map(|text| text.parse().ok());
    ids.filter(|id| *id != local).collect()
}
