use data_encoding::BASE64_NOPAD;
use proptest::prelude::*;
use ruma::{
    RoomVersionId, canonical_json::redact, signatures::Verified, state_res::check_pdu_format,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    canonical::{parse_object, to_canonical},
    keys::VerifyKey,
    rules::{list_supported, rules_of},
    testing::{at, draw, person, ring},
};

const EVERYBODY: [&str; 3] = ["alice", "bob", "carol"];

fn raw(json: &str) -> RawPdu {
    RawPdu::new(RawValue::from_string(json.to_owned()).unwrap())
}

fn receive(json: &str, version: &RoomVersionId) -> Result<SignedPdu, PduError> {
    raw(json).well_formed(rules_of(version).unwrap())?.signed(&ring(&EVERYBODY))
}

/// The last event of a drawing, and its rules.
fn last(version: &RoomVersionId, dag: &str) -> Arc<Pdu> {
    Arc::clone(draw(version, dag).events.last().unwrap().pdu())
}

fn same(a: &Pdu, b: &Pdu) {
    assert_eq!(a.json(), b.json());
    assert_eq!(a.event_id(), b.event_id());
    assert_eq!(a.room_id(), b.room_id());
    assert_eq!(a.room_id_source, b.room_id_source);
    assert_eq!(a.sender(), b.sender());
    assert_eq!(a.kind(), b.kind());
    assert_eq!(a.state_key(), b.state_key());
    assert_eq!(a.content().get(), b.content().get());
    assert_eq!(a.prev_events(), b.prev_events());
    assert_eq!(a.auth_events(), b.auth_events());
    assert_eq!(a.depth(), b.depth());
    assert_eq!(a.origin_server_ts(), b.origin_server_ts());
    assert_eq!(a.redacts(), b.redacts());
}

/// Spec: Appendices, "Cryptographic Test Vectors", "Event Signing".
#[test]
fn the_vectors_of_the_spec() {
    let seed = *b"YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
    // The last character carries two bits beyond the 32 bytes, so it is read leniently.
    let seed = ruma::serde::Base64::<ruma::serde::base64::Standard>::parse(seed).unwrap();
    let key = VerifyKey::from_seed(seed.as_bytes().try_into().unwrap());
    let vectors = [
        (
            json!({
                "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain",
                "origin_server_ts": 1_000_000, "signatures": {}, "hashes": {}, "type": "X",
                "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
                "unsigned": { "age_ts": 1_000_000 },
            }),
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            json!({
                "content": { "body": "Here is the message content" }, "event_id": "$0:domain",
                "origin": "domain", "origin_server_ts": 1_000_000, "type": "m.room.message",
                "room_id": "!r:domain", "sender": "@u:domain", "signatures": {},
                "unsigned": { "age_ts": 1_000_000 },
            }),
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ];
    let rules = rules_of(&RoomVersionId::V2).unwrap();
    for (event, expected_hash, expected_signature) in vectors {
        let mut object = parse_object(event.to_string().as_bytes()).unwrap();
        let hash = ruma::signatures::content_hash(&object).unwrap().encode();
        assert_eq!(hash, expected_hash);
        let hashes = CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]);
        object.insert("hashes".to_owned(), hashes.into());
        assert!(hash::content_hash_matches(&object));
        let signed_json = hash::signed_json(&object, rules).unwrap();
        let signature = BASE64_NOPAD.encode(&key.sign(signed_json.as_bytes()));
        assert_eq!(signature, expected_signature);
    }
}

/// A history with every kind of event that a room begins with.
const HISTORY: &str =
    "room ← join(bob) ← power(bob=50) ← topic(x) by bob ← message(hé\"\\) by bob ← ban(carol)";

#[test]
fn every_version_builds_what_it_accepts() {
    for version in list_supported() {
        let drawn = draw(version, HISTORY);
        for built in &drawn.events {
            let built = built.pdu();
            let verdict = &drawn.node.verdicts[built.event_id()];
            assert_eq!(*verdict, crate::receive::Verdict::Accepted, "{version}: {built:?}");
            // What `build` put together is what a receiver reads out of the bytes.
            same(receive(built.json(), version).unwrap().pdu(), built);
            let rules = rules_of(version).unwrap();
            let id = built.event_id().to_owned();
            same(&Pdu::from_trusted(built.json().to_owned(), id, rules).unwrap(), built);
        }
    }
}

#[test]
fn event_ids_have_the_form_of_their_version() {
    for version in list_supported() {
        let pdu = last(version, "room ← message(x)");
        let id = pdu.event_id().as_str();
        match version.as_str() {
            "2" => assert!(id.ends_with(&format!(":{}", pdu.sender().server_name()))),
            _ => assert_eq!(id.len(), 44),
        }
        assert!(version.as_str() < "4" || !id.contains(['/', '+']));
    }
}

#[test]
fn a_room_of_version_12_is_named_by_its_create_event() {
    let drawn = draw(&RoomVersionId::V12, "room");
    let create = drawn.events[0].pdu();
    assert_eq!(create.room_id().strip_sigil(), &create.event_id().as_str()[1..]);
    assert!(!create.json().contains("room_id"));
    assert_eq!(ruma::state_res::Event::room_id(&**create), None);
    for event in &drawn.events[1..] {
        assert_eq!(event.pdu().room_id(), create.room_id());
        assert!(!event.pdu().auth_events().contains(&create.event_id().to_owned()));
    }
}

#[test]
fn version_2_writes_reference_hashes() {
    let drawn = draw(&RoomVersionId::V2, "room ← message(x)");
    let [.., before, event] = &drawn.events[..] else { panic!() };
    let rules = rules_of(&RoomVersionId::V2).unwrap();
    let object = parse_object(before.pdu().json().as_bytes()).unwrap();
    let hash = ruma::signatures::reference_hash(&object, rules).unwrap();
    let written: Value = serde_json::from_str(event.pdu().json()).unwrap();
    assert_eq!(written["prev_events"], json!([[before.pdu().event_id(), { "sha256": hash }]]));
}

#[test]
fn a_changed_byte_is_noticed() {
    for version in [RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V12] {
        let pdu = last(&version, "room ← message(hello)");
        let redacted = redacted(&pdu, rules_of(&version).unwrap(), None).unwrap();
        for at in 0..pdu.json().len() {
            let mut bytes = pdu.json().as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(json) = String::from_utf8(bytes) else { continue };
            let Ok(json) = RawValue::from_string(json) else { continue };
            match receive(json.get(), &version) {
                Err(error) => assert!(!error.to_string().is_empty()),
                // Only the content may differ, and then it is gone.
                Ok(taken) => same(taken.pdu(), &redacted),
            }
        }
    }
}

#[test]
fn a_changed_content_is_redacted_and_the_id_stays() {
    for version in list_supported() {
        let pdu = last(version, "room ← join(bob) ← message(hello) by bob");
        let taken = receive(&pdu.json().replace("hello", "adieu"), version).unwrap();
        assert_eq!(taken.pdu().content().get(), "{}");
        assert_eq!(taken.pdu().event_id(), pdu.event_id());
        assert_eq!(taken.pdu().sender(), pdu.sender());
    }
}

#[test]
fn how_it_is_written_does_not_matter() {
    for version in list_supported() {
        let pdu = last(version, "room ← message(hé)");
        let value: Value = serde_json::from_str(pdu.json()).unwrap();
        let spread = serde_json::to_string_pretty(&value).unwrap().replace('é', "\\u00e9");
        same(receive(&spread, version).unwrap().pdu(), &pdu);
        // Nobody signed `unsigned`.
        let mut value = value;
        value["unsigned"] = json!({ "redacted_because": { "content": {} } });
        same(receive(&value.to_string(), version).unwrap().pdu(), &pdu);
    }
}

#[test]
fn malformed_events_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 27] = [
        ("`type` is missing", |e| e["type"] = Value::Null),
        ("`type`", |e| e["type"] = json!(1)),
        ("`type` is over its limit", |e| e["type"] = json!("x".repeat(256))),
        ("`state_key`", |e| e["state_key"] = Value::Null),
        ("`state_key` is over its limit", |e| e["state_key"] = json!("é".repeat(128))),
        ("`sender`", |e| e["sender"] = json!("")),
        ("`sender` is over", |e| e["sender"] = json!(format!("@{}:x", "a".repeat(255)))),
        ("sender", |e| e["sender"] = json!("alice")),
        ("`room_id`", |e| e["room_id"] = json!(3)),
        ("`content`", |e| e["content"] = json!([])),
        ("`content`", |e| e["content"] = json!("x")),
        ("`depth`", |e| e["depth"] = json!(-1)),
        ("`depth`", |e| e["depth"] = json!("1")),
        ("canonical", |e| e["depth"] = json!(9_007_199_254_740_992_i64)),
        ("canonical", |e| e["content"]["n"] = json!(1.5)),
        ("`origin_server_ts`", |e| e["origin_server_ts"] = json!(-5)),
        ("`origin_server_ts`", |e| e["origin_server_ts"] = Value::Null),
        ("`prev_events`", |e| e["prev_events"] = json!({})),
        ("`prev_events`", |e| e["prev_events"] = json!([1])),
        ("`prev_events` is over", |e| e["prev_events"] = json!(vec![e["event"].clone(); 21])),
        ("`auth_events` is over", |e| e["auth_events"] = json!(vec![e["event"].clone(); 11])),
        ("`auth_events`", |e| e["auth_events"] = json!(null)),
        ("`hashes`", |e| e["hashes"] = json!({})),
        ("`hashes`", |e| e["hashes"] = json!({ "sha256": 1 })),
        ("signature", |e| e["signatures"] = json!({})),
        ("signature", |e| e["signatures"] = json!([])),
        ("larger", |e| e["content"]["body"] = json!("x".repeat(MAX_PDU_BYTES))),
    ];
    for version in list_supported() {
        let pdu = last(version, "room ← message(x)");
        let good: Value = serde_json::from_str(pdu.json()).unwrap();
        for (n, (expected, change)) in cases.iter().enumerate() {
            let mut event = good.clone();
            event["event"] = event["prev_events"][0].clone();
            change(&mut event);
            event.as_object_mut().unwrap().remove("event");
            if *expected == "`type` is missing" {
                event.as_object_mut().unwrap().remove("type");
            }
            let error = receive(&event.to_string(), version).unwrap_err();
            assert!(error.to_string().contains(expected), "{version}, case {n}: {error}");
            assert!(error.is_provable(), "{version}, case {n}: {error}");
        }
    }
}

#[test]
fn references_have_the_form_of_their_version() {
    let pdu = last(&RoomVersionId::V2, "room ← message(x)");
    let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
    event["prev_events"] = json!([pdu.prev_events()[0]]);
    assert!(receive(&event.to_string(), &RoomVersionId::V2).is_err());
    let pdu = last(&RoomVersionId::V3, "room ← message(x)");
    let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
    event["prev_events"] = json!([[pdu.prev_events()[0], { "sha256": "x" }]]);
    assert!(receive(&event.to_string(), &RoomVersionId::V3).is_err());
}

#[test]
fn from_version_12_on_the_create_event_is_no_auth_event() {
    let drawn = draw(&RoomVersionId::V12, "room ← message(x)");
    let mut event: Value = serde_json::from_str(drawn.events.last().unwrap().pdu().json()).unwrap();
    event["auth_events"].as_array_mut().unwrap().push(json!(drawn.events[0].pdu().event_id()));
    let error =
        raw(&event.to_string()).well_formed(rules_of(&RoomVersionId::V12).unwrap()).unwrap_err();
    assert!(matches!(error, PduError::Format(FormatError::CreateInAuthEvents)), "{error}");
}

#[test]
fn the_largest_event_is_accepted_and_one_byte_more_is_not() {
    let version = RoomVersionId::V12;
    let alice = person("alice");
    let mut drawn = draw(&version, "room");
    let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
    let small = drawn.new_event("message", "", &alice);
    let overhead = drawn.place(small, &tip, at(0), &alice).pdu().json().len();
    let room = MAX_PDU_BYTES - overhead;
    let large = drawn.new_event("message", &"x".repeat(room), &alice);
    let large = drawn.place(large, &tip, at(0), &alice);
    assert_eq!(large.pdu().json().len(), MAX_PDU_BYTES);
    same(receive(large.pdu().json(), &version).unwrap().pdu(), large.pdu());
    let larger = large.pdu().json().replacen("xxx", "xxxx", 1);
    assert!(matches!(receive(&larger, &version), Err(PduError::TooLarge)));
    // White space does not count, up to a bound.
    let spaced = large.pdu().json().replacen('{', &format!("{{{}", " ".repeat(1000)), 1);
    same(receive(&spaced, &version).unwrap().pdu(), large.pdu());
    let padded = spaced.replacen('{', &format!("{{{}", " ".repeat(MAX_RECEIVED_PDU_BYTES)), 1);
    assert!(matches!(receive(&padded, &version), Err(PduError::TooLarge)));
}

#[test]
fn whose_keys_are_unknown_proves_nothing() {
    let pdu = last(&RoomVersionId::V12, "room ← message(x)");
    let event = raw(pdu.json()).well_formed(rules_of(&RoomVersionId::V12).unwrap()).unwrap();
    let alice = person("alice").server_keys().server_name().to_owned();
    assert_eq!(*event.required_signers(), BTreeSet::from([alice.clone()]));
    let error = event.signed(&ring(&["bob"])).unwrap_err();
    assert!(matches!(&error, PduError::NoKey(server) if *server == alice));
    assert!(!error.is_provable());
}

#[test]
fn from_version_5_on_a_key_signs_only_while_it_is_valid() {
    const VALIDITY_MS: u32 = 7 * 24 * 60 * 60 * 1000;
    for version in list_supported() {
        for (ms, late) in [(VALIDITY_MS, false), (VALIDITY_MS + 1, true)] {
            let pdu = last(version, &format!("room ← message(x) @{ms}"));
            let enforced = rules_of(version).unwrap().enforce_key_validity;
            let refused = receive(pdu.json(), version).is_err();
            assert_eq!(refused, enforced && late, "version {version}, {ms}");
        }
    }
}

#[test]
fn a_restricted_join_needs_two_signatures() {
    let content = |user: &UserId| {
        let content = json!({ "membership": "join", "join_authorised_via_users_server": user });
        serde_json::value::to_raw_value(&content).unwrap()
    };
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        let (alice, bob) = (person("alice"), person("bob"));
        let mut drawn = draw(version, "room ← rules(invite)");
        let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
        let mut new = drawn.new_event("join", "bob", &bob);
        new.content = content(&alice.user_id);
        let join = drawn.place(new, &tip, at(0), &bob);
        let join = join.pdu();
        let alone = receive(join.json(), version);
        if !rules.authorization.restricted_join_rule {
            assert!(alone.is_ok(), "version {version}");
            continue;
        }
        assert!(matches!(alone, Err(PduError::Signature { .. })), "version {version}");
        let event = raw(join.json()).well_formed(rules).unwrap();
        assert_eq!(event.required_signers().len(), 2);
        let both = event.countersign(alice.signer()).unwrap().signed(&ring(&EVERYBODY)).unwrap();
        assert_eq!(both.pdu().event_id(), join.event_id());
        assert_ne!(both.pdu().json(), join.json());
        same(receive(both.pdu().json(), version).unwrap().pdu(), both.pdu());
    }
}

#[test]
fn only_joins_need_the_signature_of_who_let_them_in() {
    let alice = person("alice").user_id;
    for (name, membership) in [("message", "join"), ("leave", "leave"), ("topic", "join")] {
        let bob = person("bob");
        let mut drawn = draw(&RoomVersionId::V12, "room ← join(bob)");
        let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
        let mut new = drawn.new_event(name, "bob", &bob);
        let content =
            json!({ "membership": membership, "join_authorised_via_users_server": alice });
        new.content = serde_json::value::to_raw_value(&content).unwrap();
        let event = drawn.place(new, &tip, at(0), &bob);
        assert!(receive(event.pdu().json(), &RoomVersionId::V12).is_ok(), "{name}");
    }
}

#[test]
fn an_invite_for_a_third_party_invite_is_signed_elsewhere() {
    let pdu = last(&RoomVersionId::V12, "room ← invite(bob)");
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    let signers = |content: Value| {
        let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
        event["content"] = content;
        raw(&event.to_string()).well_formed(rules).unwrap().required_signers().len()
    };
    assert_eq!(signers(json!({ "membership": "invite", "third_party_invite": {} })), 0);
    assert_eq!(signers(json!({ "membership": "invite", "third_party_invite": 1 })), 1);
    assert_eq!(signers(json!({ "membership": "join", "third_party_invite": {} })), 1);
    assert_eq!(signers(json!({ "third_party_invite": {} })), 1);
    assert_eq!(signers(json!({ "membership": 5 })), 1);
    let garbage = json!({ "membership": "join", "join_authorised_via_users_server": "bob" });
    assert_eq!(signers(garbage), 1);
}

#[test]
fn a_member_event_that_says_nothing_is_rejected_and_not_dropped() {
    for version in list_supported() {
        let mut drawn = draw(version, "room ← join(bob)");
        let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
        let bob = person("bob");
        let mut new = drawn.new_event("topic", "x", &bob);
        let known = |id: &OwnedEventId| Arc::clone(&drawn.node.pdus[id]);
        let place = crate::build::Place {
            prev_events: tip.iter().map(known).collect(),
            auth_events: vec![],
        };
        new.kind = TimelineEventType::RoomMember;
        new.state_key = Some(bob.user_id.to_string());
        let rules = rules_of(version).unwrap();
        let pdu = crate::build::event(new, &place, at(0), bob.signer(), rules).unwrap();
        drawn.add(receive(pdu.pdu().json(), version).unwrap());
        assert_eq!(drawn.last_verdict(), "rejected: Itself AuthEvents", "version {version}");
    }
}

#[test]
fn a_signature_by_somebody_else_is_none() {
    let pdu = last(&RoomVersionId::V12, "room ← message(x)");
    let mut event = parse_object(pdu.json().as_bytes()).unwrap();
    event.remove("signatures");
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    let signed_json = hash::signed_json(&event, rules).unwrap();
    // Carol's key under alice's name, with her own key id and with alice's.
    let (alice, carol) = (person("alice"), person("carol"));
    let forged = Signer { server: alice.signer().server, key: carol.signer().key };
    let signature = carol.signer().key.sign(signed_json.as_bytes());
    let mut with_own_id = event.clone();
    sign::insert(&mut with_own_id, forged, &signature).unwrap();
    let mut with_her_id = event;
    sign::insert(&mut with_her_id, alice.signer(), &signature).unwrap();
    for (event, provable) in [(with_own_id, false), (with_her_id, true)] {
        let error = receive(&to_canonical(&event), &RoomVersionId::V12).unwrap_err();
        assert_eq!(error.is_provable(), provable, "{error}");
    }
}

/// Spec: Room Versions, "Redactions" of versions 1, 6, 8, 9 and 11.
#[test]
fn what_redaction_keeps() {
    const FULL: &str = r#"{"aliases":[],"allow":[],"ban":1,"body":"x","creator":"@x:y","invite":1,
        "history_visibility":"x","join_authorised_via_users_server":"@x:y","join_rule":"x",
        "membership":"x","redacts":"$x","third_party_invite":{"display_name":"x","signed":{}},
        "users":{}}"#;
    let cases: [(&str, u32, &str); 14] = [
        ("m.room.message", 2, "{}"),
        ("m.room.topic", 2, "{}"),
        ("m.room.member", 2, r#"{"membership":"x"}"#),
        ("m.room.member", 9, r#"{"join_authorised_via_users_server":"@x:y","membership":"x"}"#),
        (
            "m.room.member",
            11,
            r#"{"join_authorised_via_users_server":"@x:y","membership":"x","third_party_invite":{"signed":{}}}"#,
        ),
        ("m.room.create", 2, r#"{"creator":"@x:y"}"#),
        ("m.room.join_rules", 2, r#"{"join_rule":"x"}"#),
        ("m.room.join_rules", 8, r#"{"allow":[],"join_rule":"x"}"#),
        ("m.room.power_levels", 2, r#"{"ban":1,"users":{}}"#),
        ("m.room.power_levels", 11, r#"{"ban":1,"invite":1,"users":{}}"#),
        ("m.room.history_visibility", 2, r#"{"history_visibility":"x"}"#),
        ("m.room.aliases", 2, r#"{"aliases":[]}"#),
        ("m.room.aliases", 6, "{}"),
        ("m.room.redaction", 11, r#"{"redacts":"$x"}"#),
    ];
    for version in list_supported() {
        let number: u32 = version.as_str().parse().unwrap();
        for (kind, since, expected) in cases {
            let superseded = cases
                .iter()
                .any(|(other, from, _)| *other == kind && *from > since && *from <= number);
            let all = kind == "m.room.create" && number >= 11;
            if number < since || superseded || all {
                continue;
            }
            let mut event: Value =
                serde_json::from_str(last(version, "room ← topic(x)").json()).unwrap();
            event["type"] = json!(kind);
            event["content"] = serde_json::from_str(FULL).unwrap();
            let id = OwnedEventId::try_from("$x:y").unwrap();
            let rules = rules_of(version).unwrap();
            let pdu = Pdu::from_trusted(event.to_string(), id, rules).unwrap();
            let redacted = redacted(&pdu, rules, None).unwrap();
            assert_eq!(redacted.content().get(), expected, "{kind} in version {version}");
            assert_eq!(redacted.event_id(), pdu.event_id());
        }
    }
}

#[test]
fn a_redacted_event_names_its_redaction() {
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        let pdu = last(version, "room ← message(x)");
        let because = RawValue::from_string(r#"{"type":"m.room.redaction"}"#.to_owned()).unwrap();
        let redacted = redacted(&pdu, rules, Some(&because)).unwrap();
        assert_eq!(redacted.content().get(), "{}");
        assert_eq!(
            redacted.unsigned().map(RawValue::get),
            Some(r#"{"redacted_because":{"type":"m.room.redaction"}}"#)
        );
    }
}

#[test]
fn what_a_redaction_redacts_stands_where_the_version_has_it() {
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        let in_content = rules.redaction.content_field_redacts;
        let alice = person("alice");
        let mut drawn = draw(version, "room ← message(x)");
        let target = drawn.events.last().unwrap().pdu().event_id().to_owned();
        let mut new = drawn.new_event("message", "x", &alice);
        new.kind = TimelineEventType::RoomRedaction;
        new.redacts = Some(target.clone());
        let pdu = drawn.place(new, std::slice::from_ref(&target), at(0), &alice);
        let event: Value = serde_json::from_str(pdu.pdu().json()).unwrap();
        assert_eq!(event.get("redacts").is_some(), !in_content, "version {version}");
        assert_eq!(event["content"].get("redacts").is_some(), in_content, "version {version}");
        same(receive(pdu.pdu().json(), version).unwrap().pdu(), pdu.pdu());
        // In another event the field means nothing, whatever it holds.
        let pdu = last(version, "room ← message(x)");
        let json = pdu.json().replacen('{', r#"{"redacts":5,"#, 1);
        let id = pdu.event_id().to_owned();
        assert_eq!(Pdu::from_trusted(json, id, rules).unwrap().redacts(), None);
    }
}

#[test]
fn debug_output_shows_no_content() {
    let pdu = last(&RoomVersionId::V12, "room ← message(private)");
    assert!(!format!("{pdu:?}").contains("private"));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn versions() -> impl Strategy<Value = RoomVersionId> {
    prop::sample::select(list_supported().cloned().collect::<Vec<_>>())
}

const FIELDS: [&str; 14] = [
    "type",
    "sender",
    "room_id",
    "event_id",
    "state_key",
    "content",
    "depth",
    "origin_server_ts",
    "prev_events",
    "auth_events",
    "hashes",
    "signatures",
    "redacts",
    "unsigned",
];

const KINDS: [&str; 10] = [
    "m.room.message",
    "m.room.topic",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.create",
    "m.room.history_visibility",
    "m.room.aliases",
    "m.room.redaction",
    "m.room.third_party_invite",
    "org.example.x",
];

/// The same cases every time; other seeds are for the fuzzer.
fn config() -> ProptestConfig {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(3);
    ProptestConfig { cases: 64, failure_persistence: None, rng_seed, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn redaction_keeps_the_event_id(
        version in versions(),
        kind in prop::sample::select(&KINDS[..]),
        fields in prop::collection::hash_map(
            "(membership|creator|join_rule|allow|users|ban|invite|aliases|redacts|[a-z]{1,5})",
            values(),
            0..6,
        ),
    ) {
        let rules = rules_of(&version).unwrap();
        let alice = person("alice");
        let mut drawn = draw(&version, "room");
        let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
        let mut new = drawn.new_event("topic", "x", &alice);
        new.kind = TimelineEventType::from(kind);
        new.content = serde_json::value::to_raw_value(&fields).unwrap();
        // The content is what is looked at; the auth events may be anybody's.
        let place = crate::build::Place {
            prev_events: vec![Arc::clone(&drawn.node.pdus[&tip[0]])],
            auth_events: vec![],
        };
        let pdu = crate::build::event(new, &place, at(0), alice.signer(), rules).unwrap();
        let redacted = redacted(pdu.pdu(), rules, None).unwrap();
        prop_assert_eq!(redacted.event_id(), pdu.pdu().event_id());
        // And not only by assertion: whoever receives the redacted form finds the same id, the same
        // signature and the same form.
        let taken = receive(redacted.json(), &version).unwrap();
        prop_assert_eq!(taken.pdu().event_id(), pdu.pdu().event_id());
        prop_assert_eq!(taken.pdu().json(), redacted.json());
        drawn.add(pdu);
    }

    #[test]
    fn whatever_comes_is_judged_and_ruma_agrees(
        version in versions(),
        field in prop::sample::select(&FIELDS[..]),
        value in prop::option::of(values()),
    ) {
        let rules = rules_of(&version).unwrap();
        let pdu = last(&version, "room ← topic(x)");
        let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
        match value {
            Some(value) => event[field] = value,
            None => { event.as_object_mut().unwrap().remove(field); }
        }
        if let Ok(event) = raw(&event.to_string()).well_formed(rules) {
            prop_assert_eq!(check_pdu_format(&event.object, &rules.event_format), Ok(()));
            let id = match rules.event_format.require_event_id {
                true => event.object["event_id"].as_str().unwrap().to_owned(),
                false => format!("${}", ruma::signatures::reference_hash(&event.object, rules).unwrap()),
            };
            prop_assert_eq!(event.pdu().event_id().as_str(), id);
            let keys = |server: &OwnedServerName| {
                let keys = ring(&EVERYBODY);
                let keys = keys.get(server)?.verify_keys().map(|(id, key)| {
                    (id.to_owned(), ruma::serde::Base64::new(key.to_vec()))
                }).collect();
                Some((server.to_string(), keys))
            };
            let ring_of_ruma = event.required_signers().iter().filter_map(keys).collect();
            let theirs = ruma::signatures::verify_event(&ring_of_ruma, &event.object, rules);
            let object = event.object.clone();
            match event.signed(&ring(&EVERYBODY)) {
                Ok(signed) => {
                    let expected = match theirs.unwrap() {
                        Verified::All => object,
                        Verified::Signatures => redact(object, &rules.redaction, None).unwrap(),
                    };
                    prop_assert_eq!(signed.pdu().json(), to_canonical(&expected));
                }
                Err(error) => prop_assert!(theirs.is_err(), "{}", error),
            }
        }
    }
}
