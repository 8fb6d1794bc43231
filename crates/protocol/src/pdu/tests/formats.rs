//! Form: what an event must look like, in each room version.

use super::*;

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

proptest! {
    #![proptest_config(config())]

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
