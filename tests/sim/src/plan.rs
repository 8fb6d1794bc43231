//! What kind of run a seed makes: how many nodes, how bad the network, how long the trouble.

use rand::{RngExt as _, rngs::StdRng};
use ruma::RoomVersionId;

/// Whether some of the Server-Server API works between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// As always.
    Answered,
    /// Every request is refused with 404, as by a node that does not have them.
    Refused,
}

/// What can be taken away, to see that runs fail without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// The comparison of heads (D11).
    pub heads: Endpoints,
    /// What fills gaps: missing events, and the state at an event. Backfill stays.
    pub gaps: Endpoints,
}

impl Default for Switches {
    fn default() -> Self {
        Self { heads: Endpoints::Answered, gaps: Endpoints::Answered }
    }
}

impl Switches {
    /// Whether a request for this path is refused.
    pub(crate) fn refuses(self, path: &str) -> bool {
        let any = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        (self.heads == Endpoints::Refused && any(&["/net.messagehub/heads"]))
            || (self.gaps == Endpoints::Refused
                && any(&["/get_missing_events/", "/state_ids/", "/v1/state/"]))
    }
}

/// What the seed decided before anything happens. Shares are in percent.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) switches: Switches,
    pub(crate) nodes: usize,
    /// Users on each node.
    pub(crate) users: usize,
    /// Things that happen in the time of trouble.
    pub(crate) steps: usize,
    /// Frames lost on one hop.
    pub(crate) frames_lost: u32,
    /// Requests lost on the way there, and as many on the way back.
    pub(crate) requests_lost: u32,
    /// Pairs of nodes that exchange frames of a room directly.
    pub(crate) mesh: u32,
    /// Steps that are a cut or the end of one.
    pub(crate) cuts: u32,
    /// Steps that are a crash or the end of one.
    pub(crate) crashes: u32,
    /// The version of each room, as far as there are that many.
    pub(crate) versions: Vec<RoomVersionId>,
    /// The longest pause between two steps, in milliseconds.
    pub(crate) pause_ms: u64,
}

impl Plan {
    pub(crate) fn draw(rng: &mut StdRng, switches: Switches) -> Self {
        // Small runs often, large ones sometimes.
        let nodes = 3 + (rng.random_range(0..6_usize).min(rng.random_range(0..6)));
        let versions = (0..3)
            .map(|_| match rng.random_range(0..10) {
                0 => RoomVersionId::V6,
                1 => RoomVersionId::V9,
                2 => RoomVersionId::V10,
                3 | 4 => RoomVersionId::V11,
                _ => RoomVersionId::V12,
            })
            .collect();
        Self {
            switches,
            nodes,
            users: rng.random_range(1..=2),
            steps: rng.random_range(30..=70),
            frames_lost: rng.random_range(0..=40),
            requests_lost: rng.random_range(0..=15),
            mesh: rng.random_range(50..=100),
            cuts: rng.random_range(5..=20),
            crashes: rng.random_range(0..=10),
            versions,
            pause_ms: [200, 2_000, 15_000][rng.random_range(0..3)],
        }
    }
}
