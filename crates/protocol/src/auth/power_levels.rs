//! Who may do what, read from a state.

use std::{collections::HashSet, sync::Arc};

use ruma::{
    Int, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
    int,
    room_version_rules::RoomVersionRules,
    state_res::events::{
        RoomCreateEvent, RoomMemberEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField,
    },
};

use super::AuthState;
use crate::pdu::Pdu;

/// A user's power: a number, or without end for the creators of a room from version 12 on.
pub type PowerLevel = UserPowerLevel;

/// The power levels of a room, with the defaults of its version. Malformed levels count as absent.
pub struct PowerLevels<'a> {
    event: Option<RoomPowerLevelsEvent<&'a Pdu>>,
    creators: HashSet<OwnedUserId>,
    rules: &'a RoomVersionRules,
}

impl<'a> PowerLevels<'a> {
    /// Reads the create and the power levels event of a state.
    pub fn of(state: &'a AuthState, rules: &'a RoomVersionRules) -> Self {
        let creators = get(state, StateEventType::RoomCreate, "")
            .and_then(|create| RoomCreateEvent::new(create).creators(&rules.authorization).ok())
            .unwrap_or_default();
        let event = get(state, StateEventType::RoomPowerLevels, "").map(RoomPowerLevelsEvent::new);
        Self { event, creators, rules }
    }

    /// The level of a user.
    pub fn of_user(&self, user: &UserId) -> PowerLevel {
        let rules = &self.rules.authorization;
        let creator = self.creators.contains(user);
        match &self.event {
            _ if creator && rules.explicitly_privilege_room_creators => PowerLevel::Infinite,
            Some(event) => PowerLevel::Int(event.user_power_level(user, rules).unwrap_or(Int::MIN)),
            // Spec: Client-Server API, `m.room.power_levels`: creators begin with 100.
            None if creator => PowerLevel::Int(int!(100)),
            None => PowerLevel::Int(RoomPowerLevelsIntField::UsersDefault.default_value()),
        }
    }

    /// The level that sending an event of a type requires.
    pub fn required(&self, kind: &TimelineEventType, state_key: Option<&str>) -> Int {
        let default = match state_key {
            // Without a power levels event anybody may set state.
            Some(_) if self.event.is_some() => RoomPowerLevelsIntField::StateDefault,
            _ => RoomPowerLevelsIntField::EventsDefault,
        }
        .default_value();
        let rules = &self.rules.authorization;
        self.event
            .as_ref()
            .map_or(default, |e| e.event_power_level(kind, state_key, rules).unwrap_or(Int::MAX))
    }

    /// The level for one of the named actions: `ban`, `invite`, `kick`, `redact`, ….
    pub fn level(&self, field: RoomPowerLevelsIntField) -> Int {
        let rules = &self.rules.authorization;
        self.event.as_ref().map_or(field.default_value(), |event| {
            event.get_as_int_or_default(field, rules).unwrap_or(Int::MAX)
        })
    }
}

/// Whether a state has a user as joined.
pub(super) fn is_joined(user: &UserId, state: &AuthState) -> bool {
    get(state, StateEventType::RoomMember, user.as_str())
        .and_then(|member| RoomMemberEvent::new(member).membership().ok())
        .is_some_and(|membership| membership.as_str() == "join")
}

fn get<'a>(state: &'a AuthState, kind: StateEventType, key: &str) -> Option<&'a Pdu> {
    state.get(&(kind, key.to_owned())).map(|event: &Arc<Pdu>| &**event)
}
