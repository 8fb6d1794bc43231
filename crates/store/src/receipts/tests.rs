use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, events::receipt::ReceiptThread, uint,
    user_id,
};

use super::{Kind, MAX_RECEIPTS_PER_USER, Receipt, find, list_between, list_of_user, set};
use crate::{Mode, RoomNid, Store, StoreError, StreamPos};

const ROOM: RoomNid = RoomNid(1);

fn event(n: i64) -> OwnedEventId {
    EventId::parse(format!("$event{n}")).unwrap()
}

fn receipt(n: i64, kind: Kind, thread: ReceiptThread) -> Receipt {
    Receipt {
        user_id: user_id!("@alice:example.org").to_owned(),
        kind,
        thread,
        event_id: event(n),
        ts: MilliSecondsSinceUnixEpoch(uint!(5)),
    }
}

#[tokio::test]
async fn the_last_of_a_kind_and_thread_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let write = store.write(|txn| {
        set(txn, ROOM, &receipt(1, Kind::Public, ReceiptThread::Unthreaded))?;
        set(txn, ROOM, &receipt(2, Kind::Private, ReceiptThread::Main))?;
        set(txn, ROOM, &receipt(3, Kind::Public, ReceiptThread::Thread(event(0))))?;
        set(txn, RoomNid(2), &receipt(9, Kind::Public, ReceiptThread::Unthreaded))?;
        set(txn, ROOM, &receipt(4, Kind::Public, ReceiptThread::Unthreaded))
    });
    let newest = Result::<StreamPos, StoreError>::unwrap(write.await);
    let read = store.read(move |snap| {
        let user_id = user_id!("@alice:example.org");
        let (all, until) = list_of_user(snap, ROOM, user_id)?;
        assert_eq!((all.len(), until), (3, newest));
        let key = (Kind::Public, &ReceiptThread::Unthreaded);
        assert_eq!(find(snap, ROOM, user_id, key)?, Some(event(4)));
        let changed = list_between(snap, ROOM, StreamPos(2), newest)?;
        let threads: Vec<_> = changed.iter().map(|receipt| receipt.thread.clone()).collect();
        assert_eq!(threads, [ReceiptThread::Thread(event(0)), ReceiptThread::Unthreaded]);
        assert_eq!(changed[1], receipt(4, Kind::Public, ReceiptThread::Unthreaded));
        Ok(())
    });
    Result::<(), StoreError>::unwrap(read.await);
}

#[tokio::test]
async fn invented_threads_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let write = store.write(|txn| {
        for n in 0..MAX_RECEIPTS_PER_USER + 50 {
            set(txn, ROOM, &receipt(n, Kind::Public, ReceiptThread::Thread(event(n))))?;
        }
        let (kept, _) = list_of_user(txn, ROOM, user_id!("@alice:example.org"))?;
        let newest = event(MAX_RECEIPTS_PER_USER + 49);
        assert!(kept.iter().any(|receipt| receipt.event_id == newest));
        Ok(kept.len())
    });
    let kept = Result::<usize, StoreError>::unwrap(write.await);
    assert_eq!(i64::try_from(kept), Ok(MAX_RECEIPTS_PER_USER));
}
