//! A member that forks the room without end.

use messagehub_protocol::{
    build::{self, NewEvent, Place, Signer},
    limits::{MAX_PDUS, MAX_PREV_EVENTS},
    rules::{DEFAULT_ROOM_VERSION, rules_of},
};

use super::*;

/// Forks that a member makes: several times what one event can join.
const FORKS: usize = 120;

/// Names that a member gives themselves, each on a branch of its own after the same event.
async fn forks(by: &Node, who: &UserId, room_id: &OwnedRoomId) -> Vec<Arc<Pdu>> {
    let (wanted, user_id) = (room_id.clone(), who.to_string());
    let (head, auth_events) = read(&by.hs, move |snap| {
        let room = rooms::find(snap, &wanted)?.unwrap();
        let head = events::pdu(snap, extremities::list(snap, room.nid)?[0])?;
        let mut auth_events = Vec::new();
        for (kind, key) in [
            (StateEventType::RoomPowerLevels, ""),
            (StateEventType::RoomJoinRules, ""),
            (StateEventType::RoomMember, &*user_id),
        ] {
            let nid = room_state::get(snap, room.state, &kind, key)?.unwrap();
            auth_events.push(events::pdu(snap, nid)?);
        }
        Ok((head, auth_events))
    })
    .await;
    let place = Place { prev_events: vec![head], auth_events };
    let rules = rules_of(&DEFAULT_ROOM_VERSION).unwrap();
    let fork = |n: usize| {
        let content = json!({ "membership": "join", "displayname": format!("Bob {n}") });
        let new = NewEvent {
            room_id: Some(room_id.clone()),
            sender: who.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(who.to_string()),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        let signer = Signer { server: by.name(), key: by.hs.identity.verify_key() };
        build::event(new, &place, by.hs.clock.now(), signer, rules).unwrap().into_pdu()
    };
    (0..FORKS).map(fork).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_forks_a_room_makes_it_no_dearer_for_others_than_one_event_can_join() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    net.until("all know of carol", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
            && shape(&a.hs, &room_id).await == shape(&c.hs, &room_id).await
    })
    .await;

    // Alice and carol hear of the branches in another order.
    net.hub.set_link(a.name(), c.name(), Link::Down);
    let mut forks = forks(&b, &bob.user_id, &room_id).await;
    for to in [&a, &c] {
        for (n, some) in forks.chunks(MAX_PDUS).enumerate() {
            net.drive(push((&b, to), &format!("fork{n}"), (some, json!([])))).await;
        }
        let (heads, _) = shape(&to.hs, &room_id).await;
        assert_eq!(heads.len(), MAX_PREV_EVENTS, "no more than one event can join");
        forks.reverse();
    }
    assert_ne!(shape(&a.hs, &room_id).await.0, shape(&c.hs, &room_id).await.0);

    // One event joins what there is.
    for (node, by, text) in [(&a, &alice, "one"), (&c, &carol, "two")] {
        net.drive(say(&node.hs, by, &room_id, text)).await;
        assert_eq!(shape(&node.hs, &room_id).await.0.len(), 1);
    }
    net.hub.set_link(a.name(), c.name(), Link::Up);
    let has_both =
        |texts: Vec<String>| ["one", "two"].iter().all(|text| texts.contains(&(*text).to_owned()));
    net.until("all hear all", || async {
        has_both(texts(&a.hs, &room_id).await)
            && has_both(texts(&b.hs, &room_id).await)
            && has_both(texts(&c.hs, &room_id).await)
    })
    .await;
    net.drive(say(&a.hs, &alice, &room_id, "three")).await;
    net.until("all agree about the room", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
            && shape(&a.hs, &room_id).await == shape(&c.hs, &room_id).await
    })
    .await;
    assert_eq!(shape(&a.hs, &room_id).await.0.len(), 1);
}
