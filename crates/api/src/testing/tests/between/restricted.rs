//! Restricted rooms across nodes: who vouches for whom, and what the others say.

use super::*;

fn restricted(rooms: &[&RoomId]) -> Value {
    let allow = |room: &&RoomId| json!({ "type": "m.room_membership", "room_id": room });
    json!({ "join_rule": "restricted", "allow": rooms.iter().map(allow).collect::<Vec<_>>() })
}

fn make_join(room_id: &RoomId, user_id: &UserId) -> String {
    format!("/_matrix/federation/v1/make_join/{}/{}?ver=12", enc(room_id), enc(user_id))
}

async fn member(hs: &Homeserver, room_id: &OwnedRoomId, user_id: &UserId) -> Value {
    let (room_id, user_id) = (room_id.clone(), user_id.to_owned());
    let json = read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let member = memberships::find(snap, room.nid, &user_id)?.unwrap();
        Ok(events::pdu(snap, member.event.unwrap())?.json().to_owned())
    })
    .await;
    serde_json::from_str(&json).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_member_of_the_other_room_comes_in_with_two_signatures() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let club = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let room_id = room_with(&mut net, (&a, &alice), restricted(&[&club])).await;

    net.drive(try_join(&b, &bob, &room_id, vec![a.owned_name()])).await.unwrap();
    net.drive(say(&b.hs, &bob, &room_id, "in")).await;
    net.until("a hears b", || async { texts(&a.hs, &room_id).await == ["in"] }).await;
    for node in [&a, &b] {
        let event = member(&node.hs, &room_id, &bob.user_id).await;
        let by = &event["content"]["join_authorised_via_users_server"];
        assert_eq!(by, alice.user_id.as_str(), "{event}");
        let signed = event["signatures"].as_object().unwrap();
        assert!(signed.contains_key(a.name().as_str()) && signed.contains_key(b.name().as_str()));
    }
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);

    // A third node believes it as well.
    let c = net.start(3);
    let carol = c.user("carol").await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    net.until("all agree", || async {
        shape(&a.hs, &room_id).await == shape(&c.hs, &room_id).await
            && shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_reason_has_its_error() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let club = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let room_id = room_with(&mut net, (&a, &alice), restricted(&[&club])).await;
    let asked = async |node: &Node, user: &UserId| {
        ask(node, a.name(), ("GET", &make_join(&room_id, user)), Value::Null).await
    };
    // Carol is in none of the rooms, and a knows all of them.
    assert_eq!(net.drive(asked(&c, &carol.user_id)).await, refused(403, "M_FORBIDDEN"));
    let made = net.drive(asked(&b, &bob.user_id)).await.unwrap();
    let by = &made["event"]["content"]["join_authorised_via_users_server"];
    assert_eq!(by, alice.user_id.as_str());

    // Of a room that a is not in, it cannot say who is.
    let far = RoomId::parse(format!("!{}", "f".repeat(43))).unwrap();
    let rule = restricted(&[&club, &far]);
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", rule)).await;
    let unable = refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
    assert_eq!(net.drive(asked(&c, &carol.user_id)).await, unable);
    assert!(net.drive(asked(&b, &bob.user_id)).await.is_ok());

    // Without any condition nobody meets one.
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", restricted(&[]))).await;
    assert_eq!(net.drive(asked(&b, &bob.user_id)).await, refused(403, "M_FORBIDDEN"));

    // An invited user needs no condition.
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    let made = net.drive(asked(&c, &carol.user_id)).await.unwrap();
    assert_eq!(made["event"]["content"], json!({ "membership": "join" }));
}

#[tokio::test(start_paused = true)]
async fn who_lacks_the_power_sends_on_to_who_has_it() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let club = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &club).await;
    until_membership(&mut net, &b, &club, &carol.user_id, MembershipState::Join).await;

    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.power_levels", json!({ "invite": 50 }))).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", restricted(&[&club]))).await;
    net.until("b knows", || async { shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await })
        .await;
    let uri = make_join(&room_id, &carol.user_id);
    let asked = ask(&c, b.name(), ("GET", &uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(400, "M_UNABLE_TO_GRANT_JOIN"));

    let via = vec![b.owned_name(), a.owned_name()];
    net.drive(try_join(&c, &carol, &room_id, via)).await.unwrap();
    let event = member(&c.hs, &room_id, &carol.user_id).await;
    assert_eq!(event["content"]["join_authorised_via_users_server"], alice.user_id.as_str());
    until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Join).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_sign_what_it_cannot_say() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let club = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let room_id = room_with(&mut net, (&a, &alice), restricted(&[&club])).await;
    let uri = make_join(&room_id, &bob.user_id);
    let made = net.drive(ask(&b, a.name(), ("GET", &uri), Value::Null)).await.unwrap();
    // Between the template and the join, bob leaves the room that lets him in.
    net.drive(leave::leave(&b.hs, &bob.user_id, club.clone(), None)).await.unwrap();
    until_membership(&mut net, &a, &club, &bob.user_id, MembershipState::Leave).await;
    let about = (&*bob.user_id, &*bob.user_id);
    let (event_id, signed) = completed(&b, &room_id, about, (&made["event"], "join"));
    let uri = format!("/_matrix/federation/v2/send_join/{}/{}", enc(&room_id), enc(event_id));
    let sent = ask(&b, a.name(), ("PUT", &uri), signed);
    assert_eq!(net.drive(sent).await, refused(403, "M_FORBIDDEN"));
    assert_eq!(membership(&a.hs, &room_id, &bob.user_id).await, None);
}
