//! Forward extremities and positions: what the rows of events tell, and what needs rows of its own.

use messagehub_store::{Mode, Snapshot, Store, StoreError, StreamPos, extremities, rooms, typing};

use crate::support::{Server, apply, at, message};

/// The rows that a table has.
fn count(snap: &Snapshot<'_>, table: &str) -> i64 {
    snap.conn().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// The last position that needed a row.
fn noted(snap: &Snapshot<'_>) -> i64 {
    snap.conn().query_row("SELECT last FROM positions", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn one_extremity_needs_no_row_and_several_do() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let mut room = server.create_room(txn, &alice)?;
            let first = server.send(txn, &mut room, message(&alice, "first"))?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [first]);
            assert_eq!(count(txn, "forward_extremities"), 0);

            // Two that follow the same event.
            let left = server.judged(txn, &room, message(&alice, "left"))?;
            let right = server.judged(txn, &room, message(&alice, "right"))?;
            let left = apply(txn, &mut room, &left)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [left]);
            let right = apply(txn, &mut room, &right)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [left, right]);
            assert_eq!(count(txn, "forward_extremities"), 2);

            let joint = server.send(txn, &mut room, message(&alice, "joint"))?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [joint]);
            assert_eq!(count(txn, "forward_extremities"), 0);

            extremities::replace(txn, room.nid, &[])?;
            assert_eq!(extremities::list(txn, room.nid)?, []);
            let again = server.judged(txn, &room, message(&alice, "again"))?;
            let again = apply(txn, &mut room, &again)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [again]);
            assert_eq!(count(txn, "forward_extremities"), 0);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_position_that_an_event_carries_needs_no_row() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let (by, author) = (server.clone(), alice.clone());
    let room = store.write(move |txn| by.create_room(txn, &author)).await.unwrap();
    assert_eq!(store.position(), StreamPos(2));
    assert_eq!(store.read(|snap| Ok::<_, StoreError>(noted(snap))).await.unwrap(), 0);
    assert_eq!(store.read(|snap| snap.position()).await.unwrap(), StreamPos(2));

    let nid = room.nid;
    let typist = alice.clone();
    store.write(move |txn| typing::start(txn, nid, &typist, at(1_000))).await.unwrap();
    assert_eq!(store.position(), StreamPos(3));
    assert_eq!(store.read(|snap| Ok::<_, StoreError>(noted(snap))).await.unwrap(), 3);

    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    assert_eq!(store.position(), StreamPos(3));
    let said = store
        .write(move |txn| {
            let mut room = rooms::find(txn, &room.room_id)?.unwrap();
            server.send(txn, &mut room, message(&alice, "after"))
        })
        .await
        .unwrap();
    assert_eq!(said.pos, Some(StreamPos(4)));

    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    assert_eq!(store.position(), StreamPos(4));
    assert_eq!(store.read(|snap| snap.position()).await.unwrap(), StreamPos(4));
}
