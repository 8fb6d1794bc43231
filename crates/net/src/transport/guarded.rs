//! Keeps a transport within its network: the last place that every address passes.

use std::{
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

use crate::scope::Scope;

/// Dials, tells and takes only what the scope allows.
pub(super) struct Guarded<T> {
    inner: T,
    scope: Scope,
}

impl<T> Guarded<T> {
    pub(super) fn new(inner: T, scope: Scope) -> Self {
        Self { inner, scope }
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
        if self.scope.may_dial(&address) {
            self.inner.dial(address, options)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        let this = self.get_mut();
        loop {
            let event = ready!(Pin::new(&mut this.inner).poll(cx));
            let is_ours = match &event {
                TransportEvent::NewAddress { listen_addr, .. }
                | TransportEvent::AddressExpired { listen_addr, .. } => {
                    this.scope.may_serve(listen_addr)
                }
                TransportEvent::Incoming { send_back_addr, .. } => {
                    this.scope.may_serve(send_back_addr)
                }
                TransportEvent::ListenerClosed { .. } | TransportEvent::ListenerError { .. } => true,
            };
            if is_ours {
                return Poll::Ready(event);
            }
        }
    }
}
