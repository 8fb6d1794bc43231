//! Chance, in many small streams: what is drawn for one thing does not change when another thing
//! is left out of a script, so that a script can be made smaller and still fail.

use std::{cell::RefCell, hash::Hash, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::trace::hash_of;

/// One stream.
#[derive(Debug)]
pub(crate) struct Dice(RefCell<StdRng>);

impl Dice {
    /// The stream that belongs to something.
    pub(crate) fn of(what: impl Hash) -> Self {
        Self(RefCell::new(StdRng::seed_from_u64(hash_of(what))))
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.borrow_mut().random_range(0..bound.max(1))
    }

    /// As [`Self::below`], for places in lists.
    pub(crate) fn index(&self, bound: usize) -> usize {
        self.0.borrow_mut().random_range(0..bound.max(1))
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// One of them, if there are any.
    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.index(from.len())).cloned() }
    }

    /// Some of them, each at most once, in any order.
    pub(crate) fn some<T: Clone>(&self, from: &[T], count: usize) -> Vec<T> {
        let mut left = from.to_vec();
        let mut some = Vec::new();
        while some.len() < count && !left.is_empty() {
            some.push(left.swap_remove(self.index(left.len())));
        }
        some
    }

    /// A time between two, in milliseconds.
    pub(crate) fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }

    /// Any number.
    pub(crate) fn any(&self) -> u64 {
        self.0.borrow_mut().random()
    }

    /// A seed for something that draws for itself.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.borrow_mut().random()
    }
}
