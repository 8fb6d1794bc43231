//! Joins that happened without their maker's knowing: the answer was lost, and the server that
//! gave it is gone from the room when it is asked again; or the node died before it was stored.

use std::time::Duration;

use messagehub_homeserver::{
    remote_join::{self, RemoteJoin, RemoteJoinError},
    rooms::leave::LeaveError,
};
use messagehub_store::joins_under_way;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, UInt, api::client::room::create_room::v3::RoomPreset,
};

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

/// A join that asks one server alone.
async fn join_through(
    hs: &Homeserver,
    by: &Session,
    room_id: &OwnedRoomId,
    through: &Node,
) -> Result<(), RemoteJoinError> {
    let join = RemoteJoin {
        user_id: by.user_id.clone(),
        room_id: room_id.clone(),
        via: vec![through.owned_name()],
        content: to_raw_value(&json!({ "membership": "join" })).unwrap(),
    };
    remote_join::join(hs, join).await
}

async fn public_room(hs: &Homeserver, by: &Session) -> OwnedRoomId {
    let mut public = NewRoom::new();
    public.preset = Some(RoomPreset::PublicChat);
    create::room(hs, &by.user_id, public).await.unwrap()
}

/// What xena was to the room before she was invited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    Stranger,
    /// She had come and gone: her server remembers the room and who was in it.
    Member,
}

async fn ghost(past: Past) -> Ghost {
    let mut net = Net::new();
    let (a, s, x) = (net.start(1), net.start(3), net.start(4));
    let (alice, sam, xena) = (a.user("alice").await, s.user("sam").await, x.user("xena").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&s, &sam)).await;
    if past == Past::Member {
        come_and_go(&mut net, [(&a, &alice), (&s, &sam), (&x, &xena)], &room_id).await;
    }
    net.drive(invite(&a.hs, &alice, &room_id, &xena.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("xena and sam know of the invite", || async {
        membership(&x.hs, &room_id, &xena.user_id).await == invited
            && membership(&s.hs, &room_id, &xena.user_id).await == invited
    })
    .await;
    net.hub.set_link(a.name(), x.name(), Link::Down);
    net.hub.lose_answers(Some("/send_join/"));
    let answer = net.drive(join_through(&x.hs, &xena, &room_id, &s)).await;
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

/// The third is invited by the first, joins and leaves, and all know of it.
async fn come_and_go(net: &mut Net, people: [(&Node, &Session); 3], room_id: &OwnedRoomId) {
    let [(a, alice), (s, _), (x, xena)] = people;
    let xena_is = |node: &Node| {
        let (hs, user_id) = (node.hs.clone(), xena.user_id.clone());
        async move { membership(&hs, room_id, &user_id).await }
    };
    net.drive(invite(&a.hs, alice, room_id, &xena.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("the invite arrives", || async { xena_is(x).await == invited }).await;
    net.drive(join(&x.hs, xena, room_id, Vec::new())).await;
    net.drive(leave::leave(&x.hs, &xena.user_id, room_id.clone(), None)).await.unwrap();
    let left = Some(MembershipState::Leave);
    net.until("both see her leave", || async {
        xena_is(a).await == left && xena_is(s).await == left
    })
    .await;
}

fn wait(net: &Net) {
    net.clock.as_ref().unwrap().advance(LONG_MS);
}

/// A long while in which nobody who believes in the join is reached, and then one of them is.
async fn meet_after_long(
    net: &mut Net,
    a: &Node,
    (x, xena): (&Node, &Session),
    room_id: &OwnedRoomId,
) {
    wait(net);
    net.drive(tokio::time::sleep(Duration::from_secs(70))).await;
    assert_eq!(
        membership(&x.hs, room_id, &xena.user_id).await,
        Some(MembershipState::Invite),
        "nobody who is in the room has been reached"
    );
    net.hub.set_link(a.name(), x.name(), Link::Up);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_without_knowing_comes_in_through_those_who_believe_it() {
    let Ghost { mut net, alice: (a, alice), xena: (x, xena), room_id } =
        ghost(Past::Stranger).await;
    // The one that let her in is asked first, and is no member any more.
    meet_after_long(&mut net, &a, (&x, &xena), &room_id).await;
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

/// Who remembers a room answers questions about it: the others have no reason to introduce
/// themselves, and nothing but their questions shows that they believe in the join.
#[tokio::test(start_paused = true)]
async fn whoever_had_been_in_the_room_before_comes_in_too() {
    let Ghost { mut net, alice: (a, _alice), xena: (x, xena), room_id } = ghost(Past::Member).await;
    meet_after_long(&mut net, &a, (&x, &xena), &room_id).await;
    net.until("xena is in", || async {
        membership(&x.hs, &room_id, &xena.user_id).await == Some(MembershipState::Join)
            && shape(&a.hs, &room_id).await == shape(&x.hs, &room_id).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_want_in_any_more_is_no_member_of_those_who_believe_it() {
    let Ghost { mut net, alice: (a, _alice), xena: (x, xena), room_id } =
        ghost(Past::Stranger).await;
    // She refuses the invite; only the server of whoever invited her is told of that.
    net.drive(leave::leave(&x.hs, &xena.user_id, room_id.clone(), None)).await.unwrap();
    wait(&net);
    net.drive(tokio::time::sleep(Duration::from_secs(70))).await;
    net.hub.set_link(a.name(), x.name(), Link::Up);
    net.until("alice sees xena gone", || async {
        membership(&a.hs, &room_id, &xena.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    assert_eq!(membership(&x.hs, &room_id, &xena.user_id).await, Some(MembershipState::Leave));
}

/// Alice's public room, which bob's node has asked to let him in: her node did, and his died before
/// it had stored anything of it.
struct Crash {
    net: Net,
    alice: (Node, Session),
    bob: (u64, Session),
    room_id: OwnedRoomId,
}

async fn crash() -> Crash {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(public_room(&a.hs, &alice)).await;
    net.drive(say(&a.hs, &alice, &room_id, "before")).await;
    net.hub.hold_answers(Some("/send_join/"));
    {
        let joining = join(&b.hs, &bob, &room_id, vec![a.owned_name()]);
        let joined = Some(MembershipState::Join);
        let seen = net.until("alice sees bob come", || async {
            membership(&a.hs, &room_id, &bob.user_id).await == joined
        });
        let first = futures::future::select(Box::pin(seen), Box::pin(joining)).await;
        assert!(matches!(first, futures::future::Either::Left(_)), "the answer did not arrive");
    }
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, None);
    let seed = net.stop(b).await;
    net.hub.hold_answers(None);
    Crash { net, alice: (a, alice), bob: (seed, bob), room_id }
}

async fn under_way(hs: &Homeserver) -> usize {
    read(hs, |snap| {
        let all = MilliSecondsSinceUnixEpoch(UInt::MAX);
        Ok(joins_under_way::list_before(snap, all)?.len())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_join_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let Crash { mut net, alice: (a, alice), bob: (seed, bob), room_id } = crash().await;
    // Sooner than a lost answer counts as lost.
    net.clock.as_ref().unwrap().advance(1_000);
    let b = net.start(seed);
    let restarted = tokio::time::Instant::now();
    net.until("bob is in", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
    })
    .await;
    assert!(restarted.elapsed() < Duration::from_secs(30), "nobody waits for a lost answer");
    assert_eq!(under_way(&b.hs).await, 0);
    net.drive(say(&b.hs, &bob, &room_id, "after")).await;
    let both = ["before", "after"];
    net.until("both have the same room", || async {
        texts(&a.hs, &room_id).await == both
            && texts(&b.hs, &room_id).await == both
            && shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    drop(alice);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_nobody_wants_any_more_is_taken_back() {
    let Crash { mut net, alice: (a, _alice), bob: (seed, bob), room_id } = crash().await;
    net.clock.as_ref().unwrap().advance(1_000);
    net.hub.hold_answers(Some("/make_join/"));
    let b = net.start(seed);
    // He can say so though his client shows no such room yet; of other rooms it is an error still.
    net.drive(leave::leave(&b.hs, &bob.user_id, room_id.clone(), None)).await.unwrap();
    let other = OwnedRoomId::try_from(format!("!{}", "o".repeat(43))).unwrap();
    let refused = leave::leave(&b.hs, &bob.user_id, other, None).await;
    assert!(matches!(refused, Err(LeaveError::NotInRoom)), "{refused:?}");
    net.stop(b).await;
    net.hub.hold_answers(None);
    net.clock.as_ref().unwrap().advance(1_000);
    let b = net.start(seed);
    net.until("alice sees bob gone", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, None);
    net.until("all who were asked know", || async { under_way(&b.hs).await == 0 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_of_long_ago_is_taken_back() {
    let Crash { mut net, alice: (a, _alice), bob: (seed, bob), room_id } = crash().await;
    net.clock.as_ref().unwrap().advance(3 * 24 * 60 * 60 * 1_000);
    let b = net.start(seed);
    net.until("alice sees bob gone", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_state_is_no_good_is_not_believed_in_by_others() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(public_room(&a.hs, &alice)).await;
    net.hub.spoil_answers(Some("/send_join/"));
    let answer = net.drive(join_through(&b.hs, &bob, &room_id, &a)).await;
    assert!(matches!(answer, Err(RemoteJoinError::Unusable(_))), "{answer:?}");
    assert_eq!(membership(&a.hs, &room_id, &bob.user_id).await, Some(MembershipState::Join));
    wait(&net);
    net.until("alice sees bob gone", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
    assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_a_join_brings_nobody_back() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(public_room(&a.hs, &alice)).await;
    let placed = async |hs: &Homeserver, event_id: OwnedEventId| {
        let found = read(hs, move |snap| events::find(snap, &event_id)).await;
        found.is_some_and(|event| event.pos.is_some())
    };
    for is_known in [false, true] {
        if is_known {
            net.hub.answer_as_ever();
        } else {
            net.hub.answer_instead(a.name(), "/backfill/", busy());
        }
        net.hub.hold_answers(Some("/send_join/"));
        let late = {
            let late = Box::pin(join_through(&b.hs, &bob, &room_id, &a));
            let seen = net.until("alice sees bob come", || async {
                membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Join)
            });
            let first = futures::future::select(Box::pin(seen), late).await;
            let futures::future::Either::Left((_, late)) = first else { panic!("it is held back") };
            late
        };
        let (wanted, user_id) = (room_id.clone(), bob.user_id.clone());
        let first = read(&a.hs, move |snap| {
            let room = rooms::find(snap, &wanted)?.unwrap();
            let member = memberships::find(snap, room.nid, &user_id)?;
            events::id(snap, member.unwrap().event.unwrap())
        })
        .await;
        // Bob tries again, comes in, and goes.
        net.hub.hold_answers(Some(&first.as_str()[1..]));
        net.drive(join_through(&b.hs, &bob, &room_id, &a)).await.unwrap();
        if is_known {
            net.until("history brings the join", || placed(&b.hs, first.clone())).await;
        }
        net.drive(leave::leave(&b.hs, &bob.user_id, room_id.clone(), None)).await.unwrap();
        net.until("alice sees bob go", || async {
            membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
        })
        .await;
        assert_eq!(placed(&b.hs, first.clone()).await, is_known);
        net.hub.hold_answers(None);
        let answer = net.drive(late).await;
        assert!(answer.is_ok(), "{answer:?}");
        let left = Some(MembershipState::Leave);
        assert_eq!(membership(&b.hs, &room_id, &bob.user_id).await, left);
    }
}
