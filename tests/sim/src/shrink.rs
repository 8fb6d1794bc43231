//! A smaller script that fails in the same way: what is left is what matters.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{Failure, Script, run};

/// A script after shrinking, and how it fails.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest script that was found.
    pub script: Script,
    /// Its failure.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: usize,
}

/// Leaves out nodes, steps and faults as long as the run goes on to fail in the same way, until
/// nothing more can be left out or the time is up.
pub fn shrink(script: &Script, failure: Failure, time: Duration) -> Shrunk {
    let best = Shrunk { script: script.clone(), failure, runs: 0 };
    let mut search = Search { best, until: Instant::now() + time };
    loop {
        let before = search.best.script.clone();
        search.drop_steps();
        search.drop_nodes();
        search.drop_faults();
        if search.best.script == before || search.is_over() {
            return search.best;
        }
    }
}

struct Search {
    best: Shrunk,
    until: Instant,
}

impl Search {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes a script if it is another one and fails in the same way.
    fn try_out(&mut self, change: impl FnOnce(&mut Script)) -> bool {
        let mut script = self.best.script.clone();
        change(&mut script);
        if script == self.best.script || self.is_over() {
            return false;
        }
        self.best.runs += 1;
        match run(&script) {
            Err(failure) if failure.kind() == self.best.failure.kind() => {
                self.best.script = script;
                self.best.failure = failure;
                true
            }
            _ => false,
        }
    }

    /// First many at once, then fewer, then one by one.
    fn drop_steps(&mut self) {
        let mut many = self.best.script.steps.len().div_ceil(2);
        while many > 0 {
            let mut at = 0;
            while at < self.best.script.steps.len() && !self.is_over() {
                let end = (at + many).min(self.best.script.steps.len());
                let fails = self.try_out(|script| {
                    script.steps.drain(at..end);
                });
                if !fails {
                    at += many;
                }
            }
            many /= 2;
        }
    }

    fn drop_nodes(&mut self) {
        for node in self.best.script.present().into_iter().rev() {
            self.try_out(|script| script.nodes[node].is_there = false);
        }
    }

    fn drop_faults(&mut self) {
        for node in self.best.script.present() {
            for vice in self.best.script.nodes[node].vices.clone() {
                self.try_out(|script| {
                    script.nodes[node].vices.remove(&vice);
                });
            }
        }
        self.try_out(|script| script.nodes.iter_mut().for_each(|node| node.skew_ms = 0));
        self.try_out(|script| script.net.frames_lost = 0);
        self.try_out(|script| script.net.frames_lost = 100);
        self.try_out(|script| script.net.requests_lost = 0);
        self.try_out(|script| script.net.twice = 0);
        self.try_out(|script| script.net.late = 0);
        self.try_out(|script| script.net.mesh = 100);
        self.try_out(|script| script.net.hop_ms = 1);
        self.try_out(|script| script.net.apart = BTreeSet::new());
        self.try_out(|script| script.users = 1);
        self.try_out(|script| script.founders.truncate(1));
        for step in 0..self.best.script.steps.len() {
            self.try_out(|script| script.steps[step].pause_ms = 0);
        }
    }
}
