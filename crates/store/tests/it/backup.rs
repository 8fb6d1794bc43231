use std::fs;

use messagehub_store::{
    DATABASE_FILE, Mode, OpenError, Store, StoreError,
    backup::{self, check},
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{Server, message};

/// A data directory with a room in it, and the store that has it open.
async fn filled() -> (TempDir, Store) {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    store
        .write(move |txn| {
            let alice = server.user("alice");
            let mut room = server.create_room(txn, &alice)?;
            for n in 0..50 {
                server.send(txn, &mut room, message(&alice, &n.to_string()))?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    (dir, store)
}

#[tokio::test]
async fn a_backup_of_a_running_store_is_a_store() {
    let (dir, store) = filled().await;
    let copy = tempfile::tempdir().unwrap();
    let target = copy.path().join(DATABASE_FILE);
    backup::backup(dir.path(), &target).unwrap();
    assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 1);
    let report = check(copy.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.rooms, report.events, report.position), (1, 52, 52));
    let restored = Store::open(copy.path(), Mode::Threaded).unwrap();
    assert_eq!(restored.position(), store.position());

    let again = backup::backup(dir.path(), &target);
    assert!(matches!(again, Err(OpenError::Exists { .. })), "{again:?}");
    let nothing = tempfile::tempdir().unwrap();
    let missing = backup::backup(nothing.path(), &copy.path().join("other"));
    assert!(matches!(missing, Err(OpenError::Missing { .. })), "{missing:?}");
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_running_store_can_be_checked() {
    let (dir, _store) = filled().await;
    let report = check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// Each change is found, and described by a text that contains the given one.
#[tokio::test]
async fn every_kind_of_damage_is_found() {
    for (damage, expected) in [
        ("DELETE FROM events WHERE nid = 1", "m.room.create"),
        ("DELETE FROM state_nodes WHERE nid = (SELECT state >> 5 FROM rooms)", "state node"),
        ("INSERT INTO forward_extremities VALUES (1, 0)", "no forward extremity"),
        ("INSERT INTO forward_extremities VALUES (99, 1)", "in another room"),
        ("UPDATE events SET pos = 1 WHERE nid = 5", "twice"),
        ("UPDATE events SET pos = 0 WHERE nid = 5", "never given out"),
        ("UPDATE events SET pos = 999 WHERE nid = 5", "never given out"),
        ("UPDATE events SET pos = -999 WHERE nid = 5", "never given out"),
        ("UPDATE memberships SET event = 1000", "memberships"),
        ("UPDATE rooms SET state = 0", "not the last one"),
        ("UPDATE events SET json = replace(json, '\"7\"', '\"8\"')", "bytes have changed"),
        ("UPDATE events SET json = substr(json, 2) WHERE nid = 4", "cannot be read"),
    ] {
        let (dir, store) = filled().await;
        drop(store);
        let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        assert!(conn.execute(damage, []).unwrap() > 0, "{damage}");
        drop(conn);
        let before = fs::read(dir.path().join(DATABASE_FILE)).unwrap();
        let report = check(dir.path()).unwrap();
        let found = report.problems.iter().any(|problem| problem.contains(expected));
        assert!(found, "{damage}: {:?}", report.problems);
        assert_eq!(fs::read(dir.path().join(DATABASE_FILE)).unwrap(), before);
    }
}

#[tokio::test]
async fn a_broken_page_is_found() {
    let (dir, store) = filled().await;
    drop(store);
    let path = dir.path().join(DATABASE_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let last_page = bytes.len() - 4_096;
    bytes[last_page..].fill(0xaa);
    fs::write(&path, &bytes).unwrap();
    match check(dir.path()) {
        Ok(report) => assert!(!report.is_sound()),
        Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
