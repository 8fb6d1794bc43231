//! Counts the streams of one connection that are alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use futures::task::AtomicWaker;

/// How many streams live; the handler that waits for one to end is woken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    waiting: AtomicWaker,
}

/// Counts one stream until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard(Arc<Shared>);

impl Live {
    /// Counts one more.
    pub(crate) fn enter(&self) -> Guard {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        Guard(self.0.clone())
    }

    /// The streams alive now.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Wakes `waker` when the next stream ends. Register before reading the count.
    pub(crate) fn wake(&self, waker: &Waker) {
        self.0.waiting.register(waker);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.waiting.wake();
    }
}
