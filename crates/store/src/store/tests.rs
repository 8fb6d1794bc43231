use std::sync::mpsc;

use ruma::events::StateEventType;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{EventNid, room_state};

#[derive(Debug, thiserror::Error)]
enum TestError {
    #[error("refused: {0}")]
    Refused(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn open(mode: Mode) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), mode).unwrap();
    (dir, store)
}

/// A row that names its position.
fn note(txn: &mut Txn<'_>, n: i64) -> Result<StreamPos, StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO peer_addresses (server, address, seen_ts) VALUES (?1, '', ?2)",
        )?
        .execute((n.to_string(), pos))?;
    Ok(pos)
}

fn notes(conn: &Connection) -> Vec<(i64, i64)> {
    let mut select = conn
        .prepare("SELECT CAST(server AS INTEGER), seen_ts FROM peer_addresses ORDER BY seen_ts")
        .unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn read_notes(store: &Store) -> Vec<(i64, i64)> {
    store.read(|snap| Ok::<_, StoreError>(notes(snap.conn()))).await.unwrap()
}

/// Holds the writer back until everything else is queued, so that it is one group.
struct Gate(mpsc::Sender<()>);

impl Gate {
    fn close(store: &Store, writes: &mut JoinSet<Result<StreamPos, TestError>>) -> Self {
        let (open, opened) = mpsc::channel();
        let store = store.clone();
        writes.spawn(async move {
            store
                .write(move |txn| {
                    opened.recv().unwrap();
                    Ok(txn.position()?)
                })
                .await
        });
        Self(open)
    }

    async fn open(self) {
        // On this one thread, everything spawned before runs up to its place in the queue.
        tokio::task::yield_now().await;
        self.0.send(()).unwrap();
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_committed() {
    let (dir, store) = open(Mode::Threaded);
    let mut writes = JoinSet::new();
    for n in 0..200 {
        let (store, path) = (store.clone(), dir.path().join(DATABASE_FILE));
        writes.spawn(async move {
            let pos = store.write(move |txn| note(txn, n)).await.unwrap();
            assert!(store.position() >= pos);
            // A connection that shares nothing with the store.
            let conn = open_reader(&path).unwrap();
            assert!(notes(&conn).contains(&(n, pos.0)));
        });
    }
    writes.join_all().await;
    assert_eq!(store.position(), StreamPos(200));
}

#[tokio::test]
async fn in_one_group_a_failure_takes_back_its_own_writes_only() {
    let (_dir, store) = open(Mode::Threaded);
    let mut writes = JoinSet::new();
    let gate = Gate::close(&store, &mut writes);
    for n in 1..=30 {
        let store = store.clone();
        writes.spawn(async move {
            store
                .write(move |txn| {
                    let pos = note(txn, n)?;
                    match n % 3 {
                        0 => Err(TestError::Refused(n)),
                        1 => panic!("at {n}"),
                        _ => Ok(pos),
                    }
                })
                .await
        });
    }
    gate.open().await;
    let (mut refused, mut panicked, mut accepted) = (Vec::new(), 0, Vec::new());
    for result in writes.join_all().await {
        match result {
            Ok(pos) => accepted.push(pos.0),
            Err(TestError::Refused(n)) => refused.push(n),
            Err(TestError::Store(StoreError::Panicked(text))) => {
                assert!(text.starts_with("at "), "{text}");
                panicked += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    refused.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(refused, (1..=10).map(|n| n * 3).collect::<Vec<_>>());
    assert_eq!(panicked, 10);
    assert_eq!(accepted, (0..=10).collect::<Vec<_>>());
    let kept: Vec<_> = (1..=10).map(|pos| (pos * 3 - 1, pos)).collect();
    assert_eq!(read_notes(&store).await, kept);
    assert_eq!(store.position(), StreamPos(10));
}

#[tokio::test]
async fn when_a_group_cannot_be_committed_nothing_of_it_is_acknowledged() {
    let (_dir, store) = open(Mode::Threaded);
    store.write(|txn| note(txn, 1)).await.unwrap();
    let (mut writes, mut first) = (JoinSet::new(), JoinSet::new());
    let gate = Gate::close(&store, &mut first);
    for n in 2..=3 {
        let store = store.clone();
        writes.spawn(async move {
            store
                .write(move |txn| {
                    let pos = note(txn, n)?;
                    if n == 3 {
                        // As SQLite does by itself when the disk fails.
                        txn.conn().execute_batch("ROLLBACK").map_err(StoreError::from)?;
                    }
                    Ok(pos)
                })
                .await
        });
    }
    gate.open().await;
    for result in writes.join_all().await {
        assert!(matches!(result, Err(TestError::Store(StoreError::Commit(_)))), "{result:?}");
    }
    assert_eq!(store.position(), StreamPos(1));
    assert_eq!(store.write(|txn| note(txn, 4)).await.unwrap(), StreamPos(2));
    assert_eq!(read_notes(&store).await, [(1, 1), (4, 2)]);
}

#[tokio::test]
async fn a_name_made_by_a_failed_write_is_made_again() {
    for mode in [Mode::Threaded, Mode::Inline] {
        let (_dir, store) = open(mode);
        let set = |txn: &mut Txn<'_>| {
            room_state::set(txn, room_state::EMPTY, &StateEventType::RoomTopic, "x", EventNid(7))
        };
        let failed: Result<(), TestError> = store
            .write(move |txn| {
                set(txn)?;
                Err(TestError::Refused(0))
            })
            .await;
        assert!(matches!(failed, Err(TestError::Refused(0))));
        let root = store.write(set).await.unwrap();
        let state = store.read(move |snap| room_state::all(snap, root)).await.unwrap();
        assert_eq!(state, [(StateEventType::RoomTopic, "x".to_owned(), EventNid(7))]);
    }
}

#[tokio::test]
async fn readers_see_one_moment_and_the_position_is_published_after_the_commit() {
    let (_dir, store) = open(Mode::Threaded);
    let mut positions = store.subscribe();
    let (reading, started) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let slow = {
        let store = store.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            store
                .read(move |snap| {
                    let before = snap.position()?;
                    reading.send(()).unwrap();
                    wait.recv().unwrap();
                    Ok::<_, StoreError>((before, snap.position()?, notes(snap.conn())))
                })
                .await
        });
        tasks
    };
    tokio::task::yield_now().await;
    started.recv().unwrap();
    store.write(|txn| note(txn, 1)).await.unwrap();
    positions.changed().await.unwrap();
    assert_eq!(*positions.borrow(), StreamPos(1));
    assert_eq!(read_notes(&store).await, [(1, 1)]);
    go_on.send(()).unwrap();
    let seen = slow.join_all().await.remove(0).unwrap();
    assert_eq!(seen, (StreamPos(0), StreamPos(0), vec![]));
}

/// Where a peek runs.
async fn peeking_thread(store: &Store) -> String {
    let name = || Ok::<_, StoreError>(thread::current().name().map(str::to_owned));
    store.peek(move |_| name()).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_writer_reads_where_it_is_free() {
    let (_dir, store) = open(Mode::Threaded);
    let is_free = &store.inner.shared.writer_is_free;
    let asleep = async || {
        while is_free.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    store.write(|txn| note(txn, 1)).await.unwrap();
    asleep().await;
    assert!(peeking_thread(&store).await.starts_with("store-reader"));
    // Said by the test, so that it does not matter how long the writer stays awake.
    is_free.store(true, Ordering::Relaxed);
    let panicked = store.peek(|_| -> Result<(), StoreError> { panic!("here") }).await;
    assert!(matches!(panicked, Err(StoreError::Panicked(_))));
    asleep().await;
    is_free.store(true, Ordering::Relaxed);
    assert_eq!(peeking_thread(&store).await, "store-writer");
}

#[tokio::test]
async fn a_read_by_the_writer_sees_whole_groups() {
    let (_dir, store) = open(Mode::Threaded);
    let (begun, begins) = oneshot::channel();
    let (open, opened) = mpsc::channel();
    let (mut writes, first) = (JoinSet::new(), store.clone());
    writes.spawn(async move {
        let write = first.write(move |txn| {
            begun.send(()).unwrap();
            opened.recv().unwrap();
            note(txn, 1)
        });
        write.await
    });
    begins.await.unwrap();
    // As by somebody who found the writer free just before the group began.
    store.inner.shared.writer_is_free.store(true, Ordering::Relaxed);
    let (reader, second) = (store.clone(), store.clone());
    let mut reads = JoinSet::new();
    reads.spawn(async move {
        reader.peek(|snap| Ok::<_, StoreError>((notes(snap.conn()), snap.position()?))).await
    });
    tokio::task::yield_now().await;
    writes.spawn(async move { second.write(|txn| note(txn, 2)).await });
    tokio::task::yield_now().await;
    open.send(()).unwrap();
    for written in writes.join_all().await {
        written.unwrap();
    }
    let seen = reads.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(seen, (vec![(1, 1), (2, 2)], StreamPos(2)));
    assert_eq!(store.counts().commits, 1);
}

#[tokio::test]
async fn a_panic_in_a_read_ends_nothing_else() {
    for mode in [Mode::Threaded, Mode::Inline] {
        let (_dir, store) = open(mode);
        for _ in 0..10 {
            let result: Result<(), StoreError> = store.read(|_| panic!("no {}", 1)).await;
            assert!(matches!(result, Err(StoreError::Panicked(text)) if text == "no 1"));
        }
        assert_eq!(read_notes(&store).await, []);
    }
}

#[tokio::test]
async fn after_a_crash_everything_acknowledged_is_there() {
    let (dir, store) = open(Mode::Threaded);
    for n in 1..=20 {
        store.write(move |txn| note(txn, n)).await.unwrap();
    }
    // What a killed process leaves: the files as they are, with no orderly close.
    let left = tempfile::tempdir().unwrap();
    for file in [DATABASE_FILE.to_owned(), format!("{DATABASE_FILE}-wal")] {
        fs::copy(dir.path().join(&file), left.path().join(&file)).unwrap();
    }
    let store = Store::open(left.path(), Mode::Threaded).unwrap();
    assert_eq!(read_notes(&store).await, (1..=20).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(store.position(), StreamPos(20));
    assert_eq!(store.write(|txn| note(txn, 21)).await.unwrap(), StreamPos(21));
}

#[tokio::test]
async fn a_failure_that_opens_a_group_takes_back_its_own_writes_only() {
    let (_dir, store) = open(Mode::Threaded);
    let mut writes = JoinSet::new();
    let (open, opened) = mpsc::channel();
    let first = store.clone();
    writes.spawn(async move {
        first
            .write(move |txn| {
                note(txn, 1)?;
                opened.recv().unwrap();
                Err(TestError::Refused(1))
            })
            .await
    });
    for n in 2..=3 {
        let store = store.clone();
        writes.spawn(async move { Ok(store.write(move |txn| note(txn, n)).await?) });
    }
    Gate(open).open().await;
    writes.join_all().await;
    assert_eq!(read_notes(&store).await, [(2, 1), (3, 2)]);
    assert_eq!(store.counts().commits, 1);
    assert_eq!(store.position(), StreamPos(2));
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_frees_the_directory() {
    let (dir, store) = open(Mode::Threaded);
    assert!(matches!(Store::open(dir.path(), Mode::Inline), Err(OpenError::InUse { .. })));
    let mut writes = JoinSet::new();
    for n in 1..=50 {
        let store = store.clone();
        writes.spawn(async move { store.write(move |txn| note(txn, n)).await.unwrap() });
    }
    tokio::task::yield_now().await;
    // The callers go; what they have queued stands.
    drop(writes);
    tokio::task::yield_now().await;
    drop(store);
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    assert_eq!(read_notes(&store).await.len(), 50);
}

#[test]
fn a_store_may_be_dropped_on_its_own_threads() {
    let (dir, store) = open(Mode::Threaded);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let inside = store.clone();
    runtime.block_on(async {
        let write = store.write(move |txn| {
            drop(inside);
            note(txn, 1)
        });
        write.await.unwrap();
    });
    drop(store);
    Store::open(dir.path(), Mode::Inline).unwrap();
}

#[tokio::test]
async fn inline_gives_the_same_answers_on_the_callers_thread() {
    let (dir, store) = open(Mode::Inline);
    let here = thread::current().id();
    for n in 1..=5 {
        let result: Result<StreamPos, TestError> = store
            .write(move |txn| {
                assert_eq!(thread::current().id(), here);
                let pos = note(txn, n)?;
                if n == 3 { Err(TestError::Refused(n)) } else { Ok(pos) }
            })
            .await;
        assert_eq!(result.is_ok(), n != 3);
    }
    assert_eq!(read_notes(&store).await, [(1, 1), (2, 2), (4, 3), (5, 4)]);
    drop(store);
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    assert_eq!(store.position(), StreamPos(4));
}

/// Opening must fail, and leave the file as it is.
fn refused(prepare: impl FnOnce(&Path)) -> OpenError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE_FILE);
    prepare(&path);
    let before = fs::read(&path).unwrap();
    let error = Store::open(dir.path(), Mode::Threaded).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), before, "{error}");
    error
}

fn existing(path: &Path, change: impl FnOnce(&Connection)) {
    drop(Store::open(path.parent().unwrap(), Mode::Threaded).unwrap());
    let conn = Connection::open(path).unwrap();
    change(&conn);
    conn.pragma_update(None, "journal_mode", "DELETE").unwrap();
}

#[test]
fn a_newer_schema_is_refused() {
    let error = refused(|path| {
        existing(path, |conn| conn.pragma_update(None, "user_version", 999).unwrap());
    });
    assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error}");
}

#[test]
fn a_foreign_database_is_refused() {
    let error = refused(|path| {
        Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    });
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[test]
fn a_damaged_database_is_refused() {
    let error = refused(|path| fs::write(path, b"not a database at all, but long enough").unwrap());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let error = refused(|path| {
        existing(path, |_| ());
        // The first page holds the schema.
        let mut bytes = fs::read(path).unwrap();
        bytes[100..4_096].fill(0xff);
        fs::write(path, bytes).unwrap();
    });
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}
