//! Keeps a transport within its network: the last place that every address passes.

use std::{
    collections::HashSet,
    pin::Pin,
    task::{Context, Poll, ready},
};

use libp2p::{
    Multiaddr,
    core::{
        Transport,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

use crate::{book::split_address, scope::Scope};

/// Dials, tells and takes only what the scope allows, and never dials ourselves: many homes use the
/// same private addresses, and the wrong peer at one address of a peer would end the dial to all
/// its others.
pub(super) struct Guarded<T> {
    inner: T,
    scope: Scope,
    listening: HashSet<Multiaddr>,
}

impl<T> Guarded<T> {
    pub(super) fn new(inner: T, scope: Scope) -> Self {
        Self { inner, scope, listening: HashSet::new() }
    }
}

impl<T: Transport + Unpin> Transport for Guarded<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<T::Dial, TransportError<T::Error>> {
        let (place, _) = split_address(address.clone());
        if self.listening.contains(&place) || !self.scope.may_dial(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        let this = self.get_mut();
        loop {
            let event = ready!(Pin::new(&mut this.inner).poll(cx));
            match &event {
                TransportEvent::NewAddress { listen_addr, .. } => {
                    this.listening.insert(listen_addr.clone());
                }
                TransportEvent::AddressExpired { listen_addr, .. } => {
                    this.listening.remove(listen_addr);
                }
                _ => {}
            }
            let is_ours = match &event {
                TransportEvent::NewAddress { listen_addr, .. }
                | TransportEvent::AddressExpired { listen_addr, .. } => {
                    this.scope.may_serve(listen_addr)
                }
                TransportEvent::Incoming { send_back_addr, .. } => {
                    this.scope.may_serve(send_back_addr)
                }
                TransportEvent::ListenerClosed { .. } | TransportEvent::ListenerError { .. } => {
                    true
                }
            };
            if is_ours {
                return Poll::Ready(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use libp2p::{
        PeerId,
        core::{Endpoint, transport::PortUse},
        multiaddr::Protocol,
        tcp,
    };

    use super::*;
    use crate::{config::Switch, scope::Network};

    #[tokio::test]
    async fn what_we_listen_on_is_never_dialed() {
        let scope = Scope { network: Network::Public, loopback: Switch::On };
        let mut guarded = Guarded::new(tcp::tokio::Transport::default(), scope);
        guarded.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let event = poll_fn(|cx| Pin::new(&mut guarded).poll(cx)).await;
        let TransportEvent::NewAddress { listen_addr: ours, .. } = event else {
            panic!("{event:?}")
        };
        let mut dial = |address: Multiaddr| {
            let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
            guarded.dial(address.with(Protocol::P2p(PeerId::random())), options).is_ok()
        };
        assert!(!dial(ours));
        assert!(dial("/ip4/127.0.0.1/tcp/1".parse().unwrap()));
    }
}
