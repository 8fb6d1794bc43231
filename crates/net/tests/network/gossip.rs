//! Frames among members.

use bytes::Bytes;
use messagehub_homeserver::peers::Acceptance;
use messagehub_protocol::limits::MAX_SEALED_FRAME_BYTES;
use ruma::{RoomId, room_id};

use crate::node::{Node, Plan};

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

/// Three members in a line: the first and the last know only the middle.
async fn line() -> [Node; 3] {
    let mut b = Plan::new(2).start().await;
    let mut a = Plan::new(1).near(&[&b]).start().await;
    let mut c = Plan::new(3).near(&[&b]).start().await;
    a.wait_for(&b).await;
    c.wait_for(&b).await;
    b.wait_for(&a).await;
    a.join(room()).await;
    c.join(room()).await;
    b.join(room()).await;
    // The middle subscribes last, so that both ends are told of it.
    a.wait_subscribed(&b, room()).await;
    c.wait_subscribed(&b, room()).await;
    [a, b, c]
}

#[tokio::test]
async fn a_frame_goes_on_only_after_it_was_accepted() {
    let [a, mut b, mut c] = line().await;
    a.gossip(room(), Bytes::from_static(b"first")).await;
    let first = b.wait_frame().await;
    assert_eq!((&first.frame[..], &first.source), (&b"first"[..], &a.peer_id));
    assert_eq!(first.room_id, room());
    a.gossip(room(), Bytes::from_static(b"second")).await;
    let second = b.wait_frame().await;
    second.judge(Acceptance::Accept);
    // The first one still waits for its verdict, so the second comes first.
    let seen = c.wait_frame().await;
    assert_eq!((&seen.frame[..], &seen.source), (&b"second"[..], &b.peer_id));
    first.judge(Acceptance::Accept);
    assert_eq!(&c.wait_frame().await.frame[..], b"first");
}

#[tokio::test]
async fn rejected_and_ignored_frames_go_nowhere() {
    let [a, mut b, mut c] = line().await;
    for (frame, acceptance) in [
        (&b"bad"[..], Acceptance::Reject),
        (b"unclear", Acceptance::Ignore),
        (b"good", Acceptance::Accept),
    ] {
        a.gossip(room(), Bytes::from_static(frame)).await;
        let waiting = b.wait_frame().await;
        assert_eq!(waiting.frame, frame);
        waiting.judge(acceptance);
    }
    assert_eq!(&c.wait_frame().await.frame[..], b"good");
    assert_eq!(b.metric("libp2p_frames_total{outcome=\"Reject\"}"), 1);
    assert_eq!(b.metric("libp2p_frames_total{outcome=\"Ignore\"}"), 1);
}

#[tokio::test]
async fn a_peer_that_sends_bad_frames_is_not_listened_to() {
    const ROUNDS: u8 = 20;
    let [a, mut b, c] = line().await;
    let mut rejected = 0;
    for round in 0..ROUNDS {
        a.gossip(room(), Bytes::from(vec![b'a', round])).await;
        // Waits until both neighbours' frames must have come: the marker goes after the request.
        a.ask(&b.name, "/echo", b"").await.unwrap();
        c.gossip(room(), Bytes::from(vec![b'c', round])).await;
        loop {
            let waiting = b.wait_frame().await;
            if waiting.source == c.peer_id {
                waiting.judge(Acceptance::Accept);
                break;
            }
            waiting.judge(Acceptance::Reject);
            rejected += 1;
        }
    }
    // The other neighbour was heard in every round.
    assert!((5..ROUNDS).contains(&rejected), "{rejected} of {ROUNDS} bad frames were taken");
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let [a, mut b, mut c] = line().await;
    let frame: Bytes = (0..MAX_SEALED_FRAME_BYTES).map(|at| (at % 251) as u8).collect();
    a.gossip(room(), frame.clone()).await;
    let waiting = b.wait_frame().await;
    assert!(waiting.frame == frame);
    waiting.judge(Acceptance::Accept);
    assert!(c.wait_frame().await.frame == frame);
    let too_large = Bytes::from(vec![0; MAX_SEALED_FRAME_BYTES + 1]);
    a.gossip(room(), too_large).await;
    a.gossip(room(), Bytes::from_static(b"next")).await;
    assert_eq!(&b.wait_frame().await.frame[..], b"next");
}
