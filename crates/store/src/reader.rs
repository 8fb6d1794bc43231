//! A few threads read, each with a connection of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crossbeam_channel::Receiver;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{Snapshot, StoreError, shared::Shared, writer::panic_text};

/// How many reads may wait. More callers wait for their turn outside the queue.
pub(crate) const MAX_QUEUED_READS: usize = 1_024;

/// A read in the queue: runs and answers its caller.
pub(crate) type Job = Box<dyn FnOnce(&Connection, &Shared) + Send>;

/// A job and the place it takes in the queue.
pub(crate) struct Queued {
    pub(crate) job: Job,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What runs a closure on one snapshot, and where its answer comes.
pub(crate) fn job<T, E, F>(read: F) -> (Job, oneshot::Receiver<Result<T, E>>)
where
    F: FnOnce(&Snapshot<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |conn, shared| {
        // Nobody waits for a read whose caller has gone.
        if !reply.is_closed() {
            drop(reply.send(attempt(conn, shared, read)));
        }
    });
    (job, answer)
}

/// A reader thread: ends when the store is dropped and the queue is empty.
pub(crate) fn run(conn: &Connection, shared: &Arc<Shared>, queue: &Receiver<Queued>) {
    while let Ok(Queued { job, permit }) = queue.recv() {
        drop(permit);
        job(conn, shared);
    }
}

/// Runs one closure on one snapshot.
pub(crate) fn attempt<T, E: From<StoreError>>(
    conn: &Connection,
    shared: &Shared,
    read: impl FnOnce(&Snapshot<'_>) -> Result<T, E>,
) -> Result<T, E> {
    execute(conn, "BEGIN").map_err(StoreError::from)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| read(&Snapshot::committed(conn, shared))));
    // A snapshot has nothing to keep; what matters is that it ends.
    if !conn.is_autocommit() {
        execute(conn, "ROLLBACK").map_err(StoreError::from)?;
    }
    outcome.unwrap_or_else(|panic| Err(StoreError::Panicked(panic_text(panic.as_ref())).into()))
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
