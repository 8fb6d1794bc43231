//! Small tables: server keys, addresses, transaction ids.

use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use messagehub_store::{
    Mode, Store, StoreError, Txn, events, names,
    peer_book::{self, MAX_ADDRESSES_PER_SERVER},
    server_keys,
    txn_ids::{self, TxnKey},
};
use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, TransactionId, UInt};

use crate::support::{Server, at, message};

fn in_txn(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(test)).unwrap();
}

fn keys(issued: u32) -> ServerKeys {
    let (identity, verify) = (IdentityKey::from_seed(&[1; 32]), VerifyKey::from_seed(&[2; 32]));
    let terms =
        ServerKeysTerms { old_verify_keys: vec![], peer_ids: vec![], issued_ts: at(issued) };
    ServerKeys::make(&identity, &verify, terms)
}

#[test]
fn only_newer_server_keys_replace_what_is_kept() {
    in_txn(|txn| {
        let [old, new] = [keys(1_000), keys(2_000)];
        let name = old.server_name().to_owned();
        assert!(server_keys::find(txn, &name)?.is_none());
        assert!(server_keys::put_if_newer(txn, &old)?);
        assert!(!server_keys::put_if_newer(txn, &old)?);
        assert!(server_keys::put_if_newer(txn, &new)?);
        assert!(!server_keys::put_if_newer(txn, &old)?);
        let found = server_keys::find(txn, &name)?.unwrap();
        assert_eq!(found.json().get(), new.json().get());
        let unknown = Server::new(9).name;
        assert_eq!(server_keys::list_for(txn, [&*name, &*unknown])?.len(), 1);
        assert_eq!(server_keys::list_valid_at(txn, at(3_000), 9)?, [name]);
        Ok(())
    });
}

#[test]
fn of_strangers_the_latest_keys_are_kept_and_of_members_all() {
    in_txn(|txn| {
        let servers: Vec<ServerKeys> = (1..=6)
            .map(|n| {
                let identity = IdentityKey::from_seed(&[n; 32]);
                let terms = ServerKeysTerms {
                    old_verify_keys: vec![],
                    peer_ids: vec![],
                    issued_ts: at(u32::from(n)),
                };
                ServerKeys::make(&identity, &VerifyKey::from_seed(&[n; 32]), terms)
            })
            .collect();
        for keys in &servers {
            server_keys::put_if_newer(txn, keys)?;
        }
        // The oldest belong to a user who is known here.
        let member = OwnedUserId::try_from(format!("@anna:{}", servers[0].server_name())).unwrap();
        names::intern_user(txn, &member)?;
        assert_eq!(server_keys::forget_strangers(txn, 2)?, 3);
        assert_eq!(server_keys::count(txn)?, 3);
        for (index, is_kept) in [true, false, false, false, true, true].into_iter().enumerate() {
            let found = server_keys::find(txn, servers[index].server_name())?;
            assert_eq!(found.is_some(), is_kept, "{index}");
        }
        Ok(())
    });
}

#[test]
fn of_many_addresses_the_latest_are_kept() {
    in_txn(|txn| {
        let (one, other) = (Server::new(1).name, Server::new(2).name);
        for n in 0..40 {
            let address = format!("/ip4/10.0.0.{n}/udp/1/quic-v1");
            peer_book::remember(txn, &one, &[address, "x".repeat(600)], at(n))?;
        }
        peer_book::remember(txn, &other, &["/ip4/10.0.0.1/tcp/1".to_owned()], at(7))?;
        let mut book = peer_book::list(txn)?;
        book.sort_by_key(|entry| entry.server == other);
        assert_eq!(book.len(), 2);
        assert_eq!(book[0].addresses.len(), MAX_ADDRESSES_PER_SERVER);
        assert_eq!(book[0].addresses[0], "/ip4/10.0.0.39/udp/1/quic-v1");
        assert_eq!(book[1].addresses, ["/ip4/10.0.0.1/tcp/1"]);
        Ok(())
    });
}

#[test]
fn a_request_is_known_by_user_device_scope_and_id() {
    in_txn(|txn| {
        let server = Server::new(1);
        let (alice, bob) = (server.user("alice"), server.user("bob"));
        let mut room = server.create_room(txn, &alice)?;
        let sent = server.send(txn, &mut room, message(&alice, "once"))?.nid;
        let (phone, laptop) = (OwnedDeviceId::from("PHONE"), OwnedDeviceId::from("LAPTOP"));
        let key = TxnKey {
            user_id: &alice,
            device_id: &phone,
            scope: "/send",
            txn_id: <&TransactionId>::from("t1"),
        };
        txn_ids::set(txn, key, sent)?;
        let sent_ts = events::pdu(txn, sent)?.origin_server_ts().get();
        let after =
            |hours: u32| MilliSecondsSinceUnixEpoch(sent_ts + UInt::from(hours * 3_600_000));
        assert_eq!(txn_ids::find(txn, key, after(24))?, Some(events::id(txn, sent)?));
        assert_eq!(txn_ids::find(txn, key, after(25))?, None);
        for other in [
            TxnKey { user_id: &bob, ..key },
            TxnKey { device_id: &laptop, ..key },
            TxnKey { scope: "/redact", ..key },
            TxnKey { txn_id: <&TransactionId>::from("t2"), ..key },
        ] {
            assert_eq!(txn_ids::find(txn, other, after(0))?, None, "{other:?}");
        }
        let of_event = |device: &DeviceId| txn_ids::of_event(txn, sent, &alice, device);
        assert_eq!(of_event(&phone)?.unwrap(), "t1");
        assert_eq!(of_event(&laptop)?, None);
        assert_eq!(txn_ids::of_event(txn, sent, &bob, &phone)?, None);
        Ok(())
    });
}
