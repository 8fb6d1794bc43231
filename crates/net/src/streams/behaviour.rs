//! The swarm's part: knows the connections of each peer and picks one for each open.

use std::{
    collections::HashMap,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        AddressChange, ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm,
        ListenFailure, NetworkBehaviour, NotifyHandler, ToSwarm, behaviour::ConnectionEstablished,
    },
};
use tokio::sync::mpsc;

use super::{
    InboundStream, OpenError, OpenRequest, Opener, StreamLimits,
    handler::{Handler, Open},
    live::Live,
};
use crate::metrics::StreamMetrics;

/// Opens that wait for the behaviour to be polled; a caller beyond that waits for its turn.
const OPEN_QUEUE: usize = 64;

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Relayed,
    Direct,
}

impl From<bool> for Path {
    fn from(is_relayed: bool) -> Self {
        if is_relayed { Self::Relayed } else { Self::Direct }
    }
}

/// Distributes opens over connections.
#[derive(Debug)]
pub(crate) struct Behaviour {
    limits: StreamLimits,
    metrics: StreamMetrics,
    opens: mpsc::Receiver<OpenRequest>,
    inbound: mpsc::Sender<InboundStream>,
    /// Each connected peer's connections, oldest first.
    pub(super) connections: HashMap<PeerId, Vec<(ConnectionId, Path)>>,
    /// The streams of each connection, inbound and outbound.
    streams: HashMap<ConnectionId, [Live; 2]>,
}

impl Behaviour {
    /// The behaviour, what opens streams through it, and the streams that peers open.
    pub(crate) fn new(
        limits: StreamLimits,
        metrics: StreamMetrics,
    ) -> (Self, Opener, mpsc::Receiver<InboundStream>) {
        let (requests, opens) = mpsc::channel(OPEN_QUEUE);
        let (inbound, streams) = mpsc::channel(limits.inbound_queue);
        let (connections, live) = (HashMap::new(), HashMap::new());
        let behaviour = Self { limits, metrics, opens, inbound, connections, streams: live };
        (behaviour, Opener { requests }, streams)
    }

    /// Whether streams of ours, or of the peer, live on a connection.
    pub(crate) fn is_busy(&self, connection: ConnectionId) -> bool {
        let streams = self.streams.get(&connection).into_iter().flatten();
        streams.map(Live::count).sum::<usize>() > 0
    }

    /// The newest direct connection, or else the newest relayed one.
    pub(super) fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        let connections = self.connections.get(peer)?;
        let newest = |path| connections.iter().rev().find(move |(_, p)| *p == path);
        newest(Path::Direct).or_else(|| newest(Path::Relayed)).map(|(id, _)| *id)
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let [live_inbound, live_outbound] = self.streams.entry(connection).or_default().clone();
        Handler {
            peer,
            limits: self.limits,
            inbound: self.inbound.clone(),
            metrics: self.metrics.clone(),
            pending: Default::default(),
            negotiating: 0,
            live_inbound,
            live_outbound,
        }
    }

    pub(super) fn closed(&mut self, peer: PeerId, closed: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|(id, _)| *id != closed);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }

    pub(super) fn moved(&mut self, peer: PeerId, moved: ConnectionId, path: Path) {
        let connections = self.connections.get_mut(&peer).into_iter().flatten();
        for (id, old_path) in connections {
            if *id == moved {
                *old_path = path;
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let path = Path::from(endpoint.is_relayed());
                self.connections.entry(peer_id).or_default().push((connection_id, path));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.closed(peer_id, connection_id);
                self.streams.remove(&connection_id);
            }
            // Another part refused a connection that had its handler already.
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.streams.remove(&connection_id);
            }
            FromSwarm::AddressChange(AddressChange { peer_id, connection_id, new, .. }) => {
                self.moved(peer_id, connection_id, Path::from(new.is_relayed()));
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
        match never {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Open>> {
        while let Poll::Ready(Some(OpenRequest { peer, reply })) = self.opens.poll_recv(cx) {
            if let Some(connection) = self.best(&peer) {
                return Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id: peer,
                    handler: NotifyHandler::One(connection),
                    event: Open(reply),
                });
            }
            self.metrics.failed.inc();
            // Whoever asked may have given up; then nobody needs the reason.
            let _ = reply.send(Err(OpenError::NotConnected));
        }
        Poll::Pending
    }
}
