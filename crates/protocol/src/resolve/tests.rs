use std::collections::HashMap;

use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};

use super::*;
use crate::{
    rules::{list_supported, rules_of},
    testing::draw,
};

/// Draws a graph in every room version and compares what the branches resolve to. The keys that
/// are looked at are those of `expected`.
fn check(dag: &str, expected: &str) {
    for version in list_supported() {
        check_in(version, dag, expected);
    }
}

fn check_in(version: &RoomVersionId, dag: &str, expected: &str) {
    let drawn = draw(version, dag);
    let keys: Vec<_> = expected.split(", ").map(|pair| pair.split('=').next().unwrap()).collect();
    let state = drawn.node.state_of_all();
    assert_eq!(drawn.show(&state, &keys.join(",")), expected, "version {version}: {dag}");
    let current = drawn.node.current();
    assert_eq!(drawn.show(&current, &keys.join(",")), expected, "current, {version}: {dag}");
}

#[test]
fn no_fork_is_no_conflict() {
    check("room ← join(bob) ← topic(x)", "member(bob)=join, topic=x");
}

#[test]
fn a_ban_beats_a_concurrent_topic() {
    check(
        "room ← power(bob=50) ← join(bob) ← { ban(bob) | topic(x) by bob }",
        "member(bob)=ban, topic=∅",
    );
    check(
        "room ← power(bob=50) ← join(bob) ← { topic(x) by bob | ban(bob) }",
        "member(bob)=ban, topic=∅",
    );
}

#[test]
fn a_ban_beats_a_concurrent_join() {
    check("room ← { join(bob) | ban(bob) }", "member(bob)=ban");
}

#[test]
fn of_two_topics_the_later_one_stays() {
    check("room ← { topic(a) @9000 | topic(b) @8000 }", "topic=a");
    check("room ← { topic(a) @8000 | topic(b) @9000 }", "topic=b");
}

#[test]
fn what_one_branch_has_alone_is_kept() {
    check(
        "room ← { topic(a) | join(bob) | join(carol) }",
        "topic=a, member(bob)=join, member(carol)=join",
    );
}

#[test]
fn a_demotion_beats_what_the_demoted_did_meanwhile() {
    check("room ← power(bob=50) ← join(bob) ← { power(bob=0) | topic(x) by bob }", "topic=∅");
}

#[test]
fn the_mightier_of_two_that_kick_each_other_stays() {
    check(
        "room ← power(bob=90,carol=80) ← join(bob) ← join(carol) \
         ← { kick(carol) by bob @9000 | kick(bob) by carol @8000 }",
        "member(bob)=join, member(carol)=leave",
    );
}

#[test]
fn closing_the_room_beats_a_concurrent_join() {
    check("room ← { rules(invite) | join(bob) }", "rules=invite, member(bob)=∅");
}

#[test]
fn branches_join_again() {
    check(
        "room ← { topic(a) ← join(bob) | join(carol) } ← message(x) ← { topic(c) | message(y) }",
        "topic=c, member(bob)=join, member(carol)=join",
    );
}

#[test]
fn nothing_and_one_state_need_no_resolution() {
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    assert_eq!(resolve(rules, &[], &HashMap::new()), Ok(StateMap::new()));
    let state = state([("m.room.topic", "$unknown")]);
    assert_eq!(resolve(rules, &[state.clone(), state.clone()], &HashMap::new()), Ok(state));
}

#[test]
fn a_missing_event_is_an_error() {
    for version in list_supported() {
        let drawn = draw(version, "room ← { topic(a) | topic(b) }");
        let states: Vec<_> = drawn.events[drawn.events.len() - 2..]
            .iter()
            .map(|pdu| drawn.node.after(&[pdu.pdu().event_id().to_owned()]))
            .collect();
        for missing in drawn.node.pdus.keys() {
            let mut events = drawn.node.pdus.clone();
            events.remove(missing);
            let resolved = resolve(rules_of(version).unwrap(), &states, &events);
            assert_eq!(resolved, Err(ResolveError::MissingEvent(missing.clone())), "{version}");
        }
    }
}

#[test]
fn from_version_12_on_the_create_event_must_be_there_though_no_state_names_it() {
    let drawn = draw(&RoomVersionId::V12, "room ← { topic(a) | topic(b) }");
    let states: Vec<_> = drawn.events[drawn.events.len() - 2..]
        .iter()
        .map(|pdu| {
            let topic = (StateEventType::RoomTopic, String::new());
            StateMap::from([(topic, pdu.pdu().event_id().to_owned())])
        })
        .collect();
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    assert!(resolve(rules, &states, &drawn.node.pdus).is_ok());
    let mut events = drawn.node.pdus.clone();
    let create = drawn.events[0].pdu().event_id().to_owned();
    events.remove(&create);
    assert_eq!(resolve(rules, &states, &events), Err(ResolveError::MissingEvent(create)));
}

#[test]
fn auth_chains_hold_the_events_themselves() {
    let drawn = draw(&RoomVersionId::V11, "room ← topic(a)");
    let topic = drawn.events.last().unwrap().pdu();
    let start = topic.event_id().to_owned();
    let chain = auth_chain([&start].into_iter(), &drawn.node.pdus).unwrap();
    // The topic, and the create event, the join and the power levels that allow it.
    assert_eq!(chain.len(), 4);
    assert!(chain.contains(&start));
}

#[test]
fn the_subgraph_is_what_lies_between_conflicted_events() {
    // power₁ ← power₂ ← power₃, the outer two conflicted: the one between them is on the path,
    // the create event and alice's join below all of them are not.
    let drawn = draw(&RoomVersionId::V12, "room ← power(bob=1) ← power(bob=2)");
    let powers: Vec<OwnedEventId> = drawn
        .events
        .iter()
        .filter(|pdu| pdu.pdu().kind().to_string() == "m.room.power_levels")
        .map(|pdu| pdu.pdu().event_id().to_owned())
        .collect();
    let on_paths = subgraph([&powers[0], &powers[2]].into_iter(), &drawn.node.pdus).unwrap();
    let mut on_paths: Vec<_> = on_paths.into_iter().collect();
    on_paths.sort();
    let mut expected = powers;
    expected.sort();
    assert_eq!(on_paths, expected);
}

fn state<const N: usize>(entries: [(&str, &str); N]) -> StateMap<OwnedEventId> {
    let entry = |(kind, id): (&str, &str)| {
        ((StateEventType::from(kind), String::new()), OwnedEventId::try_from(id).unwrap())
    };
    entries.into_iter().map(entry).collect()
}
