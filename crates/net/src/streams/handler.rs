//! One connection's part: negotiates streams, up to the limits.

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    InboundStream, OPEN_TIMEOUT, OpenError, PROTOCOL, PeerStream, Reply, StreamLimits, live::Live,
};
use crate::metrics::StreamMetrics;

/// What the behaviour asks of a connection: a stream for this reply.
#[derive(Debug)]
pub(crate) struct Open(pub(super) Reply);

/// Negotiates the streams of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(super) peer: PeerId,
    pub(super) limits: StreamLimits,
    pub(super) inbound: mpsc::Sender<InboundStream>,
    pub(super) metrics: StreamMetrics,
    /// Opens that wait for a free place, oldest first.
    pub(super) pending: VecDeque<Reply>,
    pub(super) negotiating: usize,
    pub(super) live_inbound: Live,
    pub(super) live_outbound: Live,
}

impl Handler {
    /// Takes an inbound stream, or resets it: dropping a stream that was not closed resets it, so
    /// that the peer learns at once and does not wait for an answer.
    fn take_inbound(&self, stream: Stream) {
        if self.live_inbound.count() >= self.limits.inbound_per_connection {
            debug!(peer = %self.peer, "resetting a stream: this connection has too many");
            self.metrics.overflowed.inc();
            return;
        }
        let stream = PeerStream { stream, _counted: self.live_inbound.enter() };
        match self.inbound.try_send(InboundStream { peer: self.peer, stream }) {
            Ok(()) => {
                self.metrics.inbound.inc();
            }
            Err(_) => {
                debug!(peer = %self.peer, "resetting a stream: the queue is full");
                self.metrics.overflowed.inc();
            }
        }
    }

    fn opened(&mut self, stream: Stream, reply: Reply) {
        self.negotiating = self.negotiating.saturating_sub(1);
        let stream = PeerStream { stream, _counted: self.live_outbound.enter() };
        if reply.send(Ok(stream)).is_ok() {
            self.metrics.outbound.inc();
        }
    }

    fn failed(&mut self, reply: Reply, error: StreamUpgradeError<Infallible>) {
        self.negotiating = self.negotiating.saturating_sub(1);
        self.metrics.failed.inc();
        let why = match error {
            StreamUpgradeError::Timeout => OpenError::TimedOut,
            StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
            StreamUpgradeError::Io(_) => OpenError::Closed,
            StreamUpgradeError::Apply(never) => match never {},
        };
        // Whoever asked may have given up; then nobody needs the reason.
        let _ = reply.send(Err(why));
    }

    fn may_open(&self) -> bool {
        self.negotiating < self.limits.parallel_opens
            && self.negotiating + self.live_outbound.count() < self.limits.outbound_per_connection
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Infallible>> {
        self.live_outbound.wake(cx.waker());
        while self.may_open() {
            let Some(reply) = self.pending.pop_front() else { break };
            if reply.is_closed() {
                continue;
            }
            self.negotiating += 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), reply)
                .with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open(reply): Open) {
        if self.pending.len() >= self.limits.pending_opens {
            self.metrics.failed.inc();
            // Whoever asked may have given up; then nobody needs the reason.
            let _ = reply.send(Err(OpenError::Busy));
            return;
        }
        self.pending.push_back(reply);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => {
                self.take_inbound(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => self.opened(protocol, info),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.failed(info, error);
            }
            // Address and protocol changes do not concern us, and an inbound upgrade that does
            // nothing cannot fail.
            _ => {}
        }
    }
}
