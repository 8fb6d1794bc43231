//! Which addresses are worth remembering.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::config::Switch;

/// Whether an address that a peer told can lead to it. A peer names all it listens on, its loopback
/// address too, which here would lead to ourselves; a name would make us ask a DNS server of its
/// choice.
pub(super) fn is_usable(address: &Multiaddr, loopback: Switch) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => {
            !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_broadcast()
                && (loopback.is_on() || !ip.is_loopback())
        }
        Some(Protocol::Ip6(ip)) => {
            !ip.is_unspecified()
                && !ip.is_multicast()
                // It needs a zone, which a peer cannot know for us.
                && !ip.is_unicast_link_local()
                && (loopback.is_on() || !ip.is_loopback())
        }
        _ => false,
    }
}

/// Whether an address goes through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_lead_somewhere_are_usable() {
        let check = |text: &str, on_lan: bool, in_tests: bool| {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(is_usable(&address, Switch::Off), on_lan, "{text}");
            assert_eq!(is_usable(&address, Switch::On), in_tests, "{text}");
        };
        check("/ip4/192.168.1.7/tcp/4001", true, true);
        check("/ip6/fd00::7/udp/4001/quic-v1", true, true);
        check("/ip4/127.0.0.1/tcp/4001", false, true);
        check("/ip6/::1/tcp/4001", false, true);
        check("/ip4/0.0.0.0/tcp/4001", false, false);
        check("/ip4/224.0.0.251/udp/5353", false, false);
        check("/ip6/fe80::1/tcp/4001", false, false);
        check("/dns4/example.org/tcp/4001", false, false);
    }

    #[test]
    fn the_peer_at_the_end_is_split_off() {
        let peer = PeerId::random();
        let bare: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let full = bare.clone().with(Protocol::P2p(peer));
        assert_eq!(split(full), (bare.clone(), Some(peer)));
        assert_eq!(split(bare.clone()), (bare, None));
    }
}
