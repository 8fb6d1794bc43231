//! Comparing heads of many rooms, and with somebody who makes them up.

use axum::{
    Json, Router,
    routing::{get, post},
};
use messagehub_homeserver::{heads, send::NewState, server};
use messagehub_protocol::wire::heads::{HEADS_PATH, HeadsRequest, HeadsResponse, MAX_LISTED_ROOMS};
use ruma::{OwnedEventId, ServerName};
use std::time::Duration;

use super::*;

/// The paths of what was asked while something was done.
fn asked(net: &Net, from: &ServerName, to: &ServerName, before: usize) -> Vec<String> {
    net.hub.carried_between(from, to).split_off(before)
}

fn count(net: &Net, from: &ServerName, to: &ServerName) -> usize {
    net.hub.carried_between(from, to).len()
}

#[tokio::test(start_paused = true)]
async fn many_rooms_in_sync_cost_one_question_and_one_room_that_differs_few() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..MAX_LISTED_ROOMS + 8 {
        rooms.push(shared_room(&mut net, (&a, &alice), (&b, &bob)).await);
        // Nobody makes so many rooms in one moment.
        net.clock.iter().for_each(|clock| clock.advance(5_000));
    }
    let (a_name, b_name) = (a.owned_name(), b.owned_name());
    net.until("nothing is left to do", || async {
        heads::compare(&a.hs, &b_name).await.is_ok()
            && a.hs.peers.compared(&b_name).is_some_and(|compared| compared.rooms_differing == 0)
    })
    .await;
    let before = count(&net, &a_name, &b_name);
    net.drive(heads::compare(&a.hs, &b_name)).await.unwrap();
    assert_eq!(asked(&net, &a_name, &b_name, before), [HEADS_PATH]);

    net.hub.lose_gossip();
    net.drive(say(&b.hs, &bob, &rooms[77], "only here")).await;
    let before = count(&net, &a_name, &b_name);
    net.drive(heads::compare(&a.hs, &b_name)).await.unwrap();
    let asked = asked(&net, &a_name, &b_name, before);
    assert_eq!(asked[..3], [HEADS_PATH; 3], "all, the parts that differ, the heads that differ");
    assert!(asked[3].contains("/event/") && asked.len() == 4, "{asked:?}");
    net.until("it is there", || async { texts(&a.hs, &rooms[77]).await == ["only here"] }).await;
    assert_eq!(a.hs.peers.compared(&b_name).unwrap().rooms_differing, 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_absence_is_made_up_for_by_several_members() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    net.until("b knows of carol", || async {
        let joined = Some(MembershipState::Join);
        membership(&b.hs, &room_id, &carol.user_id).await == joined
    })
    .await;
    let c_name = c.owned_name();
    let seed = net.stop(c).await;
    let all: Vec<String> = (0..450).map(|n| n.to_string()).collect();
    for text in &all {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    net.until("b has all", || async { texts(&b.hs, &room_id).await == all }).await;
    let c = net.start(seed);
    net.until("c has all", || async { texts(&c.hs, &room_id).await == all }).await;
    let asked = |of: &Node| {
        let paths = net.hub.carried_between(&c_name, of.name());
        paths.iter().filter(|path| path.contains("/get_missing_events/")).count()
    };
    let (of_a, of_b) = (asked(&a), asked(&b));
    assert!(of_a > 0 && of_b > 0 && of_a + of_b < 10, "{of_a} of one, {of_b} of the other");
}

#[tokio::test(start_paused = true)]
async fn heads_that_somebody_makes_up_cost_nobody_else_anything() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    net.drive(tokio::time::sleep(Duration::from_secs(5))).await;

    // B turns bad: whatever it is asked, it names heads that are not there.
    let invented: Vec<OwnedEventId> =
        (0..20).map(|n| OwnedEventId::try_from(format!("$invented{n}")).unwrap()).collect();
    let answer = HeadsResponse {
        heads: [(room_id.clone(), invented.clone())].into(),
        ..HeadsResponse::default()
    };
    let not_found = (http::StatusCode::NOT_FOUND, Json(json!({ "errcode": "M_NOT_FOUND" })));
    let evil = Router::new()
        .route(HEADS_PATH, post(async move || Json(answer)))
        .fallback(get(async move || not_found));
    let (inbound, _reports) = tokio::sync::mpsc::channel(64);
    net.hub.attach((b.hs.identity.server_keys(), b.peer_id.clone()), evil, inbound);
    net.drive(tokio::time::sleep(Duration::from_secs(1))).await;

    let (to_b, to_c) = (count(&net, a.name(), b.name()), count(&net, a.name(), c.name()));
    for _ in 0..30 {
        let claim = HeadsRequest {
            heads: [(room_id.clone(), invented.clone())].into(),
            ..HeadsRequest::default()
        };
        let told = server::heads::compare(&a.hs, b.owned_name(), claim);
        net.drive(told).await.unwrap();
        net.drive(tokio::time::sleep(Duration::from_millis(100))).await;
    }
    let asked_b = asked(&net, a.name(), b.name(), to_b);
    assert!(asked_b.len() <= 30, "it is asked a few times and then left alone: {}", asked_b.len());
    assert_eq!(asked(&net, a.name(), c.name(), to_c), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_is_excluded_from_a_room_sees_no_digest_of_it() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let open = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let closed = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let digest = messagehub_protocol::wire::heads::total_digest([]);
    let asked = || HeadsRequest { digest: Some(digest), ..HeadsRequest::default() };
    let told = server::heads::compare(&a.hs, b.owned_name(), asked()).await.unwrap();
    assert_eq!(told.rooms.len(), 2);

    let acl = NewState {
        room_id: closed.clone(),
        kind: StateEventType::RoomServerAcl,
        state_key: String::new(),
        content: to_raw_value(&json!({ "allow": ["*"], "deny": [b.name()] })).unwrap(),
    };
    net.drive(send::state(&a.hs, &alice.user_id, acl)).await.unwrap();
    let told = server::heads::compare(&a.hs, b.owned_name(), asked()).await.unwrap();
    assert_eq!(told.rooms.keys().collect::<Vec<_>>(), [&open]);
    let heads = [(closed.clone(), Vec::new()), (open.clone(), Vec::new())].into();
    let asked = HeadsRequest { heads, ..HeadsRequest::default() };
    let told = server::heads::compare(&a.hs, b.owned_name(), asked).await.unwrap();
    assert_eq!(told.heads.keys().collect::<Vec<_>>(), [&open]);
}
