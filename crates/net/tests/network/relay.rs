//! Nodes that nobody can dial, and the relays between them.

use std::time::Duration;

use bytes::Bytes;
use messagehub_homeserver::peers::{Acceptance, Path, Reachability, RequestError};
use messagehub_net::{NetConfig, RelayService, Switch};
use ruma::room_id;

use crate::node::{Node, Plan, within};

/// A relay that others can dial, for these.
async fn relay(number: u8) -> Node {
    let relay = Plan::new(number).start().await;
    relay.until(|status| matches!(status.reachability, Reachability::Public { .. })).await;
    relay
}

/// A relay, and two friends of it who can meet only there.
async fn apart() -> [Node; 3] {
    let relay = relay(9).await;
    let a = Plan::new(1).hidden().behind(&[&relay]).start().await;
    let b = Plan::new(2).hidden().behind(&[&relay]).start().await;
    relay.knows(&[&a, &b]).await;
    a.until_relayed().await;
    b.until_relayed().await;
    [relay, a, b]
}

#[tokio::test]
async fn two_that_nobody_can_dial_meet_at_a_relay() {
    let [relay, mut a, mut b] = apart().await;
    // All they know of each other are the keys, with the PeerId.
    a.knows(&[&b]).await;
    b.knows(&[&a]).await;
    a.wait_for(&b).await;
    b.wait_for(&a).await;
    let path = a.path_to(&b).await.unwrap();
    assert!(matches!(&path, Path::Relayed { relay: Some(id) } if *id == relay.peer_id), "{path:?}");
    for (from, to) in [(&a, &b), (&b, &a)] {
        let response = within(from.ask(&to.name, "/echo", b"hello")).await.unwrap();
        // The peer is authenticated end to end.
        assert_eq!(response.headers()["x-from"], format!("{} /echo", from.peer_id));
    }
    let room = room_id!("!room:example.org");
    a.join(room).await;
    b.join(room).await;
    a.wait_subscribed(&b, room).await;
    a.gossip(room, Bytes::from_static(b"frame")).await;
    let frame = b.wait_frame().await;
    assert_eq!((&frame.frame[..], &frame.source), (&b"frame"[..], &a.peer_id));
    frame.judge(Acceptance::Accept);
    assert_eq!(relay.metric("libp2p_relay_total{event=\"ReservationAccepted\"}"), 2);
    assert!(relay.metric("libp2p_relay_total{event=\"CircuitAccepted\"}") >= 1);
    assert_eq!(relay.served(), 0, "the relay sees only what is sealed");
}

#[tokio::test]
async fn history_passes_a_relay_and_files_do_not() {
    static LARGE: [u8; 4 * 1024 * 1024] = [7; 4 * 1024 * 1024];
    let [_relay, mut a, b] = apart().await;
    a.knows(&[&b]).await;
    b.knows(&[&a]).await;
    a.wait_for(&b).await;
    // Far more than the 128 KiB that relays give by default, both ways.
    for _ in 0..4 {
        let response = within(a.ask(&b.name, "/echo", &LARGE)).await.unwrap();
        assert_eq!(response.body().len(), LARGE.len());
    }
    let file = "/_matrix/federation/v1/media/download/abc";
    let refused = within(a.ask(&b.name, file, b"")).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused(_)), "{refused:?}");
    let served = b.served();
    within(a.ask(&b.name, "/echo", b"more")).await.unwrap();
    assert_eq!(b.served(), served + 1, "the file was never asked for");
}

#[tokio::test]
async fn a_relay_refuses_strangers() {
    let relay = relay(9).await;
    let a = Plan::new(1).hidden().behind(&[&relay]).start().await;
    relay.knows(&[&a]).await;
    a.until_relayed().await;
    let stranger = Plan::new(2).hidden().behind(&[&relay]).start().await;
    within(async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while relay.metric("libp2p_relay_total{event=\"ReservationDenied\"}") == 0 {
            look.tick().await;
        }
    })
    .await;
    // Nor does it get to those who have a place.
    stranger.learn(a.keys.clone(), vec![a.until_relayed().await]).await;
    let refused = within(stranger.ask(&a.name, "/echo", b"")).await.unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
    assert!(relay.metric("libp2p_relay_total{event=\"CircuitDenied\"}") >= 1);
    assert_eq!(a.served(), 0);
    // Until it is one no longer.
    relay.knows(&[&a, &stranger]).await;
    stranger.until_relayed().await;
    within(stranger.ask(&a.name, "/echo", b"")).await.unwrap();
}

#[tokio::test]
async fn a_relay_for_anyone_is_found_in_the_dht() {
    let relay = Plan::new(9).with(|config| config.relay_service = RelayService::Anyone);
    let relay = relay.start().await;
    relay.until(|status| matches!(status.reachability, Reachability::Public { .. })).await;
    let mut b = Plan::new(2).near(&[&relay]).start().await;
    b.wait_for(&relay).await;
    // It knows one node, which is no relay, and is known to nobody.
    let a = Plan::new(1)
        .hidden()
        .near(&[&b])
        .with(|config| config.relay_service = RelayService::Off)
        .start()
        .await;
    let address = a.until_relayed().await;
    assert!(address.contains(&relay.peer_id), "{address}");
}

#[tokio::test]
async fn a_place_that_was_lost_is_taken_again() {
    // Below the ports that the system gives out, which another test may get in between.
    let place = format!("/ip4/127.0.0.1/tcp/{}", 20_000 + std::process::id() % 10_000);
    let listening = |place: &str| {
        let place = place.to_owned();
        Plan::new(9).with(|config| config.listen_addresses = vec![place]).start()
    };
    let relay = listening(&place).await;
    let a = Plan::new(1).hidden().behind(&[&relay]).start().await;
    relay.knows(&[&a]).await;
    a.until_relayed().await;
    relay.stop().await;
    let lost = Reachability::Private { relays: vec![] };
    a.until(|status| status.reachability == lost).await;
    let relay = listening(&place).await;
    relay.knows(&[&a]).await;
    a.until_relayed().await;
}

#[tokio::test]
async fn a_direct_connection_replaces_a_relayed_one_and_no_request_is_lost() {
    let listening = |address: &'static str| {
        move |config: &mut NetConfig| config.listen_addresses = vec![address.to_owned()]
    };
    // The relay sees the second one by QUIC, where it does not listen: hole punching leads nowhere.
    let relay = Plan::new(9).with(listening("/ip4/127.0.0.1/udp/0/quic-v1")).start().await;
    let mut a = Plan::new(1).hidden().behind(&[&relay]).start().await;
    relay.knows(&[&a]).await;
    let through = a.until_relayed().await;
    // Only now, or the first one would hear of it while it looks around in the DHT.
    let b = Plan::new(2).with(listening("/ip4/127.0.0.1/tcp/0")).behind(&[&relay]).start();
    let mut b = b.await;
    relay.knows(&[&a, &b]).await;
    b.learn(a.keys.clone(), vec![through]).await;
    b.trust(&[&a]).await;
    // One request begins as soon as there is a path and ends after the change; others run all the
    // time.
    let steady = async {
        let mut answered = 0;
        while !matches!(b.path_to(&a).await, Some(Path::Direct)) || answered % 50 != 0 {
            let response = b.ask(&a.name, "/echo", b"steady").await.unwrap();
            assert_eq!(response.body(), "steady");
            answered += 1;
        }
        a.release.notify_one();
        answered
    };
    let slow = b.ask(&a.name, "/slow", b"");
    let (slow, answered) = within(async { tokio::join!(slow, steady) }).await;
    assert_eq!(slow.unwrap().body(), "slow");
    assert!(answered > 0);
    assert!(relay.metric("libp2p_relay_total{event=\"CircuitAccepted\"}") >= 1);
    // Both sides use the direct one from now on.
    a.until(|status| {
        let peer = status.peers.iter().find(|peer| peer.peer_id == b.peer_id);
        peer.is_some_and(|peer| peer.path == Path::Direct)
    })
    .await;
    within(b.ask(&a.name, "/echo", b"after")).await.unwrap();
    // What it replaced is closed: with the relay and with each other one connection is left.
    for node in [&a, &b] {
        within(async {
            let mut look = tokio::time::interval(Duration::from_millis(50));
            while node.metric("libp2p_connections") > 2 {
                look.tick().await;
            }
        })
        .await;
    }
    // Frames that were on their way over it are to be asked for.
    within(a.wait_path_lost(&b.name)).await;
    within(b.wait_path_lost(&a.name)).await;
    let file = "/_matrix/federation/v1/media/download/abc";
    within(b.ask(&a.name, file, b"")).await.unwrap();
}

#[tokio::test]
async fn a_relay_that_is_off_serves_nobody() {
    let relay = Plan::new(9).with(|config| config.relay_service = RelayService::Off);
    let relay = relay.start().await;
    relay.until(|status| matches!(status.reachability, Reachability::Public { .. })).await;
    let mut a = Plan::new(1).hidden().behind(&[&relay]).with(|config| config.upnp = Switch::Off);
    a.bootstrap = relay.addresses.clone();
    let mut a = a.start().await;
    relay.knows(&[&a]).await;
    a.wait_for(&relay).await;
    let known = |status: &messagehub_homeserver::peers::NetStatus| {
        status.reachability == Reachability::Private { relays: vec![] }
    };
    a.until(known).await;
    // It was asked, and does not speak the protocol.
    within(async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while a.metric("libp2p_relay_total{event=\"PlaceLost\"}") == 0 {
            look.tick().await;
        }
    })
    .await;
    assert_eq!(a.until(known).await.reachability, Reachability::Private { relays: vec![] });
}
