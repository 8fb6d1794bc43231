//! Which addresses mean what: from where they can be reached, and so whether they may be dialed,
//! told, or believed in the network that this node belongs to.

use std::net::{Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::config::Switch;

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From everywhere.
    Global,
    /// From the same site: RFC 1918, RFC 6598, IPv4 link-local, unique local.
    Private,
    /// From this machine.
    Loopback,
    /// A name: only asking a DNS server tells.
    Name,
    /// From nowhere, or only with more than the address says.
    Useless,
}

/// The network that this node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The internet, and whatever LAN the node is on.
    Public,
    /// Those who share a secret, on private addresses. D15.
    Private,
}

/// What the network makes of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) network: Network,
    /// Whether this machine is part of the network, or all of it.
    pub(crate) loopback: Switch,
}

/// From where an address can be reached; of a relayed one, its relay.
pub(crate) fn kind(address: &Multiaddr) -> Kind {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => kind_of_v4(ip),
        Some(Protocol::Ip6(ip)) => kind_of_v6(ip),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            Kind::Name
        }
        _ => Kind::Useless,
    }
}

fn kind_of_v4(ip: Ipv4Addr) -> Kind {
    let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0b1100_0000 == 64;
    if ip.is_loopback() {
        Kind::Loopback
    } else if ip.octets()[0] == 0 || ip.octets()[0] >= 224 {
        Kind::Useless
    } else if ip.is_private() || ip.is_link_local() || is_shared {
        Kind::Private
    } else {
        Kind::Global
    }
}

fn kind_of_v6(ip: Ipv6Addr) -> Kind {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return kind_of_v4(v4);
    }
    if ip.is_loopback() {
        Kind::Loopback
    } else if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
        // Link-local needs a zone, which differs from machine to machine.
        Kind::Useless
    } else if ip.is_unique_local() {
        Kind::Private
    } else {
        Kind::Global
    }
}

/// Whether an address goes through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

impl Scope {
    /// Whether the address may be dialed. Names pass: what they lead to is judged again.
    pub(crate) fn may_dial(self, address: &Multiaddr) -> bool {
        match kind(address) {
            Kind::Global => self.network == Network::Public,
            Kind::Private | Kind::Name => true,
            Kind::Loopback => self.loopback.is_on(),
            Kind::Useless => false,
        }
    }

    /// Whether an address of ours may be told, and connections on it taken. In the public network
    /// everything may: whoever hears it judges by itself.
    pub(crate) fn may_serve(self, address: &Multiaddr) -> bool {
        self.network == Network::Public || kind(address) != Kind::Global
    }

    /// Whether a peer may tell us the address. A name would make us ask a DNS server of its choice.
    pub(crate) fn is_believable(self, address: &Multiaddr) -> bool {
        kind(address) != Kind::Name && self.may_dial(address)
    }

    /// Whether every node of the network can dial the address, if nothing stands in the way.
    pub(crate) fn is_wide(self, address: &Multiaddr) -> bool {
        match (self.network, kind(address)) {
            (Network::Public, Kind::Global) | (Network::Private, Kind::Private) => true,
            (_, Kind::Name) => true,
            (_, Kind::Loopback) => self.loopback.is_on(),
            (Network::Public, Kind::Private) | (Network::Private, Kind::Global) => false,
            (_, Kind::Useless) => false,
        }
    }

    /// Whether the address belongs to the DHT of the LAN.
    pub(crate) fn is_local(self, address: &Multiaddr) -> bool {
        match kind(address) {
            Kind::Private => true,
            Kind::Loopback => self.loopback.is_on(),
            Kind::Global | Kind::Name | Kind::Useless => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_kind() {
        let check =
            |text: &str, expected: Kind| assert_eq!(kind(&address(text)), expected, "{text}");
        check("/ip4/8.8.8.8/tcp/1", Kind::Global);
        check("/ip4/203.0.113.7/udp/1/quic-v1", Kind::Global);
        check("/ip6/2001:db8::1/tcp/1", Kind::Global);
        check("/ip4/192.168.1.7/tcp/4001", Kind::Private);
        check("/ip4/10.0.0.1/tcp/1", Kind::Private);
        check("/ip4/172.31.0.1/tcp/1", Kind::Private);
        check("/ip4/100.64.0.1/tcp/1", Kind::Private);
        check("/ip4/169.254.0.1/tcp/1", Kind::Private);
        check("/ip6/fd00::7/udp/4001/quic-v1", Kind::Private);
        check("/ip4/127.0.0.1/tcp/4001", Kind::Loopback);
        check("/ip6/::1/tcp/4001", Kind::Loopback);
        check("/ip6/::ffff:10.0.0.1/tcp/1", Kind::Private);
        check("/dns4/example.org/tcp/4001", Kind::Name);
        check("/dnsaddr/example.org", Kind::Name);
        check("/ip4/0.0.0.0/tcp/4001", Kind::Useless);
        check("/ip4/224.0.0.251/udp/5353", Kind::Useless);
        check("/ip4/255.255.255.255/udp/1", Kind::Useless);
        check("/ip6/fe80::1/tcp/4001", Kind::Useless);
        check("/memory/1", Kind::Useless);
    }

    #[test]
    fn a_private_network_keeps_to_private_addresses() {
        let scope = Scope { network: Network::Private, loopback: Switch::Off };
        let global = address("/ip4/8.8.8.8/tcp/1");
        let private = address("/ip4/10.0.0.1/tcp/1");
        assert!(!scope.may_dial(&global) && !scope.may_serve(&global) && !scope.is_wide(&global));
        assert!(scope.may_dial(&private) && scope.may_serve(&private) && scope.is_wide(&private));
        assert!(!scope.may_dial(&address("/ip4/127.0.0.1/tcp/1")));
    }

    #[test]
    fn the_public_network_tells_everybody_global_addresses_only() {
        let scope = Scope { network: Network::Public, loopback: Switch::Off };
        assert!(scope.is_wide(&address("/ip4/8.8.8.8/tcp/1")));
        assert!(!scope.is_wide(&address("/ip4/10.0.0.1/tcp/1")));
        assert!(!scope.is_wide(&address("/ip4/127.0.0.1/tcp/1")));
        assert!(!scope.is_believable(&address("/dns4/example.org/tcp/1")));
        assert!(scope.is_local(&address("/ip4/10.0.0.1/tcp/1")));
        assert!(!scope.is_local(&address("/ip4/8.8.8.8/tcp/1")));
        let tests = Scope { loopback: Switch::On, ..scope };
        assert!(tests.is_wide(&address("/ip4/127.0.0.1/tcp/1")));
    }
}
