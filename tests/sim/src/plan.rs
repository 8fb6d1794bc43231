//! From a seed to a script: how many nodes, how bad the network, who is hostile, what happens.

use std::collections::BTreeSet;

use ruma::RoomVersionId;

use crate::{
    dice::Dice,
    script::{Deed, NetPlan, NodePlan, Script, Step, Switches, Vice, What},
};

/// How far the clock of a node may be ahead of another's, in milliseconds.
const MAX_SKEW_MS: u64 = 3_000;

/// From this many nodes on, all are in one room from the start: to let each join through others
/// takes a time that grows with the cube of the number.
const CROWDED: usize = 30;

/// Of a hundred nodes of such a run, those that come into the room later; and the most of them, since
/// they come at once, and each that joins beside others is one more branch for everybody to merge.
const LATECOMERS: usize = 10;
const MAX_LATECOMERS: usize = 20;

/// How often people do what, out of the sum: much that contradicts what others do.
const DEEDS: &[(u64, Deed)] = &[
    (38, Deed::Message),
    (30, Deed::State),
    (5, Deed::Power),
    (6, Deed::Redact),
    (2, Deed::Create),
    (8, Deed::Invite),
    (10, Deed::Join),
    (2, Deed::Leave),
    (6, Deed::Kick),
    (4, Deed::Ban),
    (2, Deed::Unban),
    (4, Deed::Read),
];

/// Where there are many, what throws people out happens as often as before in all, and not a
/// hundred times.
const CROWD_DEEDS: &[(u64, Deed)] = &[
    (50, Deed::Message),
    (30, Deed::State),
    (3, Deed::Power),
    (4, Deed::Redact),
    (2, Deed::Invite),
    (6, Deed::Join),
    (1, Deed::Leave),
    (2, Deed::Kick),
    (1, Deed::Ban),
    (1, Deed::Unban),
    (1, Deed::Read),
];

/// The most nodes in whose runs receipts are sent.
const MAX_READ: usize = 200;

/// What nothing honest may ever suffer from. [`Vice::TellsWrongStates`] is not among them: where
/// its word is the only one to be had, it is taken.
const VICES: &[Vice] =
    &[Vice::Forges, Vice::Equivocates, Vice::Floods, Vice::Withholds, Vice::LiesInHeads];

impl Script {
    /// The script of a seed. `nodes` is how many there are; `None` leaves it to the seed, which
    /// makes from 3 to 10.
    pub fn draw(seed: u64, nodes: Option<usize>, switches: Switches) -> Self {
        let dice = Dice::of(("script", seed));
        // Small runs often, larger ones sometimes.
        let count = nodes.unwrap_or_else(|| 3 + dice.index(8).min(dice.index(8)));
        let nodes = node_plans(&dice, count);
        let versions = (0..3).map(|_| version(&dice)).collect();
        let latecomers = (count * LATECOMERS / 100).min(MAX_LATECOMERS);
        let crowd = if count >= CROWDED { count - latecomers } else { 0 };
        let mut script = Self {
            seed,
            users: if crowd > 0 { 1 } else { 1 + dice.index(2) },
            net: net(&dice, count),
            versions,
            crowd,
            founders: if dice.chance(50) { vec![0, 1] } else { vec![0] },
            steps: Vec::new(),
            switches,
            nodes,
        };
        script.steps = steps(&dice, &script);
        script
    }
}

fn version(dice: &Dice) -> RoomVersionId {
    match dice.below(10) {
        0 => RoomVersionId::V6,
        1 => RoomVersionId::V9,
        2 => RoomVersionId::V10,
        3 | 4 => RoomVersionId::V11,
        _ => RoomVersionId::V12,
    }
}

fn node_plans(dice: &Dice, count: usize) -> Vec<NodePlan> {
    let mut nodes: Vec<NodePlan> = (0..count)
        .map(|_| NodePlan {
            is_there: true,
            skew_ms: dice.below(MAX_SKEW_MS + 1),
            vices: BTreeSet::new(),
        })
        .collect();
    // In two of five runs a quarter of them at most. The first makes the room and is honest.
    let hostile = if count >= 4 && dice.chance(40) { 1 + dice.index(count / 4) } else { 0 };
    let all: Vec<usize> = (1..count).collect();
    for node in dice.some(&all, hostile.min(count / 4)) {
        let many = 1 + dice.index(3);
        nodes[node].vices = dice.some(VICES, many).into_iter().collect();
    }
    nodes
}

fn net(dice: &Dice, count: usize) -> NetPlan {
    // Of those behind bad NATs no two reach each other; half of the nodes, or all but one, are not.
    let all: Vec<usize> = (1..count).collect();
    let apart = if dice.chance(APART) { 2 + dice.index(count / 2) } else { 0 };
    NetPlan {
        frames_lost: u32::try_from(dice.below(41)).unwrap_or_default(),
        requests_lost: u32::try_from(dice.below(16)).unwrap_or_default(),
        twice: 5,
        late: 10,
        mesh: u32::try_from(50 + dice.below(51)).unwrap_or(100),
        // A LAN, the usual, a bad mobile network.
        hop_ms: [20, 300, 1_500][dice.index(3)],
        apart: dice.some(&all, apart.min(count.saturating_sub(1))).into_iter().collect(),
    }
}

/// Of a hundred runs, those with nodes that have no direct path to each other.
const APART: u32 = 0;

/// Draws steps, and remembers what they come to.
struct Drawing<'a> {
    dice: &'a Dice,
    script: &'a Script,
    dead: BTreeSet<usize>,
    steps: Vec<Step>,
    /// The longest pause between two steps, in milliseconds.
    pause_ms: u64,
}

fn steps(dice: &Dice, script: &Script) -> Vec<Step> {
    let mut drawing = Drawing {
        dice,
        script,
        dead: BTreeSet::new(),
        steps: Vec::new(),
        pause_ms: [200, 2_000, 15_000][dice.index(3)],
    };
    let (cuts, crashes) = (4 + dice.below(9), dice.below(11));
    let many = if script.crowd > 0 { 40 } else { 22 + dice.index(36) };
    let half = dice.index(many);
    for step in 0..many {
        if step == half {
            drawing.obligatory();
        }
        match dice.below(100) {
            at if at < cuts => drawing.cut(),
            at if at < cuts + crashes => drawing.crash(),
            at if at < cuts + crashes + 8 => drawing.misdeed(),
            _ => drawing.deed(None),
        }
    }
    drawing.steps
}

impl Drawing<'_> {
    fn push(&mut self, what: What) {
        let pause_ms = self.dice.below(self.pause_ms + 1);
        self.steps.push(Step { what, pause_ms });
    }

    fn nodes(&self) -> usize {
        self.script.nodes.len()
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes()).filter(|node| !self.dead.contains(node)).collect()
    }

    fn deed(&mut self, node: Option<usize>) {
        let node = node.or_else(|| self.dice.pick(&self.alive()));
        let deeds = if self.script.crowd > 0 { CROWD_DEEDS } else { DEEDS };
        let mut at = self.dice.below(deeds.iter().map(|(weight, _)| weight).sum());
        let deed = deeds.iter().find(|(weight, _)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        if let (Some(node), Some((_, deed))) = (node, deed) {
            let deed = match deed {
                // Each member's server gets a receipt by itself.
                Deed::Read if self.nodes() > MAX_READ => Deed::Message,
                deed => *deed,
            };
            self.push(What::Deed { node, deed, seed: self.dice.any() });
        }
    }

    fn misdeed(&mut self) {
        let hostile: Vec<usize> =
            self.alive().into_iter().filter(|node| !self.script.is_honest(*node)).collect();
        let Some(node) = self.dice.pick(&hostile) else { return self.deed(None) };
        let vices: Vec<Vice> = self.script.nodes[node].vices.iter().copied().collect();
        if let Some(vice) = self.dice.pick(&vices) {
            self.push(What::Misdeed { node, vice, seed: self.dice.any() });
        }
    }

    fn cut(&mut self) {
        let (a, b) = (self.dice.index(self.nodes()), self.dice.index(self.nodes()));
        match self.dice.below(5) {
            0 => self.push(What::Heal),
            1 if a != b && self.dice.chance(30) => self.push(What::Mend(a, b)),
            1 if a != b => self.push(What::Cut(a, b)),
            _ => self.split(),
        }
    }

    fn split(&mut self) {
        let side = (0..self.nodes()).filter(|_| self.dice.chance(50)).collect();
        self.push(What::Split(side));
    }

    fn crash(&mut self) {
        let dead: Vec<usize> = self.dead.iter().copied().collect();
        if let Some(node) = self.dice.pick(&dead)
            && self.dice.chance(60)
        {
            return self.start(node);
        }
        if let Some(node) = self.dice.pick(&self.alive()) {
            self.kill(node);
            if self.dice.chance(40) {
                self.start(node);
            }
        }
    }

    /// In the middle of something, if possible.
    fn kill(&mut self, node: usize) {
        self.deed(Some(node));
        if let Some(last) = self.steps.last_mut() {
            last.pause_ms = if self.dice.chance(50) { 0 } else { self.dice.below(500) };
        }
        self.dead.insert(node);
        self.push(What::Kill(node));
    }

    fn start(&mut self, node: usize) {
        self.dead.remove(&node);
        self.push(What::Start(node));
    }

    /// What every run has, so that none proves nothing: two sides that go on without each other,
    /// set the same things, and lose a node on the way.
    fn obligatory(&mut self) {
        let dead: Vec<usize> = self.dead.iter().copied().collect();
        dead.into_iter().for_each(|node| self.start(node));
        let middle = self.nodes().div_ceil(2);
        let side: BTreeSet<usize> = (0..self.nodes()).filter(|node| node % 2 == 0).collect();
        self.push(What::Heal);
        // Long enough that everybody hears of it.
        if let Some(last) = self.steps.last_mut() {
            last.pause_ms = 20_000;
        }
        self.push(What::Split(side));
        for round in 0..4 {
            for node in [0, 1] {
                let deed = if round % 2 == 0 { Deed::State } else { Deed::Message };
                self.push(What::Deed { node, deed, seed: self.dice.any() });
            }
            self.deed(None);
        }
        self.kill(middle % self.nodes());
        self.deed(Some(0));
        self.start(middle % self.nodes());
        self.push(What::Heal);
    }
}
