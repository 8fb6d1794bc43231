//! Which nodes can reach each other, and which of them know it.

/// One pair of nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Bytes get through.
    is_up: bool,
    /// The connection that stands, and between which lives of the two.
    connection: Option<Connection>,
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// No other ever has the same.
    pub(crate) number: u64,
    /// Which life of each node it belongs to, in the order of the nodes.
    pub(crate) lives: (u32, u32),
}

/// All pairs.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    nodes: usize,
    next: u64,
}

impl Links {
    /// All links up, nothing connected.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { links: vec![Link { is_up: true, connection: None }; nodes * nodes], nodes, next: 1 }
    }

    fn at(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.nodes + a.max(b)
    }

    pub(crate) fn is_up(&self, a: usize, b: usize) -> bool {
        self.links[self.at(a, b)].is_up
    }

    pub(crate) fn set_up(&mut self, (a, b): (usize, usize), is_up: bool) {
        let at = self.at(a, b);
        self.links[at].is_up = is_up;
    }

    pub(crate) fn connection(&self, a: usize, b: usize) -> Option<Connection> {
        self.links[self.at(a, b)].connection
    }

    /// A new connection in place of whatever there was.
    pub(crate) fn connect(&mut self, (a, b): (usize, usize), lives: (u32, u32)) -> Connection {
        let connection = Connection { number: self.next, lives };
        let at = self.at(a, b);
        self.links[at].connection = Some(connection);
        self.next += 1;
        connection
    }

    /// Ends a connection; says whether there was one.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) -> bool {
        let at = self.at(a, b);
        self.links[at].connection.take().is_some()
    }

    /// Every pair once.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        (0..self.nodes).flat_map(|a| (a + 1..self.nodes).map(move |b| (a, b))).collect()
    }
}
