//! Our own addresses.

use std::collections::HashSet;

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::SwarmEvent};
use tokio::time::{Duration, Instant};
use tracing::{info, trace, warn};

use super::EventLoop;
use crate::{
    behaviour::BehaviourEvent, book::split_address, config::StartError, scope::is_relayed,
};

/// How long the listeners may take to say that they listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

impl EventLoop {
    /// Listens on all addresses that can be listened on; one is enough, since a machine may lack
    /// IPv6.
    ///
    /// # Errors
    /// None of them can, if there are any.
    pub(crate) async fn listen(&mut self, addresses: Vec<Multiaddr>) -> Result<(), StartError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut starting = HashSet::new();
        let mut problems = Vec::new();
        for address in addresses {
            match self.swarm.listen_on(address.clone()) {
                Ok(listener) => {
                    starting.insert(listener);
                }
                Err(error) => {
                    info!(%address, %error, "cannot listen on an address");
                    problems.push(format!("{address}: {error}"));
                }
            }
        }
        let waiting = async {
            while !starting.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let Some(listener) = settled(&event) {
                    starting.remove(&listener);
                }
                self.on_swarm(event);
            }
        };
        // A listener that says nothing in time may still come; the ones that did are enough.
        let _ = tokio::time::timeout(LISTEN_TIMEOUT, waiting).await;
        if self.swarm.listeners().next().is_none() {
            return Err(StartError::NoListener(problems.join("; ")));
        }
        Ok(())
    }

    /// Plans to dial peers that the configuration names, and keeps them connected.
    pub(crate) fn bootstrap(&mut self, addresses: Vec<Multiaddr>) {
        for address in addresses {
            let (address, peer) = split_address(address);
            match peer {
                Some(peer) => self.bootstrap_peer(peer, address),
                None => warn!(%address, "a bootstrap peer needs /p2p/<PeerId> at its end"),
            }
        }
    }

    fn bootstrap_peer(&mut self, peer: PeerId, address: Multiaddr) {
        self.book.configure(peer, address);
        self.book.alive(peer, Instant::now());
    }

    pub(super) fn on_listener(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } if is_relayed(&address) => {
                info!(%address, "reachable through a relay");
                self.on_relayed_address(&address);
                self.addresses_changed();
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                self.network_changed();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                info!(%address, "no longer listening");
                self.network_changed();
            }
            SwarmEvent::ListenerClosed { addresses, reason, listener_id } => {
                if addresses.iter().any(|address| !is_relayed(address)) {
                    warn!(?addresses, ?reason, "a listener closed");
                }
                self.on_place_lost(listener_id, &reason);
                self.addresses_changed();
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener has a problem"),
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_confirmed(&address),
            SwarmEvent::ExternalAddrExpired { address } => self.on_expired(&address),
            other => trace!(?other, "a swarm event that needs nothing"),
        }
    }

    /// A network came back, or another one: whoever was out of reach may be there, and what we knew
    /// of our own reachability counts no more.
    fn network_changed(&mut self) {
        let now = Instant::now();
        self.book.network_changed(now);
        self.reach.network_changed(now);
        self.addresses_changed();
    }
}

/// The listener that works now, or never will.
fn settled(event: &SwarmEvent<BehaviourEvent>) -> Option<ListenerId> {
    match event {
        SwarmEvent::NewListenAddr { listener_id, .. }
        | SwarmEvent::ListenerClosed { listener_id, .. }
        | SwarmEvent::ListenerError { listener_id, .. } => Some(*listener_id),
        _ => None,
    }
}
