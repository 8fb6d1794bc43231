//! Networks of those who share a secret.

use messagehub_homeserver::peers::Transport;
use messagehub_net::PrivateNetwork;

use crate::node::{Plan, within};

fn member(number: u8, secret: &'static str) -> Plan {
    Plan::new(number).with(move |config| {
        config.private_network = PrivateNetwork::from_secret(secret);
        config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    })
}

#[tokio::test]
async fn the_same_secret_makes_a_network() {
    let mut a = member(1, "secret").start().await;
    let mut b = member(2, "secret").near(&[&a]).start().await;
    a.wait_for(&b).await;
    b.wait_for(&a).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let response = within(from.ask(&to.name, "/echo", b"hello")).await.unwrap();
        assert_eq!(response.body(), "hello");
    }
    let status = within(a.peers.status()).await.unwrap();
    assert_eq!(status.peers[0].transport, Some(Transport::Tcp));
    assert!(status.addresses.iter().all(|at| at.contains("/tcp/")), "{:?}", status.addresses);
}

/// Starts a node that dials a member, and another member after it. By the time that the member has
/// come, the first one would have.
async fn does_not_get_in(stranger: Plan) {
    let mut a = member(1, "secret").start().await;
    let stranger = stranger.near(&[&a]).start().await;
    a.learn(stranger.keys.clone(), stranger.addresses.clone()).await;
    let b = member(3, "secret").near(&[&a]).start().await;
    assert_eq!(a.wait_for(&b).await.0, b.peer_id);
    within(a.ask(&stranger.name, "/echo", b"secret")).await.unwrap_err();
    within(stranger.ask(&a.name, "/echo", b"secret")).await.unwrap_err();
    let status = within(a.peers.status()).await.unwrap();
    assert!(status.peers.iter().all(|peer| peer.peer_id == b.peer_id), "{:?}", status.peers);
    assert!(within(stranger.peers.status()).await.unwrap().peers.is_empty());
    assert_eq!((a.served(), stranger.served()), (0, 0));
}

#[tokio::test]
async fn another_secret_keeps_out() {
    does_not_get_in(member(2, "another secret")).await;
}

#[tokio::test]
async fn no_secret_keeps_out() {
    does_not_get_in(Plan::new(2)).await;
}
