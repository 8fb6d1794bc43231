use messagehub_store::{
    Mode, Store, StoreError, Txn,
    pending::{self, MAX_PENDING, MAX_PENDING_PER_ROOM, NewPending, Parked},
};
use ruma::{EventId, OwnedEventId, RoomId, ServerName};

fn id(name: &str) -> OwnedEventId {
    OwnedEventId::try_from(format!("${name}")).unwrap()
}

fn park(txn: &mut Txn<'_>, room: &str, name: &str, missing: &[&str]) -> Parked {
    let event_id = id(name);
    let new = NewPending {
        event_id: &event_id,
        room_id: <&RoomId>::try_from(room).unwrap(),
        origin: <&ServerName>::try_from("b.example").unwrap(),
        json: "{}",
    };
    let missing: Vec<_> = missing.iter().map(|name| id(name)).collect();
    pending::park(txn, new, &missing).unwrap()
}

fn ready(txn: &mut Txn<'_>, arrived: &EventId) -> Vec<String> {
    let ready = pending::take_ready(txn, arrived).unwrap();
    ready.iter().map(|pending| pending.event_id.to_string()).collect()
}

fn in_txn(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(test)).unwrap();
}

#[test]
fn an_event_is_ready_when_the_last_ancestor_has_come() {
    in_txn(|txn| {
        let room = <&RoomId>::try_from("!r").unwrap();
        assert_eq!(park(txn, "!r", "c", &["a", "b"]), Parked::New);
        assert_eq!(park(txn, "!r", "d", &["c"]), Parked::New);
        assert_eq!(pending::list_missing(txn, room, 9)?, [id("a"), id("b")]);
        assert_eq!(pending::list_missing(txn, room, 1)?, [id("a")]);
        assert_eq!(pending::list_rooms(txn)?, [room]);
        assert_eq!(ready(txn, &id("a")), [""; 0]);
        assert_eq!(ready(txn, &id("b")), ["$c"]);
        assert!(!pending::contains(txn, &id("c"))?);
        assert_eq!(ready(txn, &id("c")), ["$d"]);
        assert_eq!(pending::count(txn)?, 0);
        Ok(())
    });
}

#[test]
fn what_comes_again_lacks_only_what_it_lacks_now() {
    in_txn(|txn| {
        park(txn, "!r", "c", &["a", "b"]);
        assert_eq!(park(txn, "!r", "c", &["b"]), Parked::Again);
        assert_eq!(pending::count(txn)?, 1);
        assert_eq!(ready(txn, &id("b")), ["$c"]);
        park(txn, "!r", "e", &["x"]);
        assert_eq!(pending::remove(txn, &id("e"))?.unwrap().event_id, id("e"));
        assert_eq!(pending::remove(txn, &id("e"))?, None);
        assert_eq!(ready(txn, &id("x")), [""; 0]);
        Ok(())
    });
}

#[test]
fn the_oldest_give_way_in_a_room_and_in_all() {
    in_txn(|txn| {
        for n in 0..MAX_PENDING_PER_ROOM + 10 {
            park(txn, "!one", &format!("one{n}"), &["never"]);
        }
        assert_eq!(pending::count(txn)?, MAX_PENDING_PER_ROOM.unsigned_abs());
        assert!(!pending::contains(txn, &id("one9"))?);
        assert!(pending::contains(txn, &id("one10"))?);
        for n in 0..MAX_PENDING {
            park(txn, &format!("!room{}", n % 100), &format!("many{n}"), &["never"]);
        }
        assert_eq!(pending::count(txn)?, MAX_PENDING.unsigned_abs());
        assert!(!pending::contains(txn, &id("one265"))?);
        let kept: i64 = txn.conn().query_row(
            "SELECT count(DISTINCT pending) FROM pending_missing",
            [],
            |row| row.get(0),
        )?;
        assert_eq!(kept, MAX_PENDING);
        Ok(())
    });
}
