//! The public DHT, here among nodes on loopback.

use messagehub_homeserver::peers::{Outbound, Reachability};

use crate::node::{Node, Plan, within};

fn plan(number: u8, entry: &[&Node]) -> Plan {
    let entries: Vec<String> = entry.iter().map(|node| node.addresses[0].clone()).collect();
    Plan::new(number).with(move |config| config.public_dht = Some(entries))
}

async fn until_public(node: &Node) {
    node.until(|status| matches!(status.reachability, Reachability::Public { .. })).await;
}

#[tokio::test]
async fn somebody_is_found_through_the_public_dht() {
    let b = plan(2, &[]).start().await;
    until_public(&b).await;
    let a = plan(1, &[&b]).start().await;
    let c = plan(3, &[&b]).start().await;
    let keys = vec!["Carol:1234567".to_owned()];
    assert!(c.peers.tell(Outbound::Advertise { keys }).await);
    let found = within(async {
        loop {
            let found = a.peers.find("Carol:1234567".to_owned()).await;
            if let Some(keys) = found.iter().find(|keys| keys.server_name() == c.name) {
                return keys.clone();
            }
        }
    })
    .await;
    assert_eq!(found.server_name(), c.name);
    within(a.ask(&c.name, "/echo", b"")).await.unwrap();
    assert!(a.metric("libp2p_public_dht_peers") >= 1, "not found by the LAN's DHT alone");
}
