//! Finding servers that are not connected, through one that is.

use messagehub_homeserver::peers::Outbound;
use ruma::OwnedServerName;

use crate::node::{Node, Plan, server_keys, within};

/// Three nodes in a line: the first and the last know only the middle. All advertise their names,
/// and the last one `Carol:1234567` too.
async fn line() -> [Node; 3] {
    let mut b = Plan::new(2).start().await;
    let mut a = Plan::new(1).near(&[&b]).start().await;
    let mut c = Plan::new(3).near(&[&b]).start().await;
    for node in [&a, &b, &c] {
        let mut keys = vec![format!("p2p:{}", node.name)];
        if node.name == c.name {
            keys.push("Carol:1234567".to_owned());
        }
        assert!(node.peers.tell(Outbound::Advertise { keys }).await);
    }
    a.wait_for(&b).await;
    c.wait_for(&b).await;
    b.wait_for(&a).await;
    [a, b, c]
}

fn names(found: &[messagehub_protocol::server_keys::ServerKeys]) -> Vec<OwnedServerName> {
    found.iter().map(|keys| keys.server_name().to_owned()).collect()
}

#[tokio::test]
async fn a_string_leads_to_who_advertises_it() {
    let [a, b, c] = line().await;
    // The record travels in the background, so the first searches may come too early.
    let found = within(async {
        loop {
            let found = names(&a.peers.find("Carol:1234567".to_owned()).await);
            if found.contains(&c.name) {
                return found;
            }
        }
    })
    .await;
    // Those who advertise it come first, then others who are connected.
    assert_eq!(found, [c.name.clone(), b.name.clone()]);
}

#[tokio::test]
async fn a_peer_id_leads_to_its_server() {
    let [a, b, c] = line().await;
    let search = format!("/p2p/{}", c.peer_id);
    let found = within(async {
        loop {
            let found = names(&a.peers.find(search.clone()).await);
            if found.contains(&c.name) {
                return found;
            }
        }
    })
    .await;
    assert_eq!(found, [c.name.clone(), b.name.clone()]);
}

#[tokio::test]
async fn a_name_is_reached_through_the_table() {
    let [a, _b, c] = line().await;
    within(async {
        while a.ask(&c.name, "/echo", b"hello").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(c.served(), 1);
}

#[tokio::test]
async fn a_name_that_another_advertises_is_not_believed() {
    let [a, b, c] = line().await;
    let victim = server_keys(8, vec![]).server_name().to_owned();
    let keys = vec![format!("p2p:{victim}")];
    assert!(c.peers.tell(Outbound::Advertise { keys }).await);
    within(async {
        while !names(&a.peers.find(format!("p2p:{victim}")).await).contains(&c.name) {}
    })
    .await;
    within(a.ask(&victim, "/echo", b"secret")).await.unwrap_err();
    assert_eq!((b.served(), c.served()), (0, 0));
}
