//! Signatures: whose are needed, and which count.

use super::*;

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
