//! Keys, messages to devices, device lists and presence, on a real database.

use messagehub_store::{
    Mode, Store, StoreError, StreamPos, Txn,
    cross_signing::{self, CrossSigningKey, NewSignature, Usage},
    device_keys,
    device_lists::{self, DeviceList, Standing},
    devices,
    one_time_keys::{self, Added, Key},
    openid,
    presence::{self, Presence, State},
    to_device::{self, Kept, MAX_WAITING_OF_ORIGIN, NewMessage},
    tokens::TokenHash,
    users,
};
use ruma::{DeviceId, ServerName, UserId, device_id, server_name, user_id};
use serde_json::value::RawValue;

use crate::support::at;

fn ann() -> &'static UserId {
    user_id!("@ann:a.example")
}

fn bob() -> &'static UserId {
    user_id!("@bob:b.example")
}

fn phone() -> &'static DeviceId {
    device_id!("PHONE")
}

fn in_txn(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(test)).unwrap();
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn key(key_id: &str) -> Key {
    Key {
        algorithm: "signed_curve25519".to_owned(),
        key_id: key_id.to_owned(),
        key: json(&format!(r#"{{"key":"{key_id}"}}"#)),
    }
}

#[test]
fn a_key_is_handed_out_once_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let device = (ann(), phone());
    let claim = |store: &Store| {
        let claimed = store.write(move |txn| {
            let key = one_time_keys::claim(txn, device, "signed_curve25519")?;
            Ok::<_, StoreError>(key.map(|key| key.key_id))
        });
        runtime.block_on(claimed).unwrap()
    };
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let filled = store.write(move |txn| {
        devices::insert(txn, ann(), phone(), None, at(0))?;
        for id in ["c", "a", "b"] {
            assert_eq!(one_time_keys::insert(txn, device, &key(id))?, Added::New);
        }
        assert_eq!(one_time_keys::insert(txn, device, &key("a"))?, Added::Known);
        let other = Key { key: json(r#""other""#), ..key("a") };
        assert_eq!(one_time_keys::insert(txn, device, &other)?, Added::Conflict);
        one_time_keys::set_fallback(txn, device, &key("f"))?;
        Ok::<_, StoreError>(())
    });
    runtime.block_on(filled).unwrap();
    assert_eq!(claim(&store).as_deref(), Some("c"));
    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let again = store.write(move |txn| one_time_keys::insert(txn, device, &key("c")));
    assert_eq!(runtime.block_on(again).unwrap(), Added::Known, "it was handed out");
    for expected in ["a", "b", "f", "f"] {
        assert_eq!(claim(&store).as_deref(), Some(expected));
    }
    let rest = store.read(move |snap| {
        Ok::<_, StoreError>((
            one_time_keys::count(snap, device)?,
            one_time_keys::list_unused_fallbacks(snap, device)?,
            one_time_keys::changed_at(snap, device)?,
        ))
    });
    let (count, unused, changed_at) = runtime.block_on(rest).unwrap();
    assert!(count.is_empty() && unused.is_empty());
    assert_eq!(changed_at, StreamPos(4), "three keys, and the fallback once");
}

#[test]
fn a_new_fallback_key_is_unused_and_the_same_one_stays_as_it_is() {
    in_txn(|txn| {
        let device = (ann(), phone());
        let unused = |txn: &Txn<'_>| one_time_keys::list_unused_fallbacks(txn, device);
        one_time_keys::set_fallback(txn, device, &key("f"))?;
        assert_eq!(unused(txn)?, ["signed_curve25519"]);
        one_time_keys::claim(txn, device, "signed_curve25519")?.unwrap();
        one_time_keys::set_fallback(txn, device, &key("f"))?;
        assert!(unused(txn)?.is_empty());
        one_time_keys::set_fallback(txn, device, &key("g"))?;
        assert_eq!(unused(txn)?, ["signed_curve25519"]);
        one_time_keys::remove_all(txn, device)?;
        assert!(one_time_keys::claim(txn, device, "signed_curve25519")?.is_none());
        Ok(())
    });
}

fn message<'a>(origin: &'a ServerName, content: &'a RawValue) -> NewMessage<'a> {
    NewMessage { origin, sender: bob(), kind: "m.test", content }
}

#[test]
fn messages_keep_their_order_and_go_when_they_are_acknowledged() {
    in_txn(|txn| {
        let device = (ann(), phone());
        let origin = server_name!("b.example");
        for n in 0..5 {
            let content = json(&n.to_string());
            assert_eq!(to_device::insert(txn, device, message(origin, &content))?, Kept::Stored);
        }
        let list = |txn: &Txn<'_>, after: i64| -> Result<Vec<String>, StoreError> {
            let found = to_device::list(txn, device, StreamPos(after), 10)?;
            Ok(found.into_iter().map(|message| message.content.get().to_owned()).collect())
        };
        assert_eq!(list(txn, 0)?, ["0", "1", "2", "3", "4"]);
        let second = to_device::list(txn, device, StreamPos(0), 2)?[1].pos;
        assert!(to_device::is_any_until(txn, device, second)?);
        to_device::remove_until(txn, device, second)?;
        assert!(!to_device::is_any_until(txn, device, second)?);
        assert_eq!(list(txn, 0)?, ["2", "3", "4"]);
        assert!(to_device::note_seen(txn, "b.example", "m1")?);
        assert!(!to_device::note_seen(txn, "b.example", "m1")?);
        assert!(to_device::note_seen(txn, "c.example", "m1")?, "ids are each server's own");
        Ok(())
    });
}

#[test]
fn one_server_cannot_fill_an_inbox() {
    in_txn(|txn| {
        let device = (ann(), phone());
        let content = json("1");
        let loud = server_name!("loud.example");
        for _ in 0..MAX_WAITING_OF_ORIGIN {
            assert_eq!(to_device::insert(txn, device, message(loud, &content))?, Kept::Stored);
        }
        assert_eq!(to_device::insert(txn, device, message(loud, &content))?, Kept::Full);
        let quiet = server_name!("quiet.example");
        assert_eq!(to_device::insert(txn, device, message(quiet, &content))?, Kept::Stored);
        Ok(())
    });
}

#[test]
fn device_lists_know_when_they_changed_and_what_is_to_be_fetched() {
    in_txn(|txn| {
        assert_eq!(device_lists::find(txn, bob())?, DeviceList::NONE);
        let stale = DeviceList { standing: Standing::Stale, stream_id: 3, seen_id: 7 };
        device_lists::set(txn, bob(), stale, StreamPos(5))?;
        assert_eq!(device_lists::find(txn, bob())?, stale);
        assert_eq!(device_lists::list_stale(txn, 10)?, [bob()]);
        assert_eq!(device_lists::list_changed_since(txn, StreamPos(4))?, [bob()]);
        assert!(device_lists::list_changed_since(txn, StreamPos(5))?.is_empty());
        let current = DeviceList { standing: Standing::Current, ..stale };
        device_lists::set(txn, bob(), current, StreamPos(5))?;
        assert!(device_lists::list_stale(txn, 10)?.is_empty());
        device_keys::set(txn, bob(), phone(), Some(&json("{}")))?;
        device_keys::set(txn, bob(), device_id!("TV"), None)?;
        assert_eq!(device_keys::count(txn, bob())?, 2);
        assert!(device_keys::find(txn, bob(), device_id!("TV"))?.is_none());
        device_keys::remove_all(txn, bob())?;
        assert!(device_keys::list(txn, bob())?.is_empty());
        Ok(())
    });
}

#[test]
fn signatures_are_kept_by_who_made_them() {
    in_txn(|txn| {
        let master = CrossSigningKey { public_key: "KEY".to_owned(), json: json("{}") };
        cross_signing::set(txn, bob(), Usage::Master, &master)?;
        assert!(cross_signing::find(txn, bob(), Usage::SelfSigning)?.is_none());
        let new = NewSignature {
            target: (bob(), "KEY"),
            signer: (ann(), "ed25519:ANNS"),
            signature: "sig",
        };
        let before = txn.position()?;
        assert!(cross_signing::sign(txn, new)?);
        assert!(!cross_signing::sign(txn, new)?, "it is there");
        assert_eq!(cross_signing::list_signed_since(txn, ann(), before)?, [bob()]);
        assert_eq!(cross_signing::list_signatures(txn, (bob(), "KEY"), ann())?.len(), 1);
        assert!(cross_signing::list_signatures(txn, (bob(), "KEY"), bob())?.is_empty());
        cross_signing::remove_signatures(txn, (bob(), "KEY"))?;
        assert_eq!(cross_signing::count_signatures(txn, ann())?, 0);
        Ok(())
    });
}

#[test]
fn presence_is_listed_by_when_it_changed() {
    in_txn(|txn| {
        let mut shown = Presence {
            user_id: ann().to_owned(),
            state: State::Online,
            status_msg: Some("tea".to_owned()),
            last_active_ts: at(7),
            currently_active: true,
        };
        let first = presence::set(txn, &shown)?;
        assert_eq!(presence::find(txn, ann())?.as_ref(), Some(&shown));
        shown.state = State::Offline;
        let second = presence::set(txn, &shown)?;
        assert_eq!(presence::list_between(txn, first, second)?, [shown]);
        assert!(presence::list_between(txn, second, second)?.is_empty());
        assert!(presence::list_present(txn)?.is_empty());
        Ok(())
    });
}

#[test]
fn a_deactivated_account_keeps_its_name() {
    in_txn(|txn| {
        assert!(users::insert(txn, ann(), Some("hash"), at(0))?);
        assert!(users::is_active(txn, ann())?);
        assert!(users::deactivate(txn, ann(), at(1))?);
        assert!(!users::deactivate(txn, ann(), at(2))?);
        assert!(!users::is_active(txn, ann())? && users::exists(txn, ann())?);
        assert_eq!(users::find(txn, ann())?.unwrap().password_hash, None);
        assert!(!users::insert(txn, ann(), None, at(3))?);
        Ok(())
    });
}

#[test]
fn a_proof_lasts_until_it_expires() {
    in_txn(|txn| {
        let hash = TokenHash([1; 32]);
        openid::insert(txn, &hash, ann(), (at(0), at(10)))?;
        assert_eq!(openid::find(txn, &hash, at(9))?.as_deref(), Some(ann()));
        assert_eq!(openid::find(txn, &hash, at(10))?, None);
        Ok(())
    });
}
