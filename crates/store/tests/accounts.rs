//! The nouns of accounts, on a real database.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use messagehub_store::{
    Mode, Store, StoreError, StreamPos,
    account_data::{self, Scope},
    devices, filters,
    media::{self, Media, MediaAddress},
    profiles::{self, Profile},
    tokens::{self, Grant, MAX_ONE_TIME_TOKENS, Purpose, TokenHash},
    users,
};
use ruma::{MilliSecondsSinceUnixEpoch, UInt, UserId, device_id, room_id, server_name, user_id};
use serde_json::value::RawValue;
use tempfile::TempDir;

fn ann() -> &'static UserId {
    user_id!("@ann:node.example")
}

fn bob() -> &'static UserId {
    user_id!("@bob:node.example")
}

fn open() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(dir.path(), Mode::Inline).unwrap(), dir)
}

fn at(ms: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::from(ms))
}

fn hash(n: u8) -> TokenHash {
    TokenHash([n; 32])
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

#[tokio::test]
async fn a_user_id_is_given_out_once() {
    let (store, _dir) = open();
    store
        .write(|txn| {
            assert!(users::insert(txn, ann(), Some("$argon2id$x"), at(1))?);
            assert!(!users::insert(txn, ann(), None, at(2))?);
            assert!(users::insert(txn, bob(), None, at(3))?);
            assert!(users::set_password_hash(txn, bob(), "$argon2id$y")?);
            assert!(!users::set_password_hash(txn, user_id!("@no:node.example"), "z")?);
            assert_eq!(users::count(txn)?, 2);
            let listed = users::list(txn)?;
            assert_eq!(listed[0].user_id, ann());
            assert_eq!(listed[0].password_hash.as_deref(), Some("$argon2id$x"));
            assert_eq!(listed[1].password_hash.as_deref(), Some("$argon2id$y"));
            assert!(!format!("{listed:?}").contains("argon2id"));
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_device() {
    let (store, _dir) = open();
    let phone = device_id!("PHONE");
    store
        .write(move |txn| {
            devices::insert(txn, ann(), phone, Some("Phone"), at(10))?;
            tokens::insert(txn, &hash(1), ann(), phone, at(10))?;
            let owner = tokens::find(txn, &hash(1))?.unwrap();
            assert_eq!((&*owner.user_id, &*owner.device_id), (ann(), phone));
            assert_eq!(owner.last_seen_ts, at(10));
            assert_eq!(tokens::find(txn, &hash(2))?, None);

            // Logging in again keeps the name.
            devices::insert(txn, ann(), phone, Some("Other"), at(20))?;
            let device = devices::find(txn, ann(), phone)?.unwrap();
            assert_eq!(device.display_name.as_deref(), Some("Phone"));
            assert_eq!(device.last_seen_ts, at(20));

            assert!(devices::remove(txn, ann(), phone)?);
            assert!(!devices::remove(txn, ann(), phone)?);
            assert_eq!(tokens::find(txn, &hash(1))?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_one_time_token_is_used_once_in_time_and_for_its_purpose() {
    let (store, _dir) = open();
    let grant = |purpose| Grant { purpose, subject: "@ann:node.example", expires_ts: at(100) };
    store
        .write(move |txn| {
            tokens::insert_one_time(txn, &hash(1), grant(Purpose::Login), at(0))?;
            assert_eq!(tokens::take_one_time(txn, &hash(1), Purpose::Consent, at(1))?, None);
            assert_eq!(tokens::take_one_time(txn, &hash(1), Purpose::Login, at(100))?, None);
            let taken = tokens::take_one_time(txn, &hash(1), Purpose::Login, at(99))?;
            assert_eq!(taken.as_deref(), Some("@ann:node.example"));
            assert_eq!(tokens::take_one_time(txn, &hash(1), Purpose::Login, at(99))?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn waiting_one_time_tokens_are_bounded() {
    let (store, _dir) = open();
    let total = u16::try_from(MAX_ONE_TIME_TOKENS).unwrap() + 10;
    let nth = |n: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        TokenHash(bytes)
    };
    store
        .write(move |txn| {
            for n in 0..total {
                let expires_ts = at(1000 + u32::from(n));
                let grant = Grant { purpose: Purpose::Consent, subject: "x:", expires_ts };
                tokens::insert_one_time(txn, &nth(n), grant, at(0))?;
            }
            let waiting: i64 =
                txn.conn()
                    .query_row("SELECT count(*) FROM one_time_tokens", [], |row| row.get(0))?;
            assert_eq!(waiting, MAX_ONE_TIME_TOKENS);
            assert_eq!(tokens::take_one_time(txn, &nth(0), Purpose::Consent, at(1))?, None);
            let newest = tokens::take_one_time(txn, &nth(total - 1), Purpose::Consent, at(1))?;
            assert!(newest.is_some());
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn account_data_shows_where_it_was_last_written() {
    let (store, _dir) = open();
    let room = room_id!("!r:node.example");
    store
        .write(move |txn| {
            let first = account_data::set(txn, ann(), Scope::Global, "m.direct", &json("{}"))?;
            let tag = account_data::set(txn, ann(), Scope::Room(room), "m.tag", &json("{}"))?;
            account_data::set(txn, bob(), Scope::Global, "m.direct", &json("{}"))?;
            let content = json(r#"{ "a":[1] }"#);
            let again = account_data::set(txn, ann(), Scope::Global, "m.direct", &content)?;
            assert!(first < tag && tag < again);
            let kinds = |after, until| {
                let data = account_data::list_between(txn, ann(), after, until)?;
                Ok::<_, StoreError>(
                    data.into_iter().map(|d| (d.room_id, d.kind)).collect::<Vec<_>>(),
                )
            };
            let direct = (None, "m.direct".to_owned());
            let tagged = (Some(room.to_owned()), "m.tag".to_owned());
            assert_eq!(kinds(StreamPos(0), again)?, [tagged.clone(), direct.clone()]);
            assert_eq!(kinds(StreamPos(0), tag)?, [tagged]);
            assert_eq!(kinds(tag, again)?, [direct]);
            let kept = account_data::find(txn, ann(), Scope::Global, "m.direct")?.unwrap();
            assert_eq!(kept.get(), r#"{ "a":[1] }"#);
            assert_eq!(account_data::count(txn, ann())?, 2);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn equal_filters_have_one_id_and_old_ones_give_way() {
    let (store, _dir) = open();
    store
        .write(|txn| {
            let first = filters::insert(txn, ann(), "{}")?;
            assert_eq!(filters::insert(txn, ann(), "{}")?, first);
            assert_eq!(filters::find(txn, ann(), first)?.as_deref(), Some("{}"));
            assert_eq!(filters::find(txn, bob(), first)?, None);
            for n in 0..filters::MAX_FILTERS {
                filters::insert(txn, ann(), &format!("{{\"n\":{n}}}"))?;
            }
            assert_eq!(filters::find(txn, ann(), first)?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_profile_is_empty_until_it_is_set() {
    let (store, _dir) = open();
    store
        .write(|txn| {
            assert_eq!(profiles::get(txn, ann())?, Profile::default());
            let profile = Profile {
                displayname: Some("Ann".to_owned()),
                avatar_url: Some("mxc://node.example/a".into()),
            };
            profiles::set(txn, ann(), &profile)?;
            assert_eq!(profiles::get(txn, ann())?, profile);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_address_is_reserved_filled_once_and_never_overwritten() {
    let (store, _dir) = open();
    let server = server_name!("node.example");
    let address = MediaAddress { server_name: server.to_owned(), media_id: "abc".to_owned() };
    let reserved = Media {
        sha256: None,
        content_type: None,
        filename: None,
        size: 0,
        user_id: Some(ann().to_string()),
        created_ts: at(5),
        description: None,
    };
    let filled = Media {
        sha256: Some("00ff".to_owned()),
        content_type: Some("text/plain".to_owned()),
        filename: Some("a.txt".to_owned()),
        size: 7,
        ..reserved.clone()
    };
    store
        .write(move |txn| {
            assert!(!media::fill(txn, &address, &filled)?);
            assert!(media::insert(txn, &address, &reserved)?);
            assert_eq!(media::count_reserved(txn, ann(), at(4))?, 1);
            assert_eq!(media::count_reserved(txn, ann(), at(5))?, 0);
            assert!(media::fill(txn, &address, &filled)?);
            assert!(!media::fill(txn, &address, &filled)?);
            assert!(!media::insert(txn, &address, &reserved)?);
            assert_eq!(media::find(txn, server, "abc")?, Some(filled));
            media::remove_stale(txn, ann(), at(100))?;
            assert!(media::find(txn, server, "abc")?.is_some());
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let (store, _dir) = open();
    let failed = store
        .write(|txn| {
            users::insert(txn, ann(), None, at(1))?;
            devices::insert(txn, ann(), device_id!("D"), None, at(1))?;
            Err::<(), _>(StoreError::Misuse("on purpose".to_owned()))
        })
        .await;
    assert!(failed.is_err());
    let there = store.read(|snap| users::exists(snap, ann())).await.unwrap();
    assert!(!there);
}

#[tokio::test]
async fn a_revoked_token_is_forgotten_when_that_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let phone = device_id!("PHONE");
    let log_in = |n| {
        store.write(move |txn| {
            devices::insert(txn, ann(), phone, None, at(1))?;
            tokens::insert(txn, &hash(n), ann(), phone, at(1))
        })
    };
    log_in(1).await.unwrap();
    assert!(tokens::owner(&store, hash(1)).await.unwrap().is_some());
    store.write(move |txn| devices::set_seen(txn, ann(), phone, at(9))).await.unwrap();
    let seen = tokens::owner(&store, hash(1)).await.unwrap().unwrap();
    assert_eq!(seen.last_seen_ts, at(9));
    let kept = store
        .write(move |txn| {
            tokens::revoke_device(txn, ann(), phone)?;
            Err::<(), _>(StoreError::Misuse("taken back".to_owned()))
        })
        .await;
    assert!(kept.is_err());
    assert!(tokens::owner(&store, hash(1)).await.unwrap().is_some());
    store.write(move |txn| devices::remove(txn, ann(), phone)).await.unwrap();
    assert_eq!(tokens::owner(&store, hash(1)).await.unwrap(), None);
    assert_eq!(tokens::owner(&store, hash(2)).await.unwrap(), None);
}
