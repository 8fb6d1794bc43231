//! The authorization rules: whether a state allows an event.
//!
//! The rules themselves are ruma's. Here is which state an event needs, and which rule it was that
//! an event broke.
//!
//! Spec: Room Versions, "Authorization rules"; Server-Server API, "Auth events selection".

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{self, events::RoomCreateEvent},
};
use serde_json::value::RawValue;

use crate::pdu::Pdu;

mod power_levels;
#[cfg(test)]
mod tests;

pub use self::power_levels::{PowerLevel, PowerLevels};
pub use ruma::state_res::StateMap;

/// The part of a room's state that judges an event; at least the keys of [`needed_state`].
pub type AuthState = HashMap<(StateEventType, String), Arc<Pdu>>;

/// What an event breaks, against which state, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthViolation {
    /// The state that forbids it.
    pub basis: Basis,
    /// The rule, or the family of rules.
    pub rule: AuthRule,
    /// In words, for people and logs.
    pub reason: String,
}

/// The state an event was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The event alone, and which auth events it names.
    Itself,
    /// The state that its auth events make.
    AuthEvents,
    /// The state before it.
    StateBefore,
    /// The current state of the room.
    CurrentState,
}

/// The authorization rules, by the number they have in room version 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthRule {
    /// The content of a member event does not even say what is asked for.
    Malformed,
    /// 1: the create event.
    Create,
    /// 2 and 3: which events may be auth events.
    AuthEvents,
    /// The state has no create event.
    NoCreate,
    /// 4: the room is not federated.
    NotFederated,
    /// `m.room.aliases` until version 5.
    Aliases,
    /// 5: who may join, invite, leave, kick, ban and knock.
    Membership,
    /// 6: the sender is not joined.
    NotJoined,
    /// 7: third-party invites.
    ThirdPartyInvite,
    /// 8: the power level that the type requires.
    PowerLevel,
    /// 9: state keys that begin with `@`.
    StateKey,
    /// 10: changes of power levels.
    PowerLevels,
    /// `m.room.redaction` until version 2.
    Redaction,
    /// No authorization rule: the room's policy server has not recommended the event.
    Policy,
    /// Check 8 on receipt: the sender's server has forked the room as often as others can join it
    /// again.
    Forks,
}

impl fmt::Display for AuthViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for AuthViolation {}

/// The state keys of the auth events that an event must name.
///
/// # Errors
///
/// A member event whose content does not say what it is about.
///
/// Spec: Server-Server API, "Auth events selection".
pub fn auth_types(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthViolation> {
    state_res::auth_types_for_event(kind, sender, state_key, content, &rules.authorization)
        .map_err(|reason| AuthViolation { basis: Basis::Itself, rule: AuthRule::Malformed, reason })
}

/// The state keys that judging an event looks at: the [`auth_types`], and always the create event,
/// which from version 12 on is no auth event and of which a room has one.
///
/// # Errors
///
/// As [`auth_types`].
pub fn needed_state(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthViolation> {
    let mut keys = auth_types(kind, sender, state_key, content, rules)?;
    let create = (StateEventType::RoomCreate, String::new());
    if !keys.contains(&create) {
        keys.push(create);
    }
    Ok(keys)
}

/// As [`needed_state`], for an event that exists.
///
/// # Errors
///
/// As [`auth_types`].
pub fn needed_state_of(
    pdu: &Pdu,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthViolation> {
    needed_state(pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content(), rules)
}

/// The auth events of a new event: those of the [`auth_types`] that the state has.
pub fn select(types: &[(StateEventType, String)], state: &AuthState) -> Vec<Arc<Pdu>> {
    types.iter().filter_map(|key| state.get(key)).cloned().collect()
}

/// The rules that need no state: the create event, and which auth events an event names.
///
/// `auth_events` must hold all that the event names, and from version 12 on the create event.
pub(crate) fn check_itself(
    pdu: &Pdu,
    auth_events: &HashMap<&ruma::EventId, &Arc<Pdu>>,
    rejected: &HashSet<&ruma::EventId>,
    rules: &RoomVersionRules,
) -> Result<(), AuthViolation> {
    let create = *pdu.kind() == TimelineEventType::RoomCreate;
    let violation = |reason| AuthViolation {
        basis: Basis::Itself,
        rule: if create { AuthRule::Create } else { AuthRule::AuthEvents },
        reason,
    };
    if let Some(id) = pdu.auth_events().iter().find(|id| rejected.contains(&***id)) {
        return Err(violation(format!("rejected auth event {id}")));
    }
    state_res::check_state_independent_auth_rules(&rules.authorization, pdu, |id| {
        auth_events.get(id).map(|event| &***event)
    })
    .map_err(violation)
}

/// The rules that need state.
pub(crate) fn check_by_state(
    pdu: &Pdu,
    basis: Basis,
    state: &AuthState,
    rules: &RoomVersionRules,
) -> Result<(), AuthViolation> {
    let get = |kind: &StateEventType, key: &str| {
        state.get(&(kind.clone(), key.to_owned())).map(|event| &**event)
    };
    state_res::check_state_dependent_auth_rules(&rules.authorization, pdu, get)
        .map_err(|reason| AuthViolation { basis, rule: broken_rule(pdu, state, rules), reason })
}

/// Which of the rules it must have been, in the order in which they are checked.
fn broken_rule(pdu: &Pdu, state: &AuthState, rules: &RoomVersionRules) -> AuthRule {
    let Some(create) = state.get(&(StateEventType::RoomCreate, String::new())) else {
        return AuthRule::NoCreate;
    };
    let federated = RoomCreateEvent::new(&**create).federate().unwrap_or(true);
    if !federated && create.sender().server_name() != pdu.sender().server_name() {
        return AuthRule::NotFederated;
    }
    let rules = &rules.authorization;
    if rules.special_case_room_aliases && pdu.kind().to_string() == "m.room.aliases" {
        return AuthRule::Aliases;
    }
    if *pdu.kind() == TimelineEventType::RoomMember {
        return AuthRule::Membership;
    }
    if !power_levels::is_joined(pdu.sender(), state) {
        return AuthRule::NotJoined;
    }
    if pdu.state_key().is_some_and(|key| key.starts_with('@') && key != pdu.sender()) {
        return AuthRule::StateKey;
    }
    match pdu.kind() {
        TimelineEventType::RoomThirdPartyInvite => AuthRule::ThirdPartyInvite,
        TimelineEventType::RoomPowerLevels => AuthRule::PowerLevels,
        TimelineEventType::RoomRedaction if rules.special_case_room_redaction => {
            AuthRule::Redaction
        }
        _ => AuthRule::PowerLevel,
    }
}
