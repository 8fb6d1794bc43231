//! Opens the stream of gossip on every connection at once.
//!
//! gossipsub's handler opens its stream when it finds something to send, and is told of that through
//! its stream only. On a connection that had nothing to send when it began, such as a better one
//! beside an older one, the first frame would wait until a ping happens to wake the handler.

use std::{
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

/// A behaviour whose handlers open their streams at once.
pub(crate) struct Prompt<B>(pub(super) B);

impl<B> Deref for Prompt<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B> DerefMut for Prompt<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0
    }
}

impl<B> NetworkBehaviour for Prompt<B>
where
    B: NetworkBehaviour,
    B::ConnectionHandler: OneProtocol,
{
    type ConnectionHandler = PromptHandler<B::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.0.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_inbound_connection(connection, peer, local, remote)
            .map(PromptHandler::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.0.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_outbound_connection(connection, peer, address, role, port)
            .map(PromptHandler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}

/// A handler that speaks one protocol in both directions.
pub(crate) trait OneProtocol: ConnectionHandler<OutboundOpenInfo = ()> {
    /// The protocol of its outbound streams, unless it gave up on the peer.
    fn outbound(&self) -> Option<SubstreamProtocol<Self::OutboundProtocol>>;
}

impl<H, P, D> OneProtocol for H
where
    H: ConnectionHandler<
            InboundProtocol = either::Either<P, D>,
            OutboundProtocol = P,
            OutboundOpenInfo = (),
        >,
{
    fn outbound(&self) -> Option<SubstreamProtocol<P>> {
        let (protocol, _) = self.listen_protocol().into_upgrade();
        protocol.left().map(|protocol| SubstreamProtocol::new(protocol, ()))
    }
}

/// One connection's part.
#[derive(Debug)]
pub(crate) struct PromptHandler<H> {
    inner: H,
    opening: Opening,
}

/// What has become of the first stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nobody has asked for it.
    Due,
    /// We asked, of which the handler does not know: it gets that stream should it ask as well.
    Ours,
    /// The handler asked, or got ours.
    Done,
}

impl<H> PromptHandler<H> {
    fn new(inner: H) -> Self {
        Self { inner, opening: Opening::Due }
    }
}

impl<H: OneProtocol> ConnectionHandler for PromptHandler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        loop {
            let polled = self.inner.poll(cx);
            let asks = matches!(
                polled,
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. })
            );
            match self.opening {
                Opening::Ours if asks => continue,
                Opening::Due if asks => self.opening = Opening::Done,
                Opening::Due if polled.is_pending() => {
                    let Some(protocol) = self.inner.outbound() else { return Poll::Pending };
                    self.opening = Opening::Ours;
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                        protocol,
                    });
                }
                Opening::Due | Opening::Ours | Opening::Done => {}
            }
            return polled;
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            (),
        >,
    ) {
        if event.is_outbound() {
            self.opening = Opening::Done;
        }
        self.inner.on_connection_event(event);
    }
}
