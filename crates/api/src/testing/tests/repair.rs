//! Holes in what a node has, and how they close.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use messagehub_homeserver::{
    gap,
    receipts::{self, Mark, NewReceipt},
    typing::{self, Typing},
};
use messagehub_protocol::{
    build::{self, NewEvent, Place, Signer},
    pdu::Pdu,
    rules::{DEFAULT_ROOM_VERSION, rules_of},
};
use messagehub_store::{pending, receipts as receipt_rows, typing as typing_rows};
use ruma::events::receipt::ReceiptThread;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_said_while_somebody_joined_elsewhere_finds_its_place() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "old")).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.until("everybody knows of the invite", || async {
        membership(&c.hs, &room_id, &carol.user_id).await.is_some()
            && membership(&b.hs, &room_id, &carol.user_id).await.is_some()
    })
    .await;
    // Alice speaks on top of what carol will only know as history.
    for other in [&b, &c] {
        net.hub.set_link(a.name(), other.name(), Link::Down);
    }
    net.drive(say(&a.hs, &alice, &room_id, "meanwhile")).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![b.owned_name()])).await;
    net.drive(say(&c.hs, &carol, &room_id, "here")).await;
    net.hub.set_link(a.name(), c.name(), Link::Up);
    net.until("all three agree", || async {
        let (one, two, three) = (
            shape(&a.hs, &room_id).await,
            shape(&b.hs, &room_id).await,
            shape(&c.hs, &room_id).await,
        );
        let heard = texts(&c.hs, &room_id).await;
        one == two && two == three && heard.contains(&"meanwhile".to_owned())
    })
    .await;
    let mut heard = texts(&c.hs, &room_id).await;
    assert_eq!(heard.first().map(String::as_str), Some("old"), "history comes before all else");
    heard.sort();
    assert_eq!(heard, ["here", "meanwhile", "old"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_absence_is_made_up_for_in_order_though_gossip_goes_on() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    let seed = net.stop(b).await;
    let all: Vec<String> = (0..620).map(|n| n.to_string()).collect();
    for text in &all[..600] {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    net.until("c has heard it", || async { texts(&c.hs, &room_id).await.len() == 600 }).await;
    // Both others are asked at once, and new frames come in between.
    let b = net.start(seed);
    for text in &all[600..] {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    net.until("b has caught up", || async { texts(&b.hs, &room_id).await.len() == 620 }).await;
    assert_eq!(texts(&b.hs, &room_id).await, all);
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
}

#[tokio::test(start_paused = true)]
async fn receipts_wait_and_typing_does_not() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "read me")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await.len() == 1 }).await;

    let notice = Typing::For(std::time::Duration::from_secs(30));
    let whose = (room_id.clone(), bob.user_id.clone());
    net.drive(typing::set(&b.hs, &bob.user_id, whose, notice)).await.unwrap();
    let typists = |hs: &Homeserver| {
        let (hs, room_id) = (hs.clone(), room_id.clone());
        async move {
            read(&hs, move |snap| {
                typing_rows::list(snap, rooms::find(snap, &room_id)?.unwrap().nid)
            })
            .await
        }
    };
    net.until("a sees b type", || async { typists(&a.hs).await == [bob.user_id.clone()] }).await;

    net.hub.set_link(a.name(), b.name(), Link::Down);
    let (heads, _) = shape(&b.hs, &room_id).await;
    let event_id: ruma::OwnedEventId = heads[0].as_str().try_into().unwrap();
    let receipt = NewReceipt {
        room_id: room_id.clone(),
        event_id: event_id.clone(),
        mark: Mark::Read(receipt_rows::Kind::Public),
        thread: ReceiptThread::Unthreaded,
    };
    net.drive(receipts::send(&b.hs, &bob.user_id, vec![receipt])).await.unwrap();
    let seed = net.stop(b).await;
    net.hub.set_link(a.name(), bob.user_id.server_name(), Link::Up);
    let _b = net.start(seed);
    net.until("the receipt arrives", || {
        let (hs, room_id, bob) = (a.hs.clone(), room_id.clone(), bob.user_id.clone());
        let event_id = event_id.clone();
        async move {
            let found = read(&hs, move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let kind = (receipt_rows::Kind::Public, &ReceiptThread::Unthreaded);
                receipt_rows::find(snap, room.nid, &bob, kind)
            })
            .await;
            found == Some(event_id)
        }
    })
    .await;
}

/// Messages of a member, each after an event of its own that nobody ever gets.
async fn after_nothing(
    by: &Node,
    who: &UserId,
    room_id: &OwnedRoomId,
    count: u32,
) -> Vec<Arc<Pdu>> {
    let (wanted, user_id) = (room_id.clone(), who.to_owned());
    let (head, auth_events) = read(&by.hs, move |snap| {
        let room = rooms::find(snap, &wanted)?.unwrap();
        let head = extremities::list(snap, room.nid)?[0];
        let mut auth_events = Vec::new();
        for (kind, key) in
            [(StateEventType::RoomPowerLevels, ""), (StateEventType::RoomMember, user_id.as_str())]
        {
            let nid = room_state::get(snap, room.state, &kind, key)?.unwrap();
            auth_events.push(events::pdu(snap, nid)?);
        }
        Ok((events::pdu(snap, head)?, auth_events))
    })
    .await;
    let rules = rules_of(&DEFAULT_ROOM_VERSION).unwrap();
    let message = |text: String, place: &Place| {
        let new = NewEvent {
            room_id: Some(room_id.clone()),
            sender: who.to_owned(),
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: to_raw_value(&json!({ "msgtype": "m.text", "body": text })).unwrap(),
            redacts: None,
        };
        let signer = Signer { server: by.name(), key: by.hs.identity.verify_key() };
        build::event(new, place, by.hs.clock.now(), signer, rules).unwrap().into_pdu()
    };
    let follows =
        |prev: Arc<Pdu>| Place { prev_events: vec![prev], auth_events: auth_events.clone() };
    (0..count)
        .map(|n| {
            let hidden = message(format!("hidden {n}"), &follows(Arc::clone(&head)));
            message(format!("seen {n}"), &follows(hidden))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn events_after_nothing_cost_few_questions_and_hide_no_other_gap() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("carol is invited", || async {
        membership(&c.hs, &room_id, &carol.user_id).await == invited
    })
    .await;
    net.drive(join(&c.hs, &carol, &room_id, Vec::new())).await;
    net.until("all know of carol", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    let made_up = after_nothing(&c, &carol.user_id, &room_id, 40).await;
    net.drive(push((&c, &a), "made-up", (&made_up, json!([])))).await;
    let hub = net.hub.clone();
    net.until("what there is to ask was asked", || async {
        hub.carried_between(a.name(), b.name()).iter().any(|path| path.contains("/state_ids/"))
    })
    .await;
    net.drive(tokio::time::sleep(Duration::from_secs(5))).await;

    let questions = || {
        let of = |to: &Node| hub.carried_between(a.name(), to.name());
        of(&b).into_iter().chain(of(&c)).filter(|path| path.contains("/state_ids/")).count()
    };
    let before = questions();
    let filled = net.drive(gap::fill(&a.hs, &room_id, None)).await.unwrap();
    assert_eq!((filled.filled, filled.taken), (gap::Filled::Open, 0));
    let asked = questions() - before;
    assert!((1..=16).contains(&asked), "{asked} states were asked for in one attempt");
    let waiting = {
        let room_id = room_id.clone();
        read(&a.hs, move |snap| pending::list(snap, &room_id)).await.len()
    };
    assert_eq!(waiting, made_up.len());

    // What bob says while nobody hears him is repaired as ever.
    net.hub.lose_gossip();
    net.drive(say(&b.hs, &bob, &room_id, "heard")).await;
    net.until("a hears b", || async { texts(&a.hs, &room_id).await == ["heard"] }).await;
}

/// Alice, bob and carol in one room, and dave elsewhere, each on a node of their own.
async fn three_and_one_more(net: &mut Net) -> ([Node; 4], [Session; 4], OwnedRoomId) {
    let nodes = [net.start(1), net.start(2), net.start(3), net.start(4)];
    let [a, b, c, d] = &nodes;
    let users =
        [a.user("alice").await, b.user("bob").await, c.user("carol").await, d.user("dave").await];
    let [alice, bob, carol, _] = &users;
    let room_id = shared_room(net, (a, alice), (b, bob)).await;
    bring_in(net, (a, alice), (c, carol), &room_id).await;
    (nodes, users, room_id)
}

/// The ids of the state before an event, as somebody tells them who leaves something out.
async fn half_of_the_state(hs: &Homeserver, room_id: &OwnedRoomId) -> BTreeSet<String> {
    let (_, state) = shape(hs, room_id).await;
    state.into_iter().step_by(2).collect()
}

#[tokio::test(start_paused = true)]
async fn one_member_alone_does_not_say_what_the_past_was() {
    let mut net = Net::new();
    let ([a, b, c, d], [alice, _, _, dave], room_id) = three_and_one_more(&mut net).await;
    for n in 0..150 {
        net.drive(say(&a.hs, &alice, &room_id, &n.to_string())).await;
    }
    net.drive(invite(&a.hs, &alice, &room_id, &dave.user_id)).await;
    net.until("all know", || async {
        membership(&d.hs, &room_id, &dave.user_id).await.is_some()
            && shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
            && shape(&a.hs, &room_id).await == shape(&c.hs, &room_id).await
    })
    .await;
    // Bob's node tells a state that is none, and is the first to be asked by its name.
    let lie = json!({ "pdu_ids": half_of_the_state(&b.hs, &room_id).await, "auth_chain_ids": [] });
    let lie = http::Response::builder().body(lie.to_string().into()).unwrap();
    net.hub.answer_instead(b.name(), "/state_ids/", lie);
    net.drive(join(&d.hs, &dave, &room_id, vec![a.owned_name()])).await;
    let all: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    net.until("history is there", || async { texts(&d.hs, &room_id).await == all }).await;
    let oldest = async |hs: &Homeserver| {
        let room_id = room_id.clone();
        read(hs, move |snap| {
            let room = rooms::find(snap, &room_id)?.unwrap();
            let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
            let events = events::page(snap, room.nid, all, Direction::Forward, 10_000)?;
            let first = events.iter().find(|event| event.pdu.json().contains("\"body\":\"0\""));
            let mut state = Vec::new();
            for (_, _, nid) in room_state::all(snap, first.unwrap().state_before.unwrap())? {
                state.push(events::id(snap, nid)?.to_string());
            }
            state.sort();
            Ok(state)
        })
        .await
    };
    assert_eq!(oldest(&d.hs).await, oldest(&a.hs).await, "the state before the first message");
}

/// The events of a room from its beginning, as a server gives them that knows nothing of what the
/// other one has.
async fn from_the_beginning(hs: &Homeserver, room_id: &OwnedRoomId) -> Vec<Arc<Pdu>> {
    let room_id = room_id.clone();
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
        let events = events::page(snap, room.nid, all, Direction::Forward, 10_000)?;
        Ok(events.into_iter().map(|event| event.pdu).collect())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn what_was_before_a_join_is_not_new_though_it_is_told_from_the_beginning() {
    let mut net = Net::new();
    let ([a, b, c, d], [alice, _, carol, dave], room_id) = three_and_one_more(&mut net).await;
    net.drive(say(&c.hs, &carol, &room_id, "once")).await;
    net.until("a hears c", || async { texts(&a.hs, &room_id).await == ["once"] }).await;
    net.drive(kick(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &dave.user_id)).await;
    net.until("all know of the invite", || async {
        membership(&d.hs, &room_id, &dave.user_id).await.is_some()
            && shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    // Dave comes in through bob, while nobody hears alice; then dave hears nobody but her.
    for other in [&b, &d] {
        net.hub.set_link(a.name(), other.name(), Link::Down);
    }
    net.drive(say(&a.hs, &alice, &room_id, "meanwhile")).await;
    net.hub.answer_instead(b.name(), "/backfill/", busy());
    net.drive(join(&d.hs, &dave, &room_id, vec![b.owned_name()])).await;
    net.hub.set_link(b.name(), d.name(), Link::Down);
    let mut told = from_the_beginning(&a.hs, &room_id).await;
    told.pop();
    let told: Vec<serde_json::Value> =
        told.iter().map(|pdu| serde_json::from_str(pdu.json()).unwrap()).collect();
    let told = json!({ "events": told }).to_string();
    let told = http::Response::builder().body(told.into()).unwrap();
    net.hub.answer_instead(a.name(), "/get_missing_events/", told);
    net.hub.answer_instead(a.name(), "/backfill/", busy());
    net.hub.set_link(a.name(), d.name(), Link::Up);
    net.until("dave hears alice", || async {
        texts(&d.hs, &room_id).await.contains(&"meanwhile".to_owned())
    })
    .await;
    assert_eq!(texts(&d.hs, &room_id).await, ["meanwhile"], "the rest is no news");

    net.hub.answer_as_ever();
    net.hub.set_link(a.name(), b.name(), Link::Up);
    net.hub.set_link(b.name(), d.name(), Link::Up);
    net.until("all three agree", || async {
        let (one, two, three) = (
            shape(&a.hs, &room_id).await,
            shape(&b.hs, &room_id).await,
            shape(&d.hs, &room_id).await,
        );
        one == two && two == three
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn state_from_before_a_join_that_comes_late_is_no_head() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    let invited = from_the_beginning(&a.hs, &room_id).await.pop().unwrap();
    net.drive(say(&a.hs, &alice, &room_id, "old")).await;
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("the invite arrives", || async {
        membership(&b.hs, &room_id, &bob.user_id).await.is_some()
    })
    .await;
    // Nobody tells bob's node of the past, but of one event of it.
    net.hub.answer_instead(a.name(), "/backfill/", busy());
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("a knows of the join", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    net.drive(push((&a, &b), "late", (std::slice::from_ref(&invited), json!([])))).await;
    let (hs, event_id) = (b.hs.clone(), invited.event_id().to_owned());
    net.until("b has the event in its place", || async {
        let event_id = event_id.clone();
        read(&hs, move |snap| events::find(snap, &event_id))
            .await
            .is_some_and(|event| event.state_before.is_some())
    })
    .await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
}
