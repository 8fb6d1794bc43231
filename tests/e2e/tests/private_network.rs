//! A private network on a LAN: those with its secret talk, the others are not understood.

use e2e::{
    DEADLINE, eventually,
    http::Caller,
    namespace::{Lan, Machine, are_wanted},
    node::Node,
};
use serde_json::json;

const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001";

/// A node with a secret or without one, which dials another from its start if it is told to.
async fn node<'a>(machine: &'a Machine, secret: Option<&str>, dials: Option<&str>) -> Node<'a> {
    let mut variables = vec![
        ("REGISTRATION", "open"),
        ("LIBP2P_LISTEN_ADDRESSES", LISTEN),
        ("LOG_LEVEL", "info,messagehub_net=debug"),
    ];
    variables.extend(secret.map(|secret| ("LIBP2P_PRIVATE_NETWORK_SECRET", secret)));
    variables.extend(dials.map(|address| ("LIBP2P_DHT_BOOTSTRAP_PEERS", address)));
    Node::configured(machine, &variables).await
}

async fn peers(node: &Node<'_>) -> Vec<String> {
    let status = node.status().await;
    let peers = status["peers"].as_array().expect("a list").iter();
    peers.map(|peer| peer["peer_id"].as_str().expect("a PeerId").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_with_the_secret_meet() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let machines = [lan.machine(), lan.machine(), lan.machine(), lan.machine()];
    let anna = node(&machines[0], Some("the right one"), None).await;
    let id_of_anna = anna.status().await["peer_id"].as_str().expect("a PeerId").to_owned();
    let at_anna = format!("/ip4/{}/tcp/4001/p2p/{id_of_anna}", machines[0].address());
    let bob = node(&machines[1], Some("the right one"), None).await;
    let outsiders = [
        node(&machines[2], Some("another one"), Some(&at_anna)).await,
        node(&machines[3], None, Some(&at_anna)).await,
    ];

    let left = Caller::register(anna.client_address(), "anna").await;
    let right = Caller::register(bob.client_address(), "bob").await;
    let guest = right.user_id().await;
    let room = left.create_room(json!({"preset": "private_chat", "invite": [guest]})).await;
    assert!(right.is_invited(&room, DEADLINE).await, "log:\n{}", anna.log());
    assert!(right.joins(&room, DEADLINE).await, "log:\n{}", bob.log());
    left.send(&room, "among us", "1").await.expect("a message is taken");
    assert!(right.hears(&room, "among us", DEADLINE).await.is_some(), "log:\n{}", bob.log());

    for outsider in &outsiders {
        eventually("the outsider is told nothing when it dials", async || {
            outsider.log().contains("a dial failed").then_some(())
        })
        .await;
        assert!(peers(outsider).await.is_empty(), "log:\n{}", outsider.log());
    }
    let id_of_bob = bob.status().await["peer_id"].as_str().expect("a PeerId").to_owned();
    assert_eq!(peers(&anna).await, [id_of_bob]);
    assert_eq!(peers(&bob).await, [id_of_anna]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_secret_is_an_error_that_names_the_key() {
    let secret = [("MESSAGEHUB_LIBP2P_PRIVATE_NETWORK_SECRET", "")];
    let mut command = tokio::process::Command::new(e2e::node::binary());
    let data = tempfile::tempdir().expect("a temporary directory");
    command.args(["--data", data.path().to_str().expect("UTF-8"), "run"]).envs(secret);
    command.env_remove("MESSAGEHUB_BIN").env_remove(e2e::namespace::SKIP);
    let output = command.output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("PRIVATE_NETWORK_SECRET"), "{said}");
}
