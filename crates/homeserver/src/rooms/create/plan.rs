//! What a new room consists of: the list of its first events, decided without any I/O.

use ruma::{
    OwnedRoomAliasId, OwnedUserId, RoomVersionId, UserId,
    api::client::room::{Visibility, create_room::v3::RoomPreset},
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{CreateError, NewRoom};

/// Creators of a room before version 12 have this level.
const CREATOR_LEVEL: i64 = 100;

/// A state event of the new room.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: TimelineEventType,
    pub(super) state_key: String,
    pub(super) content: Box<RawValue>,
}

/// What a preset stands for.
///
/// Spec: Client-Server API, "POST /createRoom", "Presets".
struct Preset {
    join_rule: &'static str,
    guests: Guests,
    invitees: Invitees,
    invite_level: i64,
}

#[derive(PartialEq, Eq)]
enum Guests {
    Welcome,
    Refused,
}

#[derive(PartialEq, Eq)]
enum Invitees {
    AreMembers,
    AreEquals,
}

impl Preset {
    fn of(new: &NewRoom) -> Self {
        let by_visibility = match new.visibility {
            Visibility::Public => RoomPreset::PublicChat,
            _ => RoomPreset::PrivateChat,
        };
        let (join_rule, guests, invitees, invite_level) =
            match new.preset.as_ref().unwrap_or(&by_visibility) {
                RoomPreset::PublicChat => ("public", Guests::Refused, Invitees::AreMembers, 50),
                RoomPreset::TrustedPrivateChat => {
                    ("invite", Guests::Welcome, Invitees::AreEquals, 0)
                }
                _ => ("invite", Guests::Welcome, Invitees::AreMembers, 0),
            };
        Self { join_rule, guests, invitees, invite_level }
    }
}

/// The content of the create event.
///
/// # Errors
///
/// `BadContent` when `creation_content` is no object.
pub(super) fn create_content(
    new: &NewRoom,
    creator: &UserId,
    version: &RoomVersionId,
    rules: &RoomVersionRules,
) -> Result<Box<RawValue>, CreateError> {
    let mut content = match &new.creation_content {
        Some(given) => object(given.json(), "creation_content")?,
        None => Map::new(),
    };
    content.insert("room_version".to_owned(), version.as_str().into());
    if rules.authorization.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".to_owned(), creator.as_str().into());
    }
    if rules.authorization.additional_room_creators
        && Preset::of(new).invitees == Invitees::AreEquals
    {
        let creators = content.entry("additional_creators").or_insert_with(|| json!([]));
        let Value::Array(creators) = creators else {
            return Err(CreateError::BadContent("additional_creators is no list".to_owned()));
        };
        for invitee in &new.invite {
            let invitee = Value::from(invitee.as_str());
            if !creators.contains(&invitee) {
                creators.push(invitee);
            }
        }
    }
    raw(&Value::Object(content))
}

/// The state events that follow the creator's join, in order.
///
/// # Errors
///
/// `BadContent` when a part of the request has the wrong form.
pub(super) fn state(
    new: &NewRoom,
    creator: &UserId,
    alias: Option<&OwnedRoomAliasId>,
    rules: &RoomVersionRules,
) -> Result<Vec<Entry>, CreateError> {
    let preset = Preset::of(new);
    let mut given = initial_state(new)?;
    let mut entries = Vec::new();
    let given_levels = given.iter().position(|entry| {
        entry.kind == TimelineEventType::RoomPowerLevels && entry.state_key.is_empty()
    });
    entries.push(match given_levels {
        Some(at) => given.remove(at),
        None => power_levels(new, creator, &preset, rules)?,
    });
    let mut default = |kind: StateEventType, content: Value| -> Result<(), CreateError> {
        let kind = TimelineEventType::from(kind);
        if !given.iter().any(|entry| entry.kind == kind && entry.state_key.is_empty()) {
            entries.push(Entry { kind, state_key: String::new(), content: raw(&content)? });
        }
        Ok(())
    };
    if let Some(alias) = alias {
        default(StateEventType::RoomCanonicalAlias, json!({ "alias": alias }))?;
    }
    default(StateEventType::RoomJoinRules, json!({ "join_rule": preset.join_rule }))?;
    default(StateEventType::RoomHistoryVisibility, json!({ "history_visibility": "shared" }))?;
    if preset.guests == Guests::Welcome {
        default(StateEventType::RoomGuestAccess, json!({ "guest_access": "can_join" }))?;
    }
    entries.append(&mut given);
    if let Some(name) = &new.name {
        entries.push(entry(StateEventType::RoomName, &json!({ "name": name }))?);
    }
    if let Some(topic) = &new.topic {
        let rich = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
        entries.push(entry(StateEventType::RoomTopic, &rich)?);
    }
    Ok(entries)
}

/// The power levels of a room whose creator set none as initial state: the preset's, with the
/// keys of `power_level_content_override` put over them.
fn power_levels(
    new: &NewRoom,
    creator: &UserId,
    preset: &Preset,
    rules: &RoomVersionRules,
) -> Result<Entry, CreateError> {
    let privileged = rules.authorization.explicitly_privilege_room_creators;
    let equals: &[OwnedUserId] = match preset.invitees {
        Invitees::AreEquals => &new.invite,
        Invitees::AreMembers => &[],
    };
    let users: Map<String, Value> = match privileged {
        true => Map::new(),
        false => std::iter::once(creator)
            .chain(equals.iter().map(|user| &**user))
            .map(|user| (user.to_string(), CREATOR_LEVEL.into()))
            .collect(),
    };
    // Only creators can replace a room whose creators are above every level.
    let tombstone = if privileged { CREATOR_LEVEL + 50 } else { CREATOR_LEVEL };
    let mut content = Map::new();
    content.insert("users".to_owned(), users.into());
    content.insert("users_default".to_owned(), 0.into());
    content.insert(
        "events".to_owned(),
        json!({
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        }),
    );
    content.insert("events_default".to_owned(), 0.into());
    content.insert("state_default".to_owned(), 50.into());
    content.insert("ban".to_owned(), 50.into());
    content.insert("kick".to_owned(), 50.into());
    content.insert("redact".to_owned(), 50.into());
    content.insert("invite".to_owned(), preset.invite_level.into());
    if let Some(given) = &new.power_level_content_override {
        content.extend(object(given.json(), "power_level_content_override")?);
    }
    entry(StateEventType::RoomPowerLevels, &Value::Object(content))
}

fn initial_state(new: &NewRoom) -> Result<Vec<Entry>, CreateError> {
    #[derive(serde::Deserialize)]
    struct Given {
        r#type: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let read = |given: &RawValue| {
        serde_json::from_str::<Given>(given.get())
            .map(|Given { r#type, state_key, content }| Entry { kind: r#type, state_key, content })
            .map_err(|error| CreateError::BadContent(format!("initial_state: {error}")))
    };
    new.initial_state.iter().map(|given| read(given.json())).collect()
}

fn entry(kind: StateEventType, content: &Value) -> Result<Entry, CreateError> {
    Ok(Entry { kind: kind.into(), state_key: String::new(), content: raw(content)? })
}

fn object(json: &RawValue, field: &str) -> Result<Map<String, Value>, CreateError> {
    serde_json::from_str(json.get())
        .map_err(|error| CreateError::BadContent(format!("{field}: {error}")))
}

fn raw(content: &Value) -> Result<Box<RawValue>, CreateError> {
    serde_json::value::to_raw_value(content)
        .map_err(|error| CreateError::BadContent(error.to_string()))
}
