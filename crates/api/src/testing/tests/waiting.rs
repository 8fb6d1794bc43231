//! What waits for others, and waiting for others.

use axum::{Router, body::Bytes};
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
    let inviter = async || {
        let (room_id, user_id) = (room_id.clone(), bob.user_id.clone());
        read(&b.hs, move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(None) };
            let member = memberships::find(snap, room.nid, &user_id)?;
            let invite = member.and_then(|member| member.event);
            invite.map(|nid| Ok(events::pdu(snap, nid)?.sender().to_owned())).transpose()
        })
        .await
    };
    net.until("carol's arrives", || async { inviter().await.as_ref() == Some(&carol.user_id) })
        .await;
    net.hub.set_link(a.name(), b.name(), Link::Up);
    net.until("alice's arrives", || async {
        deliveries::overview(&a.hs).await.unwrap().totals.entries == 0
    })
    .await;
    assert_eq!(inviter().await, Some(carol.user_id.clone()), "the newer one stays");
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("bob is in", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_overtakes_the_kick_before_it_is_shown_after_it() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![a.owned_name()])).await;
    // Of what happens in the room, bob's server hears nothing any more.
    net.hub.lose_gossip();
    let mut busy = http::Response::new(Bytes::new());
    *busy.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    net.hub.answer_instead(b.name(), "/send/", busy);
    net.drive(kick(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("carol knows of the kick", || async {
        membership(&c.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    net.drive(invite(&c.hs, &carol, &room_id, &bob.user_id)).await;
    let waits = async || {
        let (room_id, user_id) = (room_id.clone(), bob.user_id.clone());
        read(&b.hs, move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(false) };
            Ok(early_invites::find(snap, room.nid, &user_id)?.is_some())
        })
        .await
    };
    net.until("the invite came", waits).await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, Some(MembershipState::Join));
    net.hub.answer_as_ever();
    net.until("bob is invited", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    assert!(!waits().await, "it waits no more");
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("bob is in again", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
    })
    .await;
}
