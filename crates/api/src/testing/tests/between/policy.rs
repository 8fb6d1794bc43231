//! Policy servers: nothing is said in a room that its policy server has not signed.

use messagehub_homeserver::{send::SendError, server::policy as policy_server};
use messagehub_protocol::{policy::PolicyServer, rules::rules_of};
use ruma::serde::{Base64, base64::Standard};

use super::*;

fn named(node: &Node) -> Value {
    let key = policy_server::public_key(&node.hs).to_vec();
    json!({ "via": node.name(), "public_keys": { "ed25519": Base64::<Standard, _>::new(key).encode() } })
}

/// Whether the newest event of a room, or the membership of somebody, bears a good signature of
/// the policy server that the room names.
async fn is_signed(hs: &Homeserver, room_id: &OwnedRoomId, wanted: &str) -> bool {
    let (room_id, wanted) = (room_id.clone(), wanted.to_owned());
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let kind = StateEventType::from("m.room.policy");
        let named = room_state::get(snap, room.state, &kind, "")?.unwrap();
        let policy = PolicyServer::named_by(&*events::pdu(snap, named)?).unwrap();
        let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
        let found = events::page(snap, room.nid, all, Direction::Backward, 100)?;
        let event = found.iter().find(|event| event.pdu.json().contains(&wanted)).unwrap();
        Ok(policy.recommends(&event.pdu, rules_of(&room.version).unwrap()))
    })
    .await
}

async fn try_to_say(
    hs: &Homeserver,
    by: &Session,
    room_id: &OwnedRoomId,
    text: &str,
) -> Result<OwnedEventId, SendError> {
    let message = NewMessage {
        room_id: room_id.clone(),
        kind: TimelineEventType::RoomMessage,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": text })).unwrap(),
        txn_id: text.into(),
    };
    send::message(hs, by, message).await
}

/// A room of alice on `a`, with bob on `b` and pam on `p`, whose policy server is `p`.
async fn watched(
    net: &mut Net,
    (a, alice): (&Node, &Session),
    (b, bob): (&Node, &Session),
    (p, pam): (&Node, &Session),
) -> OwnedRoomId {
    let room_id = shared_room(net, (a, alice), (b, bob)).await;
    net.drive(invite(&a.hs, alice, &room_id, &pam.user_id)).await;
    until_membership(net, p, &room_id, &pam.user_id, MembershipState::Invite).await;
    net.drive(join(&p.hs, pam, &room_id, Vec::new())).await;
    until_membership(net, b, &room_id, &pam.user_id, MembershipState::Join).await;
    until_membership(net, a, &room_id, &pam.user_id, MembershipState::Join).await;
    net.drive(set(&a.hs, alice, &room_id, "m.room.policy", named(p))).await;
    net.until("all know", || async {
        let shape_of_a = shape(&a.hs, &room_id).await;
        shape_of_a == shape(&b.hs, &room_id).await && shape_of_a == shape(&p.hs, &room_id).await
    })
    .await;
    room_id
}

#[tokio::test(start_paused = true)]
async fn whatever_is_said_is_signed_by_the_policy_server_first() {
    let mut net = Net::new();
    let (a, b, p) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, pam) = (a.user("alice").await, b.user("bob").await, p.user("pam").await);
    let room_id = watched(&mut net, (&a, &alice), (&b, &bob), (&p, &pam)).await;

    net.drive(say(&a.hs, &alice, &room_id, "one")).await;
    net.until("b hears", || async { texts(&b.hs, &room_id).await == ["one"] }).await;
    net.drive(say(&b.hs, &bob, &room_id, "two")).await;
    net.until("p hears", || async { texts(&p.hs, &room_id).await == ["one", "two"] }).await;
    net.drive(say(&p.hs, &pam, &room_id, "three")).await;
    let all = ["one", "two", "three"];
    net.until("a hears", || async { texts(&a.hs, &room_id).await == all }).await;
    net.until("b hears", || async { texts(&b.hs, &room_id).await == all }).await;
    for (node, text) in [(&a, "one"), (&a, "two"), (&b, "three"), (&p, "one")] {
        assert!(is_signed(&node.hs, &room_id, text).await, "{text}");
    }
    // Saying the same once more is no second event.
    let again = net.drive(try_to_say(&a.hs, &alice, &room_id, "one")).await;
    assert!(again.is_ok());
    assert_eq!(texts(&a.hs, &room_id).await, all);
    // State, and joins that a member places for others.
    let public = json!({ "join_rule": "public" });
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", public)).await;
    let c = net.start(4);
    let carol = c.user("carol").await;
    net.drive(join(&c.hs, &carol, &room_id, vec![a.owned_name()])).await;
    until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Join).await;
    assert!(is_signed(&b.hs, &room_id, carol.user_id.as_str()).await);
    assert!(is_signed(&c.hs, &room_id, carol.user_id.as_str()).await);

    // Without it nothing is said, until somebody does without it.
    let seed = net.stop(p).await;
    let silent = net.drive(try_to_say(&a.hs, &alice, &room_id, "four")).await;
    assert!(matches!(silent, Err(SendError::NoRecommendation(_))), "{silent:?}");
    assert_eq!(texts(&a.hs, &room_id).await, all);
    net.drive(set(&a.hs, &alice, &room_id, "m.room.policy", json!({}))).await;
    net.drive(try_to_say(&a.hs, &alice, &room_id, "four")).await.unwrap();
    net.until("b hears", || async { texts(&b.hs, &room_id).await.len() == 4 }).await;
    let p = net.start(seed);
    net.until("p catches up", || async { texts(&p.hs, &room_id).await.len() == 4 }).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_without_knowing_is_signed_afterwards() {
    let mut net = Net::new();
    let (a, b, p) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, pam) = (a.user("alice").await, b.user("bob").await, p.user("pam").await);
    let room_id = watched(&mut net, (&a, &alice), (&b, &bob), (&p, &pam)).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.policy", json!({}))).await;
    net.until("b knows", || async { shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await })
        .await;
    for other in [a.name(), p.name()] {
        net.hub.set_link(b.name(), other, Link::Down);
    }
    net.drive(set(&a.hs, &alice, &room_id, "m.room.policy", named(&p))).await;
    net.drive(say(&b.hs, &bob, &room_id, "unknowing")).await;
    for other in [a.name(), p.name()] {
        net.hub.set_link(b.name(), other, Link::Up);
    }
    for node in [&a, &p] {
        net.until("it is heard", || async { texts(&node.hs, &room_id).await == ["unknowing"] })
            .await;
        assert!(is_signed(&node.hs, &room_id, "unknowing").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_server_says_what_it_does_not_sign() {
    let mut net = Net::new();
    let (a, b, p) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, pam) = (a.user("alice").await, b.user("bob").await, p.user("pam").await);
    let room_id = watched(&mut net, (&a, &alice), (&b, &bob), (&p, &pam)).await;
    let template = json!({
        "prev_events": [format!("${}", "p".repeat(43))],
        "auth_events": [format!("${}", "q".repeat(43))],
        "depth": 9,
    });
    let own = (&*bob.user_id, &*bob.user_id);
    let (_, event) = completed(&b, &room_id, own, (&template, "join"));
    let sign = async |to: &ServerName, event: Value| {
        ask(&b, to, ("POST", "/_matrix/policy/v1/sign"), event).await
    };
    let signed = net.drive(sign(p.name(), event.clone())).await.unwrap();
    assert!(signed[p.name().as_str()]["ed25519:policy_server"].is_string(), "{signed}");
    assert_eq!(net.drive(sign(a.name(), event.clone())).await, refused(404, "M_NOT_FOUND"));
    let mut other = event.clone();
    other["room_id"] = format!("!{}", "o".repeat(43)).into();
    assert_eq!(net.drive(sign(p.name(), other)).await, refused(404, "M_NOT_FOUND"));
    let mut odd = event.clone();
    odd["depth"] = "deep".into();
    assert_eq!(net.drive(sign(p.name(), odd)).await, refused(400, "M_BAD_JSON"));
    let mut forged = event.clone();
    forged["origin_server_ts"] = 1.into();
    assert_eq!(net.drive(sign(p.name(), forged)).await, refused(400, "M_FORBIDDEN"));
    let mut exempt = event.clone();
    exempt["type"] = "m.room.policy".into();
    exempt["state_key"] = "".into();
    assert_eq!(net.drive(sign(p.name(), exempt)).await, refused(400, "M_FORBIDDEN"));

    let ban = moderate::Moderation {
        room_id: room_id.clone(),
        user_id: bob.user_id.clone(),
        action: Action::Ban,
        reason: None,
    };
    net.drive(moderate::moderate(&a.hs, &alice.user_id, ban)).await.unwrap();
    until_membership(&mut net, &p, &room_id, &bob.user_id, MembershipState::Ban).await;
    assert_eq!(net.drive(sign(p.name(), event.clone())).await, refused(400, "M_FORBIDDEN"));
    let acl = json!({ "allow": ["*"], "deny": [b.name()] });
    net.drive(set(&a.hs, &alice, &room_id, "m.room.server_acl", acl)).await;
    net.until("p knows", || async { shape(&a.hs, &room_id).await == shape(&p.hs, &room_id).await })
        .await;
    assert_eq!(net.drive(sign(p.name(), event)).await, refused(403, "M_FORBIDDEN"));
}
