//! Hashes: event ids, content hashes, and what redaction keeps.

use super::*;

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
}
