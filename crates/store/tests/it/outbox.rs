use messagehub_store::{
    Mode, Store, StoreError, Txn,
    outbox::{self, Arrival, Batch, Kind, NewEntry, Queued},
};
use ruma::ServerName;

use crate::support::at;

fn in_txn(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(test)).unwrap();
}

fn server(name: &str) -> &ServerName {
    <&ServerName>::try_from(name).unwrap()
}

fn put(txn: &mut Txn<'_>, to: &str, kind: Kind, slot: Option<&str>, body: &str) {
    let entry = NewEntry { destination: server(to), kind, slot, body };
    assert_eq!(outbox::insert(txn, entry, at(0)).unwrap(), Queued::Stored);
}

fn bodies(batch: Option<&Batch>) -> Vec<&str> {
    batch
        .map_or(Vec::new(), |batch| batch.entries.iter().map(|entry| entry.body.as_str()).collect())
}

#[test]
fn batches_keep_the_order_and_an_invite_goes_alone() {
    in_txn(|txn| {
        put(txn, "b", Kind::Edu, None, "1");
        put(txn, "b", Kind::Pdu, None, "2");
        put(txn, "b", Kind::Invite, None, "3");
        put(txn, "b", Kind::Leave, None, "4");
        put(txn, "b", Kind::Edu, None, "5");
        put(txn, "c", Kind::Edu, None, "other");
        for expected in [vec!["1", "2"], vec!["3"], vec!["4"], vec!["5"]] {
            let batch = outbox::take_batch(txn, server("b"), at(0))?;
            assert_eq!(bodies(batch.as_ref()), expected);
            outbox::finish(txn, server("b"), batch.unwrap().id)?;
        }
        assert_eq!(outbox::take_batch(txn, server("b"), at(0))?, None);
        assert_eq!(outbox::count(txn, server("c"))?, 1);
        Ok(())
    });
}

#[test]
fn a_batch_is_the_same_each_time_until_it_is_finished() {
    in_txn(|txn| {
        put(txn, "b", Kind::Edu, Some("s"), "first");
        let first = outbox::take_batch(txn, server("b"), at(0))?;
        put(txn, "b", Kind::Edu, Some("s"), "second");
        assert_eq!(
            outbox::take_batch(txn, server("b"), at(0))?,
            first,
            "what was sent is not replaced"
        );
        outbox::finish(txn, server("b"), first.unwrap().id)?;
        let second = outbox::take_batch(txn, server("b"), at(0))?;
        assert_eq!(bodies(second.as_ref()), ["second"]);
        Ok(())
    });
}

#[test]
fn a_later_entry_of_a_slot_takes_the_place_of_one_that_was_never_sent() {
    in_txn(|txn| {
        put(txn, "b", Kind::Edu, Some("one"), "old");
        put(txn, "b", Kind::Edu, Some("two"), "kept");
        put(txn, "b", Kind::Edu, Some("one"), "new");
        put(txn, "b", Kind::Edu, None, "free");
        put(txn, "b", Kind::Edu, None, "free too");
        let batch = outbox::take_batch(txn, server("b"), at(0))?;
        assert_eq!(bodies(batch.as_ref()), ["kept", "new", "free", "free too"]);
        Ok(())
    });
}

#[test]
fn destinations_come_with_their_newest_entry() {
    in_txn(|txn| {
        put(txn, "c", Kind::Edu, None, "1");
        put(txn, "b", Kind::Edu, None, "2");
        put(txn, "c", Kind::Edu, None, "3");
        let found = outbox::destinations(txn)?;
        let names: Vec<_> = found.iter().map(|(server, _)| server.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(found[0].1 < found[1].1);
        Ok(())
    });
}

#[test]
fn a_transaction_is_new_once_and_only_the_last_are_remembered() {
    in_txn(|txn| {
        let last = outbox::MAX_RECEIVED_PER_ORIGIN;
        for n in 0..=last {
            let arrival = outbox::note_received(txn, server("b"), &n.to_string())?;
            assert_eq!(arrival, Arrival::First);
        }
        assert_eq!(outbox::note_received(txn, server("c"), "1")?, Arrival::First);
        let again = outbox::note_received(txn, server("b"), &last.to_string())?;
        assert_eq!(again, Arrival::Repeated);
        assert_eq!(outbox::note_received(txn, server("b"), "0")?, Arrival::First, "forgotten");
        Ok(())
    });
}

#[test]
fn what_is_worth_nothing_any_more_is_not_sent() {
    in_txn(|txn| {
        let entry = |body| NewEntry { destination: server("b"), kind: Kind::Edu, slot: None, body };
        outbox::insert_until(txn, entry("gone"), (at(0), Some(at(10))))?;
        outbox::insert_until(txn, entry("there"), (at(0), Some(at(30))))?;
        outbox::insert(txn, entry("always"), at(0))?;
        let batch = outbox::take_batch(txn, server("b"), at(20))?;
        assert_eq!(bodies(batch.as_ref()), ["there", "always"]);
        assert_eq!(outbox::drop_expired(txn, at(100))?, 0, "it is on its way");
        let totals = outbox::totals(txn)?;
        assert_eq!((totals.entries, totals.bytes, totals.dropped_expired), (2, 11, 1));
        Ok(())
    });
}

#[test]
fn a_full_outbox_keeps_what_must_arrive() {
    in_txn(|txn| {
        let body = "x".repeat(1024 * 1024);
        for n in 0..16 {
            let slot = (n < 2).then(|| n.to_string());
            put(txn, "b", Kind::Edu, slot.as_deref(), &body);
        }
        let entry = |kind, slot| NewEntry { destination: server("b"), kind, slot, body: &body };
        assert_eq!(outbox::insert(txn, entry(Kind::Edu, Some("late")), at(0))?, Queued::Full);
        assert_eq!(outbox::insert(txn, entry(Kind::Invite, None), at(0))?, Queued::Stored);
        assert_eq!(outbox::insert(txn, entry(Kind::Invite, None), at(0))?, Queued::Stored);
        assert_eq!(outbox::insert(txn, entry(Kind::Invite, None), at(0))?, Queued::Full);
        put(txn, "c", Kind::Edu, None, "others are not held up");
        let totals = outbox::totals(txn)?;
        assert_eq!((totals.entries, totals.dropped_full), (17, 4));
        Ok(())
    });
}

#[test]
fn what_waits_and_what_was_refused_is_told() {
    in_txn(|txn| {
        let at_time = |to, kind, n| {
            (NewEntry { destination: server(to), kind, slot: None, body: "é" }, at(n))
        };
        for (entry, now) in [
            at_time("b", Kind::Edu, 50),
            at_time("c", Kind::Invite, 40),
            at_time("b", Kind::Edu, 60),
        ] {
            outbox::insert(txn, entry, now)?;
        }
        let waiting = outbox::list_waiting(txn, 10)?;
        let told: Vec<_> = waiting
            .iter()
            .map(|w| (w.destination.as_str(), w.entries, w.bytes, w.invites, w.since_ts))
            .collect();
        let ms = |n| u64::from(at(n).get());
        assert_eq!(told, [("c", 1, 2, 1, ms(40)), ("b", 2, 4, 0, ms(50))]);
        assert_eq!(outbox::list_waiting(txn, 1)?.len(), 1);

        let refused = |reason: &str, refused_ts| outbox::Refused {
            destination: server("c").to_owned(),
            kind: Kind::Invite,
            room_id: Some("!r".to_owned()),
            user_id: None,
            reason: reason.to_owned(),
            refused_ts,
        };
        outbox::note_refused(txn, &refused("full", 1))?;
        outbox::note_refused(txn, &refused("blocked", 2))?;
        assert_eq!(outbox::list_refused(txn, 10)?, [refused("blocked", 2)]);
        Ok(())
    });
}
