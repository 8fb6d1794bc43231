//! For whom a key is: what the rows of a room say about who left it.

use messagehub_protocol::limits::MAX_ROOM_KEY_AFTER;
use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, StreamPos, events, memberships, room_state, rooms,
};
use ruma::{EventId, OwnedEventId, RoomId, ServerName, UserId, events::StateEventType};

use super::own::Basis;

/// A room as it was seen when a frame was about to be sealed.
#[derive(Debug)]
pub(super) struct Look {
    /// The key it was looked at for.
    pub(super) basis: Option<Basis>,
    pub(super) state: StateNid,
    pub(super) pos: StreamPos,
    pub(super) members: Members,
    /// Where a new key is due: the events that whoever passes it on must have applied.
    pub(super) after: Vec<OwnedEventId>,
}

/// Whether a key still reaches members only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// Whoever may hold the key may hold it.
    Remain,
    /// Somebody may hold it who is no longer there, or there is no key.
    Changed,
}

/// Looks at a room that this server is in.
pub(super) fn look(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room_id: &RoomId,
    basis: Option<Basis>,
) -> Result<Option<Look>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    let members = match basis {
        Some(basis) if basis.state == room.state => Members::Remain,
        Some(basis) => since(snap, us, &room, basis.state)?,
        // Only here is it looked up: a key that is there was made while we were in the room, and
        // is forgotten when we leave.
        None if memberships::is_server_in(snap, room.nid, us)? => Members::Changed,
        None => return Ok(None),
    };
    let replace = members == Members::Changed || basis.is_some_and(|basis| basis.is_old);
    let after = if replace { departures(snap, us, &room)? } else { Vec::new() };
    Ok(Some(Look { basis, state: room.state, pos: snap.position()?, members, after }))
}

/// What became of the members of a room since a state: anything that was said about somebody of a
/// server without a joined user may mean that it had one in between.
fn since(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room: &Room,
    state: StateNid,
) -> Result<Members, StoreError> {
    for change in room_state::diff(snap, state, room.state)? {
        match change.kind {
            StateEventType::RoomServerAcl => return Ok(Members::Changed),
            StateEventType::RoomMember => {
                let Ok(user_id) = <&UserId>::try_from(&*change.state_key) else { continue };
                let server = user_id.server_name();
                if server != us && !memberships::is_server_in(snap, room.nid, server)? {
                    return Ok(Members::Changed);
                }
            }
            _ => {}
        }
    }
    Ok(Members::Remain)
}

/// The events by which others came to be outside: the access list, and the last departures.
fn departures(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room: &Room,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let acl = room_state::get(snap, room.state, &StateEventType::RoomServerAcl, "")?;
    let left = memberships::list_departures(snap, room.nid, us, MAX_ROOM_KEY_AFTER)?;
    let nids = acl.into_iter().chain(left).take(MAX_ROOM_KEY_AFTER);
    nids.map(|nid| events::id(snap, nid)).collect()
}

/// Whether what an event says has come about here: it is part of the room's graph or of its
/// current state, as it came with a join.
pub(crate) fn has_applied(
    snap: &Snapshot<'_>,
    room: &Room,
    event_id: &EventId,
) -> Result<bool, StoreError> {
    let Some(event) = events::find(snap, event_id)? else { return Ok(false) };
    if event.room != room.nid {
        return Ok(false);
    }
    if event.pos.is_some() || event.state_before.is_some() {
        return Ok(true);
    }
    let Some(state_key) = event.pdu.state_key() else { return Ok(false) };
    let kind = StateEventType::from(event.pdu.kind().to_string());
    Ok(room_state::get(snap, room.state, &kind, state_key)? == Some(event.nid))
}
