use ruma::RoomVersionId;

use super::*;
use crate::{
    rules::{list_supported, rules_of},
    testing::{draw, person},
};

/// Draws a graph in every room version and looks at what became of the last event.
fn check(dag: &str, expected: &str) {
    check_in(list_supported(), dag, expected);
}

fn check_in<'a>(versions: impl Iterator<Item = &'a RoomVersionId>, dag: &str, expected: &str) {
    for version in versions {
        assert_eq!(draw(version, dag).last_verdict(), expected, "version {version}: {dag}");
    }
}

fn from(first: u32) -> impl Iterator<Item = &'static RoomVersionId> {
    list_supported().filter(move |version| number(version) >= first)
}

fn until(last: u32) -> impl Iterator<Item = &'static RoomVersionId> {
    list_supported().filter(move |version| number(version) <= last)
}

fn number(version: &RoomVersionId) -> u32 {
    version.as_str().parse().unwrap()
}

#[test]
fn membership() {
    const NO: &str = "rejected: AuthEvents Membership";
    for (dag, expected) in [
        ("room ← join(bob)", "accepted"),
        ("room ← join(bob) ← join(bob)", "accepted"),
        ("room ← join(bob) by alice", NO),
        ("room ← rules(invite) ← join(bob)", NO),
        ("room ← rules(invite) ← invite(bob) ← join(bob)", "accepted"),
        ("room ← rules(invite) ← join(carol) by bob", NO),
        ("room ← ban(bob) ← join(bob)", NO),
        ("room ← ban(bob) ← kick(bob) ← join(bob)", "accepted"),
        ("room ← invite(bob) by carol", NO),
        ("room ← join(carol) ← invite(bob) by carol", "accepted"),
        ("room ← join(carol) ← power(invite:50) ← invite(bob) by carol", NO),
        ("room ← join(bob) ← invite(bob)", NO),
        ("room ← ban(bob) ← invite(bob)", NO),
        ("room ← leave(bob)", NO),
        ("room ← join(bob) ← leave(bob)", "accepted"),
        ("room ← invite(bob) ← leave(bob)", "accepted"),
        ("room ← ban(bob) ← leave(bob)", NO),
        ("room ← join(bob) ← kick(bob)", "accepted"),
        ("room ← join(bob) ← kick(alice) by bob", NO),
        ("room ← join(bob) ← power(bob=50) ← kick(alice) by bob", NO),
        ("room ← join(bob) ← join(carol) ← power(bob=50) ← kick(carol) by bob", "accepted"),
        ("room ← join(bob) ← join(carol) ← power(bob=50,carol=50) ← kick(carol) by bob", NO),
        ("room ← join(bob) ← join(carol) ← power(bob=50) ← ban(carol) by bob", "accepted"),
        ("room ← join(bob) ← power(bob=49) ← ban(carol) by bob", NO),
        ("room ← join(bob) ← power(bob=50,ban:60) ← ban(carol) by bob", NO),
        ("room ← power(bob=100) ← ban(carol) by bob", NO),
    ] {
        check(dag, expected);
    }
}

#[test]
fn knocking_came_with_version_7() {
    let dag = "room ← rules(knock) ← knock(bob)";
    check_in(from(7), dag, "accepted");
    check_in(until(6), dag, "rejected: AuthEvents Membership");
    check("room ← knock(bob)", "rejected: AuthEvents Membership");
}

#[test]
fn who_may_send() {
    for (dag, expected) in [
        ("room ← message(x)", "accepted"),
        ("room ← message(x) by bob", "rejected: AuthEvents NotJoined"),
        ("room ← invite(bob) ← message(x) by bob", "rejected: AuthEvents NotJoined"),
        ("room ← join(bob) ← leave(bob) ← message(x) by bob", "rejected: AuthEvents NotJoined"),
        ("room ← join(bob) ← message(x) by bob", "accepted"),
        ("room ← join(bob) ← topic(x) by bob", "rejected: AuthEvents PowerLevel"),
        ("room ← join(bob) ← power(bob=50) ← topic(x) by bob", "accepted"),
        ("room ← join(bob) ← power(state_default:0) ← topic(x) by bob", "accepted"),
        (
            "room ← join(bob) ← power(events_default:10) ← message(x) by bob",
            "rejected: AuthEvents PowerLevel",
        ),
        ("room ← join(bob) ← power(users_default:50) ← topic(x) by bob", "accepted"),
    ] {
        check(dag, expected);
    }
}

#[test]
fn power_levels() {
    const NO: &str = "rejected: AuthEvents PowerLevels";
    for (dag, expected) in [
        ("room ← power(bob=100)", "accepted"),
        ("room ← join(bob) ← power(bob=50) by bob", NO),
        ("room ← join(bob) ← power(bob=50) ← power(bob=51) by bob", NO),
        ("room ← join(bob) ← power(bob=50) ← power(bob=50,carol=50) by bob", "accepted"),
        ("room ← join(bob) ← power(bob=50) ← power(bob=50,carol=51) by bob", NO),
        ("room ← join(bob) ← power(bob=50) ← power(bob=0) by bob", "accepted"),
        ("room ← join(bob) ← power(bob=50,carol=50) ← power(bob=50) by bob", NO),
        ("room ← join(bob) ← power(bob=50,carol=49) ← power(bob=50) by bob", "accepted"),
        ("room ← join(bob) ← power(bob=50) ← power(bob=50,ban:60) by bob", NO),
        ("room ← join(bob) ← power(bob=50,ban:60) ← power(bob=50,ban:50) by bob", NO),
        ("room ← join(bob) ← power(bob=50) ← power(bob=50,kick:10) by bob", "accepted"),
    ] {
        check(dag, expected);
    }
}

#[test]
fn the_creator_cannot_be_outranked_from_version_12_on() {
    let dag = "room ← join(bob) ← power(bob=9000) ← kick(alice) by bob";
    check_in(from(12), dag, "rejected: AuthEvents Membership");
    // Before, alice cannot even give bob more than she has.
    check_in(until(11), dag, "rejected: AuthEvents Membership");
    check_in(from(12), "room ← power(bob=9000)", "accepted");
    check_in(until(11), "room ← power(bob=9000)", "rejected: AuthEvents PowerLevels");
    check_in(from(12), "room ← power(alice=100)", "rejected: AuthEvents PowerLevels");
}

#[test]
fn a_second_create_event_is_rejected() {
    check("room ← create", "rejected: Itself Create");
}

#[test]
fn what_rests_on_a_rejected_event_is_rejected() {
    // Bob cites a power levels event that never held.
    for version in list_supported() {
        let mut drawn = draw(version, "room ← join(bob) ← power(bob=100) by bob");
        let rejected = Arc::clone(drawn.events.last().unwrap().pdu());
        let bob = person("bob");
        let new = drawn.new_event("topic", "x", &bob);
        let tip = drawn.events[drawn.events.len() - 2].pdu().event_id().to_owned();
        let honest = drawn.place(new.clone(), &[tip], crate::testing::at(0), &bob);
        let mut auth_events: Vec<_> = honest
            .pdu()
            .auth_events()
            .iter()
            .map(|id| Arc::clone(&drawn.node.pdus[id]))
            .filter(|event| event.kind() != rejected.kind())
            .collect();
        auth_events.push(Arc::clone(&rejected));
        let place = crate::build::Place { prev_events: vec![rejected], auth_events };
        let rules = rules_of(version).unwrap();
        let event =
            crate::build::event(new, &place, crate::testing::at(0), bob.signer(), rules).unwrap();
        drawn.add(event);
        assert_eq!(drawn.last_verdict(), "rejected: Itself AuthEvents", "version {version}");
    }
}

#[test]
fn needed_state_always_has_the_create_event() {
    let drawn = draw(&RoomVersionId::V12, "room ← message(x)");
    let pdu = drawn.events.last().unwrap().pdu();
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    let create = (StateEventType::RoomCreate, String::new());
    let types = auth_types(pdu.kind(), pdu.sender(), None, pdu.content(), rules).unwrap();
    assert!(!types.contains(&create));
    assert!(needed_state_of(pdu, rules).unwrap().contains(&create));
    assert_eq!(needed_state_of(drawn.events[0].pdu(), rules), Ok(vec![create]));
}

#[test]
fn levels_are_read_from_state() {
    for version in list_supported() {
        let drawn = draw(version, "room ← power(bob=50,topic:7,kick:3)");
        let state: AuthState = drawn
            .node
            .current()
            .into_iter()
            .map(|(key, id)| (key, Arc::clone(&drawn.node.pdus[&id])))
            .collect();
        let rules = rules_of(version).unwrap();
        let levels = PowerLevels::of(&state, rules);
        let infinite = rules.authorization.explicitly_privilege_room_creators;
        let alice = levels.of_user(&person("alice").user_id);
        assert_eq!(alice == PowerLevel::Infinite, infinite);
        assert!(alice >= PowerLevel::Int(ruma::int!(100)));
        assert_eq!(levels.of_user(&person("bob").user_id), PowerLevel::Int(ruma::int!(50)));
        assert_eq!(levels.of_user(&person("carol").user_id), PowerLevel::Int(ruma::int!(0)));
        let field = ruma::state_res::events::RoomPowerLevelsIntField::Kick;
        assert_eq!(levels.level(field), ruma::int!(3));
        assert_eq!(levels.required(&"m.room.message".into(), None), ruma::int!(0));
        assert_eq!(levels.required(&"m.room.topic".into(), Some("")), ruma::int!(50));
    }
}
