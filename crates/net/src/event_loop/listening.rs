//! Our own addresses.

use std::collections::HashSet;

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::SwarmEvent};
use tokio::time::{Duration, Instant};
use tracing::{info, trace, warn};

use super::EventLoop;
use crate::{behaviour::BehaviourEvent, book::split_address, config::StartError};

/// How long the listeners may take to say that they listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

impl EventLoop {
    /// Listens on all addresses that can be listened on; one is enough, since a machine may lack
    /// IPv6.
    ///
    /// # Errors
    /// None of them can.
    pub(crate) async fn listen(&mut self, addresses: Vec<Multiaddr>) -> Result<(), StartError> {
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
        self.book.add_addresses(peer, [address]);
        self.book.want(peer);
        self.book.alive(peer, Instant::now());
    }

    pub(super) fn on_listener(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                // A network came back, or another one: whoever was out of reach may be there.
                self.book.network_changed(Instant::now());
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                info!(%address, "no longer listening");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                warn!(?addresses, ?reason, "a listener closed");
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener has a problem"),
            // Addresses that others saw us at do not matter on a LAN.
            other => trace!(?other, "a swarm event that needs nothing"),
        }
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
