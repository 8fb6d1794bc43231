//! Typing and receipts from and to users of other servers.

use std::time::Duration;

use messagehub_store::{
    StreamPos,
    memberships::{self, NewMembership},
    outbox, rooms,
};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    api::federation::transactions::edu::{ReceiptContent, TypingContent},
    events::room::member::MembershipState,
    server_name,
};
use serde_json::json;

use super::{Client, Kind, Mark, TestServer, Typing, joined};
use crate::{StoreError, peers::Outbound, receipts, typing};

/// Puts a user of another server into a room, without the event that says so.
async fn joined_from_elsewhere(server: &TestServer, room_id: &OwnedRoomId) -> OwnedUserId {
    let user_id = UserId::parse("@zoe:other.example").unwrap();
    let (id, user) = (room_id.clone(), user_id.clone());
    let write = server.hs.store.write(move |txn| {
        let room = rooms::find(txn, &id)?.unwrap();
        let new = NewMembership {
            membership: &MembershipState::Join,
            event: None,
            pos: StreamPos(1),
            stripped: None,
        };
        memberships::set(txn, room.nid, &user, new)
    });
    write.await.unwrap();
    user_id
}

#[tokio::test]
async fn receipts_wait_for_other_servers_and_the_last_one_counts() {
    let mut server = TestServer::new(61);
    let elsewhere = server_name!("other.example");
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let one = alice.say(&room_id, "one").await;
    let two = alice.say(&room_id, "two").await;
    joined_from_elsewhere(&server, &room_id).await;
    alice.read(&room_id, &one, Mark::Read(Kind::Public)).await;
    alice.read(&room_id, &two, Mark::Read(Kind::Public)).await;
    alice.read(&room_id, &two, Mark::Read(Kind::Private)).await;
    let now = server.hs.clock.now();
    let take = server.hs.store.write(move |txn| outbox::take_batch(txn, elsewhere, now));
    let batch = Result::<_, StoreError>::unwrap(take.await).unwrap();
    assert_eq!(batch.entries.len(), 1);
    let edu: serde_json::Value = serde_json::from_str(&batch.entries[0].body).unwrap();
    assert_eq!(edu["edu_type"], "m.receipt");
    let read = &edu["content"][room_id.as_str()]["m.read"][alice.session.user_id.as_str()];
    assert_eq!(read["event_ids"], json!([two]));
    assert!(read["data"]["ts"].is_u64());

    while server.outbound.try_recv().is_ok() {}
    let alice = Client::new(&server, "alice");
    alice.types(&room_id, Typing::For(Duration::from_secs(5))).await;
    let sent = server.outbound.try_recv();
    assert!(matches!(sent, Ok(Outbound::Gossip { .. })), "{sent:?}");
}

#[tokio::test]
async fn only_a_users_own_server_speaks_for_them() {
    let server = TestServer::new(62);
    let mut alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let hello = alice.say(&room_id, "hello").await;
    let zoe = joined_from_elsewhere(&server, &room_id).await;
    alice.sync().await;

    let now = server.hs.clock.now();
    let types = TypingContent::new(room_id.clone(), zoe.clone(), true);
    let read: ReceiptContent = serde_json::from_value(json!({
        room_id.as_str(): {"m.read": {zoe.as_str(): {"data": {"ts": 7}, "event_ids": [hello]}}},
    }))
    .unwrap();
    for (origin, is_heard) in [("liar.example", false), ("other.example", true)] {
        let (types, read) = (types.clone(), read.clone());
        let ingest = server.hs.store.write(move |txn| {
            let origin = ruma::ServerName::parse(origin).unwrap();
            typing::ingest(txn, &origin, &types, now)?;
            receipts::ingest(txn, &origin, &read)
        });
        Result::<(), StoreError>::unwrap(ingest.await);
        let answer = alice.sync().await;
        assert_eq!(answer.get("rooms").is_some(), is_heard, "{origin}");
        if is_heard {
            let events = &joined(&answer, &room_id)["ephemeral"]["events"];
            assert_eq!(events[0]["content"]["user_ids"], json!([zoe]));
            assert_eq!(events[1]["content"][hello.as_str()]["m.read"][zoe.as_str()]["ts"], 7);
        }
    }
}
