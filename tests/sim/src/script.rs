//! A run before it happens: everything that is decided beforehand, as data. A seed makes one; a
//! smaller one can be made by leaving things out.

use std::{collections::BTreeSet, fmt};

use ruma::RoomVersionId;
use serde::{Deserialize, Serialize};

/// Whether some of the Server-Server API works between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Endpoints {
    /// As always.
    #[default]
    Answered,
    /// Every request is refused with 404, as by a node that does not have them.
    Refused,
}

/// What can be taken away, to see that runs fail without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Switches {
    /// The comparison of heads (D11).
    pub heads: Endpoints,
    /// What fills gaps: missing events, and the state at an event. Backfill stays.
    pub gaps: Endpoints,
    /// What the outbox delivers: invites, receipts, departures (D12).
    pub outbox: Endpoints,
}

impl Switches {
    /// Whether a request for this path is refused.
    pub(crate) fn refuses(self, path: &str) -> bool {
        let any = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        (self.heads == Endpoints::Refused && any(&["/net.messagehub/heads"]))
            || (self.gaps == Endpoints::Refused
                && any(&["/get_missing_events/", "/state_ids/", "/v1/state/"]))
            || (self.outbox == Endpoints::Refused
                && any(&["/v2/invite/", "/v1/invite/", "/v1/send/", "_leave/"]))
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The seed it was drawn from; everything that is drawn while it runs follows from it too.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// Users on each node.
    pub users: usize,
    /// The network.
    pub net: NetPlan,
    /// The version of each room, as far as there are that many.
    pub versions: Vec<RoomVersionId>,
    /// Nodes that are in one room from the start, the first ones; 0 for no such room.
    pub crowd: usize,
    /// Nodes that make a room when everybody has come.
    pub founders: Vec<usize>,
    /// What happens then, in this order.
    pub steps: Vec<Step>,
    /// What is taken away.
    pub switches: Switches,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Whether it takes part at all; so the others keep their numbers when it is left out.
    pub is_there: bool,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: u64,
    /// What it does besides what its software does; empty for an honest one.
    pub vices: BTreeSet<Vice>,
}

impl NodePlan {
    /// Whether it does nothing but what its software does.
    pub fn is_honest(&self) -> bool {
        self.vices.is_empty()
    }
}

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Vice {
    /// It speaks in the name of others.
    Forges,
    /// It says different things to different nodes about what came after what.
    Equivocates,
    /// It sends what cannot be placed, without end.
    Floods,
    /// It gives no event to anybody and hands no frame on.
    Withholds,
    /// It names heads that do not exist, or none at all.
    LiesInHeads,
    /// It leaves things out of the states that it tells.
    TellsWrongStates,
}

/// The network. Shares are in percent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPlan {
    /// Frames lost on one hop.
    pub frames_lost: u32,
    /// Requests lost on the way there, and as many on the way back.
    pub requests_lost: u32,
    /// Frames that come twice.
    pub twice: u32,
    /// Frames that come late, so that others overtake them.
    pub late: u32,
    /// Pairs of connected nodes that exchange frames of a room directly.
    pub mesh: u32,
    /// How long one hop takes at most, in milliseconds.
    pub hop_ms: u64,
    /// Nodes without a direct path to each other, ever.
    pub apart: BTreeSet<usize>,
}

/// Something that happens, after a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub what: What,
    /// The pause that follows it, in milliseconds.
    pub pause_ms: u64,
}

/// What happens. `seed` decides what only the moment can tell, such as which of the rooms that
/// somebody is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Somebody on a node does something.
    Deed {
        /// The node.
        node: usize,
        /// What.
        deed: Deed,
        /// For the details.
        seed: u64,
    },
    /// A hostile node does something that its software does not.
    Misdeed {
        /// The node.
        node: usize,
        /// What; one of its vices.
        vice: Vice,
        /// For the details.
        seed: u64,
    },
    /// A link breaks.
    Cut(usize, usize),
    /// A link is mended.
    Mend(usize, usize),
    /// Some nodes have no link to the others any more; among themselves all links are mended.
    Split(BTreeSet<usize>),
    /// All links are mended.
    Heal,
    /// A node dies where it stands.
    Kill(usize),
    /// A dead node starts again with what it had committed.
    Start(usize),
}

/// What people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Deed {
    Message,
    State,
    Power,
    Redact,
    Create,
    Invite,
    Join,
    Leave,
    Kick,
    Ban,
    Unban,
    Read,
}

impl Script {
    /// Whether a node takes part.
    pub(crate) fn is_there(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.is_there)
    }

    /// Whether a node is honest.
    pub(crate) fn is_honest(&self, node: usize) -> bool {
        self.nodes.get(node).is_none_or(NodePlan::is_honest)
    }

    /// Whether a node has a vice.
    pub(crate) fn has(&self, node: usize, vice: Vice) -> bool {
        self.nodes.get(node).is_some_and(|node| node.vices.contains(&vice))
    }

    /// Whether two nodes could ever have a direct path.
    pub(crate) fn may_meet(&self, a: usize, b: usize) -> bool {
        !(self.net.apart.contains(&a) && self.net.apart.contains(&b))
    }

    /// The nodes that take part.
    pub fn present(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.is_there(*node)).collect()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, users, net, .. } = self;
        writeln!(f, "script of seed {seed}: nodes {:?}, users on each: {users}", self.present())?;
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_there) {
            if !node.is_honest() {
                writeln!(f, "  node {index} is hostile: {:?}", node.vices)?;
            }
        }
        let skews: Vec<_> = self.present().iter().map(|node| self.nodes[*node].skew_ms).collect();
        writeln!(f, "  clocks ahead by {skews:?} ms; {net:?}")?;
        writeln!(f, "  crowd {}, founders {:?}, {:?}", self.crowd, self.founders, self.versions)?;
        if self.switches != Switches::default() {
            writeln!(f, "  {:?}", self.switches)?;
        }
        for (number, Step { what, pause_ms }) in (1..).zip(&self.steps) {
            writeln!(f, "  {number:3}. {what:?}, then {pause_ms} ms")?;
        }
        Ok(())
    }
}
