use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use ruma::{OwnedEventId, RoomVersionId};

use super::*;
use crate::{
    rules::{list_supported, rules_of},
    testing::{Node, at, draw, person},
};

fn verdict(dag: &str) -> String {
    let verdicts: Vec<_> =
        list_supported().map(|version| draw(version, dag).last_verdict()).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{dag}: {verdicts:?}");
    verdicts[0].clone()
}

#[test]
fn what_the_current_state_forbids_is_soft_failed() {
    // Bob's message follows his join; the ban has come in the meantime.
    assert_eq!(
        verdict("room ← join(bob) ← { ban(bob) | message(x) by bob }"),
        "soft failed: CurrentState NotJoined"
    );
    assert_eq!(verdict("room ← join(bob) ← { message(x) by bob | ban(bob) }"), "accepted");
}

#[test]
fn what_its_auth_events_allow_and_the_state_before_it_does_not_is_rejected() {
    for version in list_supported() {
        // Bob was banned, but cites his old membership.
        let mut drawn = draw(version, "room ← join(bob) ← ban(bob)");
        let bob = person("bob");
        let [join, ban] =
            [2, 1].map(|n| drawn.events[drawn.events.len() - n].pdu().event_id().to_owned());
        let new = drawn.new_event("message", "x", &bob);
        let honest = drawn.place(new.clone(), &[join], at(0), &bob);
        let place = crate::build::Place {
            prev_events: vec![Arc::clone(&drawn.node.pdus[&ban])],
            auth_events: honest
                .pdu()
                .auth_events()
                .iter()
                .map(|id| Arc::clone(&drawn.node.pdus[id]))
                .collect(),
        };
        let rules = rules_of(version).unwrap();
        drawn.add(crate::build::event(new, &place, at(0), bob.signer(), rules).unwrap());
        assert_eq!(drawn.last_verdict(), "rejected: StateBefore NotJoined", "version {version}");
    }
}

#[test]
fn of_a_server_only_the_first_is_added_to_as_many_heads_as_one_event_can_join() {
    let drawn =
        draw(&RoomVersionId::V12, "room ← join(bob) ← { message(x) by bob | message(y) by alice }");
    let [of_alice, of_bob] = [1, 2].map(|n| drawn.events[drawn.events.len() - n].clone());
    let verdict = |event: &SignedPdu, others: &[&SignedPdu]| {
        let others: Vec<_> = others.iter().map(|other| Arc::clone(other.pdu())).collect();
        accept_unplaced(event.clone()).among(&others).verdict().clone()
    };
    let many = vec![&of_bob; MAX_PREV_EVENTS];
    assert_eq!(verdict(&of_bob, &many[1..]), Verdict::Accepted, "one event can join all of them");
    assert_eq!(verdict(&of_alice, &many), Verdict::Accepted, "the first of her server");
    let Verdict::SoftFailed(violation) = verdict(&of_bob, &many) else { panic!("accepted") };
    assert_eq!(violation.rule, AuthRule::Forks);
    // What may not be there at all is not made better by it.
    let rejected = Judged {
        pdu: Arc::clone(of_bob.pdu()),
        verdict: Verdict::Rejected(violation.clone()),
        extent: Extent::Placed,
    };
    let others: Vec<_> = many.iter().map(|other| Arc::clone(other.pdu())).collect();
    assert_eq!(rejected.among(&others).standing(), Standing::Rejected);
}

#[test]
fn a_room_has_one_create_event() {
    for version in list_supported() {
        let mut drawn = draw(version, "room");
        let alice = person("alice");
        let again = drawn.new_event("create", "", &alice);
        let again = drawn.place(again, &[], at(7), &alice);
        if again.pdu().room_id() != drawn.events[0].pdu().room_id() {
            assert_eq!(version.as_str(), "12");
            continue;
        }
        drawn.add(again);
        assert_eq!(drawn.last_verdict(), "rejected: CurrentState Create", "version {version}");
        // The first one may come again.
        drawn.add(drawn.events[0].clone());
        assert_eq!(drawn.last_verdict(), "accepted", "version {version}");
    }
}

#[test]
fn an_outlier_is_judged_by_its_auth_events_alone() {
    for version in list_supported() {
        let drawn = draw(version, "room ← join(bob) ← topic(x) by bob");
        let rules = rules_of(version).unwrap();
        let known: Vec<_> =
            drawn.node.pdus.values().map(|pdu| (Arc::clone(pdu), Standing::Accepted)).collect();
        for (n, pdu) in drawn.events.iter().enumerate() {
            let judged = check_outlier(pdu.clone(), &known, rules);
            let expected = match n == drawn.events.len() - 1 {
                true => Standing::Rejected,
                false => Standing::Outlier,
            };
            assert_eq!(judged.standing(), expected, "{version}: event {n}");
        }
        let nothing = check_outlier(drawn.events[1].clone(), &[], rules);
        assert_eq!(nothing.standing(), Standing::Rejected);
    }
}

#[test]
fn only_accepted_events_pass_accepted_or() {
    let drawn = draw(&RoomVersionId::V12, "room ← topic(x)");
    let judged = accept_unplaced(drawn.events[0].clone());
    assert_eq!(judged.standing(), Standing::Outlier);
    assert!(judged.accepted_or(|violation| violation).is_ok());
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    let judged = check_outlier(drawn.events.last().unwrap().clone(), &[], rules);
    let refused = judged.accepted_or(|violation| violation).unwrap_err();
    assert_eq!(refused.basis, Basis::Itself);
    assert!(!refused.to_string().is_empty());
}

#[test]
fn who_may_redact() {
    const CASES: [(&str, &str, bool); 4] = [
        ("room ← join(bob) ← message(x) by bob", "alice", true),
        ("room ← join(bob) ← message(x) by bob", "bob", true),
        ("room ← join(bob) ← message(x)", "bob", false),
        ("room ← join(bob) ← power(bob=50) ← message(x)", "bob", true),
    ];
    for version in list_supported() {
        let rules = rules_of(version).unwrap();
        for (dag, redacter, allowed) in CASES {
            let mut drawn = draw(version, dag);
            let target = Arc::clone(drawn.events.last().unwrap().pdu());
            let redacter = person(redacter);
            let mut new = drawn.new_event("message", "", &redacter);
            new.kind = TimelineEventType::RoomRedaction;
            new.redacts = Some(target.event_id().to_owned());
            let redaction = drawn.place(new, &[target.event_id().to_owned()], at(0), &redacter);
            assert_eq!(redaction.pdu().redacts(), Some(target.event_id()), "{version}");
            let state = drawn.node.current().into_iter();
            let state = state.map(|(key, id)| (key, Arc::clone(&drawn.node.pdus[&id]))).collect();
            if rules.authorization.special_case_room_redaction {
                // The rules themselves judge it.
                drawn.add(redaction);
                assert_eq!(drawn.last_verdict() == "accepted", allowed, "{version}: {dag}");
            } else {
                let is = redaction_allowed(redaction.pdu(), &target, &state, rules);
                assert_eq!(is, allowed, "{version}: {dag}");
                let other = drawn.events[0].pdu();
                assert!(!redaction_allowed(redaction.pdu(), other, &state, rules));
            }
        }
    }
}

/// One step of a made-up history: who does what to whom after which earlier events.
#[derive(Debug, Clone)]
struct Step {
    who: usize,
    what: usize,
    whom: usize,
    after: (prop::sample::Index, prop::sample::Index),
    ms: u32,
}

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const DEEDS: [&str; 9] =
    ["join", "leave", "invite", "kick", "ban", "topic", "power", "rules", "message"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..PEOPLE.len(),
        0..DEEDS.len(),
        0..PEOPLE.len(),
        any::<(prop::sample::Index, prop::sample::Index)>(),
        0..50_000_u32,
    )
        .prop_map(|(who, what, whom, after, ms)| Step { who, what, whom, after, ms });
    prop::collection::vec(step, 4..14)
}

/// Plays a history in a room of alice's; events are placed after any one or two of the last five.
fn play(version: &RoomVersionId, steps: &[Step]) -> crate::testing::Drawn {
    let mut drawn =
        draw(version, "room ← power(bob=50,state_default:25,users_default:25) ← join(bob)");
    for step in steps {
        let who = person(PEOPLE[step.who]);
        let argument = match DEEDS[step.what] {
            "join" | "leave" => PEOPLE[step.who],
            "invite" | "kick" | "ban" => PEOPLE[step.whom],
            "power" => ["bob=50", "bob=0,carol=50", "carol=25,ban:25"][step.whom],
            "rules" => ["public", "invite", "public"][step.whom],
            _ => PEOPLE[step.whom],
        };
        let new = drawn.new_event(DEEDS[step.what], argument, &who);
        let last: Vec<_> = drawn.events.iter().rev().take(5).collect();
        let mut tips = vec![step.after.0.get(&last), step.after.1.get(&last)];
        tips.dedup_by_key(|pdu| pdu.pdu().event_id().to_owned());
        let tips: Vec<_> = tips.iter().map(|pdu| pdu.pdu().event_id().to_owned()).collect();
        let pdu = drawn.place(new, &tips, at(step.ms), &who);
        drawn.add(pdu);
    }
    drawn
}

type State = Vec<((StateEventType, String), OwnedEventId)>;
type Agreed = (Vec<(OwnedEventId, bool, State)>, State);

/// What all nodes must agree on: which events stand, the state after each, and the state after all.
fn agreed(node: &Node) -> Agreed {
    let mut events: Vec<_> = node
        .pdus
        .keys()
        .map(|id| {
            let rejected = matches!(node.verdicts[id], Verdict::Rejected(_));
            let mut state: Vec<_> = node.after(std::slice::from_ref(id)).into_iter().collect();
            state.sort();
            (id.clone(), rejected, state)
        })
        .collect();
    events.sort();
    let mut all: Vec<_> = node.state_of_all().into_iter().collect();
    all.sort();
    (events, all)
}

#[test]
fn any_arrival_order_gives_one_state_and_the_same_verdicts() {
    let (forks, rejected, soft_failed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    // The same histories every time; other seeds are for the fuzzer.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let versions = [RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12];
    let input = (prop::sample::select(versions.to_vec()), steps(), any::<u64>());
    TestRunner::new_with_rng(config, rng)
        .run(&input, |(version, steps, shuffle)| {
            let drawn = play(&version, &steps);
            let expected = agreed(&drawn.node);
            for round in 0..3 {
                let mut events = drawn.events.clone();
                shuffled(&mut events, shuffle.wrapping_add(round));
                let mut node = Node::new(drawn.node.rules);
                events.into_iter().for_each(|pdu| node.receive(pdu));
                prop_assert!(!node.is_waiting());
                prop_assert_eq!(&agreed(&node), &expected);
            }
            let count = |kind: fn(&Verdict) -> bool| {
                drawn.node.verdicts.values().filter(|verdict| kind(verdict)).count()
            };
            rejected.set(rejected.get() + count(|v| matches!(v, Verdict::Rejected(_))));
            soft_failed.set(soft_failed.get() + count(|v| matches!(v, Verdict::SoftFailed(_))));
            let forked = drawn.events.iter().any(|pdu| pdu.pdu().prev_events().len() > 1);
            forks.set(forks.get() + usize::from(forked));
            Ok(())
        })
        .unwrap();
    // A run without forks and refusals would have proved nothing.
    assert!(forks.get() > 20, "only {} histories with joined forks", forks.get());
    assert!(rejected.get() > 20, "only {} events rejected", rejected.get());
    assert!(soft_failed.get() > 5, "only {} events soft failed", soft_failed.get());
}

/// A simple shuffle by a linear congruential generator.
fn shuffled<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (state >> 33) as usize % (at + 1));
    }
}
