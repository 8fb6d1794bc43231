use messagehub_store::{StreamPos, events::Direction};
use ruma::{RoomVersionId, owned_event_id, room_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    client_event::{Format, Reader, RoomIdField},
    peers::Outbound,
    rooms::{
        invite::{self, Invite},
        join::{self, Join},
    },
    testing::{TestServer, content, content_of},
};

mod early;

fn message_in(room_id: &RoomId, body: &str, txn_id: &str) -> NewMessage {
    NewMessage {
        room_id: room_id.to_owned(),
        kind: TimelineEventType::RoomMessage,
        content: content(&json!({ "msgtype": "m.text", "body": body })),
        txn_id: txn_id.into(),
    }
}

fn state_in(room_id: &RoomId, kind: &str, value: Value) -> NewState {
    NewState {
        room_id: room_id.to_owned(),
        kind: kind.into(),
        state_key: String::new(),
        content: content(&value),
    }
}

fn redaction_of(room_id: &RoomId, target: &OwnedEventId, txn_id: &str) -> NewRedaction {
    NewRedaction {
        room_id: room_id.to_owned(),
        target: target.clone(),
        reason: Some("because".to_owned()),
        txn_id: txn_id.into(),
    }
}

async fn join_by_invite(server: &TestServer, by: &Session, who: &Session, room_id: &RoomId) {
    let new = Invite { room_id: room_id.to_owned(), user_id: who.user_id.clone(), reason: None };
    invite::invite(&server.hs, &by.user_id, new).await.unwrap();
    let new = Join { target: room_id.to_owned().into(), via: Vec::new(), reason: None };
    join::join(&server.hs, &who.user_id, new).await.unwrap();
}

/// The event as a client sees it.
async fn seen(server: &TestServer, by: &Session, event_id: &OwnedEventId) -> Value {
    let (by, event_id, now) = (by.clone(), event_id.clone(), server.hs.clock.now());
    server
        .read(move |snap| {
            let event = events::find(snap, &event_id)?.unwrap();
            let reader = Reader { user_id: &by.user_id, device_id: &by.device_id };
            let json = Format { reader, now, room_id: RoomIdField::Present }.event(snap, &event)?;
            Ok(serde_json::from_str(json.get()).unwrap())
        })
        .await
}

#[tokio::test]
async fn messages_stand_in_the_order_in_which_they_were_acknowledged() {
    for version in [RoomVersionId::V2, RoomVersionId::V5, RoomVersionId::V12] {
        let server = TestServer::new(1);
        let alice = server.user("alice").await;
        let room_id = server.room(&alice, Some(version)).await;
        let mut sent = Vec::new();
        for n in 0..10 {
            let new = message_in(&room_id, &n.to_string(), &n.to_string());
            sent.push(message(&server.hs, &alice, new).await.unwrap());
        }
        let found = server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let all = (StreamPos::ZERO, StreamPos(i64::MAX));
                let page = events::page(snap, room.nid, all, Direction::Backward, 10)?;
                Ok(page.iter().rev().map(|e| e.pdu.event_id().to_owned()).collect::<Vec<_>>())
            })
            .await;
        assert_eq!(found, sent);
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let server = TestServer::new(2);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    let first = message(&server.hs, &alice, message_in(&room_id, "a", "t")).await.unwrap();
    let position = server.hs.store.position();
    let again = message(&server.hs, &alice, message_in(&room_id, "b", "t")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(server.hs.store.position(), position);
    let other = Session { device_id: "OTHER".into(), ..alice.clone() };
    let new = message(&server.hs, &other, message_in(&room_id, "a", "t")).await.unwrap();
    assert_ne!(first, new);
    assert_eq!(seen(&server, &alice, &first).await["unsigned"]["transaction_id"], "t");
    assert!(seen(&server, &other, &first).await["unsigned"].get("transaction_id").is_none());
}

#[tokio::test]
async fn what_is_refused_is_not_stored() {
    let server = TestServer::new(3);
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room_id = server.room(&alice, None).await;
    let position = server.hs.store.position();
    let large = message_in(&room_id, &"x".repeat(70_000), "1");
    assert!(matches!(message(&server.hs, &alice, large).await, Err(SendError::TooLarge)));
    let mut fractional = message_in(&room_id, "", "1");
    fractional.content = content(&json!({ "a": 0.5 }));
    let error = message(&server.hs, &alice, fractional).await.unwrap_err();
    assert!(matches!(error, SendError::BadContent(_)), "{error}");
    let error = message(&server.hs, &bob, message_in(&room_id, "", "1")).await.unwrap_err();
    assert!(matches!(error, SendError::Forbidden(_)), "{error}");
    let nowhere = message_in(room_id!("!nowhere:example.org"), "", "1");
    let error = message(&server.hs, &alice, nowhere).await.unwrap_err();
    assert!(matches!(error, SendError::NotInRoom), "{error}");
    let mut long = message_in(&room_id, "", "1");
    long.kind = TimelineEventType::from("x".repeat(300));
    let error = message(&server.hs, &alice, long).await.unwrap_err();
    assert!(matches!(error, SendError::BadContent(_)), "{error}");
    let create = state_in(&room_id, "m.room.create", json!({ "room_version": "11" }));
    let error = state(&server.hs, &alice.user_id, create).await.unwrap_err();
    assert!(matches!(error, SendError::Forbidden(_)), "{error}");
    assert_eq!(server.hs.store.position(), position);
    // The id of the refused request is still free.
    message(&server.hs, &alice, message_in(&room_id, "", "1")).await.unwrap();
}

#[tokio::test]
async fn saying_the_same_state_again_is_no_event() {
    let server = TestServer::new(4);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    let topic = |topic: &str| state_in(&room_id, "m.room.topic", json!({ "topic": topic }));
    let first = state(&server.hs, &alice.user_id, topic("a")).await.unwrap();
    let position = server.hs.store.position();
    assert_eq!(state(&server.hs, &alice.user_id, topic("a")).await.unwrap(), first);
    assert_eq!(server.hs.store.position(), position);
    let second = state(&server.hs, &alice.user_id, topic("b")).await.unwrap();
    let unsigned = &seen(&server, &alice, &second).await["unsigned"];
    assert_eq!(unsigned["prev_content"], json!({ "topic": "a" }));
    assert_eq!(unsigned["replaces_state"], first.as_str());
    assert_eq!(unsigned["prev_sender"], alice.user_id.as_str());
}

#[tokio::test]
async fn a_redacted_event_shows_nothing_but_why() {
    for version in [RoomVersionId::V2, RoomVersionId::V10, RoomVersionId::V12] {
        let server = TestServer::new(5);
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room_id = server.room(&alice, Some(version.clone())).await;
        join_by_invite(&server, &alice, &bob, &room_id).await;
        let secret = message(&server.hs, &bob, message_in(&room_id, "s", "1")).await.unwrap();
        let new = redaction_of(&room_id, &secret, "2");
        let redacted = redaction(&server.hs, &alice, new).await.unwrap();
        let repeated = redaction(&server.hs, &alice, redaction_of(&room_id, &secret, "2")).await;
        assert_eq!(repeated.unwrap(), redacted);
        let event = seen(&server, &bob, &secret).await;
        assert_eq!(event["content"], json!({}), "{version}");
        let because = &event["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], redacted.as_str(), "{version}");
        assert_eq!(because["redacts"], secret.as_str(), "{version}");
        assert_eq!(because["content"]["redacts"], secret.as_str(), "{version}");
        assert_eq!(because["content"]["reason"], "because", "{version}");
    }
}

#[tokio::test]
async fn users_of_one_server_redact_only_their_own_without_the_power() {
    for version in [RoomVersionId::V2, RoomVersionId::V10, RoomVersionId::V12] {
        let server = TestServer::new(10);
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room_id = server.room(&alice, Some(version.clone())).await;
        join_by_invite(&server, &alice, &bob, &room_id).await;
        let hers = message(&server.hs, &alice, message_in(&room_id, "a", "1")).await.unwrap();
        let error = redaction(&server.hs, &bob, redaction_of(&room_id, &hers, "2")).await;
        assert!(matches!(error, Err(SendError::MayNotRedact)), "{version}");
        let mut new = message_in(&room_id, "", "3");
        new.kind = TimelineEventType::RoomRedaction;
        new.content = content(&json!({ "redacts": hers }));
        let error = message(&server.hs, &bob, new).await;
        assert!(matches!(error, Err(SendError::MayNotRedact)), "{version}");
        assert_eq!(seen(&server, &bob, &hers).await["content"]["body"], "a", "{version}");
        let his = message(&server.hs, &bob, message_in(&room_id, "b", "4")).await.unwrap();
        redaction(&server.hs, &bob, redaction_of(&room_id, &his, "5")).await.unwrap();
        assert_eq!(seen(&server, &alice, &his).await["content"], json!({}), "{version}");
    }
}

#[tokio::test]
async fn redacting_what_is_not_there_is_refused() {
    let server = TestServer::new(6);
    let alice = server.user("alice").await;
    let (room_id, elsewhere) = (server.room(&alice, None).await, server.room(&alice, None).await);
    let there = message(&server.hs, &alice, message_in(&elsewhere, "a", "1")).await.unwrap();
    for target in [owned_event_id!("$nothing"), there] {
        let error = redaction(&server.hs, &alice, redaction_of(&room_id, &target, "2")).await;
        assert!(matches!(error, Err(SendError::UnknownEvent)));
    }
}

#[tokio::test]
async fn only_aliases_of_the_room_can_be_its_canonical_ones() {
    let server = TestServer::new(7);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    let alias = format!("#a:{}", server.hs.server_name());
    let canonical =
        |alias: &str| state_in(&room_id, "m.room.canonical_alias", json!({ "alias": alias }));
    let error = state(&server.hs, &alice.user_id, canonical(&alias)).await.unwrap_err();
    assert!(matches!(error, SendError::BadAlias(_)), "{error}");
    let error = state(&server.hs, &alice.user_id, canonical("no alias")).await.unwrap_err();
    assert!(matches!(error, SendError::InvalidAlias(_)), "{error}");
    let owned = OwnedRoomAliasId::try_from(alias.as_str()).unwrap();
    crate::rooms::aliases::create(&server.hs, &alice.user_id, owned, room_id.clone())
        .await
        .unwrap();
    state(&server.hs, &alice.user_id, canonical(&alias)).await.unwrap();
    state(&server.hs, &alice.user_id, canonical("")).await.unwrap();
}

#[tokio::test]
async fn nothing_is_gossiped_of_a_room_without_others() {
    let mut server = TestServer::new(8);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    message(&server.hs, &alice, message_in(&room_id, "a", "1")).await.unwrap();
    let mut joined = Vec::new();
    while let Ok(command) = server.outbound.try_recv() {
        match command {
            Outbound::Join { room_id } => joined.push(room_id),
            Outbound::Gossip { .. } => panic!("nobody listens"),
            _ => {}
        }
    }
    assert_eq!(joined, [room_id]);
}

#[tokio::test]
async fn a_redaction_may_be_sent_like_any_event() {
    let server = TestServer::new(9);
    let alice = server.user("alice").await;
    let room_id = server.room(&alice, None).await;
    let target = message(&server.hs, &alice, message_in(&room_id, "a", "1")).await.unwrap();
    let mut new = message_in(&room_id, "", "2");
    new.kind = TimelineEventType::RoomRedaction;
    new.content = content(&json!({ "redacts": target }));
    let redacting = message(&server.hs, &alice, new).await.unwrap();
    assert_eq!(seen(&server, &alice, &target).await["content"], json!({}));
    let content = server
        .read(move |snap| Ok(content_of(&events::find(snap, &redacting)?.unwrap().pdu)))
        .await;
    assert_eq!(content["redacts"], target.as_str());
}
