//! The handle: how everybody else reads and writes.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
};

use crossbeam_channel::Sender;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::{
    OpenError, Snapshot, StoreError, StreamPos, Txn, migrations,
    presence::Activity,
    reader,
    shared::Shared,
    txn::Counters,
    writer::{self, WriteSession},
};

/// The database file in the data directory.
pub const DATABASE_FILE: &str = "messagehub.db";

/// Held as long as a store is open.
const LOCK_FILE: &str = "messagehub.lock";

/// The directory of media files in the data directory.
pub const MEDIA_DIR: &str = "media";

/// More than two readers help only where there are cores for them.
const READERS: std::ops::RangeInclusive<usize> = 2..=4;

/// Who runs the closures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Threads of the store: what the node uses. A write is acknowledged when it is on the disk.
    Threaded,
    /// The caller's thread, each write committed alone: one run is one thread and
    /// repeats from its seed. For the simulator, whose thousand stores in one process
    /// have a sixteenth of the cache each; survives the death of the process but, for
    /// speed, not that of the machine.
    Inline,
}

impl Mode {
    /// Of this much of a cache, what a store gets.
    pub(crate) fn share(self, whole: usize) -> usize {
        match self {
            Self::Threaded => whole,
            Self::Inline => whole / 16,
        }
    }
}

/// For the metrics: how well writes are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Closures run.
    pub writes: u64,
    /// Commits made for them.
    pub commits: u64,
}

/// What this node remembers. Cloning is cheap; the last clone closes the database.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    shared: Arc<Shared>,
    media_dir: PathBuf,
    /// Dropped last, after the threads have ended.
    _lock: File,
}

enum Engine {
    Inline(Mutex<WriteSession>),
    Threaded(Threads),
}

struct Threads {
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    readers: Crew<reader::Queued>,
    /// Dropped last: the last connection to close copies the log back, and only a
    /// writing one can.
    writer: Crew<writer::Queued>,
}

/// Threads that take their work from one queue.
struct Crew<Q> {
    /// `None` only while it is being dropped.
    queue: Option<Sender<Q>>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the data directory, creating what is missing and migrating what is old.
    ///
    /// # Errors
    /// A newer, damaged or foreign database, or one in use elsewhere, is refused and left as it is.
    pub fn open(dir: &Path, mode: Mode) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir.join(MEDIA_DIR)).map_err(io)?;
        let lock = lock(dir)?;
        let path = dir.join(DATABASE_FILE);
        let mut conn = open_writer(&path, mode)?;
        migrations::run(&mut conn, &path)?;
        let damaged = |error| migrations::as_open_error(error, &path);
        let counters = Counters::load(&conn).map_err(damaged)?;
        let shared = Arc::new(Shared::new(StreamPos(counters.given.last), mode));
        let session = WriteSession::new(conn, Arc::clone(&shared), counters);
        let engine = match mode {
            Mode::Inline => Engine::Inline(Mutex::new(session)),
            Mode::Threaded => Engine::Threaded(Threads::start(session, &shared, &path)?),
        };
        Ok(Self {
            inner: Arc::new(Inner { engine, shared, media_dir: dir.join(MEDIA_DIR), _lock: lock }),
        })
    }

    /// Runs a closure on the writer thread, in a transaction. When it returns `Ok`,
    /// the answer comes after the commit; when it returns `Err` or panics, nothing of
    /// it is kept. Dropping the future does not stop a write that is queued.
    ///
    /// # Errors
    /// The closure's, or a [`StoreError`] turned into its error type.
    pub async fn write<T, E, F>(&self, write: F) -> Result<T, E>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.inner.engine {
            Engine::Inline(session) => {
                session.lock().unwrap_or_else(PoisonError::into_inner).run_alone(write)
            }
            Engine::Threaded(threads) => threads.write(write).await,
        }
    }

    /// Runs a closure on a reader thread, on one snapshot of what is committed.
    ///
    /// # Errors
    /// The closure's, or a [`StoreError`] turned into its error type.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.inner.engine {
            Engine::Inline(session) => {
                let session = session.lock().unwrap_or_else(PoisonError::into_inner);
                let (conn, shared) = session.connection();
                reader::attempt(conn, shared, read)
            }
            Engine::Threaded(threads) => threads.read(read).await,
        }
    }

    /// As [`Store::read`], for a short read of what was just committed, by whoever was woken by it.
    ///
    /// The writer runs it where it has nothing else to do: it has the pages that the readers would
    /// have to fetch anew, and is awake.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn peek<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.inner.engine {
            Engine::Threaded(threads) if self.inner.shared.claim_writer() => {
                let (job, answer) = reader::job(read);
                threads.writer.send(writer::Queued::Read(job))?;
                answer.await.map_err(|_| StoreError::Closed)?
            }
            _ => self.read(read).await,
        }
    }

    /// The last committed position.
    pub fn position(&self) -> StreamPos {
        *self.inner.shared.position.borrow()
    }

    /// Wakes whenever the position moves. Subscribe first, then read: so no change is missed.
    pub fn subscribe(&self) -> watch::Receiver<StreamPos> {
        self.inner.shared.position.subscribe()
    }

    /// How much was written since the store was opened.
    pub fn counts(&self) -> Counts {
        let shared = &self.inner.shared;
        Counts {
            writes: shared.writes.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
        }
    }

    /// When the local users were last seen; not part of any snapshot.
    pub fn activity(&self) -> &Activity {
        &self.inner.shared.activity
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// The directory of media files.
    pub fn media_dir(&self) -> &Path {
        &self.inner.media_dir
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("shared", &self.inner.shared).finish_non_exhaustive()
    }
}

impl Threads {
    fn start(session: WriteSession, shared: &Arc<Shared>, path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let (queue, jobs) = crossbeam_channel::unbounded();
        let thread = thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || writer::run(session, &jobs)).map_err(io)?;
        let writer = Crew { queue: Some(queue), threads: vec![thread] };
        let (queue, jobs) = crossbeam_channel::unbounded();
        let mut readers = Crew { queue: Some(queue), threads: Vec::new() };
        let cores = thread::available_parallelism().map_or(*READERS.start(), usize::from);
        for n in 0..cores.clamp(*READERS.start(), *READERS.end()) {
            let conn = open_reader(path)?;
            let (shared, jobs) = (Arc::clone(shared), jobs.clone());
            let thread = thread::Builder::new().name(format!("store-reader-{n}"));
            let thread = thread.spawn(move || reader::run(&conn, &shared, &jobs)).map_err(io)?;
            readers.threads.push(thread);
        }
        Ok(Self {
            writes: Arc::new(Semaphore::new(writer::MAX_QUEUED_WRITES)),
            reads: Arc::new(Semaphore::new(reader::MAX_QUEUED_READS)),
            readers,
            writer,
        })
    }

    async fn write<T, E, F>(&self, write: F) -> Result<T, E>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = permit(&self.writes).await?;
        let (reply, answer) = oneshot::channel();
        let job: writer::Job = Box::new(move |session| {
            let result = session.attempt(write);
            Box::new(move |commit| {
                let commit = commit.map_err(|reason| StoreError::Commit(reason.to_owned()));
                // The caller may have gone; the write stands.
                drop(reply.send(result.and_then(|value| commit.map(|()| value).map_err(E::from))));
            })
        });
        self.writer.send(writer::Queued::Write(job, permit))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = permit(&self.reads).await?;
        let (job, answer) = reader::job(read);
        self.readers.send(reader::Queued { job, permit })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl<Q> Crew<Q> {
    fn send(&self, queued: Q) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(queued).map_err(|_| StoreError::Closed)
    }
}

impl<Q> Drop for Crew<Q> {
    /// Lets the threads finish what is queued, and waits: after it their files are free.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // The last clone may have been inside a closure, on one of these threads.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| StoreError::Closed)
}

/// Two writers would give out the same numbers, so there is only one.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

fn open_writer(path: &Path, mode: Mode) -> Result<Connection, OpenError> {
    let damaged = |error| migrations::as_open_error(error, path);
    let conn = Connection::open(path)?;
    // Looked at before anything is set: a file that is refused stays as it is.
    migrations::check(&conn, path)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
    let synchronous = match mode {
        Mode::Threaded => "FULL",
        Mode::Inline => "OFF",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // 16 MB of log between checkpoints: a page that changes often is copied back once.
    conn.pragma_update(None, "wal_autocheckpoint", 4_096)?;
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    settings(&conn, mode.share(32 * 1024))?;
    Ok(conn)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settings(&conn, 8 * 1024)?;
    Ok(conn)
}

fn settings(conn: &Connection, cache_kib: usize) -> Result<(), OpenError> {
    // Negative: in KiB.
    let kib = i64::try_from(cache_kib).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", -kib)?;
    // Plans do not depend on bound values: else SQLite prepares a statement anew whenever
    // a range or a limit is bound to another value, which costs more than running it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Savepoint journals stay in memory.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // Only a checkpoint or a command such as `check` can hold a lock, and not for long.
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    // Every statement of this crate, with room to spare.
    conn.set_prepared_statement_cache_capacity(512);
    Ok(())
}

#[cfg(test)]
mod tests;
