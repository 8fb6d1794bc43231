//! Keeps a behaviour to the addresses that concern it: what it hears of ours, what it has dialed.

use std::{
    collections::HashSet,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, ExternalAddrExpired, FromSwarm,
        NetworkBehaviour, NewExternalAddrCandidate, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, behaviour::ExternalAddrConfirmed,
    },
};

/// Addresses at which we may be that one behaviour hears of. Each peer tells us one for each of its
/// connections, and a liar another one every time; the honest ones agree.
const MAX_CANDIDATES: usize = 256;

/// Whether an address concerns a behaviour.
type Admits = Box<dyn Fn(&Multiaddr) -> bool + Send>;

/// On which connection an event of a behaviour saw us.
type ObservedOn<B> = fn(&<B as NetworkBehaviour>::ToSwarm) -> Option<ConnectionId>;

/// A behaviour, and what it may hear and do.
pub(crate) struct Scoped<B: NetworkBehaviour> {
    inner: B,
    admits: Admits,
    /// Dials that the behaviour started and that are not made yet.
    dials: HashSet<ConnectionId>,
    /// Dials that the behaviour started and that are neither connected nor failed, and the most of
    /// them.
    under_way: HashSet<ConnectionId>,
    most_under_way: usize,
    candidates: HashSet<Multiaddr>,
    tests_listeners: bool,
    trusts_listeners: bool,
    observed_on: Option<ObservedOn<B>>,
    hides_relayed: bool,
    /// Connections through relays.
    relayed: HashSet<ConnectionId>,
    /// Whether the candidates that come now were seen through a relay.
    is_deceived: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("an address that is out of bounds")]
struct OutOfBounds;

impl<B: NetworkBehaviour> Scoped<B> {
    /// The behaviour hears of our addresses, and has dialed those of others, only if admitted.
    pub(crate) fn new(inner: B, admits: impl Fn(&Multiaddr) -> bool + Send + 'static) -> Self {
        Self {
            inner,
            admits: Box::new(admits),
            dials: HashSet::new(),
            under_way: HashSet::new(),
            most_under_way: usize::MAX,
            candidates: HashSet::new(),
            tests_listeners: false,
            trusts_listeners: false,
            observed_on: None,
            hides_relayed: false,
            relayed: HashSet::new(),
            is_deceived: false,
        }
    }

    /// Takes the addresses that we listen on for addresses at which others may reach us.
    pub(crate) fn testing_listeners(mut self) -> Self {
        self.tests_listeners = true;
        self
    }

    /// Takes the addresses that we listen on for confirmed: on a LAN they are, and nobody there
    /// would confirm them.
    pub(crate) fn trusting_listeners(mut self) -> Self {
        self.trusts_listeners = true;
        self
    }

    /// Drops what the behaviour takes for addresses of ours when they were seen through a relay:
    /// those are the relay's. `observed_on` says on which connection an event saw us.
    pub(crate) fn distrusting_relays(mut self, observed_on: ObservedOn<B>) -> Self {
        self.observed_on = Some(observed_on);
        self
    }

    /// The behaviour hears of no connection through a relay: libp2p's relay server has no handler
    /// there, and sends it events all the same, at which the connection panics.
    pub(crate) fn hiding_relayed_connections(mut self) -> Self {
        self.hides_relayed = true;
        self
    }

    /// Of dials that the behaviour starts while so many are under way, it hears that they failed.
    pub(crate) fn dialing_at_once(mut self, most: usize) -> Self {
        self.most_under_way = most;
        self
    }

    /// Whether an address concerns the behaviour.
    pub(crate) fn admits(&self, address: &Multiaddr) -> bool {
        (self.admits)(address)
    }

    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Tells the behaviour of an address at which we may be.
    pub(crate) fn propose(&mut self, address: &Multiaddr) {
        let is_known = self.candidates.contains(address);
        if !(self.admits)(address) || (!is_known && self.candidates.len() >= MAX_CANDIDATES) {
            return;
        }
        self.candidates.insert(address.clone());
        let candidate = NewExternalAddrCandidate { addr: address };
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }

    /// Whether the behaviour is to hear of this.
    fn concerns(&self, event: &FromSwarm<'_>) -> bool {
        match event {
            FromSwarm::NewListenAddr(event) => (self.admits)(event.addr),
            FromSwarm::ExpiredListenAddr(event) => (self.admits)(event.addr),
            FromSwarm::ExternalAddrConfirmed(event) => (self.admits)(event.addr),
            FromSwarm::ExternalAddrExpired(event) => (self.admits)(event.addr),
            FromSwarm::NewExternalAddrOfPeer(event) => (self.admits)(event.addr),
            FromSwarm::ConnectionEstablished(event) => {
                !(self.hides_relayed && event.endpoint.is_relayed())
            }
            FromSwarm::ConnectionClosed(event) => {
                !(self.hides_relayed && event.endpoint.is_relayed())
            }
            _ => true,
        }
    }

    /// Makes of an address that we listen on, or no longer do, what the behaviour is to see in it.
    fn on_listener(&mut self, event: &FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(listening) => {
                if self.tests_listeners {
                    self.propose(listening.addr);
                }
                if self.trusts_listeners {
                    let confirmed = ExternalAddrConfirmed { addr: listening.addr };
                    self.inner.on_swarm_event(FromSwarm::ExternalAddrConfirmed(confirmed));
                }
            }
            FromSwarm::ExpiredListenAddr(listening) if self.trusts_listeners => {
                let expired = ExternalAddrExpired { addr: listening.addr };
                self.inner.on_swarm_event(FromSwarm::ExternalAddrExpired(expired));
            }
            _ => {}
        }
    }

    fn note_connection(&mut self, event: &FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.under_way.remove(&event.connection_id);
                if event.endpoint.is_relayed() {
                    self.relayed.insert(event.connection_id);
                }
            }
            FromSwarm::ConnectionClosed(event) => {
                self.relayed.remove(&event.connection_id);
            }
            FromSwarm::DialFailure(event) => {
                self.dials.remove(&event.connection_id);
                self.under_way.remove(&event.connection_id);
            }
            _ => {}
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Scoped<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let is_ours = self.dials.remove(&connection);
        if is_ours && !addresses.iter().all(|address| (self.admits)(address)) {
            return Err(ConnectionDenied::new(OutOfBounds));
        }
        let known =
            self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        Ok(known.into_iter().filter(|address| (self.admits)(address)).collect())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.note_connection(&event);
        if let FromSwarm::NewExternalAddrCandidate(candidate) = event {
            self.propose(candidate.addr);
        } else if self.concerns(&event) {
            self.inner.on_swarm_event(event);
            self.on_listener(&event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let Poll::Ready(action) = self.inner.poll(cx) else { return Poll::Pending };
            match &action {
                ToSwarm::Dial { opts } => {
                    let connection_id = opts.connection_id();
                    if self.under_way.len() >= self.most_under_way {
                        let (peer_id, error) = (opts.get_peer_id(), &DialError::Aborted);
                        let failure = DialFailure { peer_id, error, connection_id };
                        self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                        continue;
                    }
                    self.dials.insert(connection_id);
                    self.under_way.insert(connection_id);
                }
                ToSwarm::GenerateEvent(event) => {
                    if let Some(connection) = self.observed_on.and_then(|on| on(event)) {
                        self.is_deceived = self.relayed.contains(&connection);
                    }
                }
                ToSwarm::NewExternalAddrCandidate(_) if self.is_deceived => continue,
                _ => {}
            }
            return Poll::Ready(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Waker};

    use libp2p::swarm::{dial_opts::DialOpts, dummy};

    use super::*;

    /// Dials so often, and counts what fails.
    struct Dialing {
        left: usize,
        failed: usize,
    }

    impl NetworkBehaviour for Dialing {
        type ConnectionHandler = dummy::ConnectionHandler;
        type ToSwarm = Infallible;

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
            self.failed += usize::from(matches!(event, FromSwarm::DialFailure(_)));
        }

        fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
            match never {}
        }

        fn poll(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
            if self.left == 0 {
                return Poll::Pending;
            }
            self.left -= 1;
            let address = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
            Poll::Ready(ToSwarm::Dial {
                opts: DialOpts::unknown_peer_id().address(address).build(),
            })
        }
    }

    #[test]
    fn what_dials_too_much_at_once_hears_that_it_failed() {
        let dialing = Dialing { left: 3, failed: 0 };
        let mut scoped = Scoped::new(dialing, |_| true).dialing_at_once(2);
        let mut cx = Context::from_waker(Waker::noop());
        let mut begun = Vec::new();
        while let Poll::Ready(ToSwarm::Dial { opts }) = scoped.poll(&mut cx) {
            begun.push(opts.connection_id());
        }
        assert_eq!((begun.len(), scoped.inner.failed), (2, 1));
        scoped.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: None,
            error: &DialError::Aborted,
            connection_id: begun[0],
        }));
        scoped.inner.left = 2;
        assert!(scoped.poll(&mut cx).is_ready());
        assert!(scoped.poll(&mut cx).is_pending());
        assert_eq!(scoped.inner.failed, 3);
    }
}
