//! Everything there is in a run.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::{OwnedRoomId, OwnedServerName};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Fault, Switches, Tally,
    ledger::Ledger,
    life::{Life, Node},
    links::Links,
    plan::Plan,
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
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: RefCell<Links>,
    pub(crate) rooms: RefCell<Vec<KnownRoom>>,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) trace: RefCell<Trace>,
    /// Whether nothing is lost any more.
    pub(crate) is_peace: Cell<bool>,
    pub(crate) start: Instant,
    rng: RefCell<StdRng>,
    /// What is on its way, and outlives the node it came from.
    flights: RefCell<JoinSet<()>>,
    faults: RefCell<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, switches: Switches) -> Result<Rc<Self>, Fault> {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng, switches);
        let nodes = (0..plan.nodes).map(|index| Node::draw(index, &mut rng));
        let nodes = nodes.collect::<Result<Vec<_>, Fault>>()?;
        let tally = Tally { runs: 1, nodes: nodes.len(), ..Tally::default() };
        Ok(Rc::new(Self {
            links: RefCell::new(Links::new(nodes.len())),
            plan,
            nodes,
            rooms: RefCell::default(),
            ledger: RefCell::default(),
            tally: RefCell::new(tally),
            trace: RefCell::default(),
            is_peace: Cell::new(false),
            start: Instant::now(),
            rng: RefCell::new(rng),
            flights: RefCell::default(),
            faults: RefCell::default(),
        }))
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..bound.max(1))
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// One of them, if there are any.
    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let at = self.below(u64::try_from(from.len()).unwrap_or(1));
        from.get(usize::try_from(at).unwrap_or_default()).cloned()
    }

    /// A time between two, in milliseconds.
    pub(crate) fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }

    /// A seed for something that draws for itself.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.rng.borrow_mut().random()
    }

    pub(crate) fn node_of(&self, name: &OwnedServerName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// The nodes that run.
    pub(crate) fn alive(&self) -> Vec<usize> {
        self.nodes.iter().filter(|node| node.is_alive()).map(|node| node.index).collect()
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
