//! Signed records of addresses, passed on by others.

use bytes::Bytes;
use messagehub_homeserver::peers::{Inbound, Outbound};

use crate::node::{Node, Plan, within};

type Record = (String, u64, Bytes, Vec<String>);

/// The next record of a node that this one reports.
async fn record(node: &mut Node, of: &Node) -> Record {
    let name = of.name.clone();
    node.wait(|report| match report {
        Inbound::Record { server, peer_id, seq, record, addresses } if server == name => {
            Some((peer_id, seq, record, addresses))
        }
        _ => None,
    })
    .await
}

async fn own_record(node: &mut Node) -> Record {
    let name = node.name.clone();
    node.wait(|report| match report {
        Inbound::Record { server, peer_id, seq, record, addresses } if server == name => {
            Some((peer_id, seq, record, addresses))
        }
        _ => None,
    })
    .await
}

async fn pass(to: &Node, records: Vec<Bytes>) {
    assert!(to.peers.tell(Outbound::Records { records }).await);
}

#[tokio::test]
async fn a_node_is_found_by_a_record_that_another_passed_on() {
    let mut b = Plan::new(2).start().await;
    let (peer_id, seq, bytes, addresses) = own_record(&mut b).await;
    assert_eq!(peer_id, b.peer_id);
    assert!(seq > 0 && bytes.len() <= messagehub_homeserver::peers::MAX_RECORD_BYTES);
    assert!(b.addresses.iter().all(|at| addresses.contains(at)), "{addresses:?}");
    let mut a = Plan::new(1).start().await;
    a.knows(&[&b]).await;
    within(a.ask(&b.name, "/echo", b"")).await.unwrap_err();
    pass(&a, vec![bytes.clone()]).await;
    assert_eq!(record(&mut a, &b).await, (b.peer_id.clone(), seq, bytes, addresses));
    a.wait_for(&b).await;
    within(a.ask(&b.name, "/echo", b"")).await.unwrap();
}

#[tokio::test]
async fn a_record_that_is_false_old_or_of_a_stranger_is_not_believed() {
    let mut b = Plan::new(2).start().await;
    let (_, _, bytes, _) = own_record(&mut b).await;
    let mut c = Plan::new(3).start().await;
    let (_, _, of_stranger, _) = own_record(&mut c).await;
    let mut a = Plan::new(1).start().await;
    own_record(&mut a).await;
    a.knows(&[&b]).await;
    let mut changed = bytes.to_vec();
    changed[bytes.len() / 2] ^= 1;
    pass(&a, vec![changed.into(), of_stranger, Bytes::from(vec![0; 5_000]), bytes.clone(), bytes])
        .await;
    record(&mut a, &b).await;
    a.until(|status| !status.peers.is_empty()).await;
    assert_eq!(a.metric("libp2p_records_refused_total"), 2);
    assert_eq!(a.metric("libp2p_records_total"), 1, "the second time it says nothing new");
}

#[tokio::test]
async fn a_relayed_address_stands_in_the_record() {
    let relay = Plan::new(9).start().await;
    let mut a = Plan::new(1).hidden().behind(&[&relay]).start().await;
    relay.knows(&[&a]).await;
    a.until_relayed().await;
    let (.., addresses) = own_record(&mut a).await;
    assert!(addresses.iter().any(|at| at.contains("/p2p-circuit/p2p/")), "{addresses:?}");
}
