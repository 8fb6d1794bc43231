//! Keys that are replaced: what was signed by the old one stays good, and nobody loses anybody.

use messagehub_protocol::pdu::Pdu;

use super::*;

/// The ids of the keys of its own server that signed each message of a room, by its text.
async fn signed_by(hs: &Homeserver, room_id: &OwnedRoomId) -> Vec<(String, Vec<String>)> {
    let room_id = room_id.clone();
    let keys_of = |pdu: &Pdu| {
        let json: serde_json::Value = serde_json::from_str(pdu.json()).unwrap();
        let own = json["signatures"][pdu.sender().server_name().as_str()].as_object().unwrap();
        let text = json["content"]["body"].as_str()?.to_owned();
        Some((text, own.keys().cloned().collect()))
    };
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
        let events = events::page(snap, room.nid, all, Direction::Forward, 10_000)?;
        Ok(events.iter().filter_map(|event| keys_of(&event.pdu)).collect())
    })
    .await
}

fn key_id(node: &Node) -> String {
    node.hs.identity.verify_key().key_id().to_string()
}

#[tokio::test(start_paused = true)]
async fn what_the_old_key_signed_stays_and_the_new_one_signs_what_follows() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let first = key_id(&a);
    net.drive(say(&a.hs, &alice, &room_id, "old")).await;
    net.clock.as_ref().unwrap().advance(1_000);
    net.rotate_key(&a).await;
    let second = key_id(&a);
    assert_ne!(first, second);
    net.drive(say(&a.hs, &alice, &room_id, "new")).await;
    net.until("bob hears both", || async { texts(&b.hs, &room_id).await == ["old", "new"] }).await;
    net.drive(say(&b.hs, &bob, &room_id, "still here")).await;
    net.until("alice hears bob", || async { texts(&a.hs, &room_id).await.len() == 3 }).await;

    // With the next start nothing is left of the old key.
    let seed = net.stop(a).await;
    net.clock.as_ref().unwrap().advance(1_000);
    let a = net.start(seed);
    assert_eq!(key_id(&a), second);
    net.drive(say(&a.hs, &alice, &room_id, "again")).await;

    // Who comes now gets the past from bob alone, and can check it.
    let c = net.start(3);
    let carol = c.user("carol").await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.until("carol is invited", || async {
        membership(&c.hs, &room_id, &carol.user_id).await.is_some()
            && membership(&b.hs, &room_id, &carol.user_id).await.is_some()
    })
    .await;
    let _off = net.stop(a).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![b.owned_name()])).await;
    let all = ["old", "new", "still here", "again"];
    net.until("carol has the past", || async { texts(&c.hs, &room_id).await == all }).await;
    let of_alice: Vec<_> = signed_by(&c.hs, &room_id)
        .await
        .into_iter()
        .filter(|(text, _)| text != "still here")
        .collect();
    let expected = [("old", &first), ("new", &second), ("again", &second)];
    assert_eq!(of_alice, expected.map(|(text, id)| (text.to_owned(), vec![id.clone()])));
}
