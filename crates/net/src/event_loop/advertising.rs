//! Being found: the strings that this node advertises, and its way into the public DHT.

use libp2p::{Multiaddr, PeerId, kad};
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::EventLoop;
use crate::{
    book::split_address,
    config::{NetConfig, StartError},
    dht::Dht,
    discovery::{MAX_ADVERTISED, RELAY_STRING, record_key},
};

/// How long after a new peer came into a table the strings are told again: peers come in groups.
const TELL_DELAY: Duration = Duration::from_secs(1);

/// How long after our addresses changed they are told to the public DHT: they change in groups, and
/// telling is a walk for each string.
const ADDRESS_DELAY: Duration = Duration::from_secs(3);

/// Peers in the table of the public DHT from which on a new one changes nothing about where our
/// strings are kept: libp2p's replication factor.
const ENOUGH_PEERS: usize = 20;

/// Peers in that table below which it is entered once more.
const FEW_PEERS: usize = 4;

/// The first wait before the public DHT is entered again, and the longest.
const FIRST_ENTRY_WAIT: Duration = Duration::from_secs(15);
const LONGEST_ENTRY_WAIT: Duration = Duration::from_secs(600);

/// What is advertised, and when.
#[derive(Debug)]
pub(super) struct Advertising {
    strings: Vec<String>,
    /// Whether our relay is advertised, too.
    is_relay: bool,
    /// When the strings are told again.
    lan_at: Option<Instant>,
    wan_at: Option<Instant>,
    /// Where the public DHT is entered.
    entries: Vec<(PeerId, Multiaddr)>,
    enter_at: Instant,
    entry_wait: Duration,
}

impl Advertising {
    pub(super) fn new(config: &NetConfig, now: Instant) -> Result<Self, StartError> {
        let entries = config.dht_peers()?.into_iter().map(split_address);
        Ok(Self {
            strings: Vec::new(),
            is_relay: false,
            lan_at: None,
            wan_at: None,
            entries: entries.filter_map(|(at, peer)| Some((peer?, at))).collect(),
            enter_at: now,
            entry_wait: FIRST_ENTRY_WAIT,
        })
    }

    /// Plans to tell the public DHT of new addresses.
    pub(super) fn addresses_changed(&mut self, now: Instant) {
        self.wan_at = Some(now + ADDRESS_DELAY);
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let relay = self.is_relay.then_some(RELAY_STRING);
        self.strings.iter().map(String::as_str).chain(relay)
    }
}

impl EventLoop {
    /// One of our Kademlias, if we are in it.
    pub(super) fn kad(&mut self, dht: Dht) -> Option<&mut kad::Behaviour<kad::store::MemoryStore>> {
        let behaviour = self.swarm.behaviour_mut();
        match dht {
            Dht::Lan => Some(behaviour.lan.inner_mut()),
            Dht::Wan => behaviour.wan.as_mut().map(|wan| wan.inner_mut()),
        }
    }

    /// Replaces the strings under which this node is found.
    pub(super) fn advertise(&mut self, mut strings: Vec<String>) {
        if strings.len() > MAX_ADVERTISED {
            warn!(given = strings.len(), "too many strings to be found under; keeping the first");
            strings.truncate(MAX_ADVERTISED);
        }
        let former = std::mem::replace(&mut self.advertising.strings, strings);
        let gone: Vec<String> =
            former.into_iter().filter(|old| !self.advertising.strings.contains(old)).collect();
        for string in &gone {
            self.stop_telling(string);
        }
        self.tell(Dht::Lan);
        self.tell(Dht::Wan);
    }

    /// Advertises our relay, or stops to.
    pub(super) fn advertise_relay(&mut self, is_relay: bool) {
        let was_relay = std::mem::replace(&mut self.advertising.is_relay, is_relay);
        if was_relay && !is_relay {
            self.stop_telling(RELAY_STRING);
        } else if !was_relay && is_relay {
            self.tell(Dht::Lan);
            self.tell(Dht::Wan);
        }
    }

    fn stop_telling(&mut self, string: &str) {
        for dht in [Dht::Lan, Dht::Wan] {
            if let Some(kad) = self.kad(dht) {
                kad.stop_providing(&record_key(string));
            }
        }
    }

    fn tell(&mut self, dht: Dht) {
        match dht {
            Dht::Lan => self.advertising.lan_at = None,
            Dht::Wan => self.advertising.wan_at = None,
        }
        let keys: Vec<_> = self.advertising.all().map(record_key).collect();
        let Some(kad) = self.kad(dht) else { return };
        for key in keys {
            if let Err(error) = kad.start_providing(key) {
                warn!(%error, "a string is not advertised");
            }
        }
    }

    pub(super) fn advertise_again(&mut self, now: Instant) {
        if self.advertising.lan_at.is_some_and(|at| at <= now) {
            self.tell(Dht::Lan);
        }
        if self.advertising.wan_at.is_some_and(|at| at <= now) {
            self.tell(Dht::Wan);
        }
    }

    /// A peer came into a table.
    pub(super) fn on_table_grew(&mut self, dht: Dht) {
        let at = Instant::now() + TELL_DELAY;
        match dht {
            Dht::Lan => {
                self.advertising.lan_at.get_or_insert(at);
            }
            Dht::Wan => {
                let peers = self.wan_peers();
                self.metrics.dht_peers.set(i64::try_from(peers).unwrap_or(i64::MAX));
                if peers <= ENOUGH_PEERS {
                    self.advertising.wan_at.get_or_insert(at);
                }
            }
        }
    }

    fn wan_peers(&mut self) -> usize {
        self.kad(Dht::Wan).map_or(0, |kad| kad.kbuckets().map(|bucket| bucket.num_entries()).sum())
    }

    /// Dials those who know the public DHT, while we hardly know anybody there.
    pub(super) fn enter_public_dht(&mut self, now: Instant) {
        if now < self.advertising.enter_at || self.advertising.entries.is_empty() {
            return;
        }
        self.advertising.enter_at = now + self.advertising.entry_wait;
        if self.wan_peers() >= FEW_PEERS {
            self.advertising.entry_wait = FIRST_ENTRY_WAIT;
            return;
        }
        let doubled = self.advertising.entry_wait.saturating_mul(2);
        self.advertising.entry_wait = doubled.min(LONGEST_ENTRY_WAIT);
        debug!("entering the public DHT");
        for (peer, address) in self.advertising.entries.clone() {
            self.book.add_entry(peer, address);
            self.dial(peer);
        }
    }
}
