//! Addresses and the PeerIds at their ends.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// The address without the PeerId at its end.
pub(super) fn without_peer(address: Multiaddr) -> Multiaddr {
    split(address).0
}

/// The address and the PeerId at its end.
pub(crate) fn split(mut address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match address.pop() {
        Some(Protocol::P2p(peer)) => (address, Some(peer)),
        Some(other) => (address.with(other), None),
        None => (address, None),
    }
}

/// The relay that an address goes through.
pub(crate) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut last = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => last = Some(peer),
            Protocol::P2pCircuit => return last,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_at_the_end_is_split_off() {
        let peer = PeerId::random();
        let bare: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let full = bare.clone().with(Protocol::P2p(peer));
        assert_eq!(split(full), (bare.clone(), Some(peer)));
        assert_eq!(split(bare.clone()), (bare, None));
    }

    #[test]
    fn a_relayed_address_names_its_relay() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let to_relay: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let relayed = to_relay.clone().with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        assert_eq!(relay_of(&relayed), Some(relay));
        assert_eq!(relay_of(&relayed.with(Protocol::P2p(peer))), Some(relay));
        assert_eq!(relay_of(&to_relay.with(Protocol::P2p(peer))), None);
    }
}
