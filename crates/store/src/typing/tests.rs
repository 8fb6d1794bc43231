use ruma::{MilliSecondsSinceUnixEpoch, UInt, UserId, user_id};

use super::{MAX_TYPING_PER_ROOM, changed_at, expire, list, next_expiry, start, stop};
use crate::{Mode, RoomNid, Store, StoreError, StreamPos};

const ROOM: RoomNid = RoomNid(1);

fn at(ms: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::from(ms))
}

#[tokio::test]
async fn only_changes_take_a_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let write = store.write(|txn| {
        let alice = user_id!("@alice:example.org");
        let bob = user_id!("@bob:example.org");
        assert_eq!(start(txn, ROOM, alice, at(100))?, Some(StreamPos(1)));
        assert_eq!(start(txn, ROOM, alice, at(200))?, None, "she goes on");
        assert_eq!(start(txn, ROOM, bob, at(150))?, Some(StreamPos(2)));
        assert_eq!(next_expiry(txn)?, Some(at(150)));
        expire(txn, at(149))?;
        assert_eq!(txn.position()?, StreamPos(2), "nothing ended");
        expire(txn, at(150))?;
        assert_eq!(list(txn, ROOM)?, [alice]);
        assert_eq!(changed_at(txn, ROOM)?, StreamPos(3));
        assert_eq!(stop(txn, ROOM, bob)?, None);
        assert_eq!(stop(txn, ROOM, alice)?, Some(StreamPos(4)));
        assert_eq!(next_expiry(txn)?, None);
        assert_eq!(changed_at(txn, RoomNid(2))?, StreamPos(0));
        Ok(())
    });
    Result::<(), StoreError>::unwrap(write.await);
}

#[tokio::test]
async fn a_room_full_of_typists_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let write = store.write(|txn| {
        for n in 0..MAX_TYPING_PER_ROOM + 10 {
            let user_id = UserId::parse(format!("@u{n}:example.org")).unwrap();
            start(txn, ROOM, &user_id, at(100))?;
        }
        Ok(list(txn, ROOM)?.len())
    });
    let typing = Result::<usize, StoreError>::unwrap(write.await);
    assert_eq!(i64::try_from(typing), Ok(MAX_TYPING_PER_ROOM));
}
