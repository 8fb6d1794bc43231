use messagehub_store::{events, extremities, memberships, room_state};
use ruma::{
    OwnedRoomId, RoomVersionId,
    api::client::room::{Visibility, create_room::v3::RoomPreset},
    events::StateEventType,
    serde::Raw,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    sessions::Session,
    testing::{TestServer, content_of},
};

/// The content that a room's current state has for a key.
async fn state(
    server: &TestServer,
    room_id: &OwnedRoomId,
    kind: StateEventType,
    key: &str,
) -> Option<Value> {
    let (room_id, key) = (room_id.clone(), key.to_owned());
    server
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.unwrap();
            let event = room_state::get(snap, room.state, &kind, &key)?;
            event.map(|nid| Ok(content_of(&events::pdu(snap, nid)?))).transpose()
        })
        .await
}

async fn make(server: &TestServer, by: &Session, new: NewRoom) -> Result<OwnedRoomId, CreateError> {
    room(&server.hs, &by.user_id, new).await
}

fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json(crate::testing::content(value))
}

#[tokio::test]
async fn every_version_can_be_made() {
    let server = TestServer::new(1);
    let alice = server.user("alice").await;
    for version in messagehub_protocol::rules::list_supported() {
        let mut new = NewRoom::new();
        new.room_version = Some(version.clone());
        new.name = Some("A room".to_owned());
        new.preset = Some(RoomPreset::PublicChat);
        let room_id = make(&server, &alice, new).await.unwrap();
        let create = state(&server, &room_id, StateEventType::RoomCreate, "").await.unwrap();
        assert_eq!(create["room_version"], version.as_str());
        let old = rules_of(version).unwrap().authorization.use_room_create_sender;
        assert_eq!(create.get("creator").is_none(), old, "{version}");
        let name = state(&server, &room_id, StateEventType::RoomName, "").await.unwrap();
        assert_eq!(name, json!({ "name": "A room" }), "{version}");
        let rules = state(&server, &room_id, StateEventType::RoomJoinRules, "").await.unwrap();
        assert_eq!(rules["join_rule"], "public", "{version}");
        let privileged = *version == RoomVersionId::V12;
        assert_eq!(room_id.server_name().is_none(), privileged, "{version}");
        let levels = state(&server, &room_id, StateEventType::RoomPowerLevels, "").await.unwrap();
        assert_eq!(levels["users"] == json!({}), privileged, "{version}");
        let user = alice.user_id.clone();
        let member = server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                assert_eq!(extremities::list(snap, room.nid)?.len(), 1);
                memberships::find(snap, room.nid, &user)
            })
            .await;
        assert_eq!(member.unwrap().membership, MembershipState::Join, "{version}");
    }
}

#[tokio::test]
async fn rooms_of_one_millisecond_are_different() {
    let server = TestServer::new(1);
    let alice = server.user("alice").await;
    let first = make(&server, &alice, NewRoom::new()).await.unwrap();
    let second = make(&server, &alice, NewRoom::new()).await.unwrap();
    assert_ne!(first, second);
}

#[tokio::test]
async fn everything_asked_for_is_in_the_room() {
    let server = TestServer::new(2);
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let mut new = NewRoom::new();
    new.preset = Some(RoomPreset::TrustedPrivateChat);
    new.room_version = Some(RoomVersionId::V11);
    new.invite = vec![bob.user_id.clone(), bob.user_id.clone(), alice.user_id.clone()];
    new.is_direct = true;
    new.topic = Some("A topic".to_owned());
    new.room_alias_name = Some("place".to_owned());
    new.creation_content = Some(raw(&json!({ "m.federate": true, "type": "m.space" })));
    new.power_level_content_override = Some(raw(&json!({ "events_default": 7 })));
    new.initial_state = vec![
        raw(&json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": "joined" }
        })),
        raw(&json!({ "type": "org.example", "state_key": "k", "content": { "a": 1 } })),
    ];
    let room_id = make(&server, &alice, new).await.unwrap();
    let get = async |kind: &str, key: &str| {
        state(&server, &room_id, StateEventType::from(kind), key).await.unwrap_or_default()
    };
    assert_eq!(get("m.room.create", "").await["type"], "m.space");
    assert_eq!(get("m.room.topic", "").await["topic"], "A topic");
    assert_eq!(get("m.room.guest_access", "").await["guest_access"], "can_join");
    assert_eq!(get("m.room.join_rules", "").await["join_rule"], "invite");
    assert_eq!(get("m.room.history_visibility", "").await["history_visibility"], "joined");
    assert_eq!(get("org.example", "k").await["a"], 1);
    let alias = format!("#place:{}", server.hs.server_name());
    assert_eq!(get("m.room.canonical_alias", "").await["alias"], alias.as_str());
    let levels = get("m.room.power_levels", "").await;
    assert_eq!(levels["events_default"], 7);
    assert_eq!(levels["users"][bob.user_id.as_str()], 100);
    let invite = get("m.room.member", bob.user_id.as_str()).await;
    assert_eq!((&invite["membership"], &invite["is_direct"]), (&json!("invite"), &json!(true)));
}

#[tokio::test]
async fn trusted_invitees_are_creators_where_creators_are_privileged() {
    let server = TestServer::new(3);
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut new = NewRoom::new();
    new.preset = Some(RoomPreset::TrustedPrivateChat);
    new.invite = vec![bob.user_id.clone()];
    let room_id = make(&server, &alice, new).await.unwrap();
    let create = state(&server, &room_id, StateEventType::RoomCreate, "").await.unwrap();
    assert_eq!(create["additional_creators"], json!([bob.user_id]));
}

#[tokio::test]
async fn visibility_chooses_the_preset() {
    let server = TestServer::new(4);
    let alice = server.user("alice").await;
    let mut new = NewRoom::new();
    new.visibility = Visibility::Public;
    let room_id = make(&server, &alice, new).await.unwrap();
    let rules = state(&server, &room_id, StateEventType::RoomJoinRules, "").await.unwrap();
    assert_eq!(rules["join_rule"], "public");
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let server = TestServer::new(5);
    let alice = server.user("alice").await;
    let mut unsupported = NewRoom::new();
    unsupported.room_version = Some(RoomVersionId::try_from("99").unwrap());
    let mut powerless = NewRoom::new();
    powerless.room_version = Some(RoomVersionId::V11);
    powerless.power_level_content_override = Some(raw(&json!({ "users": {} })));
    powerless.name = Some("No power to name it".to_owned());
    let mut own_level = NewRoom::new();
    own_level.power_level_content_override =
        Some(raw(&json!({ "users": { alice.user_id.as_str(): 100 } })));
    let mut malformed = NewRoom::new();
    malformed.initial_state = vec![raw(&json!({ "type": "m.room.name", "content": 3 }))];
    let mut fractional = NewRoom::new();
    fractional.initial_state =
        vec![raw(&json!({ "type": "org.example", "content": { "a": 1.5 } }))];
    let mut large = NewRoom::new();
    large.topic = Some("x".repeat(70_000));
    let mut alias = NewRoom::new();
    alias.room_alias_name = Some("a b".to_owned());
    let before = server.hs.store.position();
    for (new, name) in [
        (unsupported, "UnsupportedVersion"),
        (powerless, "InvalidState"),
        (own_level, "InvalidState"),
        (malformed, "BadContent"),
        (fractional, "BadContent"),
        (large, "TooLarge"),
        (alias, "InvalidAlias"),
    ] {
        let error = make(&server, &alice, new).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(name), "{name}: {error:?}");
    }
    assert_eq!(server.hs.store.position(), before);
    assert!(server.read(rooms::list).await.is_empty());
}

#[tokio::test]
async fn an_alias_stands_for_one_room() {
    let server = TestServer::new(6);
    let alice = server.user("alice").await;
    let mut new = NewRoom::new();
    new.room_alias_name = Some("place".to_owned());
    make(&server, &alice, new.clone()).await.unwrap();
    let error = make(&server, &alice, new).await.unwrap_err();
    assert!(matches!(error, CreateError::AliasTaken(_)), "{error}");
}
