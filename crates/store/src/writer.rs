//! One thread writes. What waits together is committed together.

use std::{
    cell::RefCell,
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, TryRecvError};
use rusqlite::Connection;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    StoreError, Txn,
    ids::StreamPos,
    reader,
    shared::{Learned, Shared},
    txn::{Counters, Positions},
};

/// How many writes may wait. More callers wait for their turn outside the queue.
pub(crate) const MAX_QUEUED_WRITES: usize = 1_024;

/// How many writes one commit may hold: bounds what one failed commit takes along.
const MAX_GROUP: usize = 256;

/// How long a group may collect: bounds the latency of the first write in it.
const MAX_GROUP_TIME: Duration = Duration::from_millis(20);

/// When several writers were acknowledged together, their next writes come at
/// nearly the same time; looking this long for them costs less than another fsync.
const STRAGGLER_TIME: Duration = Duration::from_micros(100);

/// How long the writer looks for a next write before it sleeps. Who waits for one answer before
/// sending the next message comes again within this time.
const LINGER: Duration = Duration::from_micros(200);

/// A write in the queue: runs, and returns what to do after the commit.
pub(crate) type Job = Box<dyn FnOnce(&mut WriteSession) -> Ack + Send>;
/// Answers the caller. Gets the reason when the commit failed.
pub(crate) type Ack = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// What the writer is given to do.
pub(crate) enum Queued {
    /// A write, and the place it takes in the queue.
    Write(Job, OwnedSemaphorePermit),
    /// A short read of what was just committed; see [`Store::peek`](crate::Store::peek). Few wait at
    /// once: each has found the writer free, and only the writer says again that it is.
    Read(reader::Job),
}

/// The writer thread: ends when the store is dropped and the queue is empty.
pub(crate) fn run(mut session: WriteSession, queue: &Receiver<Queued>) {
    let mut expected = 1;
    while let Some(first) = session.next(queue) {
        match first {
            Queued::Write(job, permit) => {
                drop(permit);
                expected = session.run_group(job, queue, expected);
            }
            Queued::Read(job) => job(&session.conn, &session.shared),
        }
    }
}

/// The next write of a group. Reads that come meanwhile are for after it: they see what is committed.
fn next_write(
    queue: &Receiver<Queued>,
    patience: Duration,
    reads: &mut Vec<reader::Job>,
) -> Option<Job> {
    loop {
        match look(queue, patience)? {
            Queued::Write(job, permit) => {
                drop(permit);
                return Some(job);
            }
            Queued::Read(job) => reads.push(job),
        }
    }
}

/// Looks for a write without sleeping, giving way to whoever wants the core: waking a thread that
/// sleeps costs its waker 25 µs on a virtual machine, and as long again until it runs.
fn look(queue: &Receiver<Queued>, time: Duration) -> Option<Queued> {
    let since = Instant::now();
    loop {
        match queue.try_recv() {
            Err(TryRecvError::Empty) if since.elapsed() < time => thread::yield_now(),
            found => return found.ok(),
        }
    }
}

/// The one connection that writes, and the numbers it gives out.
pub(crate) struct WriteSession {
    conn: Connection,
    shared: Arc<Shared>,
    counters: Counters,
    unpublished: RefCell<Vec<Learned>>,
    committed: Positions,
    group: Group,
}

/// What the transaction under way holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Nothing: what fails takes the whole of it back.
    Empty,
    /// What closures before this one wrote, and a failure must leave alone.
    Started,
}

/// Where a closure began.
#[derive(Clone, Copy)]
struct Mark {
    given: Positions,
    recorded: Positions,
    unpublished: usize,
}

impl WriteSession {
    pub(crate) fn new(conn: Connection, shared: Arc<Shared>, counters: Counters) -> Self {
        let committed = counters.given;
        let unpublished = RefCell::default();
        Self { conn, shared, counters, unpublished, committed, group: Group::Empty }
    }

    /// Runs one closure alone: the group of [`Mode::Inline`](crate::Mode::Inline).
    pub(crate) fn run_alone<T, E: From<StoreError>>(
        &mut self,
        write: impl FnOnce(&mut Txn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin().map_err(StoreError::from)?;
        let result = self.attempt(write);
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        self.commit().map_err(StoreError::Commit)?;
        result
    }

    /// A read on the writing connection, for [`Mode::Inline`](crate::Mode::Inline).
    pub(crate) fn connection(&self) -> (&Connection, &Shared) {
        (&self.conn, &self.shared)
    }

    /// What is to be done next, and that there is nothing while there is not.
    fn next(&self, queue: &Receiver<Queued>) -> Option<Queued> {
        self.shared.writer_is_free.store(true, Ordering::Relaxed);
        let found = look(queue, LINGER);
        self.shared.writer_is_free.store(false, Ordering::Relaxed);
        found.or_else(|| queue.recv().ok())
    }

    /// Runs `first` and what arrives meanwhile, commits, and acknowledges. Returns how many there were.
    fn run_group(&mut self, first: Job, queue: &Receiver<Queued>, expected: usize) -> usize {
        if let Err(error) = self.begin() {
            // Dropping the job answers its caller with `StoreError::Closed`.
            tracing::error!(%error, "cannot begin a transaction");
            return 1;
        }
        let started = Instant::now();
        let mut acks = Vec::with_capacity(expected);
        let (mut next, mut reads) = (Some(first), Vec::new());
        while let Some(job) = next.take() {
            acks.push(job(self));
            if acks.len() < MAX_GROUP && started.elapsed() < MAX_GROUP_TIME && self.in_transaction()
            {
                let patience = if acks.len() < expected { STRAGGLER_TIME } else { Duration::ZERO };
                next = next_write(queue, patience, &mut reads);
            }
        }
        let outcome = self.commit();
        if let Err(reason) = &outcome {
            tracing::error!(reason, writes = acks.len(), "commit failed");
        }
        let count = acks.len();
        self.shared.writes.fetch_add(count as u64, Ordering::Relaxed);
        for ack in acks {
            ack(outcome.as_ref().copied().map_err(String::as_str));
        }
        for read in reads {
            read(&self.conn, &self.shared);
        }
        count
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        self.group = Group::Empty;
        self.execute("BEGIN IMMEDIATE")
    }

    /// Runs a closure so that an error or a panic takes back what it wrote and leaves the rest of
    /// the group alone: in a savepoint of its own, which the first one does not need.
    pub(crate) fn attempt<T, E: From<StoreError>>(
        &mut self,
        write: impl FnOnce(&mut Txn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let group = self.group;
        if group == Group::Started {
            self.execute("SAVEPOINT write").map_err(StoreError::from)?;
        }
        let mark = self.mark();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            write(&mut Txn::new(&self.conn, &self.shared, &self.unpublished, &mut self.counters))
        }));
        let result = outcome
            .unwrap_or_else(|panic| Err(StoreError::Panicked(panic_text(panic.as_ref())).into()));
        let result = match result {
            Ok(value) if self.in_transaction() => match self.keep(group) {
                Ok(()) => return Ok(value),
                Err(error) => Err(StoreError::from(error).into()),
            },
            // SQLite ends the whole transaction by itself on some I/O errors; `commit` then fails too.
            Ok(_) => Err(StoreError::Commit("the transaction was rolled back".to_owned()).into()),
            Err(error) => Err(error),
        };
        self.return_to(mark);
        if self.in_transaction() {
            self.take_back(group).map_err(StoreError::from)?;
        }
        result
    }

    fn mark(&self) -> Mark {
        Mark {
            given: self.counters.given,
            recorded: self.counters.recorded,
            unpublished: self.unpublished.borrow().len(),
        }
    }

    fn return_to(&mut self, mark: Mark) {
        self.counters.given = mark.given;
        self.counters.recorded = mark.recorded;
        self.unpublished.borrow_mut().truncate(mark.unpublished);
    }

    /// Adds what a closure wrote to the group as it was before it.
    fn keep(&mut self, before: Group) -> rusqlite::Result<()> {
        self.group = Group::Started;
        match before {
            Group::Empty => Ok(()),
            Group::Started => self.execute("RELEASE write"),
        }
    }

    /// Takes back what a closure wrote, and leaves the group as it was before it.
    fn take_back(&mut self, before: Group) -> rusqlite::Result<()> {
        self.group = before;
        match before {
            Group::Empty => {
                self.execute("ROLLBACK")?;
                self.begin()
            }
            Group::Started => {
                self.execute("ROLLBACK TO write")?;
                self.execute("RELEASE write")
            }
        }
    }

    /// Makes the group durable, then publishes its names and its position.
    fn commit(&mut self) -> Result<(), String> {
        match self.try_commit() {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.committed = self.counters.given;
                for learned in self.unpublished.borrow_mut().drain(..) {
                    self.shared.learn(learned);
                }
                self.publish_position();
                Ok(())
            }
            Err(error) => {
                if self.in_transaction()
                    && let Err(error) = self.execute("ROLLBACK")
                {
                    tracing::error!(%error, "cannot roll back");
                }
                let (given, recorded) = (self.committed, self.committed);
                self.return_to(Mark { given, recorded, unpublished: 0 });
                Err(error)
            }
        }
    }

    fn try_commit(&mut self) -> Result<(), String> {
        if !self.in_transaction() {
            return Err("the transaction was rolled back".to_owned());
        }
        let text = |error: rusqlite::Error| error.to_string();
        let given = self.counters.given;
        if given != self.counters.recorded {
            let mut update = self
                .conn
                .prepare_cached("UPDATE positions SET last = ?1, first = ?2")
                .map_err(text)?;
            update.execute((given.last, given.first)).map_err(text)?;
            self.counters.recorded = given;
        }
        self.execute("COMMIT").map_err(text)
    }

    fn publish_position(&self) {
        // Before anybody is woken: they look for what was written.
        self.shared.writer_is_free.store(true, Ordering::Relaxed);
        let position = StreamPos(self.committed.last);
        self.shared.recent.complete(position);
        self.shared.position.send_if_modified(|published| {
            let moved = *published != position;
            *published = position;
            moved
        });
    }

    fn in_transaction(&self) -> bool {
        !self.conn.is_autocommit()
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}

/// The message of a panic, as far as it has one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text: Option<&dyn Display> = match panic.downcast_ref::<&str>() {
        Some(text) => Some(text),
        None => panic.downcast_ref::<String>().map(|text| text as &dyn Display),
    };
    text.map_or_else(|| "no message".to_owned(), ToString::to_string)
}
