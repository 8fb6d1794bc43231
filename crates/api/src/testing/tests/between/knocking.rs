//! Knocking across nodes: asking, being let in, being sent away, thinking better of it.

use messagehub_homeserver::{
    remote_join::RemoteJoinError,
    rooms::{
        knock::{self, Knock},
        ways::EntryError,
    },
};

use super::*;

async fn knock(
    node: &Node,
    by: &Session,
    room_id: &OwnedRoomId,
    via: Vec<OwnedServerName>,
) -> Result<OwnedRoomId, EntryError> {
    let reason = Some("Let me in".to_owned());
    let knock = Knock { target: room_id.clone().into(), via, reason };
    knock::knock(&node.hs, &by.user_id, knock).await
}

fn knockable() -> Value {
    json!({ "join_rule": "knock" })
}

#[tokio::test(start_paused = true)]
async fn who_knocks_is_seen_and_let_in() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = room_with(&mut net, (&a, &alice), knockable()).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.name", json!({ "name": "Tea" }))).await;

    net.drive(knock(&b, &bob, &room_id, vec![a.owned_name()])).await.unwrap();
    let knocked = Some(MembershipState::Knock);
    assert_eq!(membership(&a.hs, &room_id, &bob.user_id).await, knocked);
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, knocked);

    let seen = synced(&b.hs, &bob).await.rooms.knock.remove(&room_id).unwrap();
    let events = seen.knock_state.events.iter();
    let shown: Vec<Value> =
        events.map(|event| serde_json::from_str(event.json().get()).unwrap()).collect();
    let find = |kind: &str| shown.iter().find(|event| event["type"] == kind).unwrap();
    assert_eq!(find("m.room.name")["content"]["name"], "Tea");
    assert_eq!(find("m.room.create")["sender"], alice.user_id.as_str());
    let own = find("m.room.member");
    assert_eq!(own["state_key"], bob.user_id.as_str());
    assert_eq!(own["content"]["membership"], "knock");
    assert_eq!(own["content"]["reason"], "Let me in");
    assert!(shown.iter().all(|event| event.get("signatures").is_none()), "stripped state");

    let room = synced(&a.hs, &alice).await.rooms.join.remove(&room_id).unwrap();
    let last = room.timeline.events.last().unwrap().json().get();
    assert!(last.contains("Let me in"), "{last}");

    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    until_membership(&mut net, &b, &room_id, &bob.user_id, MembershipState::Invite).await;
    assert!(synced(&b.hs, &bob).await.rooms.knock.is_empty());
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.drive(say(&b.hs, &bob, &room_id, "thanks")).await;
    net.until("a hears b", || async { texts(&a.hs, &room_id).await == ["thanks"] }).await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
}

#[tokio::test(start_paused = true)]
async fn a_moderator_of_any_server_sends_away_who_knocked() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", knockable())).await;
    let levels = json!({ "users": { bob.user_id.as_str(): 50 }, "kick": 50 });
    net.drive(set(&a.hs, &alice, &room_id, "m.room.power_levels", levels)).await;

    net.drive(knock(&c, &carol, &room_id, vec![a.owned_name()])).await.unwrap();
    until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Knock).await;
    net.drive(kick(&b.hs, &bob, &room_id, &carol.user_id)).await;
    until_membership(&mut net, &c, &room_id, &carol.user_id, MembershipState::Leave).await;
    until_membership(&mut net, &a, &room_id, &carol.user_id, MembershipState::Leave).await;

    // She may ask again.
    net.drive(knock(&c, &carol, &room_id, vec![b.owned_name()])).await.unwrap();
    until_membership(&mut net, &a, &room_id, &carol.user_id, MembershipState::Knock).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_without_the_power_ends_a_knock() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, carol) = (a.user("alice").await, c.user("carol").await);
    let room_id = room_with(&mut net, (&a, &alice), knockable()).await;
    net.drive(knock(&c, &carol, &room_id, vec![a.owned_name()])).await.unwrap();
    // Signed, about carol, and of somebody who is nothing to the room.
    let sender = UserId::parse(format!("@bob:{}", b.name())).unwrap();
    let template = json!({
        "prev_events": [format!("${}", "p".repeat(43))],
        "auth_events": [format!("${}", "q".repeat(43))],
        "depth": 9,
    });
    let about = (&*sender, &*carol.user_id);
    let (_, member) = completed(&b, &room_id, about, (&template, "leave"));
    let pdus = json!({
        "origin": b.name(), "origin_server_ts": 1, "pdus": [member], "edus": [],
    });
    let sent = ask(&b, c.name(), ("PUT", "/_matrix/federation/v1/send/1"), pdus);
    let answer = net.drive(sent).await.unwrap();
    let results: Vec<&Value> = answer["pdus"].as_object().unwrap().values().collect();
    assert_eq!(results.len(), 1);
    assert!(results.iter().all(|result| result["error"].is_string()), "{answer}");
    let is = membership(&c.hs, &room_id, &carol.user_id).await;
    assert_eq!(is, Some(MembershipState::Knock));
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_taken_back_even_if_nobody_is_there_at_first() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = room_with(&mut net, (&a, &alice), knockable()).await;
    net.drive(knock(&b, &bob, &room_id, vec![a.owned_name()])).await.unwrap();
    let seed = net.stop(a).await;
    net.drive(leave::leave(&b.hs, &bob.user_id, room_id.clone(), None)).await.unwrap();
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, Some(MembershipState::Leave));
    let a = net.start(seed);
    until_membership(&mut net, &a, &room_id, &bob.user_id, MembershipState::Leave).await;
}

#[tokio::test(start_paused = true)]
async fn only_rooms_that_say_so_are_knocked_on() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = room_with(&mut net, (&a, &alice), json!({ "join_rule": "invite" })).await;
    let refusal = net.drive(knock(&b, &bob, &room_id, vec![a.owned_name()])).await;
    let forbidden = matches!(refusal, Err(EntryError::Remote(RemoteJoinError::Forbidden { .. })));
    assert!(forbidden, "{refusal:?}");
    let refusal = net.drive(knock(&b, &bob, &room_id, vec![c.owned_name()])).await;
    let unknown = matches!(refusal, Err(EntryError::Remote(RemoteJoinError::UnknownRoom)));
    assert!(unknown, "{refusal:?}");
    let refusal = net.drive(knock(&b, &bob, &room_id, Vec::new())).await;
    assert!(matches!(refusal, Err(EntryError::NoWay)), "{refusal:?}");
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, None);

    // The errors of the specification.
    let uri = |ver: &str| {
        let (room, user) = (enc(&room_id), enc(&bob.user_id));
        format!("/_matrix/federation/v1/make_knock/{room}/{user}?ver={ver}")
    };
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", knockable())).await;
    let (old, new) = (uri("7"), uri("12"));
    let asked = ask(&b, a.name(), ("GET", &old), Value::Null);
    assert_eq!(net.drive(asked).await, refused(400, "M_INCOMPATIBLE_ROOM_VERSION"));
    let asked = ask(&b, c.name(), ("GET", &new), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_NOT_FOUND"));
    let asked = ask(&c, a.name(), ("GET", &new), Value::Null);
    assert_eq!(net.drive(asked).await, refused(403, "M_FORBIDDEN"), "bob is not of c");
    let made = net.drive(ask(&b, a.name(), ("GET", &new), Value::Null)).await.unwrap();
    assert_eq!(made["room_version"], "12");
    assert_eq!(made["event"]["content"], json!({ "membership": "knock" }));
}

#[tokio::test(start_paused = true)]
async fn a_knock_inside_one_server_needs_no_other() {
    let mut net = Net::new();
    let a = net.start(1);
    let (alice, anna) = (a.user("alice").await, a.user("anna").await);
    let rule = json!({ "join_rule": "knock_restricted", "allow": [] });
    let room_id = room_with(&mut net, (&a, &alice), rule).await;
    net.drive(knock(&a, &anna, &room_id, Vec::new())).await.unwrap();
    assert!(synced(&a.hs, &anna).await.rooms.knock.contains_key(&room_id));
    net.drive(leave::leave(&a.hs, &anna.user_id, room_id.clone(), None)).await.unwrap();
    assert!(synced(&a.hs, &anna).await.rooms.knock.is_empty());
}
