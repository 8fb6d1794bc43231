use ruma::{RoomVersionId, UInt, int};
use serde_json::{Value, json};

use super::*;
use crate::{
    receive::Verdict,
    rules::{list_supported, rules_of},
    testing::{Drawn, at, draw, person},
};

/// What somebody sends to a drawn room after everything in it.
fn send(drawn: &Drawn, new: NewEvent, sender: &str) -> Result<SignedPdu, BuildError> {
    let place = Place {
        prev_events: vec![Arc::clone(drawn.events.last().unwrap().pdu())],
        auth_events: vec![],
    };
    event(new, &place, at(0), person(sender).signer(), drawn.node.rules)
}

#[test]
fn what_a_client_may_get_wrong() {
    type Change = fn(&mut NewEvent);
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let cases: [(&str, Change); 8] = [
        ("`type` is over", |new| new.kind = "x".repeat(256).into()),
        ("`state_key` is over", |new| new.state_key = Some("é".repeat(128))),
        ("`room_id` is missing", |new| new.room_id = None),
        ("canonical", |new| new.content = RawValue::from_string("1.5".into()).unwrap()),
        ("canonical", |new| new.content = RawValue::from_string("[]".into()).unwrap()),
        ("canonical", |new| {
            new.content = RawValue::from_string(r#"{"a":1.5}"#.into()).unwrap();
        }),
        ("canonical", |new| {
            new.content = RawValue::from_string(r#"{"a":1,"a":2}"#.into()).unwrap();
        }),
        ("larger", |new| {
            let content = json!({ "body": "x".repeat(MAX_PDU_BYTES) });
            new.content = serde_json::value::to_raw_value(&content).unwrap();
        }),
    ];
    for version in list_supported() {
        let drawn = draw(version, "room");
        let good = drawn.new_event("message", "x", &person("alice"));
        assert!(send(&drawn, good.clone(), "alice").is_ok());
        for (n, (expected, change)) in cases.iter().enumerate() {
            let mut new = good.clone();
            change(&mut new);
            let error = send(&drawn, new, "alice").unwrap_err().to_string();
            assert!(error.contains(expected), "{version}, case {n}: {error}");
        }
        // What is only written strangely is brought into form.
        let mut new = good.clone();
        new.content = raw("{ \"b\" : \"\\u00e9\",\"a\":1 }");
        let built = send(&drawn, new, "alice").unwrap();
        assert_eq!(built.pdu().content().get(), r#"{"a":1,"b":"é"}"#);
    }
}

#[test]
fn too_many_places_are_refused() {
    let drawn = draw(&RoomVersionId::V12, "room");
    let new = drawn.new_event("message", "x", &person("alice"));
    let tip = Arc::clone(drawn.events.last().unwrap().pdu());
    for (prev, auth, expected) in [(20, 10, ""), (21, 0, "`prev_events`"), (1, 11, "`auth_events`")]
    {
        let place = Place {
            prev_events: vec![Arc::clone(&tip); prev],
            auth_events: vec![Arc::clone(&tip); auth],
        };
        let built = event(new.clone(), &place, at(0), person("alice").signer(), drawn.node.rules);
        match built {
            Ok(_) => assert_eq!(expected, ""),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }
}

#[test]
fn depth_is_one_more_than_the_deepest_and_ends_where_integers_do() {
    let drawn = draw(&RoomVersionId::V12, "room ← { message(a) | message(b) ← message(c) }");
    let depths: Vec<_> = drawn.events.iter().map(|pdu| pdu.pdu().depth()).collect();
    assert_eq!(depths, [1, 2, 3, 4, 5, 5, 6]);
    let deep = |depth: i64| {
        let json = drawn.events.last().unwrap().pdu().json();
        let mut event: Value = serde_json::from_str(json).unwrap();
        event["depth"] = json!(depth);
        let id = drawn.events.last().unwrap().pdu().event_id().to_owned();
        Arc::new(Pdu::from_trusted(event.to_string(), id, drawn.node.rules).unwrap())
    };
    let after = |pdus: Vec<Arc<Pdu>>| Place { prev_events: pdus, auth_events: vec![] }.depth();
    assert_eq!(after(vec![]), 1);
    assert_eq!(after(vec![deep(3), deep(9), deep(5)]), 10);
    assert_eq!(after(vec![deep(MAX_INTEGER)]), MAX_INTEGER.unsigned_abs());
}

#[test]
fn a_join_over_federation() {
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        let (alice, bob) = (person("alice"), person("bob"));
        let mut drawn = draw(version, "room");
        // Alice's server places, bob's server signs.
        let new = drawn.new_event("join", "bob", &bob);
        let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
        let placed = drawn.place(new.clone(), &tip, at(1), &bob);
        let known = |id: &OwnedEventId| Arc::clone(&drawn.node.pdus[id]);
        let place = Place {
            prev_events: placed.pdu().prev_events().iter().map(known).collect(),
            auth_events: placed.pdu().auth_events().iter().map(known).collect(),
        };
        let template = template(&new, &place, at(1), rules).unwrap();
        assert!(!template.get().contains("signatures"));
        let join = complete(&template, new.clone(), at(1), bob.signer(), rules).unwrap();
        // The same place, time and words: the same event, but for the id given in version 2.
        assert_eq!(join.pdu().json(), placed.pdu().json());
        drawn.add(join);
        assert_eq!(drawn.last_verdict(), "accepted", "version {version}");

        // A template that says something else is not what gets signed.
        let mut evil: Value = serde_json::from_str(template.get()).unwrap();
        evil["sender"] = json!(alice.user_id);
        evil["type"] = json!("m.room.power_levels");
        evil["content"] = json!({ "join_authorised_via_users_server": alice.user_id, "users": {} });
        let evil = serde_json::value::to_raw_value(&evil).unwrap();
        let join = complete(&evil, new, at(1), bob.signer(), rules).unwrap();
        assert_eq!(join.pdu().sender(), bob.user_id);
        let content: Value = serde_json::from_str(join.pdu().content().get()).unwrap();
        let expected =
            json!({ "membership": "join", "join_authorised_via_users_server": alice.user_id });
        assert_eq!(content, expected);
    }
}

#[test]
fn a_template_without_a_place_is_refused() {
    let drawn = draw(&RoomVersionId::V12, "room");
    let bob = person("bob");
    let new = drawn.new_event("join", "bob", &bob);
    let good = json!({ "depth": 3, "prev_events": ["$a"], "auth_events": ["$b"] });
    let complete = |template: &Value| {
        let template = serde_json::value::to_raw_value(template).unwrap();
        complete(&template, new.clone(), at(0), bob.signer(), drawn.node.rules)
    };
    assert!(complete(&good).is_ok());
    for (field, value) in [
        ("depth", json!(-1)),
        ("depth", json!("3")),
        ("depth", json!(1.5)),
        ("prev_events", Value::Null),
        ("prev_events", json!("$a")),
        ("prev_events", json!(["a"])),
        ("prev_events", json!([["$a", {}]])),
        ("prev_events", json!(vec!["$a"; 21])),
        ("auth_events", json!(vec!["$a"; 11])),
        ("auth_events", json!([7])),
    ] {
        let mut template = good.clone();
        template[field] = value.clone();
        assert!(complete(&template).is_err(), "{field} = {value}");
    }
    assert!(complete(&json!([])).is_err());
}

#[test]
fn a_restricted_join_is_accepted_by_the_rules() {
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        if !rules.authorization.restricted_join_rule {
            continue;
        }
        let (alice, bob) = (person("alice"), person("bob"));
        for (by, expected) in [(&alice, true), (&bob, false)] {
            let mut drawn = draw(version, "room ← rules(restricted)");
            let tip = [drawn.events.last().unwrap().pdu().event_id().to_owned()];
            let mut new = drawn.new_event("join", "bob", &bob);
            let content =
                json!({ "membership": "join", "join_authorised_via_users_server": by.user_id });
            new.content = serde_json::value::to_raw_value(&content).unwrap();
            let join = drawn.place(new, &tip, at(0), &bob);
            let id = drawn.add(join);
            assert_eq!(drawn.node.verdicts[&id] == Verdict::Accepted, expected, "{version}");
        }
    }
}

#[test]
fn integers_fit() {
    // The largest time that canonical JSON can write.
    let drawn = draw(&RoomVersionId::V12, "room");
    let new = drawn.new_event("message", "x", &person("alice"));
    let place = Place { prev_events: vec![], auth_events: vec![] };
    let now = MilliSecondsSinceUnixEpoch(UInt::MAX);
    let built = event(new, &place, now, person("alice").signer(), drawn.node.rules).unwrap();
    let written: Value = serde_json::from_str(built.pdu().json()).unwrap();
    assert_eq!(written["origin_server_ts"], json!(i64::from(ruma::Int::MAX)));
    assert_eq!(written["depth"], json!(i64::from(int!(1))));
}
