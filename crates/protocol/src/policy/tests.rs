use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, UInt, UserId, server_name};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::{
    build::{self, NewEvent, Place, Signer},
    rules::rules_of,
};

fn event(kind: &str, state_key: Option<&str>, content: &Value) -> SignedPdu {
    let server = server_name!("a.example");
    let key = VerifyKey::from_seed(&[1; 32]);
    let new = NewEvent {
        room_id: Some(ruma::owned_room_id!("!r:a.example")),
        sender: UserId::parse("@a:a.example").unwrap(),
        kind: kind.into(),
        state_key: state_key.map(str::to_owned),
        content: to_raw_value(content).unwrap(),
        redacts: None,
    };
    let at = MilliSecondsSinceUnixEpoch(UInt::from(1_u32));
    let rules = rules_of(&RoomVersionId::V11).unwrap();
    build::event(new, &Place::default(), at, Signer { server, key: &key }, rules).unwrap()
}

fn named(content: &Value) -> Option<PolicyServer> {
    PolicyServer::named_by(event(POLICY_EVENT, Some(""), content).pdu())
}

fn policy(key: &VerifyKey) -> PolicyServer {
    let key = BASE64_NOPAD.encode(&key.public_key());
    named(&json!({ "via": "p.example", "public_keys": { "ed25519": key } })).unwrap()
}

#[test]
fn only_a_complete_event_names_a_policy_server() {
    let key = BASE64_NOPAD.encode(&VerifyKey::from_seed(&[2; 32]).public_key());
    for content in [
        json!({}),
        json!({ "via": "p.example" }),
        json!({ "via": "p.example", "public_keys": {} }),
        json!({ "via": "p.example", "public_keys": { "ed25519": 1 } }),
        json!({ "via": "p.example", "public_keys": { "ed25519": "AAAA" } }),
        json!({ "via": "not a name", "public_keys": { "ed25519": key } }),
        json!({ "public_keys": { "ed25519": key } }),
    ] {
        assert_eq!(named(&content), None, "{content}");
    }
    let more = json!({ "via": "p.example", "public_keys": { "ed25519": key, "x": [] } });
    assert_eq!(named(&more).unwrap().server(), "p.example");
}

#[test]
fn a_signature_recommends_one_event_and_keeps_its_id() {
    let rules = rules_of(&RoomVersionId::V11).unwrap();
    let key = VerifyKey::from_seed(&[2; 32]);
    let policy = policy(&key);
    let message = event("m.room.message", None, &json!({ "body": "x" }));
    assert!(!policy.recommends(message.pdu(), rules));
    let signature = sign(message.pdu(), &key, rules).unwrap();
    let signed = policy.add(&message, &signature, rules).unwrap();
    assert!(policy.recommends(signed.pdu(), rules));
    assert_eq!(signed.pdu().event_id(), message.pdu().event_id());
    assert!(signed.pdu().json().contains("a.example"), "its own signature stays");
    // Whoever receives it checks the server's signature as before.
    let raw = serde_json::value::RawValue::from_string(signed.pdu().json().to_owned()).unwrap();
    let received = crate::pdu::RawPdu::new(raw).well_formed(rules).unwrap();
    assert_eq!(received.pdu().event_id(), message.pdu().event_id());
    assert!(received.content_hash_matches());

    let other = event("m.room.message", None, &json!({ "body": "y" }));
    for wrong in [signature.as_str(), "", "AAAA"] {
        assert!(policy.add(&other, wrong, rules).is_err(), "{wrong}");
    }
    let stranger = sign(message.pdu(), &VerifyKey::from_seed(&[3; 32]), rules).unwrap();
    assert!(policy.add(&message, &stranger, rules).is_err());
}

#[test]
fn the_event_that_names_a_policy_server_needs_no_signature() {
    let rules = rules_of(&RoomVersionId::V11).unwrap();
    let policy = policy(&VerifyKey::from_seed(&[2; 32]));
    for (kind, state_key, exempt) in [
        (POLICY_EVENT, Some(""), true),
        (POLICY_EVENT, Some("x"), false),
        (POLICY_EVENT, None, false),
        ("m.room.name", Some(""), false),
    ] {
        let event = event(kind, state_key, &json!({}));
        assert_eq!(policy.recommends(event.pdu(), rules), exempt, "{kind} {state_key:?}");
    }
}
