//! Which server may learn what about a room.

use std::collections::HashMap;

use messagehub_protocol::{pdu, rules::rules_of};
use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, events::StoredEvent, memberships, rooms,
};
use ruma::{
    OwnedUserId, RoomId, ServerName,
    events::{
        StateEventType,
        room::{
            history_visibility::{HistoryVisibility, RoomHistoryVisibilityEventContent},
            member::{MembershipState, RoomMemberEventContent},
            server_acl::RoomServerAclEventContent,
        },
    },
};
use serde_json::value::RawValue;

use crate::view::state_event;

/// Why a server is told nothing about a room.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// We are not in that room, or know nothing of it.
    #[error("this server is not in the room")]
    UnknownRoom,
    /// The asking server is not in the room.
    #[error("the asking server is not in the room")]
    NotInRoom,
    /// The room's access list excludes the asking server.
    #[error("the asking server is excluded from the room")]
    Excluded,
    /// There is no such event, or none that the asking server may see.
    #[error("there is no such event")]
    UnknownEvent,
    /// The event is there, but not the state it stands in.
    #[error("the state at that event is not known")]
    UnknownState,
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The room, if the asking server is in it and its access list lets that server in.
///
/// We need not be in it any more: what we hold from when we were may be what only we hold, such as
/// the events before our departure.
///
/// # Errors
/// Why it may not be told.
pub fn shared_room(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    origin: &ServerName,
) -> Result<Room, AccessError> {
    let room = rooms::find(snap, room_id)?.ok_or(AccessError::UnknownRoom)?;
    if !is_admitted(snap, &room, origin)? {
        return Err(AccessError::Excluded);
    }
    if !memberships::is_server_in(snap, room.nid, origin)? {
        return Err(AccessError::NotInRoom);
    }
    Ok(room)
}

/// The room, if the asking server is in it or was. What it may be told is for [`Sight`] to say.
///
/// # Errors
/// Why it may not be told.
pub fn remembered_room(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    origin: &ServerName,
) -> Result<Room, AccessError> {
    let room = rooms::find(snap, room_id)?.ok_or(AccessError::UnknownRoom)?;
    if !memberships::is_server_known(snap, room.nid, origin)? {
        return Err(AccessError::NotInRoom);
    }
    if !is_admitted(snap, &room, origin)? {
        return Err(AccessError::Excluded);
    }
    Ok(room)
}

/// The room, if we are in it and its access list does not exclude the asking server, which need
/// not be in it.
///
/// # Errors
/// Why it may not be told.
pub fn resident_room(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    us: &ServerName,
    origin: &ServerName,
) -> Result<Room, AccessError> {
    let room = rooms::find(snap, room_id)?.ok_or(AccessError::UnknownRoom)?;
    if !memberships::is_server_in(snap, room.nid, us)? {
        return Err(AccessError::UnknownRoom);
    }
    if !is_admitted(snap, &room, origin)? {
        return Err(AccessError::Excluded);
    }
    Ok(room)
}

/// Whether a room's `m.room.server_acl` lets a server take part.
///
/// # Errors
/// Fails when the database does.
///
/// Spec: Client-Server API, "Server Access Control Lists (ACLs) for rooms".
pub fn is_admitted(
    snap: &Snapshot<'_>,
    room: &Room,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let acl = state_event(snap, room.state, &StateEventType::RoomServerAcl, "")?;
    let acl = acl.and_then(|pdu| {
        serde_json::from_str::<RoomServerAclEventContent>(pdu.content().get()).ok()
    });
    // An access list that cannot be read excludes nobody: it would exclude who could mend it.
    Ok(acl.is_none_or(|acl| acl.is_allowed(server)))
}

/// What one server may see of one room's events.
pub(crate) struct Sight<'s> {
    snap: &'s Snapshot<'s>,
    room: &'s Room,
    presence: Presence,
    users: Vec<OwnedUserId>,
    by_state: HashMap<StateNid, bool>,
    was_in: HashMap<StateNid, bool>,
}

/// What the asking server is to the room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It has users in it.
    Member,
    /// It had; what came after them is not for it.
    Former,
}

impl<'s> Sight<'s> {
    pub(crate) fn new(
        snap: &'s Snapshot<'s>,
        room: &'s Room,
        origin: &ServerName,
    ) -> Result<Self, StoreError> {
        let joined = memberships::list_joined_from(snap, room.nid, origin)?;
        let (presence, users) = match joined.is_empty() {
            true => (Presence::Former, memberships::list_from(snap, room.nid, origin)?),
            false => (Presence::Member, joined),
        };
        let (by_state, was_in) = (HashMap::new(), HashMap::new());
        Ok(Self { snap, room, presence, users, by_state, was_in })
    }

    /// An event as that server may have it: not at all, whole, or redacted where the history is
    /// not for it or the content was taken away. State is always whole, since every server must
    /// judge by the same content, whatever redactions it knows of.
    pub(crate) fn shape(
        &mut self,
        event: &StoredEvent,
    ) -> Result<Option<Box<RawValue>>, StoreError> {
        if !self.may_know(event)? {
            return Ok(None);
        }
        let whole =
            event.pdu.is_state() || (event.redacted_by.is_none() && self.is_visible(event)?);
        if whole {
            return Ok(raw(event.pdu.json()));
        }
        let Some(rules) = rules_of(&self.room.version) else { return Ok(None) };
        let redacted = pdu::redacted(&event.pdu, rules, None);
        Ok(redacted.ok().and_then(|pdu| raw(pdu.json())))
    }

    /// Whether that server may know that there is this event: always while it is in the room,
    /// else if it was in it before or after the event.
    pub(crate) fn may_know(&mut self, event: &StoredEvent) -> Result<bool, StoreError> {
        if self.presence == Presence::Member {
            return Ok(true);
        }
        for state in [event.state_before, event.state_after].into_iter().flatten() {
            let known = match self.was_in.get(&state) {
                Some(known) => *known,
                None => self.is_one_of(state, &[MembershipState::Join])?,
            };
            self.was_in.insert(state, known);
            if known {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Spec: Client-Server API, "Room History Visibility", for the users of a server.
    pub(super) fn is_visible(&mut self, event: &StoredEvent) -> Result<bool, StoreError> {
        let state = event.state_before.unwrap_or(self.room.state);
        if let Some(visible) = self.by_state.get(&state) {
            return Ok(*visible);
        }
        let visible = self.visible_at(state)?;
        self.by_state.insert(state, visible);
        Ok(visible)
    }

    fn visible_at(&self, state: StateNid) -> Result<bool, StoreError> {
        let kind = StateEventType::RoomHistoryVisibility;
        let visibility = state_event(self.snap, state, &kind, "")?
            .and_then(|pdu| {
                serde_json::from_str::<RoomHistoryVisibilityEventContent>(pdu.content().get()).ok()
            })
            .map_or(HistoryVisibility::Shared, |content| content.history_visibility);
        match visibility {
            HistoryVisibility::Invited => {
                self.is_one_of(state, &[MembershipState::Join, MembershipState::Invite])
            }
            HistoryVisibility::Joined => self.is_one_of(state, &[MembershipState::Join]),
            // Without the event, and for values nobody knows, the specification says `shared`.
            _ => Ok(true),
        }
    }

    /// Whether a user of that server is one of these in a state.
    fn is_one_of(&self, state: StateNid, wanted: &[MembershipState]) -> Result<bool, StoreError> {
        for user in &self.users {
            let kind = StateEventType::RoomMember;
            let member = state_event(self.snap, state, &kind, user.as_str())?;
            let membership = member.and_then(|pdu| {
                serde_json::from_str::<RoomMemberEventContent>(pdu.content().get()).ok()
            });
            if membership.is_some_and(|content| wanted.contains(&content.membership)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// JSON that was checked before it was stored.
pub(crate) fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}
