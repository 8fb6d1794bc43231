use proptest::prelude::*;
use ruma::{UInt, room_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    canonical::is_canonical,
    keys::IdentityKey,
    limits::{FRESHNESS_MS, MAX_PDU_BYTES, MAX_SERVER_KEYS_BYTES},
    server_keys::{OldVerifyKey, ServerKeys, ServerKeysTerms},
};

const NOW: u64 = 1_750_000_000_000;
const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn ts(millis: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(millis).unwrap())
}

fn keys_at(seed: u8, issued_ts: u64) -> ServerKeys {
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec![PEER.to_owned()],
        issued_ts: ts(issued_ts),
    };
    ServerKeys::make(&IdentityKey::from_seed(&[seed; 32]), &verify_key(seed), terms)
}

fn keys(seed: u8) -> ServerKeys {
    keys_at(seed, NOW)
}

fn verify_key(seed: u8) -> VerifyKey {
    VerifyKey::from_seed(&[seed + 100; 32])
}

fn name(seed: u8) -> OwnedServerName {
    IdentityKey::from_seed(&[seed; 32]).server_name().to_owned()
}

fn raw(json: &Value) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap()
}

fn frame() -> Frame {
    Frame {
        origin: name(1),
        room_id: room_id!("!room:example.org").to_owned(),
        origin_server_ts: ts(NOW),
        pdus: vec![raw(&json!({"type": "m.room.message", "content": {"body": "hi"}}))],
        edus: vec![raw(&json!({"edu_type": "m.typing", "content": {}}))],
        server_keys: vec![keys(1).json().to_owned(), keys(2).json().to_owned()],
    }
}

fn sealed(change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    let mut frame = frame();
    change(&mut frame);
    frame.sign(&verify_key(1)).unwrap()
}

fn error(bytes: &[u8]) -> FrameError {
    Frame::open(bytes, ts(NOW)).unwrap_err()
}

/// The frame with its JSON changed, in canonical form and signed again.
fn resigned(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut object: Value = serde_json::from_slice(&sealed(|_| {})).unwrap();
    object.as_object_mut().unwrap().remove("signatures");
    change(&mut object);
    let text = object.to_string();
    let signature = data_encoding::BASE64_NOPAD.encode(&verify_key(1).sign(text.as_bytes()));
    if object.get("signatures").is_none() {
        object["signatures"][name(1).as_str()][verify_key(1).key_id().as_str()] = json!(signature);
    }
    object.to_string().into_bytes()
}

#[test]
fn a_frame_is_read_back() {
    let bytes = sealed(|_| {});
    assert!(is_canonical(&bytes));
    let (read, ring) = Frame::open(&bytes, ts(NOW)).unwrap();
    assert_eq!(read.origin, name(1));
    assert_eq!(read.room_id, "!room:example.org");
    assert_eq!(read.origin_server_ts, ts(NOW));
    assert_eq!(read.pdus[0].get(), r#"{"content":{"body":"hi"},"type":"m.room.message"}"#);
    assert_eq!(read.edus[0].get(), r#"{"content":{},"edu_type":"m.typing"}"#);
    assert_eq!(ring, KeyRing::from([(name(1), keys(1)), (name(2), keys(2))]));
    assert_eq!(read.sign(&verify_key(1)).unwrap(), bytes, "the same content has the same bytes");
}

#[test]
fn known_keys_are_taken_as_they_are() {
    let known = KeyRing::from([(name(1), keys(1)), (name(2), keys_at(2, NOW - 1))]);
    let (_, ring) = Frame::open_knowing(&sealed(|_| {}), ts(NOW), &known).unwrap();
    assert_eq!(ring, KeyRing::from([(name(1), keys(1)), (name(2), keys(2))]));
    // Known keys of the same server do not stand in for wrong ones in the frame.
    let forged = keys(1).json().get().replace(&NOW.to_string(), &(NOW + 1).to_string());
    let forged = sealed(|frame| frame.server_keys[0] = RawValue::from_string(forged).unwrap());
    let error = Frame::open_knowing(&forged, ts(NOW), &known).unwrap_err();
    assert!(matches!(error, FrameError::ServerKeys(ServerKeysError::Signature)));
}

#[test]
fn resigning_is_no_fault_and_fields_more_are_ignored() {
    assert_eq!(resigned(|_| {}), sealed(|_| {}));
    let more = resigned(|object| {
        object["aaa"] = json!(1);
        object["zzz"] = json!({"b": [null]});
        object["content"]["more"] = json!("x");
    });
    assert!(Frame::open(&more, ts(NOW)).is_ok());
}

#[test]
fn wrong_frames_are_refused() {
    use FrameError::{
        Field, Form, NotCanonical, NotFresh, ServerKeys, Signature, TooLarge, TooMany, UnknownKey,
        Version,
    };
    let set =
        |path: &str, value: Value| resigned(|object| *object.pointer_mut(path).unwrap() = value);
    let remove = |key: &str| resigned(|object| drop(object.as_object_mut().unwrap().remove(key)));
    let signed_by = |seed: u8| frame().sign(&verify_key(seed)).unwrap();
    macro_rules! check {
        ($bytes:expr, $error:pat) => {{
            let error = error(&$bytes);
            assert!(matches!(error, $error), "{error:?}");
        }};
    }
    check!(set("/v", json!(2)), Version(2));
    check!(remove("v"), Form(_));
    check!(set("/method", json!("POST")), Field("method"));
    check!(set("/uri", json!("/_matrix/federation/v1/send/")), Field("uri"));
    check!(set("/uri", json!("/_matrix/federation/v1/send/a/b")), Field("uri"));
    check!(set("/uri", json!("/_matrix/federation/v2/send/a")), Field("uri"));
    check!(set("/destination", json!("example.org")), Form(_));
    check!(set("/origin", json!("a b")), Form(_));
    check!(set("/origin", json!(name(3))), UnknownKey);
    check!(set("/origin", json!(name(2))), Field("signatures"));
    check!(set("/origin_server_ts", json!(-1)), Form(_));
    check!(set("/origin_server_ts", json!(NOW + FRESHNESS_MS + 1)), NotFresh);
    check!(set("/origin_server_ts", json!(NOW - FRESHNESS_MS - 1)), NotFresh);
    check!(set("/content", json!([])), Form(_));
    check!(set("/content/pdus", json!({})), Form(_));
    check!(set("/content/pdus/0", json!("x")), Field("pdus"));
    check!(set("/content/edus/0", json!([])), Field("edus"));
    check!(set("/content/pdus", json!(vec![json!({}); 51])), TooMany("pdus"));
    check!(set("/content/edus", json!(vec![json!({}); 101])), TooMany("edus"));
    check!(set("/server_keys", json!(vec![json!({}); 52])), TooMany("server_keys"));
    check!(set("/server_keys", json!([])), UnknownKey);
    check!(set("/server_keys/0", json!(1)), Field("server_keys"));
    check!(set("/server_keys/0", json!({})), Form(_));
    check!(set("/server_keys/1", json!({"server_name": "example.org"})), ServerKeys(_));
    check!(set("/server_keys/1", json!({"server_name": "a b"})), Field("server_keys"));
    check!(
        set("/server_keys/1", serde_json::from_str(keys(1).json().get()).unwrap()),
        Field("server_keys")
    );
    check!(signed_by(2), UnknownKey);
    check!(remove("content"), Form(_));
    let signatures = |value: Value| resigned(|object| object["signatures"] = value);
    let key_id = verify_key(1).key_id().to_string();
    let sig = data_encoding::BASE64_NOPAD.encode(&[1; 64]);
    check!(signatures(json!({})), Field("signatures"));
    check!(signatures(json!([])), Form(_));
    check!(signatures(json!({name(1): {}})), Field("signatures"));
    check!(signatures(json!({name(1): {&key_id: "AAAA"}})), Field("signatures"));
    check!(signatures(json!({name(1): {&key_id: &sig}})), Signature);
    check!(signatures(json!({name(1): {"ed25519:identity": &sig}})), UnknownKey);
    check!(signatures(json!({name(1): {&key_id: &sig, "ed25519:b": &sig}})), Field("signatures"));
    check!(signatures(json!({name(1): {&key_id: &sig}, "b": {}})), Field("signatures"));
    let sealed = sealed(|_| {});
    check!([&sealed[..], b"\n"].concat(), NotCanonical);
    check!(b"{}"[..], Form(_));
    check!(vec![b' '; MAX_FRAME_BYTES + 1], TooLarge);
    check!([b"{\"\xff", &sealed[2..]].concat(), NotCanonical);
}

#[test]
fn only_what_everyone_sees_is_provable() {
    assert!(FrameError::Signature.is_provable() && FrameError::NotCanonical.is_provable());
    assert!(!FrameError::NotFresh.is_provable() && !FrameError::KeysNotValid.is_provable());
    assert!(!FrameError::Version(2).is_provable());
}

#[test]
fn keys_are_valid_by_our_clock() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let with = |seed: u8, issued_ts| {
        let at = usize::from(seed - 1);
        sealed(|frame| frame.server_keys[at] = keys_at(seed, issued_ts).json().to_owned())
    };
    for issued_ts in [NOW - 8 * DAY, NOW + DAY] {
        assert!(matches!(error(&with(1, issued_ts)), FrameError::KeysNotValid));
    }
    // Of others, old keys belong to old events, and those from the future are left out.
    assert_eq!(Frame::open(&with(2, NOW - 8 * DAY), ts(NOW)).unwrap().1.len(), 2);
    assert_eq!(Frame::open(&with(2, NOW + DAY), ts(NOW)).unwrap().1.len(), 1);
}

#[test]
fn the_largest_event_fits_with_keys() {
    let old_verify_keys = (0..=255)
        .map(|n| OldVerifyKey {
            public_key: VerifyKey::from_seed(&[n; 32]).public_key(),
            expired_ts: ts(NOW),
        })
        .collect();
    let terms = ServerKeysTerms {
        old_verify_keys,
        peer_ids: vec![PEER.to_owned(); 16],
        issued_ts: ts(NOW),
    };
    let largest = |seed: u8| {
        let identity = IdentityKey::from_seed(&[seed; 32]);
        let keys = ServerKeys::make(&identity, &verify_key(seed), terms.clone());
        assert!(keys.json().get().len() > MAX_SERVER_KEYS_BYTES * 3 / 4);
        keys.json().to_owned()
    };
    let event = |size: usize| {
        let empty = json!({"a": ""}).to_string().len();
        raw(&json!({"a": "x".repeat(size - empty)}))
    };
    // The largest legal event, with the keys of its sender, of the frame's, and of 15 more.
    let bytes = sealed(|frame| {
        frame.pdus = vec![event(MAX_PDU_BYTES)];
        frame.server_keys = (1..18).map(largest).collect();
    });
    let (read, ring) = Frame::open(&bytes, ts(NOW)).unwrap();
    assert_eq!((read.pdus[0].get().len(), ring.len()), (MAX_PDU_BYTES, 17));

    let mut frame = frame();
    frame.pdus = vec![event(MAX_PDU_BYTES); 4];
    assert!(matches!(frame.sign(&verify_key(1)), Err(FrameError::TooLarge)));
    frame.pdus = vec![event(100); 51];
    assert!(matches!(frame.sign(&verify_key(1)), Err(FrameError::TooMany("pdus"))));
    frame.pdus = vec![raw(&json!({"a": 1.5}))];
    assert!(matches!(frame.sign(&verify_key(1)), Err(FrameError::Content(_))));
}

/// What an event may hold, a frame must carry: the deepest nesting and the strangest strings.
#[test]
fn every_legal_event_fits() {
    let levels = crate::limits::MAX_JSON_DEPTH - 1;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let strange = json!({"\u{0}\"\\": "\u{1f600}\u{7f}\n", "signatures": {"a": 1}}).to_string();
    let pdus: Vec<_> = [deep, strange].map(|json| RawValue::from_string(json).unwrap()).into();
    let bytes = sealed(|frame| frame.pdus = pdus.clone());
    let (read, _) = Frame::open(&bytes, ts(NOW)).unwrap();
    let texts =
        |pdus: &[Box<RawValue>]| pdus.iter().map(|pdu| pdu.get().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(&read.pdus), texts(&pdus));
    // One level more is no event, and the frame with it is none.
    let deeper = RawValue::from_string(format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)));
    let mut frame = frame();
    frame.pdus = vec![deeper.unwrap()];
    assert!(frame.sign(&verify_key(1)).is_err());
}

#[test]
fn topics_differ_and_hide_the_room() {
    let topic_of = |id: &str| topic(<&RoomId>::try_from(id).unwrap());
    assert_eq!(topic_of("!room:example.org").len(), 26);
    assert_ne!(topic_of("!room:example.org"), topic_of("!room:example.com"));
    assert!(!topic_of("!room:example.org").contains("room"));
}

#[test]
fn the_message_id_is_of_the_bytes() {
    let (a, b) = (sealed(|_| {}), sealed(|frame| frame.origin_server_ts = ts(NOW + 1)));
    assert_eq!(message_id("x", &a), message_id("x", &sealed(|_| {})));
    assert_ne!(message_id("x", &a), message_id("x", &b));
    assert_ne!(message_id("x", &a), message_id("y", &a));
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = sealed(|_| {});
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(Frame::open(&bytes, ts(NOW)).is_err());
        let known = KeyRing::from([(name(1), keys(1)), (name(2), keys(2))]);
        prop_assert!(Frame::open_knowing(&bytes, ts(NOW), &known).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Frame::open(&bytes, ts(NOW));
    }

    #[test]
    fn arbitrary_objects_never_panic(
        keys in prop::collection::vec("content|destination|method|origin|origin_server_ts|server_keys|signatures|uri|v", 0..9),
        values in prop::collection::vec("1|\\{\\}|\\[\\]|\"x\"|null|\\[\\{\\}\\]", 9),
    ) {
        let object: std::collections::BTreeMap<_, _> = keys.iter().zip(&values).collect();
        let members: Vec<_> = object.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let _ = Frame::open(format!("{{{}}}", members.join(",")).as_bytes(), ts(NOW));
    }
}
