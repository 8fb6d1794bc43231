//! Where others find us: what is confirmed, mapped, observed and relayed, and the record of it.

use bytes::Bytes;
use libp2p::{Multiaddr, autonat, identity::Keypair, kad, relay, swarm::ConnectionId, upnp};
use messagehub_homeserver::peers::{Inbound, Reachability};
use ruma::OwnedServerName;
use tokio::time::{Duration, Instant};
use tracing::{debug, info};

use super::{Done, EventLoop};
use crate::{
    book::{Way, split_address},
    config::NetConfig,
    records::{self, Record},
    scope::{Kind, Scope, is_relayed, kind},
};

/// How long our addresses must be the same before a record of them is signed. Records are numbered
/// by seconds, and addresses come in groups.
const RECORD_DELAY: Duration = Duration::from_secs(2);

/// Our own addresses, as others are told.
#[derive(Debug)]
pub(super) struct OwnAddresses {
    server: Option<OwnedServerName>,
    keypair: Keypair,
    scope: Scope,
    /// When a record is signed, because something changed.
    sign_at: Option<Instant>,
    /// What the last record says.
    told: Vec<Multiaddr>,
    reachability: Reachability,
}

impl OwnAddresses {
    pub(super) fn new(config: &NetConfig) -> Self {
        Self {
            server: config.server.clone(),
            keypair: config.seed.keypair(),
            scope: config.scope(),
            sign_at: None,
            told: Vec::new(),
            reachability: Reachability::Unknown,
        }
    }
}

impl EventLoop {
    pub(super) fn reachability(&self, now: Instant) -> Reachability {
        self.reach.reachability(self.relay_statuses(), now)
    }

    /// An address of ours was confirmed: by AutoNAT, by UPnP, by a relay, or by ourselves.
    pub(super) fn on_confirmed(&mut self, address: &Multiaddr) {
        debug!(%address, "others can reach this node here");
        if is_relayed(address) {
            self.on_relayed_address(address);
        } else {
            self.reach.confirm(address);
        }
        self.addresses_changed();
    }

    pub(super) fn on_expired(&mut self, address: &Multiaddr) {
        debug!(%address, "others can no longer reach this node here");
        self.reach.expire(address);
        self.addresses_changed();
    }

    /// Somebody tried to dial us at an address.
    pub(super) fn on_tested(&mut self, event: &autonat::v2::client::Event) {
        if let Some(server) = self.book.peer_mut(&event.server) {
            server.has_tested_us();
        }
        let address = &event.tested_addr;
        match &event.result {
            Ok(()) => self.reach.prove(address),
            Err(error) => {
                debug!(%address, server = %event.server, %error, "others cannot dial this node here");
                if self.reach.refute(address) {
                    self.swarm.remove_external_address(address);
                    self.on_expired(address);
                }
            }
        }
    }

    pub(super) fn on_upnp(&mut self, event: upnp::Event) {
        match event {
            upnp::Event::NewExternalAddr { external_addr, .. } => {
                info!(address = %external_addr, "the router forwards a port to this node");
                self.reach.map(&external_addr);
                self.addresses_changed();
            }
            upnp::Event::ExpiredExternalAddr { external_addr, .. } => {
                info!(address = %external_addr, "the router no longer forwards a port to this node");
                self.on_expired(&external_addr);
            }
            upnp::Event::GatewayNotFound => debug!("no router here speaks UPnP"),
            upnp::Event::NonRoutableGateway => {
                info!("the router has no public address itself, so it cannot forward a port");
            }
        }
    }

    /// A peer tells where it sees us. Of a connection that we dialed that is the address which our
    /// NAT gave us, port included, and so what hole punching needs.
    pub(super) fn on_observed(&mut self, peer: libp2p::PeerId, id: ConnectionId, at: Multiaddr) {
        let Some(peer) = self.book.peer(&peer) else { return };
        let Some(connection) = peer.connections.iter().find(|other| other.id == id) else { return };
        if connection.way != Way::Direct || !connection.is_ours {
            return;
        }
        let (address, _) = split_address(at);
        let listening = self.addresses();
        for assumed in self.reach.observe(&address, &listening, Instant::now()) {
            self.swarm.remove_external_address(&assumed);
            self.on_expired(&assumed);
        }
        self.swarm.behaviour_mut().dcutr.propose(&address);
    }

    /// Looks what has become of our reachability, says so, and acts on it.
    pub(super) fn look_at_reach(&mut self, now: Instant) {
        let listening = self.addresses();
        for address in self.reach.assume(&listening, now) {
            debug!(%address, "taking an address of our own for one that others can dial");
            self.swarm.add_external_address(address.clone());
            self.on_confirmed(&address);
        }
        let reachability = self.reachability(now);
        if reachability != self.own.reachability {
            say(&reachability);
            self.metrics.reachability(&reachability);
            self.own.reachability = reachability;
            self.open_to_others();
        }
        self.sign_record(now);
    }

    /// Is a server of the public DHT and a relay exactly while others can dial us.
    fn open_to_others(&mut self) {
        let is_public = self.reach.is_public();
        let serves_anyone = self.relays.serves_anyone();
        let behaviour = self.swarm.behaviour_mut();
        if let Some(wan) = behaviour.wan.as_mut() {
            let mode = if is_public { kad::Mode::Server } else { kad::Mode::Client };
            wan.inner_mut().set_mode(Some(mode));
        }
        if let Some(server) = behaviour.relay.as_mut() {
            let status = if is_public { relay::Status::Enable } else { relay::Status::Disable };
            server.inner_mut().set_status(Some(status));
        }
        self.advertise_relay(is_public && serves_anyone);
    }

    /// Plans a new record and tells the DHT.
    pub(super) fn addresses_changed(&mut self) {
        let now = Instant::now();
        self.own.sign_at = Some(now + RECORD_DELAY);
        self.advertising.addresses_changed(now);
    }

    /// Signs a record of our addresses when they changed, and tells the homeserver.
    fn sign_record(&mut self, now: Instant) {
        if self.own.sign_at.is_none_or(|at| at > now) {
            return;
        }
        self.own.sign_at = None;
        let Some(server) = self.own.server.clone() else { return };
        let addresses = self.record_addresses();
        if addresses == self.own.told {
            return;
        }
        let Some((seq, record, told)) = records::sign(&self.own.keypair, addresses.clone()) else {
            return;
        };
        debug!(seq, ?told, "a new record of our addresses");
        self.own.told = addresses;
        let peer_id = self.swarm.local_peer_id().to_string();
        self.report_record(server, peer_id, (seq, record, told));
    }

    /// What our record says: addresses that others can dial, then relayed ones, then those of the
    /// LAN.
    fn record_addresses(&self) -> Vec<Multiaddr> {
        let scope = self.own.scope;
        let mut listening = self.addresses();
        listening.retain(|at| !is_relayed(at) && scope.may_dial(at) && kind(at) != Kind::Useless);
        listening.sort_unstable();
        let relayed = self.relays.addresses().cloned();
        let mut all: Vec<Multiaddr> = self.reach.addresses().cloned().chain(relayed).collect();
        for address in listening {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Verifies signed records that others passed on, in a task: signatures take their time.
    pub(super) fn take_records(&mut self, all: Vec<Bytes>) {
        let metrics = self.metrics.clone();
        self.tasks.spawn(async move {
            let verified = all.into_iter().filter_map(|bytes| match records::verify(&bytes) {
                Some(record) => Some((record, bytes)),
                None => {
                    metrics.records_refused.inc();
                    None
                }
            });
            Done::Records(verified.collect())
        });
    }

    /// Takes records whose signatures are right.
    pub(super) fn on_records(&mut self, verified: Vec<(Record, Bytes)>) {
        for (record, bytes) in verified {
            let taken = self.book.take_record(record.peer, record.seq, record.addresses);
            let Some((server, addresses)) = taken else { continue };
            self.metrics.records.inc();
            if self.book.peer(&record.peer).is_some_and(|peer| peer.wanted) {
                self.book.alive(record.peer, Instant::now());
            }
            let peer_id = record.peer.to_string();
            self.report_record(server, peer_id, (record.seq, bytes, addresses));
        }
    }

    fn report_record(
        &mut self,
        server: OwnedServerName,
        peer_id: String,
        (seq, record, addresses): (u64, Bytes, Vec<Multiaddr>),
    ) {
        let addresses = addresses.iter().map(|at| format!("{at}/p2p/{peer_id}")).collect();
        let report = Inbound::Record { server, peer_id, seq, record, addresses };
        self.reports.about_peer(report);
    }
}

/// Says in words how others reach us now.
fn say(reachability: &Reachability) {
    match reachability {
        Reachability::Unknown => {
            info!("whether others can dial this node is not known beyond the local network");
        }
        Reachability::Public { addresses } => info!(?addresses, "others can dial this node"),
        Reachability::Mapped { addresses, .. } => {
            info!(?addresses, "others can dial this node, since the router forwards a port");
        }
        Reachability::Private { relays } if relays.is_empty() => {
            info!("this node is behind a NAT or firewall; no relay keeps a place for it yet");
        }
        Reachability::Private { relays } => {
            let relays: Vec<&str> = relays.iter().map(|relay| relay.peer_id.as_str()).collect();
            info!(?relays, "this node is behind a NAT or firewall; reachable through relays");
        }
    }
}
