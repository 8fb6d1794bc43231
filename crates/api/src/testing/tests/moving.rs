//! Nodes that move: members tell each other where the others are now.

use super::*;

/// A room with a user of each of some nodes, all of which know of all.
async fn room_of(net: &mut Net, nodes: &[Node], users: &[Session]) -> OwnedRoomId {
    let [first, ..] = nodes else { panic!("nobody") };
    let room_id =
        net.drive(create::room(&first.hs, &users[0].user_id, NewRoom::new())).await.unwrap();
    for (node, user) in nodes.iter().zip(users).skip(1) {
        net.drive(invite(&first.hs, &users[0], &room_id, &user.user_id)).await;
        net.until("the invite arrives", || async {
            membership(&node.hs, &room_id, &user.user_id).await.is_some()
        })
        .await;
        net.drive(join(&node.hs, user, &room_id, vec![first.owned_name()])).await;
    }
    for node in nodes {
        net.until("everybody knows of everybody", || async {
            let mut all = true;
            for user in users {
                let known = membership(&node.hs, &room_id, &user.user_id).await;
                all &= known == Some(MembershipState::Join);
            }
            all
        })
        .await;
    }
    room_id
}

#[tokio::test(start_paused = true)]
async fn a_room_finds_itself_again_when_all_but_two_of_its_nodes_moved() {
    let mut net = Net::new();
    let nodes: Vec<Node> = (1..=6).map(|seed| net.start(seed)).collect();
    let mut users = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        users.push(node.user(&format!("u{n}")).await);
    }
    let room_id = room_of(&mut net, &nodes, &users).await;
    net.hub.mind_addresses();
    net.drive(tokio::time::sleep(std::time::Duration::from_secs(1))).await;
    let names: Vec<_> = nodes.iter().map(Node::owned_name).collect();
    let mut seeds = Vec::new();
    for node in nodes {
        seeds.push(net.stop(node).await);
    }
    names[2..].iter().for_each(|name| net.hub.move_away(name));

    // Those that moved know where the two are that stayed, and nobody knows more.
    let mut nodes: Vec<Node> = seeds.into_iter().map(|seed| net.start(seed)).collect();
    let connected = |node: &Node| node.hs.peers.connected().len();
    net.until("the two that stayed have found all others", || async {
        connected(&nodes[0]) == 5 && connected(&nodes[1]) == 5
    })
    .await;
    // A minute later the two go, and the others have only what they were told.
    net.drive(tokio::time::sleep(std::time::Duration::from_secs(90))).await;
    for _ in 0..2 {
        let stayed = nodes.remove(0);
        net.stop(stayed).await;
    }
    net.drive(say(&nodes[0].hs, &users[2], &room_id, "where are you")).await;
    for node in &nodes {
        net.until("who moved hears who moved", || async {
            texts(&node.hs, &room_id).await == ["where are you"]
        })
        .await;
    }
}
