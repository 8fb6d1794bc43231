//! Replacing a room by one of another version.
//!
//! Spec: Client-Server API, "Room Upgrades".

use std::sync::Arc;

use messagehub_protocol::{
    auth::{PowerLevel, PowerLevels},
    build::NewEvent,
    rules::rules_of,
};
use messagehub_store::{
    Room, Snapshot, StoreError, Txn, aliases, events, extremities, memberships, published_rooms,
    room_state, rooms,
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::{Visibility, create_room::v3::RoomPreset},
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    serde::Raw,
};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::create::{self, CreateError, NewRoom};
use crate::{
    Homeserver,
    append::Appended,
    client_event,
    emit::{Emitted, Emitter, News, SendError},
    policy::with_signatures,
    send::find_room,
    view,
};

/// What is carried over.
///
/// Spec: Client-Server API, "Room Upgrades", server behaviour, 3.
const CARRIED: [StateEventType; 9] = [
    StateEventType::RoomServerAcl,
    StateEventType::RoomEncryption,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomJoinRules,
    StateEventType::RoomPowerLevels,
];

/// Which room is to become what.
#[derive(Debug)]
pub struct Upgrade {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The version of the new one.
    pub version: RoomVersionId,
    /// Who is a creator of the new one beside the user, where the version knows that.
    pub additional_creators: Vec<OwnedUserId>,
}

/// Why a room is not replaced.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The user may not close the room.
    #[error("the user may not upgrade this room")]
    Forbidden,
    /// The new room cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The old room cannot be closed.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for UpgradeError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Makes the new room, moves what can be moved, and closes the old one. Gives the id of the new.
///
/// # Errors
/// See [`UpgradeError`].
pub async fn upgrade(
    hs: &Homeserver,
    user_id: &UserId,
    upgrade: Upgrade,
) -> Result<OwnedRoomId, UpgradeError> {
    let rules = rules_of(&upgrade.version)
        .ok_or_else(|| CreateError::UnsupportedVersion(upgrade.version.clone()))?;
    let user = user_id.to_owned();
    let Upgrade { room_id, version, additional_creators } = upgrade;
    let old = room_id.clone();
    let new = hs
        .store
        .read(move |snap| {
            let room = find_room(snap, &old)?;
            if !may_close(snap, &room, &user)? {
                return Err(UpgradeError::Forbidden);
            }
            replacement(snap, &room, (&user, additional_creators), (version, rules))
        })
        .await?;
    let replacement = create::room(hs, user_id, new).await?;
    let wanted = Arc::new((user_id.to_owned(), room_id, replacement.clone()));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (user_id, room_id, replacement) = &*wanted;
            let mut room = find_room(txn, room_id)?;
            let closed = close(txn, &emitter, &mut room, (user_id, replacement))?;
            move_names(txn, &room, replacement)?;
            Ok::<_, UpgradeError>(News::of(txn, room, &closed, emitter.identity.server_name())?)
        })
    })
    .await?;
    news.publish(hs).await;
    Ok(replacement)
}

fn may_close(snap: &Snapshot<'_>, room: &Room, user_id: &UserId) -> Result<bool, UpgradeError> {
    if !memberships::is_joined(snap, room.nid, user_id)? {
        return Err(SendError::NotInRoom.into());
    }
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let state = view::part(snap, room.state, &keys)?;
    let levels = PowerLevels::of(&state, view::rules(room).map_err(SendError::from)?);
    let needed = levels.required(&TimelineEventType::RoomTombstone, Some(""));
    Ok(levels.of_user(user_id) >= PowerLevel::Int(needed))
}

/// The request that makes the new room.
fn replacement(
    snap: &Snapshot<'_>,
    room: &Room,
    (user_id, creators): (&UserId, Vec<OwnedUserId>),
    (version, rules): (RoomVersionId, &RoomVersionRules),
) -> Result<NewRoom, UpgradeError> {
    let mut predecessor = json!({ "room_id": room.room_id });
    if let Some(head) = extremities::list(snap, room.nid)?.pop() {
        predecessor["event_id"] = events::id(snap, head)?.as_str().into();
    }
    let mut create = Map::new();
    create.insert("predecessor".to_owned(), predecessor);
    let before = content(snap, room, &StateEventType::RoomCreate)?.unwrap_or_default();
    for field in ["type", "m.federate"] {
        if let Some(value) = before.get(field) {
            create.insert(field.to_owned(), value.clone());
        }
    }
    if rules.authorization.additional_room_creators && !creators.is_empty() {
        create.insert("additional_creators".to_owned(), json!(creators));
    }
    let mut new = NewRoom::new();
    new.room_version = Some(version);
    // Its defaults say the least; whatever the old room says stands over them.
    new.preset = Some(RoomPreset::PublicChat);
    new.creation_content = Some(raw(&Value::Object(create))?.cast_unchecked());
    new.visibility = match published_rooms::contains(snap, room.nid)? {
        true => Visibility::Public,
        false => Visibility::Private,
    };
    let mut has_rule = false;
    for kind in CARRIED {
        let Some(mut content) = content(snap, room, &kind)? else { continue };
        has_rule |= kind == StateEventType::RoomJoinRules;
        if kind == StateEventType::RoomPowerLevels {
            adapt(&mut content, (user_id, &creators), rules);
        }
        let event = json!({ "type": kind.to_string(), "state_key": "", "content": content });
        new.initial_state.push(raw(&event)?.cast_unchecked());
    }
    if !has_rule {
        let rule = json!({
            "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "invite" },
        });
        new.initial_state.push(raw(&rule)?.cast_unchecked());
    }
    Ok(new)
}

/// Brings power levels into the form of another version: creators that have all power are not
/// named, others are, and levels are numbers.
fn adapt(
    levels: &mut Map<String, Value>,
    (user_id, creators): (&UserId, &[OwnedUserId]),
    rules: &RoomVersionRules,
) {
    levels.values_mut().for_each(numbers);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    let Value::Object(users) = users else { return };
    if rules.authorization.explicitly_privilege_room_creators {
        users.remove(user_id.as_str());
        creators.iter().for_each(|creator| drop(users.remove(creator.as_str())));
    } else {
        let level = users.get(user_id.as_str()).and_then(Value::as_i64).unwrap_or(0).max(100);
        users.insert(user_id.to_string(), level.into());
    }
}

/// Levels of before version 10 may be text.
fn numbers(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Ok(number) = text.trim().parse::<i64>() {
                *value = number.into();
            }
        }
        Value::Object(map) => map.values_mut().for_each(numbers),
        _ => {}
    }
}

/// The content of a state event with an empty state key, without what was redacted.
fn content(
    snap: &Snapshot<'_>,
    room: &Room,
    kind: &StateEventType,
) -> Result<Option<Map<String, Value>>, StoreError> {
    let Some(nid) = room_state::get(snap, room.state, kind, "")? else { return Ok(None) };
    let pdu = client_event::shown(snap, &events::get(snap, nid)?)?;
    Ok(serde_json::from_str(pdu.content().get()).ok())
}

/// Says in the old room where the new one is, and lets nobody speak or invite there any more.
fn close(
    txn: &mut Txn<'_>,
    emitter: &Emitter,
    room: &mut Room,
    (user_id, replacement): (&UserId, &RoomId),
) -> Result<Vec<Appended>, UpgradeError> {
    let tombstone = json!({
        "body": "This room has been replaced.",
        "replacement_room": replacement,
    });
    let event = state_event(room, user_id, StateEventType::RoomTombstone, &tombstone)?;
    let mut appended = vec![emitter.emit(txn, room, event)?];
    let mut levels = content(txn, room, &StateEventType::RoomPowerLevels)?.unwrap_or_default();
    let default = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
    let floor = default.saturating_add(1).max(50);
    for field in ["events_default", "invite"] {
        let level = levels.get(field).and_then(Value::as_i64).unwrap_or(0).max(floor);
        levels.insert(field.to_owned(), level.into());
    }
    let levels = Value::Object(levels);
    let event = state_event(room, user_id, StateEventType::RoomPowerLevels, &levels)?;
    match emitter.emit_state(txn, room, event) {
        Ok(Emitted::New(one)) => appended.push(one),
        // Where the user may not, the tombstone has to do.
        Ok(Emitted::Same(_)) | Err(SendError::Forbidden(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(appended)
}

/// Aliases of this server, and its public list, lead to the new room from now on.
fn move_names(txn: &mut Txn<'_>, old: &Room, new_id: &RoomId) -> Result<(), UpgradeError> {
    let Some(new) = rooms::find(txn, new_id)? else { return Ok(()) };
    for alias in aliases::list(txn, old.nid)? {
        if let Some(found) = aliases::find(txn, &alias)? {
            aliases::remove(txn, &alias)?;
            aliases::insert(txn, &alias, new.nid, &found.creator)?;
        }
    }
    Ok(published_rooms::remove(txn, old.nid)?)
}

fn state_event(
    room: &Room,
    sender: &UserId,
    kind: StateEventType,
    content: &Value,
) -> Result<NewEvent, SendError> {
    Ok(NewEvent {
        room_id: Some(room.room_id.clone()),
        sender: sender.to_owned(),
        kind: kind.into(),
        state_key: Some(String::new()),
        content: to_raw_value(content).map_err(|error| SendError::BadContent(error.to_string()))?,
        redacts: None,
    })
}

fn raw(value: &Value) -> Result<Raw<Value>, SendError> {
    Raw::new(value).map_err(|error| SendError::BadContent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn levels_take_the_form_of_the_new_version() {
        let alice = user_id!("@alice:x");
        for (version, expected) in [
            (RoomVersionId::V11, json!({ "@alice:x": 100, "@bob:x": 50 })),
            (RoomVersionId::V12, json!({ "@bob:x": 50 })),
        ] {
            let rules = rules_of(&version).unwrap();
            let old = json!({ "users": { "@bob:x": "50", "@alice:x": 100 }, "ban": " 60 " });
            let Value::Object(mut levels) = old else { unreachable!() };
            adapt(&mut levels, (alice, &[]), rules);
            assert_eq!(levels["users"], expected, "{version}");
            assert_eq!(levels["ban"], 60);
        }
    }
}
