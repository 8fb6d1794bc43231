//! Which nodes can reach each other, and which of them know it.

use std::collections::{BTreeMap, BTreeSet};

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// No other ever has the same.
    pub(crate) number: u64,
    /// Which life of each node it belongs to, in the order of the nodes.
    pub(crate) lives: (u32, u32),
}

/// What a connection was of use for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// How many requests there were.
    pub(crate) count: u64,
    /// Of these, those without an answer.
    pub(crate) open: u64,
}

/// All pairs. A pair is named by either order of its nodes.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Pairs between which nothing gets through now.
    cut: BTreeSet<(usize, usize)>,
    /// Which side of a split each node is on; those that are not named are on one side.
    side: BTreeSet<usize>,
    connections: BTreeMap<(usize, usize), Connection>,
    neighbours: BTreeMap<usize, BTreeSet<usize>>,
    /// Pairs that look for each other whenever they can.
    wanted: BTreeSet<(usize, usize)>,
    /// What the connection of each pair was of use for.
    used: BTreeMap<(usize, usize), Use>,
    next: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Links {
    /// Whether bytes could get through.
    pub(crate) fn is_up(&self, a: usize, b: usize) -> bool {
        self.side.contains(&a) == self.side.contains(&b) && !self.cut.contains(&pair(a, b))
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(pair(a, b));
    }

    pub(crate) fn mend(&mut self, a: usize, b: usize) {
        self.cut.remove(&pair(a, b));
    }

    /// Mends everything but what is between the nodes of `side` and all others.
    pub(crate) fn split(&mut self, side: BTreeSet<usize>) {
        self.cut.clear();
        self.side = side;
    }

    pub(crate) fn connection(&self, a: usize, b: usize) -> Option<Connection> {
        self.connections.get(&pair(a, b)).copied()
    }

    /// Every connection, in the order of the nodes.
    pub(crate) fn connections(&self) -> Vec<((usize, usize), Connection)> {
        self.connections.iter().map(|(pair, connection)| (*pair, *connection)).collect()
    }

    /// The nodes that a node has a connection to.
    pub(crate) fn neighbours(&self, node: usize) -> Vec<usize> {
        self.neighbours.get(&node).into_iter().flatten().copied().collect()
    }

    /// A new connection in place of whatever there was.
    pub(crate) fn connect(&mut self, a: usize, b: usize, lives: (u32, u32)) -> Connection {
        self.next += 1;
        let connection = Connection { number: self.next, lives };
        self.connections.insert(pair(a, b), connection);
        self.neighbours.entry(a).or_default().insert(b);
        self.neighbours.entry(b).or_default().insert(a);
        connection
    }

    /// Ends a connection; says whether there was one.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) -> bool {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(neighbours) = self.neighbours.get_mut(&one) {
                neighbours.remove(&other);
            }
        }
        self.connections.remove(&pair(a, b)).is_some()
    }

    /// Notes that one node asks the other something.
    pub(crate) fn begin(&mut self, a: usize, b: usize) {
        let used = self.used.entry(pair(a, b)).or_default();
        used.count += 1;
        used.open += 1;
    }

    /// Notes that what was begun has come to its end.
    pub(crate) fn end(&mut self, a: usize, b: usize) {
        if let Some(used) = self.used.get_mut(&pair(a, b)) {
            used.open -= 1;
        }
    }

    pub(crate) fn used(&self, a: usize, b: usize) -> Use {
        self.used.get(&pair(a, b)).copied().unwrap_or_default()
    }

    /// Lets two nodes look for each other from now on; says whether they did not before.
    pub(crate) fn want(&mut self, a: usize, b: usize) -> bool {
        self.wanted.insert(pair(a, b))
    }

    pub(crate) fn is_wanted(&self, a: usize, b: usize) -> bool {
        self.wanted.contains(&pair(a, b))
    }

    /// The pairs that look for each other.
    pub(crate) fn wanted(&self) -> Vec<(usize, usize)> {
        self.wanted.iter().copied().collect()
    }

    /// The nodes that a node looks for.
    pub(crate) fn wanted_of(&self, node: usize) -> Vec<usize> {
        let others = self.wanted.iter().filter_map(|(a, b)| match node {
            _ if *a == node => Some(*b),
            _ if *b == node => Some(*a),
            _ => None,
        });
        others.collect()
    }
}
