//! Requests between servers, and who may answer them.

use messagehub_homeserver::peers::RequestError;
use messagehub_protocol::limits::MAX_PDU_BYTES;

use crate::node::{Node, Plan, seed, server_keys, within};

async fn pair() -> (Node, Node) {
    let mut a = Plan::new(1).start().await;
    let mut b = Plan::new(2).near(&[&a]).start().await;
    a.wait_for(&b).await;
    b.wait_for(&a).await;
    (a, b)
}

#[tokio::test]
async fn requests_go_both_ways() {
    let (a, b) = pair().await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let response = within(from.ask(&to.name, "/echo?x=1", b"hello")).await.unwrap();
        assert_eq!(response.body(), "hello");
        // The peer is the authenticated one, and the target is as an HTTP/1.1 server sees it.
        assert_eq!(response.headers()["x-from"], format!("{} /echo?x=1", from.peer_id));
    }
}

#[tokio::test]
async fn hundreds_of_requests_at_once_share_one_stream() {
    const MANY: usize = 200;
    let (a, b) = pair().await;
    let opened = a.metric("libp2p_streams_outbound_total");
    let asks = (0..MANY).map(|_| a.ask(&b.name, "/echo", b"many"));
    for response in within(futures::future::join_all(asks)).await {
        assert_eq!(response.unwrap().body(), "many");
    }
    assert_eq!(b.served(), MANY);
    assert_eq!(a.metric("libp2p_streams_outbound_total"), opened);
    assert_eq!(b.metric("libp2p_streams_overflowed_total"), 0);
}

#[tokio::test]
async fn a_response_that_is_too_large_is_cut_off() {
    let (a, b) = pair().await;
    let refused = within(a.ask(&b.name, "/huge", b"")).await.unwrap_err();
    assert_eq!(refused, RequestError::TooLarge);
    assert_eq!(a.metric("libp2p_requests_total{outcome=\"TooLarge\"}"), 1);
    // The connection is as good as before.
    within(a.ask(&b.name, "/echo", b"again")).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_unread() {
    let (a, b) = pair().await;
    static ZEROES: [u8; 12 * 1024 * 1024 + 1] = [0; 12 * 1024 * 1024 + 1];
    let ask =
        async |length: usize| within(a.ask(&b.name, "/echo", &ZEROES[..length])).await.unwrap();
    // Of a stranger.
    assert_eq!(ask(640 * 1024 + 1).await.status(), 413);
    assert_eq!(b.served(), 0);
    assert_eq!(b.metric("libp2p_refused_total{reason=\"BodyTooLarge\"}"), 1);
    assert_eq!(ask(640 * 1024).await.body().len(), 640 * 1024);
    // Of a friend, which it is as soon as the transport has heard of it.
    b.trust(&[&a]).await;
    const LARGE: usize = 50 * MAX_PDU_BYTES;
    within(async { while ask(LARGE).await.body().len() != LARGE {} }).await;
    assert_eq!(ask(ZEROES.len()).await.status(), 413);
}

#[tokio::test]
async fn a_request_that_was_given_up_does_not_hold_up_others() {
    let (a, b) = pair().await;
    {
        let mut forgotten = std::pin::pin!(a.ask(&b.name, "/never", b""));
        let mut others = std::pin::pin!(a.ask(&b.name, "/echo", b"next"));
        tokio::select! {
            _ = &mut forgotten => panic!("nothing answers this"),
            response = within(&mut others) => assert_eq!(response.unwrap().body(), "next"),
        }
    }
    within(a.ask(&b.name, "/echo", b"after")).await.unwrap();
    assert_eq!(a.metric("libp2p_requests_total{outcome=\"GivenUp\"}"), 1);
}

#[tokio::test]
async fn a_name_reaches_only_a_peer_that_proves_it() {
    // The keys of server 9 name node 2 as one of its peers, but node 2 says that it is server 2.
    let (a, b) = pair().await;
    let other = server_keys(9, vec![b.peer_id.clone()]);
    let name = other.server_name().to_owned();
    a.learn(other, b.addresses.clone()).await;
    let refused = within(a.ask(&name, "/echo", b"secret")).await.unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
    assert_eq!(b.served(), 0);
}

#[tokio::test]
async fn keys_that_do_not_list_the_peer_prove_nothing() {
    // Node 3 tells the keys of server 2, which name node 2 only.
    let mut a = Plan::new(1).start().await;
    let stolen = server_keys(2, vec![seed(2).peer_id()]);
    let name = stolen.server_name().to_owned();
    let mut thief = Plan { tells: stolen.clone(), ..Plan::new(3).near(&[&a]) }.start().await;
    thief.wait_for(&a).await;
    a.learn(stolen, thief.addresses.clone()).await;
    let refused = within(a.ask(&name, "/echo", b"secret")).await.unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
    assert_eq!(thief.served(), 0);
    assert_eq!(a.metric("libp2p_refused_total{reason=\"Keys\"}"), 1);
    assert_eq!(a.metric("libp2p_verified_peers"), 0);
    // A real server that comes later is the first that is announced.
    let b = Plan::new(2).near(&[&a]).start().await;
    assert_eq!(a.wait_for(&b).await.0, b.peer_id);
}

#[tokio::test]
async fn a_server_that_is_nowhere_is_unreachable() {
    let (a, _b) = pair().await;
    let nobody = server_keys(7, vec![]).server_name().to_owned();
    let refused = within(a.ask(&nobody, "/echo", b"")).await.unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let port_file = Some(dir.path().join("libp2p.port"));
    let mut a = Plan::new(1).start().await;
    let b = Plan { port_file: port_file.clone(), ..Plan::new(2).near(&[&a]) }.start().await;
    let (_, addresses) = a.wait_for(&b).await;
    assert!(addresses.iter().all(|address| address.ends_with(&b.peer_id)), "{addresses:?}");
    a.learn(b.keys.clone(), addresses).await;
    let name = b.name.clone();
    b.stop().await;
    a.wait_gone(&name).await;
    let unreachable = within(a.ask(&name, "/echo", b"")).await;
    assert!(unreachable.is_err());
    // It dials nobody this time: node 1 comes by itself.
    let _b = Plan { port_file, ..Plan::new(2) }.start().await;
    a.wait_for_name(&name).await;
    within(a.ask(&name, "/echo", b"back")).await.unwrap();
}

#[tokio::test]
async fn status_shows_who_is_here() {
    let (a, b) = pair().await;
    let status = within(a.peers.status()).await.unwrap();
    assert_eq!(status.peer_id, a.peer_id);
    assert_eq!(status.addresses.len(), 2);
    let [peer] = status.peers.as_slice() else { panic!("{:?}", status.peers) };
    assert_eq!((peer.server.as_ref(), &peer.peer_id), (Some(&b.name), &b.peer_id));
    assert!(peer.address.starts_with("/ip4/127.0.0.1/"), "{}", peer.address);
}
