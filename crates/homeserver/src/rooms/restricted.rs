//! Rooms that let in whoever is in another room: who may come in, and who of ours can say so.
//!
//! Spec: Client-Server API, "Restricted rooms"; Server-Server API, "Restricted rooms".

use messagehub_protocol::auth::{PowerLevel, PowerLevels};
use messagehub_store::{Room, Snapshot, StoreError, memberships, rooms};
use ruma::{
    OwnedUserId, ServerName, UserId,
    events::{
        StateEventType,
        room::join_rules::{AllowRule, JoinRule, RoomJoinRulesEventContent},
    },
    state_res::events::RoomPowerLevelsIntField,
};

use crate::view::{self, ViewError};

/// Conditions of one room that are looked at. A room names a few; each costs some look-ups, and
/// anybody may ask.
const MAX_CONDITIONS: usize = 64;

/// What this server can say about somebody who wants to come into a restricted room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vouching {
    /// They meet a condition, and this user of ours has the power to let them in.
    Granted(OwnedUserId),
    /// They meet a condition, but nobody here has the power to let them in.
    Powerless,
    /// They meet no condition that this server can judge, and there are others.
    Unknowing,
    /// They meet no condition.
    Unmet,
}

/// The join rule of a room, `invite` where none can be read.
///
/// # Errors
/// The store's.
pub(crate) fn join_rule(snap: &Snapshot<'_>, room: &Room) -> Result<JoinRule, StoreError> {
    let rules = view::state_event(snap, room.state, &StateEventType::RoomJoinRules, "")?;
    let content = rules.and_then(|event| {
        serde_json::from_str::<RoomJoinRulesEventContent>(event.content().get()).ok()
    });
    Ok(content.map_or(JoinRule::Invite, |content| content.join_rule))
}

/// Whom a restricted room lets in; `None` for other rooms, and where the version knows no such
/// rule.
///
/// # Errors
/// The version is unknown here, or the store failed.
pub(crate) fn restriction(
    snap: &Snapshot<'_>,
    room: &Room,
) -> Result<Option<Vec<AllowRule>>, ViewError> {
    let rules = &view::rules(room)?.authorization;
    Ok(match join_rule(snap, room)? {
        JoinRule::Restricted(restricted) if rules.restricted_join_rule => Some(restricted.allow),
        JoinRule::KnockRestricted(restricted) if rules.knock_restricted_join_rule => {
            Some(restricted.allow)
        }
        _ => None,
    })
}

/// Whether a user meets a condition of a restricted room, and who of this server's users can let
/// them in. Of users of any server: what counts is what the rooms that both servers are in say.
///
/// # Errors
/// The version is unknown here, or the store failed.
pub(crate) fn vouch(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (room, user_id): (&Room, &UserId),
    allow: &[AllowRule],
) -> Result<Vouching, ViewError> {
    let mut unknown = false;
    for rule in allow.iter().take(MAX_CONDITIONS) {
        let AllowRule::RoomMembership(other) = rule else {
            // A condition of another kind may be one that another server understands.
            unknown = true;
            continue;
        };
        match rooms::find(snap, &other.room_id)? {
            Some(other) if memberships::is_server_in(snap, other.nid, us)? => {
                if memberships::is_joined(snap, other.nid, user_id)? {
                    let authorizer = authorizer(snap, us, room)?;
                    return Ok(authorizer.map_or(Vouching::Powerless, Vouching::Granted));
                }
            }
            _ => unknown = true,
        }
    }
    Ok(if unknown { Vouching::Unknowing } else { Vouching::Unmet })
}

/// A user of this server in a room with the power to invite.
fn authorizer(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room: &Room,
) -> Result<Option<OwnedUserId>, ViewError> {
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let state = view::part(snap, room.state, &keys)?;
    let levels = PowerLevels::of(&state, view::rules(room)?);
    let needed = PowerLevel::Int(levels.level(RoomPowerLevelsIntField::Invite));
    let ours = memberships::list_joined_from(snap, room.nid, us)?;
    Ok(ours.into_iter().find(|user| levels.of_user(user) >= needed))
}
