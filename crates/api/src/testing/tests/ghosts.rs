//! Joins that happened without their maker's knowing: the answer was lost, and the server that
//! gave it is gone from the room when it is asked again.

use messagehub_homeserver::remote_join::{self, RemoteJoin, RemoteJoinError};

use super::*;

/// Longer than a join waits for its answer, in milliseconds.
const LONG_MS: u64 = 200_000;

/// Alice's room with bob and sam in it, xena invited, and her join through sam's server lost, which
/// leaves the room then.
struct Ghost {
    net: Net,
    alice: (Node, Session),
    xena: (Node, Session),
    room_id: OwnedRoomId,
}

async fn ghost() -> Ghost {
    let mut net = Net::new();
    let (a, s, x) = (net.start(1), net.start(3), net.start(4));
    let (alice, sam, xena) = (a.user("alice").await, s.user("sam").await, x.user("xena").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&s, &sam)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &xena.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("xena and sam know of the invite", || async {
        membership(&x.hs, &room_id, &xena.user_id).await == invited
            && membership(&s.hs, &room_id, &xena.user_id).await == invited
    })
    .await;
    net.hub.set_link(a.name(), x.name(), Link::Down);
    net.hub.lose_answers(Some("/send_join/"));
    let lost = RemoteJoin {
        user_id: xena.user_id.clone(),
        room_id: room_id.clone(),
        via: vec![s.owned_name()],
        content: to_raw_value(&json!({ "membership": "join" })).unwrap(),
    };
    let answer = net.drive(remote_join::join(&x.hs, lost)).await;
    assert!(matches!(answer, Err(RemoteJoinError::Unreachable)), "{answer:?}");
    net.hub.lose_answers(None);
    let joined = Some(MembershipState::Join);
    net.until("alice sees xena come", || async {
        membership(&a.hs, &room_id, &xena.user_id).await == joined
    })
    .await;
    net.drive(leave::leave(&s.hs, &sam.user_id, room_id.clone(), None)).await.unwrap();
    net.until("alice sees sam go", || async {
        membership(&a.hs, &room_id, &sam.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    Ghost { net, alice: (a, alice), xena: (x, xena), room_id }
}

fn wait(net: &Net) {
    net.clock.as_ref().unwrap().advance(LONG_MS);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_without_knowing_comes_in_through_those_who_believe_it() {
    let Ghost { mut net, alice: (a, alice), xena: (x, xena), room_id } = ghost().await;
    // The one that let her in is asked first, and is no member any more.
    wait(&net);
    net.drive(tokio::time::sleep(std::time::Duration::from_secs(70))).await;
    assert_eq!(
        membership(&x.hs, &room_id, &xena.user_id).await,
        Some(MembershipState::Invite),
        "nobody who is in the room has been reached"
    );
    net.hub.set_link(a.name(), x.name(), Link::Up);
    net.until("xena is in", || async {
        membership(&x.hs, &room_id, &xena.user_id).await == Some(MembershipState::Join)
    })
    .await;
    net.drive(say(&x.hs, &xena, &room_id, "at last")).await;
    net.until("alice hears xena", || async {
        texts(&a.hs, &room_id).await == ["at last"]
            && shape(&a.hs, &room_id).await == shape(&x.hs, &room_id).await
    })
    .await;
    drop(alice);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_want_in_any_more_is_no_member_of_those_who_believe_it() {
    let Ghost { mut net, alice: (a, _alice), xena: (x, xena), room_id } = ghost().await;
    // She refuses the invite; only the server of whoever invited her is told of that.
    net.drive(leave::leave(&x.hs, &xena.user_id, room_id.clone(), None)).await.unwrap();
    wait(&net);
    net.drive(tokio::time::sleep(std::time::Duration::from_secs(70))).await;
    net.hub.set_link(a.name(), x.name(), Link::Up);
    net.until("alice sees xena gone", || async {
        membership(&a.hs, &room_id, &xena.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    assert_eq!(membership(&x.hs, &room_id, &xena.user_id).await, Some(MembershipState::Leave));
}
