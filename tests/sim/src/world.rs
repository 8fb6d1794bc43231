//! Everything there is in a run.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Fault, Tally,
    dice::Dice,
    ledger::Ledger,
    life::{self, Life, Node},
    links::Links,
    script::Script,
    trace::Trace,
};

/// A room that somebody made.
#[derive(Debug, Clone)]
pub(crate) struct KnownRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) is_public: bool,
}

/// The nodes, what is between them, and what is known about the run.
pub(crate) struct World {
    pub(crate) script: Script,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: RefCell<Links>,
    pub(crate) rooms: RefCell<Vec<KnownRoom>>,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) trace: RefCell<Trace>,
    /// Events that somebody else than their sender's server made: nobody may have them.
    pub(crate) forged: RefCell<BTreeSet<OwnedEventId>>,
    /// Whether nothing is lost any more.
    pub(crate) is_peace: Cell<bool>,
    /// From when to when what happened is measured, since the start.
    pub(crate) trouble: Cell<(Duration, Duration)>,
    pub(crate) start: Instant,
    by_name: BTreeMap<OwnedServerName, usize>,
    /// A stream of chance for each direction of each link.
    ways: RefCell<BTreeMap<(usize, usize), Rc<Dice>>>,
    /// What is on its way, and outlives the node it came from.
    flights: RefCell<JoinSet<()>>,
    faults: RefCell<Vec<String>>,
}

impl World {
    pub(crate) fn new(script: Script) -> Result<Rc<Self>, Fault> {
        let mut nodes = Vec::with_capacity(script.nodes.len());
        for (index, plan) in script.nodes.iter().enumerate() {
            let dir = life::directory(script.nodes.len())?;
            let node = Node::draw(script.seed, index, (plan.skew_ms, dir))?;
            node.give_database(life::empty_database()?)?;
            nodes.push(node);
        }
        let present = script.present();
        let hostile = present.iter().filter(|node| !script.is_honest(**node)).count();
        let tally =
            Tally { runs: 1, nodes: present.len(), hostile_nodes: hostile, ..Tally::default() };
        let by_name = nodes.iter().map(|node| (node.name.clone(), node.index)).collect();
        Ok(Rc::new(Self {
            script,
            nodes,
            links: RefCell::default(),
            rooms: RefCell::default(),
            ledger: RefCell::default(),
            tally: RefCell::new(tally),
            trace: RefCell::default(),
            forged: RefCell::default(),
            is_peace: Cell::new(false),
            trouble: Cell::new((Duration::ZERO, Duration::MAX)),
            start: Instant::now(),
            by_name,
            ways: RefCell::default(),
            flights: RefCell::default(),
            faults: RefCell::default(),
        }))
    }

    /// Chance on the way from one node to another.
    pub(crate) fn way(&self, from: usize, to: usize) -> Rc<Dice> {
        let new = || Rc::new(Dice::of(("way", self.script.seed, from, to)));
        Rc::clone(self.ways.borrow_mut().entry((from, to)).or_insert_with(new))
    }

    pub(crate) fn node_of(&self, name: &ServerName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The nodes that run, of those that are honest.
    pub(crate) fn honest(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_alive() && self.script.is_honest(node.index))
    }

    /// Does something with a node that runs.
    pub(crate) fn with_life<T>(&self, node: usize, act: impl FnOnce(&mut Life) -> T) -> Option<T> {
        self.nodes[node].life.borrow_mut().as_mut().map(act)
    }

    /// Lets something go on by itself, whatever becomes of the nodes.
    pub(crate) fn fly(&self, flight: impl Future<Output = ()> + 'static) {
        let mut flights = self.flights.borrow_mut();
        while let Some(landed) = flights.try_join_next() {
            self.watch(landed);
        }
        flights.spawn_local(flight);
    }

    /// Lets something go on as part of a node: it dies with it.
    pub(crate) fn spawn(&self, node: usize, task: impl Future<Output = ()> + 'static) {
        let ended = self.with_life(node, |life| {
            let mut ended = Vec::new();
            while let Some(done) = life.tasks.try_join_next() {
                ended.push(done);
            }
            life.tasks.spawn_local(task);
            ended
        });
        ended.into_iter().flatten().for_each(|done| self.watch(done));
    }

    /// A task that panicked is a failed run; one that was stopped is not.
    pub(crate) fn watch(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            self.fault(format!("a task panicked: {error}"));
        }
    }

    /// Notes something that must not happen.
    pub(crate) fn fault(&self, what: String) {
        let mut faults = self.faults.borrow_mut();
        // The first ones say most.
        if faults.len() < 8 {
            faults.push(what);
        }
    }

    /// Notes that something happened, for the trace.
    pub(crate) fn note(&self, what: impl std::hash::Hash + std::fmt::Debug) {
        let now = self.start.elapsed().as_millis();
        tracing::trace!(now, ?what, "happened");
        self.trace.borrow_mut().note((now, what));
    }

    /// Counts things that happened.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.borrow_mut());
    }

    /// Ends everything; gives what went wrong on the way.
    pub(crate) async fn close(self: &Rc<Self>) -> Option<String> {
        for node in 0..self.nodes.len() {
            self.stop(node).await;
        }
        let mut flights = self.flights.take();
        flights.shutdown().await;
        let faults = self.faults.borrow();
        (!faults.is_empty()).then(|| faults.join("\n  "))
    }
}
