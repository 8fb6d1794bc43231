use proptest::prelude::*;
use ruma::{CanonicalJsonValue, server_name};
use serde_json::{Value, json};

use super::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const ISSUED: u64 = 1_750_000_000_000;
const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn ts(millis: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(millis).unwrap())
}

fn identity() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn verify_key(n: u8) -> VerifyKey {
    VerifyKey::from_seed(&[n; 32])
}

fn old(n: u8, expired_ts: u64) -> OldVerifyKey {
    OldVerifyKey { public_key: verify_key(n).public_key(), expired_ts: ts(expired_ts) }
}

fn terms(issued_ts: u64) -> ServerKeysTerms {
    ServerKeysTerms {
        old_verify_keys: vec![old(3, ISSUED - 5), old(4, ISSUED - 9)],
        peer_ids: vec![PEER.to_owned()],
        issued_ts: ts(issued_ts),
    }
}

fn keys() -> ServerKeys {
    ServerKeys::make(&identity(), &verify_key(2), terms(ISSUED))
}

/// The object, changed and then signed again by the right keys: what only its owner could send.
fn resigned(change: impl FnOnce(&mut Value)) -> String {
    let mut object: Value = serde_json::from_str(keys().json().get()).unwrap();
    object.as_object_mut().unwrap().remove("signatures");
    change(&mut object);
    let signed = serde_json::from_value::<CanonicalJsonValue>(object.clone()).unwrap().to_string();
    let sign = |signature: [u8; 64]| data_encoding::BASE64_NOPAD.encode(&signature);
    let (identity, verify) = (identity(), verify_key(2));
    object["signatures"][identity.server_name().as_str()] = json!({
        IDENTITY_KEY_ID: sign(identity.sign(signed.as_bytes())),
        verify.key_id().as_str(): sign(verify.sign(signed.as_bytes())),
    });
    object.to_string()
}

/// The object, changed without its owner.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut object: Value = serde_json::from_str(keys().json().get()).unwrap();
    change(&mut object);
    object.to_string()
}

fn error(json: &str) -> String {
    ServerKeys::verify(json).unwrap_err().to_string()
}

#[test]
fn what_we_make_is_verified() {
    let made = keys();
    let read = ServerKeys::verify_for(made.json().get(), identity().server_name()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.server_name(), identity().server_name());
    assert_eq!(read.issued_ts(), ts(ISSUED));
    assert_eq!(read.valid_until_ts(), ts(ISSUED + 7 * DAY_MS));
    assert_eq!(read.peer_ids(), [PEER]);
    let verify = verify_key(2);
    assert_eq!(
        read.verify_keys().collect::<Vec<_>>(),
        [(verify.key_id().as_str(), &verify.public_key())]
    );
    let mut olds: Vec<_> = read.old_verify_keys().collect();
    olds.sort_by_key(|old| old.expired_ts);
    assert_eq!(olds, [old(4, ISSUED - 9), old(3, ISSUED - 5)]);
}

#[test]
fn layout_and_unknown_fields_are_free() {
    let json = resigned(|object| object["net.example.more"] = json!({"b": [1], "a": null}));
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&json).unwrap()).unwrap();
    let read = ServerKeys::verify(&pretty).unwrap();
    assert!(crate::canonical::is_canonical(read.json().get().as_bytes()));
    assert!(read.json().get().contains(r#""net.example.more":{"a":null,"b":[1]}"#));
    assert_eq!(ServerKeys::verify(read.json().get()).unwrap(), read);
}

#[test]
fn keys_of_another_server_are_refused_before_their_signatures() {
    let other = IdentityKey::from_seed(&[9; 32]);
    let json = keys().json().get().to_owned();
    for name in [other.server_name(), server_name!("example.org")] {
        let error = ServerKeys::verify_for(&json, name).unwrap_err();
        assert!(matches!(error, ServerKeysError::AnotherServer));
    }
    // Another name in the same object is signed by nobody.
    let renamed = json.replace(identity().server_name().as_str(), other.server_name().as_str());
    assert!(matches!(ServerKeys::verify(&renamed), Err(ServerKeysError::Signature)));
}

#[test]
fn changes_without_the_owner_are_refused() {
    let name = identity().server_name().as_str().to_owned();
    let key_id = verify_key(2).key_id().to_string();
    let by_other = data_encoding::BASE64_NOPAD.encode(&verify_key(5).sign(b"{}"));
    let table = [
        ("another time", changed(|o| o["issued_ts"] = json!(ISSUED + 1)), "a signature"),
        ("another PeerId", changed(|o| o["peer_ids"] = json!([])), "a signature"),
        ("a field more", changed(|o| o["x"] = json!(1)), "a signature"),
        ("unsigned", changed(|o| o["unsigned"] = json!({"x": 1})), "`unsigned`"),
        ("no signatures", changed(|o| o["signatures"] = json!({})), "`signatures`"),
        (
            "no signature of the identity",
            changed(|o| {
                o["signatures"][&name].as_object_mut().unwrap().remove(IDENTITY_KEY_ID);
            }),
            "a signature",
        ),
        (
            "no signature of the verify key",
            changed(|o| {
                o["signatures"][&name].as_object_mut().unwrap().remove(&key_id);
            }),
            "a signature",
        ),
        (
            "a signature more",
            changed(|o| {
                o["signatures"][&name]["ed25519:more"] = json!(by_other);
            }),
            "a signature",
        ),
        (
            "a signature of another server",
            changed(|o| {
                o["signatures"]["example.org"] = json!({"ed25519:a": by_other});
            }),
            "`signatures`",
        ),
        (
            "signatures exchanged",
            changed(|o| {
                let signatures = &mut o["signatures"][&name];
                let taken = signatures[IDENTITY_KEY_ID].take();
                signatures[IDENTITY_KEY_ID] = signatures[&key_id].take();
                signatures[&key_id] = taken;
            }),
            "a signature",
        ),
        (
            "a padded signature",
            changed(|o| {
                let signature = &mut o["signatures"][&name][IDENTITY_KEY_ID];
                *signature = json!(format!("{}==", signature.as_str().unwrap()));
            }),
            "a signature",
        ),
        (
            "a verify key that did not sign",
            changed(|o| {
                let more = verify_key(5);
                let key = data_encoding::BASE64_NOPAD.encode(&more.public_key());
                o["verify_keys"][more.key_id().as_str()] = json!({"key": key});
            }),
            "a signature",
        ),
    ];
    for (what, json, reason) in table {
        assert!(error(&json).contains(reason), "{what}: {}", error(&json));
    }
}

/// A field of the object, a value that it gets, and what the error speaks of.
type Case<'a> = (&'a [&'a str], Value, &'a str);

/// Each object is signed by the right keys, and refused all the same.
fn refuses(cases: &[Case<'_>]) {
    for (path, value, reason) in cases {
        let json = resigned(|object| {
            let field = path.iter().fold(object, |value, key| &mut value[*key]);
            *field = value.clone();
        });
        assert!(error(&json).contains(reason), "{path:?} = {value}: {}", error(&json));
    }
}

fn id(n: u8) -> String {
    verify_key(n).key_id().to_string()
}

fn base64(n: u8) -> String {
    data_encoding::BASE64_NOPAD.encode(&verify_key(n).public_key())
}

fn many_keys(numbers: std::ops::Range<u8>) -> Value {
    let entry = |n| (id(n), json!({"key": base64(n), "expired_ts": 1}));
    numbers.map(entry).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn malformed_objects_are_refused_even_when_signed() {
    assert!(ServerKeys::verify(&resigned(|o| o["peer_ids"] = json!(vec![PEER; 16]))).is_ok());
    let other_kind = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    refuses(&[
        (&["server_name"], json!(1), "`server_name`"),
        (&["server_name"], json!("a b"), "`server_name`"),
        (&["server_name"], json!("example.org"), "characters"),
        (&["peer_ids"], json!(PEER), "`peer_ids`"),
        (&["peer_ids"], json!([1]), "`peer_ids`"),
        (&["peer_ids"], json!([other_kind]), "`peer_ids`"),
        (&["peer_ids"], json!([PEER.replace('D', "0")]), "`peer_ids`"),
        (&["peer_ids"], json!(vec![PEER; 17]), "`peer_ids`"),
        (&["issued_ts"], json!("1"), "`issued_ts`"),
        (&["issued_ts"], json!(-1), "`issued_ts`"),
        (&["valid_until_ts"], json!(null), "`valid_until_ts`"),
        (&["valid_until_ts"], json!(ISSUED - 1), "times"),
        (&["valid_until_ts"], json!(ISSUED + 7 * DAY_MS + 1), "times"),
        (&["x"], json!("x".repeat(MAX_SERVER_KEYS_BYTES)), "bytes"),
    ]);
    assert!(error("{").contains("canonical"));
    assert!(error("[]").contains("canonical"));
    assert!(error(r#"{"x":1.5}"#).contains("canonical"));
}

#[test]
fn malformed_keys_are_refused_even_when_signed() {
    assert!(ServerKeys::verify(&resigned(|o| o["old_verify_keys"] = many_keys(10..58))).is_ok());
    let (id, old_id, weak) = (id(2), id(3), data_encoding::BASE64_NOPAD.encode(&[0; 32]));
    refuses(&[
        (&["verify_keys"], json!({}), "`verify_keys`"),
        (&["verify_keys"], json!([]), "`verify_keys`"),
        (&["verify_keys"], many_keys(10..15), "`verify_keys`"),
        (&["verify_keys", &id], json!(base64(2)), "`verify_keys`"),
        (&["verify_keys", &id, "key"], json!("AAAA"), "`verify_keys`"),
        (&["verify_keys", &id, "key"], json!(base64(2) + "="), "`verify_keys`"),
        (&["verify_keys", &id, "key"], json!(weak), "`verify_keys`"),
        (&["verify_keys", &id, "key"], json!(base64(5)), "id that is not"),
        (&["verify_keys", "ed25519:mine"], json!({"key": base64(2)}), "id that is not"),
        (&["verify_keys", IDENTITY_KEY_ID], json!({"key": base64(5)}), "id that is not"),
        (&["old_verify_keys"], json!(null), "`old_verify_keys`"),
        (&["old_verify_keys"], many_keys(10..59), "`old_verify_keys`"),
        (&["old_verify_keys"], many_keys(2..3), "id that is not"),
        (&["old_verify_keys", &old_id], json!({"key": base64(3)}), "`expired_ts`"),
    ]);
}

#[test]
fn the_later_one_wins() {
    let keys = keys();
    let later = ServerKeys::make(&identity(), &verify_key(2), terms(ISSUED + 1));
    let rotated = ServerKeys::make(&identity(), &verify_key(7), terms(ISSUED));
    assert!(later.is_newer_than(&keys) && !keys.is_newer_than(&later));
    assert!(!keys.is_newer_than(&keys));
    assert_ne!(keys.is_newer_than(&rotated), rotated.is_newer_than(&keys));
}

#[test]
fn validity_has_an_hour_of_grace() {
    const HOUR: u64 = 60 * 60 * 1000;
    let (keys, end) = (keys(), ISSUED + 7 * DAY_MS);
    assert!(!keys.is_expired_at(ts(end + HOUR)) && keys.is_expired_at(ts(end + HOUR + 1)));
    assert!(!keys.is_from_the_future_at(ts(ISSUED - HOUR)));
    assert!(keys.is_from_the_future_at(ts(ISSUED - HOUR - 1)));
    assert!(keys.is_valid_at(ts(ISSUED)) && !keys.is_valid_at(ts(0)));
    assert!(
        !keys.needs_renewal(ts(end - 3 * DAY_MS - 1)) && keys.needs_renewal(ts(end - 3 * DAY_MS))
    );
    assert!(keys.needs_renewal(ts(0)), "the clock was set back");
}

#[test]
fn a_key_is_good_for_its_time() {
    use KeyValidity::*;
    let (keys, end) = (keys(), ISSUED + 7 * DAY_MS);
    let (now, was) = (verify_key(2), verify_key(3));
    let at = |key: &VerifyKey, millis, validity| {
        keys.key_at(key.key_id().as_str(), ts(millis), validity) == Some(&key.public_key())
    };
    assert!(at(&now, 0, Enforced) && at(&now, end, Enforced) && !at(&now, end + 1, Enforced));
    assert!(at(&now, end + 1, Ignored));
    assert!(at(&was, ISSUED - 5, Enforced) && !at(&was, ISSUED - 4, Enforced));
    assert!(at(&was, end, Ignored));
    assert!(!at(&verify_key(8), 0, Ignored));
    assert!(keys.current_key(now.key_id().as_str()).is_some());
    assert!(keys.current_key(was.key_id().as_str()).is_none());
    assert!(keys.key_at(IDENTITY_KEY_ID, ts(ISSUED), Ignored).is_none());
}

#[test]
fn the_largest_that_we_make_fits() {
    let many = ServerKeysTerms {
        old_verify_keys: (10..=255).map(|n| old(n, ISSUED - u64::from(n))).collect(),
        peer_ids: vec![PEER.to_owned(); 20],
        issued_ts: ts(ISSUED),
    };
    let made = ServerKeys::make(&identity(), &verify_key(20), many);
    assert!(made.json().get().len() <= MAX_SERVER_KEYS_BYTES, "{}", made.json().get().len());
    let read = ServerKeys::verify(made.json().get()).unwrap();
    assert_eq!(read.peer_ids().len(), MAX_PEER_IDS);
    assert_eq!(read.old_verify_keys().count(), MAX_OLD_VERIFY_KEYS);
    let first = read.old_verify_keys().map(|old| old.expired_ts).min().unwrap();
    assert_eq!(first, ts(ISSUED - 58), "the latest are kept, and the current one is not old");
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), byte: u8) {
        let keys = keys();
        let mut bytes = keys.json().get().as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert!(ServerKeys::verify(text).is_err(), "{}", text);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = ServerKeys::verify(&text);
    }
}
