use messagehub_store::{StreamPos, events::Direction};

use super::*;
use crate::{
    send::{self, NewMessage},
    testing::{TestServer, content},
};

/// Every event of a room of one server, in the order of its timeline, signatures checked again.
async fn a_room() -> (TestServer, Vec<SignedPdu>) {
    let server = TestServer::new(7);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    for n in 0..5 {
        let message = NewMessage {
            room_id: room_id.clone(),
            kind: "m.room.message".into(),
            content: content(&serde_json::json!({ "body": n.to_string() })),
            txn_id: n.to_string().into(),
        };
        send::message(&server.hs, &alice, message).await.unwrap();
    }
    let own = server.hs.identity.server_keys();
    let ring = KeyRing::from([(own.server_name().to_owned(), own)]);
    let signed = server
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.unwrap();
            let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
            let events = events::page(snap, room.nid, all, Direction::Forward, 100)?;
            let rules = view::rules(&room).unwrap();
            let mut signed = Vec::new();
            for event in events {
                let json = RawValue::from_string(event.pdu.json().to_owned()).unwrap();
                let event = well_formed(json, &room_id, rules).unwrap();
                signed.push(super::signed(snap, event, &ring)?.unwrap());
            }
            Ok(signed)
        })
        .await;
    (server, signed)
}

fn ids(events: &[SignedPdu]) -> Vec<String> {
    events.iter().map(|event| event.pdu().event_id().to_string()).collect()
}

#[tokio::test]
async fn events_come_after_what_they_follow_and_rest_on() {
    let (_server, events) = a_room().await;
    let right = ids(&events);
    assert!(right.len() > 9);
    assert_eq!(ids(&topological(events.clone())), right, "an order that is right stays");
    let reversed = events.iter().rev().cloned().collect();
    assert_eq!(ids(&topological(reversed)), right);
    let odd_then_even = [1, 0].into_iter().flat_map(|odd| events.iter().skip(odd).step_by(2));
    assert_eq!(ids(&topological(odd_then_even.cloned().collect())), right);
    assert!(topological(Vec::new()).is_empty());
}

#[tokio::test]
async fn an_event_of_another_room_or_without_a_key_is_not_taken() {
    let (server, events) = a_room().await;
    let first = events.last().unwrap().pdu().clone();
    let json = || RawValue::from_string(first.json().to_owned()).unwrap();
    let rules = messagehub_protocol::rules::rules_of(&server.hs.limits.default_room_version);
    let rules = rules.unwrap();
    let elsewhere = RoomId::parse("!elsewhere").unwrap();
    assert!(matches!(well_formed(json(), &elsewhere, rules), Err(Outcome::Refused(_))));
    let event = well_formed(json(), first.room_id(), rules).unwrap();
    // Nobody told this store its own server's keys.
    let outcome = server.read(move |snap| signed(snap, event, &KeyRing::new())).await;
    assert!(matches!(outcome, Err(Outcome::Unjudged(_))));
}
