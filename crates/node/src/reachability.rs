//! How others reach this node, for `messagehub status`.

use messagehub_homeserver::peers::{self, NatFacts, RelayStatus};
use serde::{Deserialize, Serialize};

/// How others reach this node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reachability {
    /// `unknown`, `public`, `mapped`, `relayed` or `unreachable`.
    pub(crate) kind: String,
    /// Multiaddresses at which others reach us, those through relays included.
    pub(crate) addresses: Vec<String>,
    /// The relays that keep a place for us.
    pub(crate) relays: Vec<Relay>,
    /// Multiaddresses at which others saw us though we do not listen there: a NAT is before us.
    pub(crate) observed: Vec<String>,
    /// Direct connections that replaced relayed ones since the start.
    pub(crate) upgrades: u64,
    /// Attempts at that which failed.
    pub(crate) upgrades_failed: u64,
}

/// A relay that keeps a place for us.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// Its PeerId.
    pub(crate) peer_id: String,
    /// The server it speaks for, if it speaks for one.
    pub(crate) server_name: Option<String>,
}

/// What the transport says, as it is shown.
pub(crate) fn of(reachability: peers::Reachability, nat: NatFacts) -> Reachability {
    let (kind, addresses, relays) = match reachability {
        peers::Reachability::Unknown => ("unknown", vec![], vec![]),
        peers::Reachability::Public { addresses } => ("public", addresses, vec![]),
        peers::Reachability::Mapped { addresses, .. } => ("mapped", addresses, vec![]),
        peers::Reachability::Private { relays } if relays.is_empty() => {
            ("unreachable", vec![], vec![])
        }
        peers::Reachability::Private { relays } => {
            ("relayed", relays.iter().map(|relay| relay.address.clone()).collect(), relays)
        }
    };
    Reachability {
        kind: kind.to_owned(),
        addresses,
        relays: relays.into_iter().map(Relay::from).collect(),
        observed: nat.observed,
        upgrades: nat.upgrades,
        upgrades_failed: nat.upgrades_failed,
    }
}

impl From<RelayStatus> for Relay {
    fn from(relay: RelayStatus) -> Self {
        let server_name = relay.server.map(|server| server.to_string());
        Self { peer_id: relay.peer_id, server_name }
    }
}

impl Reachability {
    /// Lines for people.
    pub(crate) fn human(&self) -> Vec<String> {
        let words = match self.kind.as_str() {
            "public" => "public: others can dial this node",
            "mapped" => "mapped: others can dial this node, since the router forwards a port",
            "relayed" => "relayed: behind a NAT or firewall, reached through a relay",
            "unreachable" => "behind a NAT or firewall, and no relay keeps a place for it",
            _ => "not known beyond the local network",
        };
        let mut lines = vec![format!("reachable    {words}")];
        lines.extend(self.addresses.iter().map(|address| format!("  at         {address}")));
        for relay in &self.relays {
            let server = relay.server_name.as_deref().unwrap_or("speaks for no server");
            lines.push(format!("  relay      {} ({server})", relay.peer_id));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_a_nat_reads_by_whom_it_is_relayed() {
        let relay = RelayStatus {
            peer_id: "12D3Koo".to_owned(),
            server: None,
            address: "/ip4/203.0.113.7/tcp/1/p2p/12D3Koo/p2p-circuit".to_owned(),
        };
        let relays = vec![relay];
        let shown = of(peers::Reachability::Private { relays }, NatFacts::default());
        assert_eq!(shown.kind, "relayed");
        let text = shown.human().join("\n");
        assert!(text.contains("behind a NAT") && text.contains("relay      12D3Koo"), "{text}");
        let alone = of(peers::Reachability::Private { relays: vec![] }, NatFacts::default());
        assert_eq!(alone.kind, "unreachable");
    }
}
