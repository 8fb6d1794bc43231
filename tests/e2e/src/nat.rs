//! Homes behind routers and an internet between them: address translation as home routers do it
//! (the terms are those of RFC 4787), made with nftables.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::namespace::{Machine, Namespace, ip};

/// The address of the one machine in each home. All homes use the same, as many in the world do.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

/// What stands between a home and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// Nothing: the machine has an address of the internet.
    None,
    /// One outer port for each inner one, open to anybody while it is used ("full cone").
    EndpointIndependent,
    /// One outer port for each inner one, open only to those who were written to from there.
    PortRestricted,
    /// Another outer port for each destination, open only to that one.
    Symmetric,
}

impl Nat {
    /// All kinds, from the easiest.
    pub const ALL: [Self; 4] =
        [Self::None, Self::EndpointIndependent, Self::PortRestricted, Self::Symmetric];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
        }
    }

    /// Whether nodes behind these two can have a direct path. Who is behind a symmetric one cannot
    /// tell beforehand from which port it will come, and the other side must know that unless it
    /// lets in anybody.
    pub fn allows_direct(self, other: Self) -> bool {
        !matches!(
            (self, other),
            (Self::Symmetric, Self::Symmetric | Self::PortRestricted)
                | (Self::PortRestricted, Self::Symmetric)
        )
    }

    /// The rules of a router, whose cards are `wan` and `lan`; nothing for none.
    fn rules(self) -> Option<String> {
        let (translation, is_open) = match self {
            Self::None => return None,
            // The kernel keeps the inner port where it can, and one machine alone never collides.
            Self::EndpointIndependent => ("masquerade", true),
            Self::PortRestricted => ("masquerade", false),
            Self::Symmetric => ("masquerade random,fully-random", false),
        };
        let open = if is_open { open_to_anybody() } else { String::new() };
        Some(format!(
            "table ip home {{
                chain outgoing {{
                    type nat hook postrouting priority srcnat;
                    oifname wan {translation}
                }}
                # What nobody inside asked for is dropped without a word. A refusal would end the
                # other side's attempt, and an entry in the connection table would make the kernel
                # choose another port for ours.
                chain own {{
                    type filter hook input priority filter;
                    iifname wan ct state new drop
                }}
                chain through {{
                    type filter hook forward priority filter;
                    iifname wan ct state new ct status & dnat == 0 drop
                }}
                {open}
            }}"
        ))
    }
}

/// Ports that the machine inside sent from are open for two minutes after the last packet.
fn open_to_anybody() -> String {
    format!(
        "set udp_ports {{ type inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
         set tcp_ports {{ type inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
         chain used {{
             type filter hook postrouting priority srcnat - 1;
             oifname wan meta l4proto udp update @udp_ports {{ udp sport }}
             oifname wan meta l4proto tcp update @tcp_ports {{ tcp sport }}
         }}
         chain incoming {{
             type nat hook prerouting priority dstnat;
             iifname wan udp dport @udp_ports dnat to {INSIDE}
             iifname wan tcp dport @tcp_ports dnat to {INSIDE}
         }}"
    )
}

/// The addresses of an internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// The first three octets of each.
    V4([u8; 3]),
    V6,
}

/// The network between homes: one bridge, on which up to 254 have an address.
pub struct Internet {
    backbone: Namespace,
    addresses: Addresses,
    used: AtomicU32,
}

/// A machine with what stands between it and the internet.
pub struct Home {
    /// The machine.
    pub machine: Machine,
    /// What stands between.
    pub nat: Nat,
    /// Its address as seen from the internet.
    pub outside: IpAddr,
    _router: Option<Namespace>,
}

impl Internet {
    /// With addresses that nodes take for public: those for documentation (RFC 5737).
    pub fn public() -> Self {
        Self::new(Addresses::V4([203, 0, 113]))
    }

    /// With private addresses, as between the buildings of a company.
    pub fn private() -> Self {
        Self::new(Addresses::V4([10, 0, 0]))
    }

    /// With IPv6 addresses for documentation (RFC 3849), which nobody translates. What stands
    /// before a home there is a firewall, which lets in what a port-restricted NAT does.
    pub fn v6() -> Self {
        Self::new(Addresses::V6)
    }

    fn new(addresses: Addresses) -> Self {
        let backbone = Namespace::new();
        backbone.bridge();
        Self { backbone, addresses, used: AtomicU32::new(0) }
    }

    /// A home with one machine.
    pub fn home(&self, nat: Nat) -> Home {
        let port = self.used.fetch_add(1, Ordering::SeqCst) + 1;
        let host = u8::try_from(port).expect("at most 254 homes");
        match self.addresses {
            Addresses::V4([a, b, c]) => self.v4_home(nat, Ipv4Addr::new(a, b, c, host), port),
            Addresses::V6 => {
                let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host));
                self.v6_home(nat, outside, port)
            }
        }
    }

    fn v4_home(&self, nat: Nat, outside: Ipv4Addr, port: u32) -> Home {
        let Some(rules) = nat.rules() else {
            let namespace = Namespace::new();
            self.backbone.plug(&namespace, "eth0", port);
            let machine = Machine::new(namespace, outside.into(), 24);
            return Home { machine, nat, outside: outside.into(), _router: None };
        };
        let router = Namespace::new();
        self.backbone.plug(&router, "wan", port);
        ip(&format!("-n {} addr add {outside}/24 dev wan", router.name()));
        let namespace = Namespace::new();
        let (inner, outer) = (namespace.name(), router.name());
        ip(&format!("-n {inner} link add eth0 type veth peer name lan netns {outer}"));
        ip(&format!("-n {inner} link set eth0 up multicast on"));
        ip(&format!("-n {outer} addr add 192.168.1.1/24 dev lan"));
        ip(&format!("-n {outer} link set lan up"));
        let machine = Machine::new(namespace, INSIDE.into(), 24);
        ip(&format!("-n {} route add default via 192.168.1.1", machine.namespace().name()));
        router.inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("a router");
        nft(&router, &rules);
        Home { machine, nat, outside: outside.into(), _router: Some(router) }
    }

    fn v6_home(&self, nat: Nat, outside: Ipv6Addr, port: u32) -> Home {
        let namespace = Namespace::new();
        self.backbone.plug(&namespace, "eth0", port);
        match nat {
            Nat::None => {}
            Nat::PortRestricted => nft(&namespace, FIREWALL),
            Nat::EndpointIndependent | Nat::Symmetric => panic!("IPv6 is not translated"),
        }
        let machine = Machine::new(namespace, outside.into(), 64);
        Home { machine, nat, outside: outside.into(), _router: None }
    }
}

/// Only answers get in, and what finds neighbors on the link.
const FIREWALL: &str = "table ip6 home {
    chain own {
        type filter hook input priority filter;
        iifname eth0 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname eth0 ct state new drop
    }
}";

/// Loads rules into a namespace.
fn nft(namespace: &Namespace, rules: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name(), "nft", "-f", "-"]);
    let mut nft = command.stdin(Stdio::piped()).spawn().expect("the command `ip`");
    let mut input = nft.stdin.take().expect("a pipe");
    input.write_all(rules.as_bytes()).expect("an open pipe");
    drop(input);
    let status = nft.wait().expect("a child of ours");
    assert!(status.success(), "`nft` is needed (Debian: apt-get install nftables), rules: {rules}");
}
