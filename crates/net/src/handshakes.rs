//! Handshakes that others began: each place gets a share of them, so that one who begins many and
//! ends none keeps nobody else out.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour,
        THandlerInEvent, ToSwarm, dummy,
    },
};

/// Handshakes under way from one place: a quarter of all that may be. A home or an office behind one
/// address starts fewer at the same moment.
const MAX_FROM_ONE_PLACE: usize = 16;

/// Counts handshakes by place. How many there may be in all is for the connection limits to say.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    pending: HashMap<ConnectionId, IpAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("too many handshakes from one place")]
struct TooMany;

/// The address, and of IPv6 the network that one home or machine is given.
fn place(remote: &Multiaddr) -> Option<IpAddr> {
    match remote.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
        _ => None,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // Through a relay the first part is the relay's PeerId: those are few, and bounded there.
        let Some(place) = place(remote) else { return Ok(()) };
        let from_there = self.pending.values().filter(|other| **other == place).count();
        if from_there >= MAX_FROM_ONE_PLACE {
            return Err(ConnectionDenied::new(TooMany));
        }
        self.pending.insert(connection, place);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.pending.remove(&connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event {
            self.pending.remove(&connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(behaviour: &mut Behaviour, number: usize, remote: &str) -> bool {
        let local = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let connection = ConnectionId::new_unchecked(number);
        behaviour
            .handle_pending_inbound_connection(connection, &local, &remote.parse().unwrap())
            .is_ok()
    }

    #[test]
    fn whoever_begins_many_keeps_nobody_else_out() {
        let mut behaviour = Behaviour::default();
        let from = |host: usize| format!("/ip6/2001:db8::{host:x}/tcp/1");
        let begun = (1..100).filter(|n| begin(&mut behaviour, *n, &from(*n))).count();
        assert_eq!(begun, MAX_FROM_ONE_PLACE);
        assert!(begin(&mut behaviour, 100, "/ip6/2001:db8:0:1::1/tcp/1"));
        assert!(begin(&mut behaviour, 101, "/ip4/198.51.100.1/tcp/1"));
        let ended = ConnectionId::new_unchecked(1);
        let address = from(1).parse().unwrap();
        let done = behaviour.handle_established_inbound_connection(
            ended,
            PeerId::random(),
            &address,
            &address,
        );
        assert!(done.is_ok());
        assert!(begin(&mut behaviour, 102, &from(102)));
        assert!(!begin(&mut behaviour, 103, &from(103)));
    }
}
