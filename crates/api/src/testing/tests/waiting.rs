//! What waits for others, and waiting for others.

use axum::Router;
use messagehub_homeserver::{outbox as deliveries, receipts};
use messagehub_store::{early_invites, outbox::Kind};
use ruma::{OwnedEventId, OwnedUserId, events::receipt::ReceiptThread};
use std::time::Duration;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_invite_that_is_refused_is_not_forgotten_and_holds_nothing_up() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let nobody = OwnedUserId::try_from(format!("@nobody:{}", b.name())).unwrap();
    net.drive(invite(&a.hs, &alice, &room_id, &nobody)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("bob is invited", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    let overview = deliveries::overview(&a.hs).await.unwrap();
    assert!(overview.backlogs.is_empty() && overview.totals.entries == 0);
    let [refused] = &*overview.refused else { panic!("{:?}", overview.refused) };
    assert_eq!(refused.kind, Kind::Invite);
    assert_eq!(refused.user_id.as_deref(), Some(nobody.as_str()));
    assert_eq!(refused.room_id.as_deref(), Some(room_id.as_str()));
    assert!(refused.reason.contains("404"), "{}", refused.reason);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_with_the_reason_and_goes_on_a_sign_of_life() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let b_name = b.owned_name();
    let seed = net.stop(b).await;
    for text in ["one", "two"] {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
        let (heads, _) = shape(&a.hs, &room_id).await;
        let receipt = receipts::NewReceipt {
            room_id: room_id.clone(),
            event_id: OwnedEventId::try_from(heads[0].clone()).unwrap(),
            mark: receipts::Mark::Read(receipts::Kind::Public),
            thread: ReceiptThread::Unthreaded,
        };
        net.drive(receipts::send(&a.hs, &alice.user_id, vec![receipt])).await.unwrap();
    }
    let other = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(invite(&a.hs, &alice, &other, &bob.user_id)).await;
    net.until("it was tried", || async {
        let overview = deliveries::overview(&a.hs).await.unwrap();
        overview.backlogs.iter().any(|backlog| backlog.last_attempt.is_some())
    })
    .await;
    let overview = deliveries::overview(&a.hs).await.unwrap();
    let backlog = overview.backlogs.iter().find(|one| one.waiting.destination == b_name).unwrap();
    assert_eq!(backlog.waiting.invites, 1);
    assert!(backlog.waiting.entries <= 3, "one receipt, or one that was under way, and an invite");
    assert_eq!(backlog.waiting.since_ts, a.hs.clock.now_ms());
    assert!(backlog.last_attempt.as_ref().unwrap().reason.contains("cannot be reached"));

    // Long after, when nobody tries any more but now and then.
    net.clock.iter().for_each(|clock| clock.advance(3 * 60 * 60 * 1_000));
    net.drive(tokio::time::sleep(Duration::from_secs(30))).await;
    let b = net.start(seed);
    let before = tokio::time::Instant::now();
    net.until("all of it arrives", || async {
        let invited = membership(&b.hs, &other, &bob.user_id).await;
        invited == Some(MembershipState::Invite)
            && deliveries::overview(&a.hs).await.unwrap().totals.entries == 0
    })
    .await;
    assert!(before.elapsed() < Duration::from_secs(10), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_join_does_not_wait_for_a_member_that_does_not_answer() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.until("carol is invited", || async {
        membership(&c.hs, &room_id, &carol.user_id).await.is_some()
            && membership(&b.hs, &room_id, &carol.user_id).await.is_some()
    })
    .await;
    let mute = Router::new().fallback(async || std::future::pending::<()>().await);
    let (inbound, _reports) = tokio::sync::mpsc::channel(64);
    net.hub.attach((a.hs.identity.server_keys(), a.peer_id.clone()), mute, inbound);
    let before = tokio::time::Instant::now();
    net.drive(join(&c.hs, &carol, &room_id, vec![a.owned_name(), b.owned_name()])).await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    let joined = Some(MembershipState::Join);
    assert_eq!(membership(&c.hs, &room_id, &carol.user_id).await, joined);
}

/// Who invited a user whose membership is an invite.
async fn inviter(hs: &Homeserver, room_id: &RoomId, user_id: &UserId) -> Option<OwnedUserId> {
    let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
    read(hs, move |snap| {
        let Some(room) = rooms::find(snap, &room_id)? else { return Ok(None) };
        let member = memberships::find(snap, room.nid, &user_id)?;
        let member = member.filter(|member| member.membership == MembershipState::Invite);
        let invite = member.and_then(|member| member.event);
        invite.map(|nid| Ok(events::pdu(snap, nid)?.sender().to_owned())).transpose()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_older_invite_that_comes_late_does_not_take_the_place_of_a_newer() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&c, &carol)).await;
    net.hub.set_link(a.name(), b.name(), Link::Down);
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("carol knows of alice's invite", || async {
        membership(&c.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    net.hub.set_link(c.name(), b.name(), Link::Up);
    let reason = Some("once more".to_owned());
    let again = Invite { room_id: room_id.clone(), user_id: bob.user_id.clone(), reason };
    net.drive(invite::invite(&c.hs, &carol.user_id, again)).await.unwrap();
    net.until("carol's arrives", || async {
        inviter(&b.hs, &room_id, &bob.user_id).await.as_ref() == Some(&carol.user_id)
    })
    .await;
    net.hub.set_link(a.name(), b.name(), Link::Up);
    net.until("alice's arrives", || async {
        deliveries::overview(&a.hs).await.unwrap().totals.entries == 0
    })
    .await;
    let newer = Some(carol.user_id.clone());
    assert_eq!(inviter(&b.hs, &room_id, &bob.user_id).await, newer, "it stays");
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("bob is in", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
    })
    .await;
}

/// Alice, bob and carol in a room, each on a node of their own; of what happens there, bob's hears
/// nothing any more, and he has been kicked.
struct Kicked {
    net: Net,
    alice: (Node, Session),
    bob: (Node, Session),
    carol: (Node, Session),
    room_id: OwnedRoomId,
}

async fn kicked() -> Kicked {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![a.owned_name()])).await;
    net.until("bob knows of carol", || async {
        membership(&b.hs, &room_id, &carol.user_id).await == Some(MembershipState::Join)
    })
    .await;
    net.hub.lose_gossip();
    net.hub.answer_instead(b.name(), "/send/", busy());
    net.drive(kick(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("carol knows of the kick", || async {
        membership(&c.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    Kicked { net, alice: (a, alice), bob: (b, bob), carol: (c, carol), room_id }
}

/// How many invites wait for a user to be out of the rooms they are to.
async fn early(hs: &Homeserver, user_id: &UserId) -> usize {
    let user_id = user_id.to_owned();
    let nobody = OwnedServerName::try_from("nobody.example").unwrap();
    read(hs, move |snap| {
        early_invites::count_others(snap, messagehub_store::RoomNid(0), (&nobody, &user_id))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_overtakes_the_kick_before_it_is_shown_after_it() {
    let Kicked { mut net, alice: (a, _alice), bob: (b, bob), carol: (c, carol), room_id } =
        kicked().await;
    net.drive(invite(&c.hs, &carol, &room_id, &bob.user_id)).await;
    net.until("the invite came", || async { early(&b.hs, &bob.user_id).await == 1 }).await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, Some(MembershipState::Join));
    net.hub.answer_as_ever();
    net.until("bob is invited", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    assert_eq!(early(&b.hs, &bob.user_id).await, 0, "it waits no more");
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("bob is in again", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_early_invites_that_of_a_member_is_shown() {
    let Kicked { mut net, alice: (a, _alice), bob: (b, bob), carol: (c, carol), room_id } =
        kicked().await;
    net.drive(invite(&c.hs, &carol, &room_id, &bob.user_id)).await;
    net.until("carol's came", || async { early(&b.hs, &bob.user_id).await == 1 }).await;
    // Dora is in no room of bob's, and says that hers is the later one.
    let d = net.start(4);
    let dora = d.user("dora").await;
    let who = (&*dora.user_id, &*bob.user_id);
    let template = json!({ "depth": 1_u64 << 40, "prev_events": [], "auth_events": [] });
    let (event_id, invite) = between::completed(&d, &room_id, who, (&template, "invite"));
    // The room is named after its create event.
    let create = OwnedEventId::try_from(room_id.as_str().replacen('!', "$", 1)).unwrap();
    let create = read(&a.hs, move |snap| events::find(snap, &create)).await.unwrap().pdu;
    let create: serde_json::Value = serde_json::from_str(create.json()).unwrap();
    let body = json!({ "room_version": "12", "event": invite, "invite_room_state": [create] });
    let uri = format!(
        "/_matrix/federation/v2/invite/{}/{}",
        federation::path_segment(room_id.as_str()),
        federation::path_segment(&event_id)
    );
    let call = Call { method: http::Method::PUT, uri, body: body.to_string().into_bytes() };
    net.drive(federation::ask_raw(&d.hs, b.name(), call, Duration::from_secs(20))).await.unwrap();
    assert_eq!(early(&b.hs, &bob.user_id).await, 2);
    net.hub.answer_as_ever();
    net.until("bob is invited", || async {
        inviter(&b.hs, &room_id, &bob.user_id).await.is_some()
    })
    .await;
    let shown = inviter(&b.hs, &room_id, &bob.user_id).await;
    assert_eq!(shown, Some(carol.user_id.clone()), "dora is in no room of his");
    assert_eq!(early(&b.hs, &bob.user_id).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_early_invite_that_was_taken_back_is_not_shown() {
    let Kicked { mut net, alice: (a, alice), bob: (b, bob), carol: (c, _carol), room_id } =
        kicked().await;
    // Everything of alice's waits for bob's node, in order; of it the invite comes through first.
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.drive(kick(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("carol knows", || async {
        shape(&a.hs, &room_id).await == shape(&c.hs, &room_id).await
    })
    .await;
    net.hub.answer_as_ever();
    net.until("all of it arrived", || async {
        deliveries::overview(&a.hs).await.unwrap().totals.entries == 0
            && early(&b.hs, &bob.user_id).await == 0
    })
    .await;
    net.drive(tokio::time::sleep(Duration::from_secs(70))).await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, Some(MembershipState::Leave));
}
