//! Whether others can dial us, and what that is known from. Plain data; the event loop acts on it.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::Multiaddr;
use messagehub_homeserver::peers::{Mapping, NatFacts, Reachability, RelayStatus};
use tokio::time::{Duration, Instant};

use crate::scope::{Scope, is_relayed};

/// How long after a change of the network it stays open whether we can be dialed. AutoNAT asks every
/// five seconds, and its first answer comes within one more.
const PATIENCE: Duration = Duration::from_secs(6);

/// Addresses at which others saw us. A symmetric NAT gives us one for each of them.
const MAX_OBSERVED: usize = 16;

/// What is known.
#[derive(Debug)]
pub(crate) struct Reach {
    scope: Scope,
    /// Addresses of ours that others can dial, relays aside.
    confirmed: BTreeSet<Multiaddr>,
    /// Those of them that a router forwards.
    mapped: BTreeSet<Multiaddr>,
    /// Addresses that we only assumed others can dial.
    assumed: BTreeSet<Multiaddr>,
    /// Where others saw us though we do not listen there, and when: a NAT is before us.
    observed: BTreeMap<Multiaddr, Instant>,
    /// Whether somebody tried to dial us and could not, and nobody could.
    is_refuted: bool,
    /// When our own network last changed.
    since: Instant,
    upgrades: u64,
    upgrades_failed: u64,
}

impl Reach {
    pub(crate) fn new(scope: Scope, now: Instant) -> Self {
        Self {
            scope,
            confirmed: BTreeSet::new(),
            mapped: BTreeSet::new(),
            assumed: BTreeSet::new(),
            observed: BTreeMap::new(),
            is_refuted: false,
            since: now,
            upgrades: 0,
            upgrades_failed: 0,
        }
    }

    /// Others can dial us there.
    pub(crate) fn confirm(&mut self, address: &Multiaddr) {
        if self.is_relevant(address) {
            self.confirmed.insert(address.clone());
        }
    }

    /// Others can no longer dial us there.
    pub(crate) fn expire(&mut self, address: &Multiaddr) {
        self.confirmed.remove(address);
        self.assumed.remove(address);
        self.mapped.remove(address);
    }

    /// A router forwards this address to us.
    pub(crate) fn map(&mut self, address: &Multiaddr) {
        self.mapped.insert(address.clone());
        self.confirm(address);
    }

    /// Somebody could dial us there.
    pub(crate) fn prove(&mut self, address: &Multiaddr) {
        self.assumed.remove(address);
        self.is_refuted = false;
    }

    /// Somebody could not dial us there. Gives `true` when we thought so.
    pub(crate) fn refute(&mut self, address: &Multiaddr) -> bool {
        let was_assumed = self.assumed.remove(address);
        if was_assumed {
            self.confirmed.remove(address);
        }
        let is_proved = self.confirmed.iter().any(|at| !self.assumed.contains(at));
        self.is_refuted = self.is_refuted || !is_proved;
        was_assumed
    }

    /// Somebody sees us at this address. When we do not listen at that IP address, a NAT is before
    /// us; gives the addresses that we only assumed others can dial, and now do so no longer.
    pub(crate) fn observe(
        &mut self,
        address: &Multiaddr,
        listening: &[Multiaddr],
        now: Instant,
    ) -> Vec<Multiaddr> {
        let ip = address.iter().next();
        let is_ours = listening.iter().any(|at| at.iter().next() == ip);
        if !self.is_relevant(address) || is_ours {
            return Vec::new();
        }
        self.observed.insert(address.clone(), now);
        while self.observed.len() > MAX_OBSERVED {
            let oldest = self.observed.iter().min_by_key(|(_, at)| **at).map(|(at, _)| at.clone());
            let Some(oldest) = oldest else { break };
            self.observed.remove(&oldest);
        }
        self.assumed.iter().cloned().collect()
    }

    /// Our own network changed: what was seen of it counts no more.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.since = now;
        self.is_refuted = false;
        self.observed.clear();
    }

    /// Addresses that we listen on and may take for reachable, since all is quiet and nothing speaks
    /// against it: a machine with a wide IPv4 address of its own and nobody who could try it. IPv6
    /// hosts all have one, mostly behind a firewall, so theirs are not assumed.
    pub(crate) fn assume(&mut self, listening: &[Multiaddr], now: Instant) -> Vec<Multiaddr> {
        let is_open = self.confirmed.is_empty() && !self.is_refuted && self.observed.is_empty();
        if !is_open || now < self.since + PATIENCE {
            return Vec::new();
        }
        let is_v4 = |at: &&Multiaddr| at.to_string().starts_with("/ip4/");
        let wide: Vec<Multiaddr> =
            listening.iter().filter(|at| self.is_relevant(at)).filter(is_v4).cloned().collect();
        self.assumed.extend(wide.iter().cloned());
        wide
    }

    /// Whether others can dial us.
    pub(crate) fn is_public(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// Whether we need a relay: nobody can dial us, which we know, or the owner named relays for
    /// that case.
    pub(crate) fn needs_relay(&self, has_static: bool, now: Instant) -> bool {
        let is_known = self.is_refuted || !self.observed.is_empty() || has_static;
        !self.is_public() && is_known && now >= self.since + PATIENCE
    }

    pub(crate) fn count_upgrade(&mut self, is_done: bool) {
        if is_done {
            self.upgrades += 1;
        } else {
            self.upgrades_failed += 1;
        }
    }

    /// How others reach us, given the relays that keep a place for us.
    pub(crate) fn reachability(&self, relays: Vec<RelayStatus>, now: Instant) -> Reachability {
        let texts = |addresses: &BTreeSet<Multiaddr>| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        if !self.confirmed.is_empty() && self.confirmed == self.mapped {
            return Reachability::Mapped { by: Mapping::Upnp, addresses: texts(&self.mapped) };
        }
        if !self.confirmed.is_empty() {
            return Reachability::Public { addresses: texts(&self.confirmed) };
        }
        if !relays.is_empty() || self.needs_relay(false, now) {
            return Reachability::Private { relays };
        }
        Reachability::Unknown
    }

    pub(crate) fn nat(&self) -> NatFacts {
        NatFacts {
            observed: self.observed.keys().map(ToString::to_string).collect(),
            upgrades: self.upgrades,
            upgrades_failed: self.upgrades_failed,
        }
    }

    /// Addresses of ours that others can dial, relays aside.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.confirmed.iter()
    }

    fn is_relevant(&self, address: &Multiaddr) -> bool {
        self.scope.is_wide(address) && !is_relayed(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Switch, scope::Network};

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn reach(now: Instant) -> Reach {
        Reach::new(Scope { network: Network::Public, loopback: Switch::Off }, now)
    }

    fn relay() -> RelayStatus {
        RelayStatus { peer_id: "R".to_owned(), server: None, address: "A".to_owned() }
    }

    const GLOBAL: &str = "/ip4/203.0.113.7/tcp/4001";
    const PRIVATE: &str = "/ip4/192.168.1.7/tcp/4001";

    #[test]
    fn a_node_on_a_lan_alone_knows_nothing() {
        let now = Instant::now();
        let mut reach = reach(now);
        let later = now + PATIENCE;
        reach.observe(&address(PRIVATE), &[], later);
        reach.confirm(&address(PRIVATE));
        assert!(reach.assume(&[address(PRIVATE)], later).is_empty());
        assert_eq!(reach.reachability(vec![], later), Reachability::Unknown);
        assert!(!reach.needs_relay(false, later) && reach.needs_relay(true, later));
    }

    #[test]
    fn a_wide_address_of_our_own_is_assumed_until_it_is_refuted() {
        let now = Instant::now();
        let mut reach = reach(now);
        let listening = [address(GLOBAL), address(PRIVATE), address("/ip6/2001:db8::1/tcp/1")];
        assert!(reach.assume(&listening, now).is_empty(), "AutoNAT has not had its time");
        let later = now + PATIENCE;
        assert_eq!(reach.assume(&listening, later), [address(GLOBAL)]);
        reach.confirm(&address(GLOBAL));
        assert!(reach.is_public());
        assert!(reach.refute(&address(GLOBAL)));
        reach.expire(&address(GLOBAL));
        assert_eq!(reach.reachability(vec![], later), Reachability::Private { relays: vec![] });
        assert!(reach.assume(&listening, later).is_empty());
    }

    #[test]
    fn what_is_proved_stays_when_another_address_is_refuted() {
        let now = Instant::now();
        let mut reach = reach(now);
        reach.confirm(&address(GLOBAL));
        reach.prove(&address(GLOBAL));
        assert!(!reach.refute(&address("/ip4/203.0.113.7/udp/4001/quic-v1")));
        assert!(!reach.needs_relay(true, now + PATIENCE));
    }

    #[test]
    fn being_seen_elsewhere_means_a_nat() {
        let now = Instant::now();
        let mut reach = reach(now);
        reach.observe(&address(GLOBAL), &[address(PRIVATE)], now);
        assert!(!reach.needs_relay(false, now));
        let later = now + PATIENCE;
        assert!(reach.needs_relay(false, later));
        let relayed = reach.reachability(vec![relay()], later);
        assert_eq!(relayed, Reachability::Private { relays: vec![relay()] });
        reach.network_changed(later);
        assert!(!reach.needs_relay(false, later + PATIENCE));
    }

    #[test]
    fn a_nat_ends_what_was_only_assumed() {
        let now = Instant::now();
        let mut reach = reach(now);
        let later = now + PATIENCE;
        let listening = [address(GLOBAL)];
        for at in reach.assume(&listening, later) {
            reach.confirm(&at);
        }
        let other_port = address("/ip4/203.0.113.7/tcp/50000");
        assert!(reach.observe(&other_port, &listening, later).is_empty(), "the same machine");
        let elsewhere = address("/ip4/198.51.100.1/tcp/4001");
        assert_eq!(reach.observe(&elsewhere, &listening, later), listening);
        reach.expire(&listening[0]);
        assert!(reach.needs_relay(false, later));
    }

    #[test]
    fn a_router_that_forwards_makes_us_reachable() {
        let now = Instant::now();
        let mut reach = reach(now);
        reach.map(&address(GLOBAL));
        let mapped = reach.reachability(vec![], now);
        let addresses = vec![GLOBAL.to_owned()];
        assert_eq!(mapped, Reachability::Mapped { by: Mapping::Upnp, addresses });
    }

    #[test]
    fn what_others_claim_to_see_is_bounded() {
        let now = Instant::now();
        let mut reach = reach(now);
        for port in 1..100 {
            let at = address(&format!("/ip4/203.0.113.7/tcp/{port}"));
            assert!(reach.observe(&at, &[], now).is_empty());
        }
        assert_eq!(reach.nat().observed.len(), MAX_OBSERVED);
    }
}
