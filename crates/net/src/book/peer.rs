//! What is known about one peer.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use super::address::split;
use crate::scope::is_relayed;

/// Addresses remembered of one peer: a few networks with two transports and two IP versions each.
pub(super) const MAX_ADDRESSES: usize = 16;

/// The first wait after a dial that failed; it doubles up to the longest. A room heals within a
/// minute of a path existing (D11), so the longest is half of one. Signs of life end any wait.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Dials in a row, about ten minutes, after which a peer counts as switched off. It will come by
/// itself and is dialed only now and then: a node may know thousands of these.
const MANY_DIALS: u32 = 24;
const RARE_WAIT: Duration = Duration::from_secs(300);

/// Connections that a peer makes within this time may belong to dials that it began together.
const SAME_MOMENT: Duration = Duration::from_secs(2);

/// How long a connection beside an older one may be AutoNAT's, which says so within a few round
/// trips.
const DOUBT: Duration = Duration::from_secs(3);

/// How long a connection may be without the topics of a peer that has some.
const MUTE: Duration = Duration::from_secs(10);

/// Dials in a row to a peer that nobody needs.
const MAX_DIALS: u32 = 4;

/// When a peer that is reached through a relay only is tried directly again, counted from the try
/// before: addresses and ports change, and one of the first tries may just have been unlucky.
const UPGRADE_WAITS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300)];

/// How often a peer that does not tell its keys is asked while it stays connected, and how long
/// after each failure: the first answer is lost when both sides start at the same moment.
const QUESTION_WAITS: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Which server a peer speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not connected.
    #[default]
    Unknown,
    /// Its keys were asked for.
    Asked {
        /// How often before.
        failures: usize,
    },
    /// It did not answer; it is asked again.
    Silent {
        /// How often it did not.
        failures: usize,
        /// When it is asked again.
        ask_at: Instant,
    },
    /// It proved to speak for a server.
    Verified(OwnedServerName),
    /// It speaks for none, or lied.
    Refused,
}

impl Standing {
    /// The server that the peer was proved to speak for.
    pub(crate) fn server(&self) -> Option<&OwnedServerName> {
        match self {
            Self::Verified(name) => Some(name),
            Self::Unknown | Self::Asked { .. } | Self::Silent { .. } | Self::Refused => None,
        }
    }

    pub(super) fn speaks_for(&self, name: &ServerName) -> bool {
        self.server().is_some_and(|server| server == name)
    }

    /// Whether it may still turn out who the peer is.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Asked { .. } | Self::Silent { .. })
    }

    /// Whether the peer was asked and has not had the time to answer.
    fn is_answering(&self) -> bool {
        matches!(self, Self::Asked { failures: 0 })
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self, Self::Silent { ask_at, .. } if *ask_at <= now)
    }

    /// The peer is being asked.
    pub(crate) fn asked(&mut self) {
        let failures = match self {
            Self::Silent { failures, .. } | Self::Asked { failures } => *failures,
            Self::Unknown | Self::Verified(_) | Self::Refused => 0,
        };
        *self = Self::Asked { failures };
    }

    /// The peer did not answer well.
    pub(crate) fn silent(&mut self, now: Instant) {
        let Self::Asked { failures } = *self else { return };
        *self = match QUESTION_WAITS.get(failures) {
            Some(wait) => Self::Silent { failures: failures + 1, ask_at: now + *wait },
            None => Self::Refused,
        };
    }
}

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From node to node.
    Direct,
    /// Through a relay, which the address names if we are the dialer.
    Relayed(Option<PeerId>),
}

/// One connection to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// The remote address.
    pub(crate) address: Multiaddr,
    pub(crate) way: Way,
    /// Whether we dialed.
    pub(crate) is_ours: bool,
    pub(crate) since: Instant,
    /// Whether it may show that the peer lost the older ones.
    pub(super) is_doubtful: bool,
}

impl Connection {
    /// A connection that begins now.
    pub(crate) fn new(id: ConnectionId, address: Multiaddr, way: Way, is_ours: bool) -> Self {
        Self { id, address, way, is_ours, since: Instant::now(), is_doubtful: false }
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.way == Way::Direct
    }
}

/// One peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Where it may be, the newest last.
    addresses: Vec<Multiaddr>,
    /// Its connections, the newest last.
    pub(crate) connections: Vec<Connection>,
    pub(crate) standing: Standing,
    pub(crate) latency: Option<Duration>,
    /// Whether identify told its addresses on the present connection.
    pub(crate) identified: bool,
    /// Whether the homeserver was told that its server is here.
    pub(crate) announced: bool,
    /// When it was verified.
    pub(super) verified_at: Option<Instant>,
    /// Whether a dial is under way.
    pub(crate) dialing: bool,
    /// Whether it is dialed until it comes: it belongs to a server we trust, or is configured.
    pub(crate) wanted: bool,
    /// Whether it is dialed at once when its connections have ended.
    pub(crate) is_awaited: bool,
    /// Whether the configuration names it.
    pub(crate) configured: bool,
    /// Whether it ever told topics of gossip, and whether it did since it came.
    has_topics: bool,
    tells_topics: bool,
    /// Whether it offers to be a relay.
    pub(crate) is_relay: bool,
    /// When it was last of use: connected, asked, or heard.
    pub(crate) used_at: Option<Instant>,
    /// The number of the newest signed record of its addresses.
    pub(super) record: u64,
    /// When it is tried directly again, while it is reached through a relay only.
    pub(super) upgrade_at: Option<Instant>,
    upgrades: usize,
    dial_at: Option<Instant>,
    failures: u32,
}

impl Peer {
    pub(crate) fn is_connected(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Whether the peer may yet turn out to speak for a server.
    pub(crate) fn is_pending(&self) -> bool {
        self.dialing || (self.is_connected() && self.standing.is_open())
    }

    /// Whether the peer just came and will say who it is.
    pub(crate) fn is_introducing_itself(&self) -> bool {
        self.is_connected() && self.standing.is_answering()
    }

    /// Whether it was verified before `then` and the homeserver does not know yet.
    pub(crate) fn is_unannounced_since(&self, then: Instant) -> bool {
        !self.announced && self.verified_at.is_some_and(|at| at <= then)
    }

    /// The connection in use: the newest direct one, or else the newest.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        let mut newest_first = self.connections.iter().rev();
        newest_first.find(|connection| connection.is_direct()).or(self.connections.last())
    }

    /// Adds a connection, which is doubtful when it seems to show that the peer lost an older one:
    /// a node dials only whom it is not connected with. Dials of one moment may all succeed,
    /// whoever has a relayed connection tries for a direct one, and AutoNAT dials back, from
    /// another port, whoever dialed or asked for it.
    pub(super) fn connected(&mut self, mut newest: Connection) {
        let place = |of: &Connection| split(of.address.clone()).0;
        let is_lost = |other: &Connection| {
            other.since + SAME_MOMENT <= newest.since
                && (!other.is_ours || place(other) == place(&newest))
        };
        let are_direct = newest.is_direct() && self.connections.iter().all(Connection::is_direct);
        newest.is_doubtful = !newest.is_ours && are_direct && self.connections.iter().any(is_lost);
        self.connections.push(newest);
    }

    /// AutoNAT tried whether this peer can dial us: its connections were made for that.
    pub(crate) fn has_tested_us(&mut self) {
        self.connections.iter_mut().for_each(|connection| connection.is_doubtful = false);
    }

    /// Whether a doubtful connection has stayed, and an older one, too: the peer lost that without
    /// our noticing. Gives `true` once for each.
    pub(super) fn has_come_anew(&mut self, now: Instant) -> bool {
        let is_due = |of: &Connection| of.is_doubtful && of.since + DOUBT <= now;
        let Some(at) = self.connections.iter().rposition(is_due) else { return false };
        self.connections[..=at].iter_mut().for_each(|connection| connection.is_doubtful = false);
        let since = self.connections[at].since;
        self.connections[..at].iter().any(|older| older.since + SAME_MOMENT <= since)
    }

    /// It told a topic.
    pub(crate) fn told_topic(&mut self) {
        self.has_topics = true;
        self.tells_topics = true;
    }

    /// Whether it told topics before, and none though it came a while ago. Gives `true` once, until
    /// it tells some: it may have left its last room.
    pub(super) fn is_mute(&mut self, now: Instant) -> bool {
        let is_mute = self.has_topics
            && !self.tells_topics
            && self.connections.iter().any(|of| of.since + MUTE <= now);
        self.has_topics &= !is_mute;
        is_mute
    }

    /// The address of the connection in use.
    pub(crate) fn address(&self) -> Option<&Multiaddr> {
        self.connection().map(|connection| &connection.address)
    }

    /// Whether there is no direct connection.
    pub(crate) fn is_relayed(&self) -> bool {
        !self.connections.iter().any(Connection::is_direct)
    }

    /// Where it may be, the newest first.
    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.iter().rev().cloned().collect()
    }

    /// Where it may be reached without a relay, the newest first.
    pub(crate) fn direct_addresses(&self) -> Vec<Multiaddr> {
        self.addresses.iter().rev().filter(|address| !is_relayed(address)).cloned().collect()
    }

    /// Whether dialing it failed so often that its addresses seem to be of no use.
    pub(crate) fn is_lost(&self) -> bool {
        self.failures >= MAX_DIALS
    }

    /// Whether no direct connection in place of a relayed one is planned.
    pub(crate) fn upgrade_is_unplanned(&self) -> bool {
        self.upgrade_at.is_none()
    }

    /// Plans a direct connection in place of a relayed one.
    pub(crate) fn plan_upgrade(&mut self, at: Instant) {
        if self.is_connected() && self.is_relayed() {
            self.upgrades = 0;
            self.upgrade_at = Some(at);
        }
    }

    /// Whether a direct connection is to be tried now; the try after it is planned then.
    pub(super) fn take_upgrade(&mut self, now: Instant) -> bool {
        if !self.is_connected() || !self.is_relayed() {
            self.upgrade_at = None;
            return false;
        }
        if self.upgrade_at.is_none_or(|at| at > now) {
            return false;
        }
        let wait = UPGRADE_WAITS[self.upgrades.min(UPGRADE_WAITS.len() - 1)];
        self.upgrades += 1;
        self.upgrade_at = Some(now + wait);
        true
    }

    pub(super) fn add_address(&mut self, address: Multiaddr) {
        self.addresses.retain(|known| *known != address);
        self.addresses.push(address);
        if self.addresses.len() > MAX_ADDRESSES {
            self.addresses.remove(0);
        }
    }

    pub(super) fn forget_address(&mut self, address: &Multiaddr) -> bool {
        let known = self.addresses.len();
        self.addresses.retain(|other| other != address);
        self.addresses.len() < known
    }

    /// Plans a dial without regard to former failures.
    pub(super) fn revive(&mut self, dial_at: Instant) {
        self.failures = 0;
        if !self.is_connected() {
            self.dial_at = Some(dial_at);
        }
    }

    /// A connection is there: nothing to plan.
    pub(super) fn rested(&mut self) {
        self.failures = 0;
        self.dial_at = None;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_connected() && !self.dialing && self.dial_at.is_some_and(|at| at <= now)
    }

    /// Plans the dial after the next one, should that fail.
    pub(super) fn plan_again(&mut self, now: Instant) {
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures));
        let wait = if self.failures < MANY_DIALS { doubled.min(LONGEST_WAIT) } else { RARE_WAIT };
        self.failures = self.failures.saturating_add(1);
        let goes_on = self.wanted || self.failures < MAX_DIALS;
        self.dial_at = goes_on.then(|| now + wait);
    }

    /// The last connection ended. Gives the server that the homeserver thought was here.
    pub(super) fn end(&mut self, now: Instant) -> Option<OwnedServerName> {
        let server = self.standing.server().cloned();
        self.standing = Standing::Unknown;
        self.is_relay = false;
        self.upgrade_at = None;
        self.verified_at = None;
        self.latency = None;
        self.identified = false;
        self.tells_topics = false;
        self.failures = 0;
        self.dial_at = self.wanted.then(|| now + FIRST_WAIT);
        let announced = std::mem::take(&mut self.announced);
        server.filter(|_| announced)
    }
}
